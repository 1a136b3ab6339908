// SPDX-License-Identifier: Apache-2.0
// The second half of col2im.cc: rows of dx from lines of products. A line has the products of a row of y, those of a
// tap `pitch` before those of the next one, (channel, row of the filter, column of the filter).
#pragma once

#include "../kernels/col2im_kernels.h"
#include "../kernels/implicit_gradient_kernels.h"
#include "../machine.h"
#include "../strip_store.h"
#include "col2im_blocking.h"

namespace fastconv {

template <class T>
class Col2imSums {
  typedef Col2imBlocking Blocking;

 public:
  // `shared`: shared_bytes, of all workers.
  Col2imSums(const ConvProblem& problem, const RunContext& r, const Blocking& blocking, const GemmKernelsOf<T>& table,
             char* shared)
      : p(problem),
        b(blocking),
        kernels(table),
        sums(kernels_of(*r.machine)),
        interleave(phases_of(*r.machine).interleave),
        store(p, r, kernels),
        axes_(reinterpret_cast<ColumnAxis*>(shared)),
        grid(pixels_of_x(p)),
        straight(goes_straight(p)),
        patches(is_cut_in_patches(p)) {
    for (int axis = 0; axis < kMaxSpatial; ++axis)
      for (int64_t i = 0; i < phase_count(p, axis); ++i) axes_[place_of(axis, i)] = phase_of_x(p, axis, i);
  }

  static int64_t shared_bytes(const ConvProblem& p) {
    const int64_t phases = phase_count(p, 0) + phase_count(p, 1) + phase_count(p, 2);
    return aligned(phases * static_cast<int64_t>(sizeof(ColumnAxis)));
  }
  const ColumnAxis& axis(int of, int64_t phase) const { return axes_[place_of(of, phase)]; }

  // A segment of the columns, and what a worker has for it.
  struct Columns {
    int64_t first, count;  // grid points
    int64_t left, right;   // pixels of y
    Col2imPhase* phases;
    Col2imRow<T>* rows;
    const T** lines;  // of the rows
    T *apart, *strip, *residual;
  };

  static int64_t bytes(const ConvProblem& p, const Blocking& b) { return Room(p, b).bytes(); }

  Columns columns(int64_t segment, char* scratch) const {
    const Room room(p, b);
    Columns c;
    c.first = segment * b.segment;
    c.count = std::min(b.segment, ceil_div(p.size[2], p.stride[2]) - c.first);
    const bool all = b.segments == 1;
    c.left = all ? 0 : std::min(b.width, b.first_read(p, 2, c.first * p.stride[2]));
    c.right = all ? b.width : b.end_read(p, 2, (c.first + c.count) * p.stride[2] - 1, b.width);
    c.phases = reinterpret_cast<Col2imPhase*>(scratch);
    uint32_t* bits = reinterpret_cast<uint32_t*>(scratch += room.phases);
    c.rows = reinterpret_cast<Col2imRow<T>*>(scratch += room.bits);
    c.lines = reinterpret_cast<const T**>(scratch += room.rows);
    c.apart = reinterpret_cast<T*>(scratch += room.lines);
    c.strip = reinterpret_cast<T*>(scratch += room.apart);
    c.residual = reinterpret_cast<T*>(scratch + room.strip);
    for (int64_t phase = 0; !patches && phase < phase_count(p, 2); ++phase) {
      const ColumnAxis& a = axis(2, phase);
      const int64_t pixel = c.first + a.offset;
      c.phases[phase] = {a.taps, a.first_tap * b.pitch + pixel - c.left, a.tap_step * b.pitch + a.offset_step, bits};
      for (int64_t o = 0; o < c.count; o += b.lanes)
        for (int64_t tap = 0; tap < a.taps; ++tap) {
          const int64_t at = pixel + o + tap * a.offset_step;
          *bits++ = bits_below(c.right - at) & ~bits_below(c.left - at);
        }
    }
    return c;
  }

