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
  // Cells of m0 rows; rows of pixels and of a residual, for dilated problems.
  return (g.m[0] + 2) * g.strip * g.m[1] * g.lanes;
}

void WinogradOutput::transform(int64_t first, int64_t tiles, int64_t group, int64_t channel, int64_t vectors,
                               const float* products, int64_t point_pitch, int64_t vector_pitch, float* scratch) const {
  const int64_t pitch = g.strip * g.m[1] * g.lanes;
  each_segment(g, first, tiles, [&](const WinogradSegment& s) {
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t at = channel + v * g.lanes, channels = std::min(g.lanes, g.written - at);
      each_tile_row(s, [&](int64_t row, int64_t column, int64_t count, int64_t index) {
        g.transforms->output(count, products + v * vector_pitch + index * g.lanes, point_pitch, scratch, pitch);
        const int64_t columns = std::min(count * g.m[1], s.axis[1].points - column * g.m[1]);
        const int64_t rows = std::min(g.m[0], s.axis[0].points - row * g.m[0]);
        for (int64_t i = 0; i < rows; ++i)
          store_row(s, row * g.m[0] + i, column * g.m[1], columns, group * g.written + at, channels,
                    scratch + i * pitch, scratch + g.m[0] * pitch);
      });
    }
  });
}

// Points `column` to `column` + `columns` of one row of the plane.
void WinogradOutput::store_row(const WinogradSegment& s, int64_t row, int64_t column, int64_t columns, int64_t channel,
                               int64_t channels, const float* cells, float* scratch) const {
  const int64_t step = g.dilation[2];
  const int64_t y = s.axis[0].first + row * g.dilation[1], x = s.axis[1].first + column * step;
  const int64_t pixel = (s.depth * g.written_size[1] + y) * g.written_size[2] + x;
  const int64_t at = s.image * layout.batch_pitch + channel * layout.channel_step() + pixel * layout.pixel_step();
  const float* bias = r.bias ? static_cast<const float*>(r.bias) + channel : nullptr;
  const bool relu = p.activation == Activation::kRelu, more = !relu && p.activation != Activation::kNone;
  const bool last = layout.layout == Layout::kChannelsLast, near = step > 1 || written.is_half();
  const int32_t activation = static_cast<int32_t>(p.activation);
  const float alpha = static_cast<float>(r.alpha);
  // Where the row is made: in the tensor, or in scratch as dense rows of pixels or channels.
  const int64_t lines = last ? columns : channels, length = last ? channels : columns;
  const int64_t apart = last ? step * layout.channel_pitch : layout.channel_pitch;  // lines of the tensor
  const bool in_place = last ? !written.is_half() : !near;
  float* dst = in_place ? written.at(at) : scratch;
  const float* addend = nullptr;
  if (r.residual && in_place) addend = residual.at(at);
  if (r.residual && !in_place) {
    float* rows = scratch + columns * g.lanes;
    residual.gather_row(kernels, length, 0, length, at, last ? 1 : step, apart, rows, length, lines);
    addend = rows;
  }
  const int64_t pitch = in_place ? apart : length;
  if (last)
    winograd.store_pixels(columns, channels, cells, dst, pitch, bias, addend, relu);
  else
    winograd.store_rows(channels, columns, cells, dst, pitch, bias, addend, relu);
  if (more) kernels.epilogue(lines, length, dst, pitch, nullptr, nullptr, 0, activation, alpha);
  if (!in_place) written.put_rows(kernels, lines, length, dst, pitch, at, apart, last ? 1 : step);
}

}  // namespace fastconv
