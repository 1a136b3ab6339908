// SPDX-License-Identifier: Apache-2.0
// implicit_gemm of few channels, as a network's first layer has them: at most 4, one group, forward and backward-filter.
// The depth (or the rows of the filter gradient) are (channel, tap) as they lie in w, densely: 7x7 of 3 channels are 147
// of 160. A tile's cells are copied to shared memory once, where every tap finds them through a table of places.
//
// Limits. 7x7 stride 2, 3 channels at 224 x 224, 64 filters, halves, an image: 0.3 MB of x and 1.6 MB of y, 0.48 us of
// 4 TB/s; 160 x 64 x 12544 multiply-adds = 128 M, 0.4 us of 132 multiprocessors at the rate of mma (halves; 1500 a
// cycle). A tile of 8 x 16 outputs copies 21 x 37 x 3 cells, 4.7 KB, for 16 KB of y; the general loader copies 160 x 128
// elements, 40 KB, one by one: nine times as many. A step of a warp, of 32 pixels and 64 filters: 16 loads of single
// halves and 8 of filters from L1 (4 KB in all, 32 cycles) for 16 mma (32 cycles).
#pragma once

#include "../csrc/algorithm.h"

namespace fastconv::cuda {

// Follows from the problem without n. Only of what implicit_gemm does not refuse.
bool is_stem(const ConvProblem& p);
// What moves and what mma multiplies, in all tiles.
void stem_work(const ConvProblem& p, double* bytes, double* products);
int64_t stem_packed_elements(const ConvProblem& p);  // forward
int64_t stem_scratch(const ConvProblem& p);          // bytes of partial sums: backward-filter
int pack_stem(const ConvProblem& p, const RunContext& r, void* packed);
int run_stem(const ConvProblem& p, const RunContext& r, const void* packed, bool one_product);

bool plan_stem_filter(const ConvProblem& p, double* bytes = nullptr, double* products = nullptr);
int64_t stem_filter_scratch(const ConvProblem& p);
int run_stem_filter(const ConvProblem& p, const RunContext& r, void* scratch, bool one_product);

}  // namespace fastconv::cuda