  // `count` rows of dx from `row` on, of one plane: rows of all planes follow each other, and so do lines, of which
  // table[0] is line `from`.
  void put_together(const Columns& c, int64_t group, int64_t chunk, int64_t row, int64_t count, const T* const* table,
                    int64_t from) const {
    const int64_t first = c.first * p.stride[2], pixels = std::min(p.size[2] - first, c.count * p.stride[2]);
    const int64_t channel0 = b.first_channel(chunk), channels = b.first_channel(chunk + 1) - channel0;
    const int64_t written = group * b.channels + channel0, column = row * p.size[2] + first;
    // Rows of a channel, one after the other: in dx, or in the strip.
    const int64_t pitch = straight ? store.row_pitch() : Blocking::kRowsTogether * b.pixels;
    const int64_t row_pitch = straight ? p.size[2] : b.pixels;
    T* to = straight ? store.row(column, written) : c.strip;
    const int64_t plane = row / p.size[1];
    find_lines(c, row % p.size[1], count, table, plane * b.height - from);
    for (int64_t channel = 0; channel < channels; ++channel) {
      for (int64_t k = 0; k < count; ++k) c.rows[k].dst = to + channel * pitch + k * row_pitch;
      add_up(c, channel * b.taps * b.pitch, count, pixels);
    }
    for (int64_t k = 0; k < count; ++k) {
      if (straight)
        store.finish_in_place(channels, pixels, to + k * row_pitch, written);
      else
        store.move(grid, column + k * p.size[2], pixels, written, channels, to + k * row_pitch, pitch,
                   c.residual + k * row_pitch);
    }
  }

 private:
  // Scratch of a worker.
  struct Room {
    int64_t phases, bits, rows, lines, apart, strip, residual;
    Room(const ConvProblem& p, const Blocking& b) {
      const int64_t size = sizeof(T), together = Blocking::kRowsTogether;
      phases = aligned(phase_count(p, 2) * static_cast<int64_t>(sizeof(Col2imPhase)));
      bits = aligned(ceil_div(b.segment, b.lanes) * p.filter[2] * static_cast<int64_t>(sizeof(uint32_t)));
      rows = aligned(together * static_cast<int64_t>(sizeof(Col2imRow<T>)));
      lines = aligned(together * p.filter[1] * static_cast<int64_t>(sizeof(T*)));
      apart = phase_count(p, 2) > 2 ? aligned(phase_count(p, 2) * together * apart_pitch(b) * size) : 0;
      strip = goes_straight(p) ? 0 : aligned(ceil_div(b.channels, b.chunks) * together * b.pixels * size);
      residual = p.epilogue & kEpilogueResidual ? strip : 0;
    }
    int64_t bytes() const { return phases + bits + rows + lines + apart + strip + residual; }
  };

  static int64_t apart_pitch(const Blocking& b) { return ceil_div(b.segment, b.lanes) * b.lanes; }
  static bool goes_straight(const ConvProblem& p) { return p.x_layout == Layout::kChannelsFirst && !is_half(p.dtype); }
  // Each pixel of dx has one tap, and taps follow each other: a row of dx is one of products, joined.
  static bool is_cut_in_patches(const ConvProblem& p) {
    for (int axis = 1; axis < kMaxSpatial; ++axis)
      if (p.filter[axis] != p.stride[axis] || p.dilation[axis] != 1 || p.pad_begin[axis] != 0 ||
          p.size[axis] != output_size(p, axis) * p.stride[axis])
        return false;
    return true;
  }
  static ColumnAxis phase_of_x(const ConvProblem& p, int axis, int64_t at) {
    constexpr Side kX[kMaxSpatial] = {Side::kAlong, Side::kAlong, Side::kAlong};
    int64_t phase[kMaxSpatial] = {0, 0, 0};
    phase[axis] = at;
    return backward_data_grid(p, kX, phase).axis[axis];
  }
  static const Col2imKernelsOf<T>& kernels_of(const Machine& m) {
    if constexpr (sizeof(T) == 8)
      return m.kernels->col2im->f64;
    else
      return m.kernels->col2im->f32;
  }
  static const PhaseKernelsOf<T>& phases_of(const Machine& m) {
    if constexpr (sizeof(T) == 8)
      return m.kernels->implicit_gradient->f64.phase;
    else
      return m.kernels->implicit_gradient->f32.phase;
  }

