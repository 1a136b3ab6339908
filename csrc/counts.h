// SPDX-License-Identifier: Apache-2.0
// How many multiplications an algorithm makes: products of an element of one tensor, or of its transform, with one of
// another. A padded or masked element that is multiplied counts like any other; lanes of a vector beyond the last pixel
// or channel do not, nor do the constants of a transform. So the count is the problem's and the method's, not the
// processor's.
#pragma once

#include "problem.h"

namespace fastconv {

// Every grid point of what is written times the taps of its phase, padding included: matrix products on columns.
// Forward and backward-filter that is multiply_adds(p). `border`: with the blocks of padding that shows cells
// (border.h).
int64_t gathered_products(const ConvProblem& p, bool border);

// Of the two outer axes only the taps that lie inside the tensor, of the last one all: rows of padding are left out.
// Padding that shows cells adds what lies outside.
int64_t products_of_rows(const ConvProblem& p);

// The terms of the sums themselves: taps inside the tensor, and outside where padding is read (a constant, cells).
int64_t products_inside(const ConvProblem& p);

// Whether a tap outside x has a value to multiply.
bool reads_padding(const ConvProblem& p);

// What these are made of: pairs of an output and a tap of one axis that lie inside x; pairs of channels of all images.
int64_t pairs_inside(const ConvProblem& p, int axis);
int64_t channel_pairs(const ConvProblem& p);

}  // namespace fastconv
