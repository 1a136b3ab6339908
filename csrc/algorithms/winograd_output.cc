// SPDX-License-Identifier: Apache-2.0
// The end of Winograd's way: the output transform of one row of tiles, then bias, residual, activation and the way to
// the tensor, a transposition for channels first.
#include "winograd.h"

namespace fastconv {

WinogradOutput::WinogradOutput(const ConvProblem& problem, const RunContext& context, const WinogradGeometry& geometry)
    : p(problem),
      r(context),
      g(geometry),
      winograd(*r.machine->kernels->winograd),
      kernels(gemm_kernels<float>(*r.machine)),
      layout{g.forward ? p.y_layout : p.x_layout, g.forward ? r.y_batch_pitch : r.x_batch_pitch,
             g.forward ? r.y_channel_pitch : r.x_channel_pitch},
      written(*r.machine, p.dtype, g.forward ? r.y : r.x),
      residual(*r.machine, p.dtype, r.residual) {}

int64_t WinogradOutput::scratch(const WinogradGeometry& g) {
  // Cells of m0 rows; rows of pixels and of a residual, for halves. Whole squares are read.
  return ((g.m[0] + 2) * g.most_written_cells() + g.lanes) * g.lanes;
}

void WinogradOutput::transform(int64_t first, int64_t tiles, int64_t group, int64_t channel, int64_t vectors,
                               const float* products, int64_t point_pitch, int64_t vector_pitch, float* scratch) const {
  const int64_t pitch = g.most_written_cells() * g.lanes;
  each_segment(g, first, tiles, [&](const WinogradSegment& s) {
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t at = channel + v * g.lanes, channels = std::min(g.lanes, g.written - at);
      const int64_t plane = s.image * layout.batch_pitch + (group * g.written + at) * layout.channel_step();
      each_tile_row(s, [&](int64_t row, int64_t from, int64_t count, int64_t index) {
        each_run(s.strip, from, count, [&](int64_t tile, int64_t phase, int64_t done, int64_t some) {
          g.transforms->output(some, s.strip.phases, products + v * vector_pitch + (index + done) * g.lanes,
                               point_pitch, scratch + (tile * g.m[1] * s.strip.phases + phase) * g.lanes, pitch);
        });
        const int64_t rows = std::min(g.m[0], s.rows.points - row * g.m[0]);
        const int64_t y = s.rows.first + row * g.m[0] * g.dilation[1];
        each_stretch(g, s.strip, from, count, [&](int64_t cell, int64_t column, int64_t, int64_t shown) {
          const int64_t pixel = (s.depth * g.written_size[1] + y) * g.written_size[2] + column;
          for (int64_t i = 0; i < rows && shown > 0; ++i)
            store_line(plane + (pixel + i * g.dilation[1] * g.written_size[2]) * layout.pixel_step(), shown,
                       group * g.written + at, channels, scratch + i * pitch + cell * g.lanes,
                       scratch + g.m[0] * pitch);
        });
      });
    }
  });
}

// `columns` pixels of one row of the tensor, from element `at` on.
void WinogradOutput::store_line(int64_t at, int64_t columns, int64_t channel, int64_t channels, const float* cells,
                                float* scratch) const {
  const float* bias = r.bias ? static_cast<const float*>(r.bias) + channel : nullptr;
  const bool relu = p.activation == Activation::kRelu, more = !relu && p.activation != Activation::kNone;
  const bool last = layout.layout == Layout::kChannelsLast, in_place = !written.is_half();
  const int32_t activation = static_cast<int32_t>(p.activation);
  const float alpha = static_cast<float>(r.alpha);
  // Where the row is made: in the tensor, or in scratch as dense rows of pixels or channels.
  const int64_t lines = last ? columns : channels, length = last ? channels : columns;
  float* dst = in_place ? written.at(at) : scratch;
  const float* addend = nullptr;
  if (r.residual && in_place) addend = residual.at(at);
  if (r.residual && !in_place) {
    float* rows = scratch + columns * g.lanes;
    residual.gather_row(kernels, length, 0, length, at, 1, layout.channel_pitch, rows, length, lines);
    addend = rows;
  }
  const int64_t pitch = in_place ? layout.channel_pitch : length;
  if (last)
    winograd.store_pixels(columns, channels, cells, dst, pitch, bias, addend, relu);
  else
    winograd.store_rows(channels, columns, cells, dst, pitch, bias, addend, relu);
  if (more) kernels.epilogue(lines, length, dst, pitch, nullptr, nullptr, 0, activation, alpha);
  if (!in_place) written.put_rows(kernels, lines, length, dst, pitch, at, layout.channel_pitch);
}

}  // namespace fastconv