  int64_t place_of(int axis, int64_t phase) const {
    return phase + (axis > 0 ? phase_count(p, 0) : 0) + (axis > 1 ? phase_count(p, 1) : 0);
  }
  uint32_t bits_below(int64_t lane) const {
    return lane <= 0 ? 0 : lane >= b.lanes ? (1u << b.lanes) - 1 : (1u << lane) - 1;
  }

  // The lines that rows of dx from `at` on of a plane read; its first one is table[before].
  void find_lines(const Columns& c, int64_t at, int64_t count, const T* const* table, int64_t before) const {
    const T** lines = c.lines;
    for (int64_t k = 0; k < count; ++k) {
      const ColumnAxis& a = axis(1, (at + k) % p.stride[1]);
      c.rows[k].lines = lines;
      for (int64_t tap = 0; tap < a.taps; ++tap) {
        const int64_t line = (at + k) / p.stride[1] + a.offset + tap * a.offset_step;
        if (line < 0 || line >= b.height) continue;
        *lines++ = table[before + line] + (a.first_tap + tap * a.tap_step) * p.filter[2] * b.pitch;
      }
      c.rows[k].count = lines - c.rows[k].lines;
    }
  }

  // Rows of a channel, whose products are `place` further.
  void add_up(const Columns& c, int64_t place, int64_t count, int64_t pixels) const {
    const int64_t phases = phase_count(p, 2);
    if (patches) {  // products are dx
      for (int64_t k = 0; k < count; ++k)
        join(pixels, phases, c.rows[k].lines[0] + place + c.first - c.left, b.pitch, c.rows[k].dst);
    } else if (phases == 1) {
      sums.add_up(c.phases, place, count, c.rows, pixels);
    } else if (phases == 2) {
      sums.add_up_two(c.phases, place, count, c.rows, pixels);
    } else {
      add_up_phases(c, place, count, pixels);
    }
  }

  void add_up_phases(const Columns& c, int64_t place, int64_t count, int64_t pixels) const {
    const int64_t phases = phase_count(p, 2), of_row = apart_pitch(b), of_phase = count * of_row;
    T* dst[Blocking::kRowsTogether];
    for (int64_t k = 0; k < count; ++k) dst[k] = c.rows[k].dst;
    for (int64_t phase = 0; phase < phases; ++phase) {
      for (int64_t k = 0; k < count; ++k) c.rows[k].dst = c.apart + phase * of_phase + k * of_row;
      sums.add_up(c.phases + phase, place, count, c.rows, c.count);
    }
    for (int64_t k = 0; k < count; ++k) join(pixels, phases, c.apart + k * of_row, of_phase, dst[k]);
  }

  // dst[i * phases + phase] = src[phase * pitch + i]
  void join(int64_t count, int64_t phases, const T* src, int64_t pitch, T* dst) const {
    if (phases <= 4) return interleave(count, phases, src, pitch, dst);
    const int64_t whole = count / phases;
    kernels.transpose(phases, whole, phases, src, pitch, dst, phases);
    for (int64_t phase = 0; whole * phases + phase < count; ++phase)
      dst[whole * phases + phase] = src[phase * pitch + whole];
  }

  const ConvProblem& p;
  const Blocking& b;
  const GemmKernelsOf<T>& kernels;
  const Col2imKernelsOf<T>& sums;
  void (*interleave)(int64_t count, int64_t phases, const T* src, int64_t pitch, T* dst);
  const StripStore<T> store;
  ColumnAxis* axes_;
  const ColumnGrid grid;
  const bool straight, patches;
};

}  // namespace fastconv
