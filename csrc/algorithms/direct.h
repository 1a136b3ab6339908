// SPDX-License-Identifier: Apache-2.0
// What the passes of the direct convolution share: the map of one axis from written pixels and taps to what they read.
#pragma once

#include <algorithm>

#include "../algorithm.h"
#include "../im2col.h"
#include "../kernels/direct_kernels.h"
#include "../machine.h"
#include "../rounding.h"

namespace fastconv {

template <class T>
const DirectKernelsOf<T>& direct_kernels(const Machine& machine) {
  if constexpr (sizeof(T) == 8)
    return machine.kernels->direct->f64;
  else
    return machine.kernels->direct->f32;
}

// Grid point o is written pixel `phase + o * out_step`: all pixels of y forward, one phase of x backward. Forward a tap
// reads the cell that its padded coordinate stands for. Backward it reads the output whose tap lies on the pixel; a
// padding mode that repeats the image gives a pixel several padded coordinates, its copies, and copy 0 is itself.
class DirectAxis {
 public:
  DirectAxis() = default;
  DirectAxis(const ConvProblem& p, int a, bool reads_x, int64_t first_pixel)
      : filter(p.filter[a]),
        copies(1),
        step(reads_x ? p.stride[a] : 1),
        points(reads_x ? output_size(p, a) : ceil_div(p.size[a] - first_pixel, p.stride[a])),
        read_size(reads_x ? p.size[a] : output_size(p, a)),
        written_size(reads_x ? output_size(p, a) : p.size[a]),
        phase(first_pixel),
        out_step(reads_x ? 1 : p.stride[a]),
        mode(p.padding_mode),
        forward(reads_x),
        stride(p.stride[a]),
        dilation(p.dilation[a]),
        begin(p.pad_begin[a]),
        end(p.pad_end[a]),
        size(p.size[a]) {
    if (forward || begin + end == 0) return;
    if (mode == PaddingMode::kReflect || mode == PaddingMode::kCircular) copies = 3;
    if (mode == PaddingMode::kReplicate) copies = 1 + begin + end;
  }

  int64_t filter, copies;
  int64_t step;  // without padding modes, tap t of point o reads o * step + start(t)
  int64_t points, read_size, written_size;
  int64_t phase, out_step;

  int64_t pixel(int64_t point) const { return phase + point * out_step; }

  // False when the tap reaches no pixel of this phase.
  bool start(int64_t tap, int64_t* at) const {
    if (forward) return *at = tap * dilation - begin, true;
    const int64_t above = phase + begin - tap * dilation;
    if (above % stride != 0) return false;
    return *at = above / stride, true;
  }

  // The coordinate that is read, kOutside for none.
  int64_t read(int64_t point, int64_t tap, int64_t copy) const {
    if (forward) return padded_source(mode, point * stride + tap * dilation - begin, size);
    const int64_t padded = copy == 0 ? pixel(point) : copy_of(pixel(point), copy);
    if (padded == kNoCopy) return kOutside;
    const int64_t above = padded + begin - tap * dilation;
    if (above < 0 || above % stride != 0 || above / stride >= read_size) return kOutside;
    return above / stride;
  }

  bool has_copy(int64_t point, int64_t count, int64_t copy) const {
    for (int64_t o = point; o < point + count; ++o)
      if (copy == 0 || copy_of(pixel(o), copy) != kNoCopy) return true;
    return false;
  }

  // The points [*first, *last) whose tap reads inside without the help of the padding mode.
  void inside(int64_t tap, int64_t* first, int64_t* last) const {
    int64_t at = 0;
    *first = *last = 0;
    if (!start(tap, &at) || at >= read_size) return;
    *first = std::min(points, at < 0 ? ceil_div(-at, step) : 0);
    *last = std::clamp((read_size - 1 - at) / step + 1, *first, points);
  }

 private:
  static constexpr int64_t kNoCopy = INT64_MIN;

  int64_t copy_of(int64_t pixel, int64_t copy) const {
    const int64_t left = size - 1 - pixel;  // the pixels after it
    switch (mode) {
      case PaddingMode::kReflect:
        if (copy == 1) return pixel >= 1 && pixel <= begin ? -pixel : kNoCopy;
        return left >= 1 && left <= end ? size - 1 + left : kNoCopy;
      case PaddingMode::kReplicate:
        if (copy <= begin) return pixel == 0 ? -copy : kNoCopy;
        return left == 0 ? size - 1 + copy - begin : kNoCopy;
      default:  // circular
        if (copy == 1) return left < begin ? -1 - left : kNoCopy;
        return pixel < end ? size + pixel : kNoCopy;
    }
  }

  PaddingMode mode;
  bool forward;
  int64_t stride, dilation, begin, end, size;
};

void direct_filter_run(const ConvProblem& problem, const RunContext& context);
void direct_estimate(const ConvProblem& problem, const Machine& machine, Estimate* estimate);

}  // namespace fastconv
