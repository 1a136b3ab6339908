// SPDX-License-Identifier: Apache-2.0
// The end of a strip: bias, residual and activation on rows of written channels, and the way to their pixels.
#pragma once

#include "algorithm.h"
#include "border.h"
#include "im2col.h"

namespace fastconv {

template <class T>
class StripStore {
 public:
  StripStore(const ConvProblem& problem, const RunContext& context, const GemmKernelsOf<T>& table)
      : p(problem),
        r(context),
        kernels(table),
        forward(p.pass == Pass::kForward),
        layout{forward ? p.y_layout : p.x_layout, forward ? r.y_batch_pitch : r.x_batch_pitch,
               forward ? r.y_channel_pitch : r.x_channel_pitch},
        written(static_cast<T*>(forward ? r.y : r.x)),
        image(*r.machine, p.dtype, written),
        residual(*r.machine, p.dtype, r.residual) {}

  // Channels first, elements of T, the pixels of one image: rows of channels lie in the tensor itself, this far apart.
  int64_t row_pitch() const { return layout.channel_pitch; }
  T* row(int64_t column, int64_t channel) const {
    const int64_t plane = forward ? y_plane(p) : x_plane(p);
    return written + column / plane * layout.batch_pitch + column % plane + channel * layout.channel_pitch;
  }
  // The epilogue as a part of a tile that goes straight to its place; false where tiles do not know the activation.
  bool end_in_tile(int64_t channel, TileSums<T>* tile) const {
    if (!ends_in_tile(static_cast<int32_t>(p.activation))) return false;
    if (r.bias) tile->bias = static_cast<const T*>(r.bias) + channel;
    if (r.residual) tile->residual = static_cast<const T*>(r.residual) + (tile->c - written);
    tile->activation = static_cast<int32_t>(p.activation);
    return true;
  }
  // Sums that already lie there: the epilogue alone.
  void finish_in_place(int64_t rows, int64_t columns, T* at, int64_t channel) const {
    const T* addend = r.residual ? static_cast<const T*>(r.residual) + (at - written) : nullptr;
    finish(rows, columns, at, layout.channel_pitch, channel, addend);
  }
  // strip[rows][pitch] to its pixels, or, of a block of padding, added to them; `residual_strip` is as large, used
  // where there is a residual.
  void move(const ColumnGrid& grid, int64_t column, int64_t columns, int64_t channel, int64_t rows, T* strip,
            int64_t pitch, T* residual_strip) const {
    if (grid.adds) return add_columns(grid, layout, written, column, columns, channel, rows, strip, pitch);
    if (r.residual)
      move_columns(kernels, grid, layout, true, residual, column, columns, channel, rows, residual_strip, pitch);
    finish(rows, columns, strip, pitch, channel, r.residual ? residual_strip : nullptr);
    move_columns(kernels, grid, layout, false, image, column, columns, channel, rows, strip, pitch);
  }

 private:
  void finish(int64_t rows, int64_t columns, T* c, int64_t ldc, int64_t channel, const T* addend) const {
    if (!r.bias && !r.residual && p.activation == Activation::kNone) return;
    const T* bias = r.bias ? static_cast<const T*>(r.bias) + channel : nullptr;
    kernels.epilogue(rows, columns, c, ldc, bias, addend, ldc, static_cast<int32_t>(p.activation), T(r.alpha));
  }

  const ConvProblem& p;
  const RunContext& r;
  const GemmKernelsOf<T>& kernels;
  const bool forward;
  const ImageLayout layout;
  T* written;
  const Stored<T> image, residual;
};

}  // namespace fastconv
