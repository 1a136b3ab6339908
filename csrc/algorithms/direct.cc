// SPDX-License-Identifier: Apache-2.0
// The direct convolution: nothing is packed, no columns are gathered, no workspace at all. Every geometry, all padding
// modes, both layouts. Forward and backward-data, as one gather:
//   for each image, group, band of rows and share of the channels written (the items that threads share):
//     for each strip of up to two vectors of pixels, for each piece of the channels written:
//       for each block of the channels read (in L1), for each row: one register tile
// A strip's taps are classified once: whole loads inside, masked ones at the edges, every other element for stride 2,
// and a table of places for everything else (other strides, channels last, mirrored edges). Backward-data runs the
// same tiles over the phases of its stride, each pixel of x written once.
//
// The order of every sum comes from channels, taps and layout alone; taps outside are left out or add a zero, so that
// pixels at the edge add what they have in the same order. The refused: 16-bit types.
#include "direct.h"

#include <cmath>
#include <cstdio>

#include "../counts.h"
#include "../parallel.h"
#include "../phases.h"

namespace fastconv {
namespace {

constexpr int64_t kBandBytes = 192 << 10;    // of the rows that a band reads: in L2 beside a piece's weights
constexpr int64_t kChannelBytes = 20 << 10;  // of a block of channels that a tile reads: in L1
constexpr int64_t kItems = 8;
constexpr int kMostLanes = 16, kMostRows = 12;  // of any instruction set

template <class T>
class Direct {
 public:
  Direct(const ConvProblem& problem, const RunContext& context)
      : p(problem),
        r(context),
        kernels(direct_kernels<T>(*r.machine)),
        gemm(gemm_kernels<T>(*r.machine)),
        forward(p.pass == Pass::kForward),
        channels((forward ? p.c : p.k) / p.groups),
        rows((forward ? p.k : p.c) / p.groups),
        pieces(ceil_div(rows, kernels.rows)),
        from{forward ? p.x_layout : p.y_layout, forward ? r.x_batch_pitch : r.y_batch_pitch,
             forward ? r.x_channel_pitch : r.y_channel_pitch},
        to{forward ? p.y_layout : p.x_layout, forward ? r.y_batch_pitch : r.x_batch_pitch,
           forward ? r.y_channel_pitch : r.x_channel_pitch},
        read(static_cast<const T*>(forward ? r.x : r.y)),
        written(static_cast<T*>(forward ? r.y : r.x)),
        w(static_cast<const T*>(r.w)),
        w_row((forward ? p.c / p.groups : 1) * taps(p)),
        w_channel((forward ? 1 : p.c / p.groups) * taps(p)),
        constant(forward && p.padding_mode == PaddingMode::kConstant) {}

  void run() const {
    int64_t phase[kMaxSpatial], phases[kMaxSpatial];
    for (int a = 0; a < kMaxSpatial; ++a) phases[a] = forward ? 1 : phase_count(p, a);
    for (phase[0] = 0; phase[0] < phases[0]; ++phase[0])
      for (phase[1] = 0; phase[1] < phases[1]; ++phase[1])
        for (phase[2] = 0; phase[2] < phases[2]; ++phase[2]) run_phase(phase);
  }

 private:
  struct Axes {
    Axes(const Direct& direct, const int64_t* phase)
        : d(direct.p, 0, direct.forward, phase[0]),
          h(direct.p, 1, direct.forward, phase[1]),
          w(direct.p, 2, direct.forward, phase[2]),
          dense(direct.to.layout == Layout::kChannelsFirst && w.out_step == 1),
          block(direct.channels),
          inner_first(0),
          inner_last(d.copies == 1 && h.copies == 1 ? h.points : 0) {
      for (int64_t tap = 0; tap < h.filter; ++tap) {
        int64_t at, first, last;
        if (!h.start(tap, &at)) continue;
        h.inside(tap, &first, &last);
        inner_first = std::max(inner_first, first), inner_last = std::min(inner_last, last);
      }
      if (!dense || direct.from.layout == Layout::kChannelsLast || direct.channels == 0) return;
      const int64_t line = 2 * direct.kernels.lanes * w.step + w.filter, weights = direct.kernels.rows * taps(direct.p);
      const int64_t bytes = (d.filter * h.filter * line + weights) * int64_t{sizeof(T)};
      const int64_t blocks = ceil_div(direct.channels, std::max<int64_t>(1, kChannelBytes / bytes));
      block = ceil_div(direct.channels, blocks);
    }

    DirectAxis d, h, w;
    bool dense;                       // the written rows of a channel lie one after the other
    int64_t block;                    // channels that are summed before the next row: more would not stay in L1
    int64_t inner_first, inner_last;  // rows whose taps are all inside
  };
  // A piece of channels, counted in its group, at one strip of pixels.
  struct Place {
    int64_t n, group, row, channel;  // written and first read, counted in the group
    int rows;
    int64_t o[kMaxSpatial], columns;
  };
  // How the lanes of a strip read the taps of a line, a chunk of them, and the lines that were collected.
  struct Strip {
    int64_t chunk = -1;  // none yet
    int taps = 0;
    bool partial = false;  // some lane of some tap is outside
    DirectLoad load = DirectLoad::kWhole;
    DirectTap tap[kDirectTaps];
    int64_t table[kDirectTaps * 2 * kMostLanes];
    int lines = 0;
    int64_t cut = 0;       // of the lines
    bool padding = false;  // one of the lines is
    DirectTap list[kDirectLines * kDirectTaps];
    int64_t line_x[kDirectLines];
    bool serves_inner_rows = false;
  };
  struct Outcome {
    bool any, finite, partial;
  };

  void run_phase(const int64_t* phase) const {
    const Axes a(*this, phase);
    const int64_t row_bytes = channels * a.w.read_size * a.h.step * int64_t{sizeof(T)};
    const int64_t slices = std::max<int64_t>(1, p.n * p.groups * a.d.points);
    const int64_t wanted = std::min(ceil_div(a.h.points, 4), ceil_div(kItems, slices));
    const int64_t bands = std::max(wanted, ceil_div(a.h.points, std::max<int64_t>(1, kBandBytes / row_bytes)));
    const int64_t shares = std::clamp(ceil_div(kItems, slices * bands), int64_t{1}, pieces);
    parallel_for(r.parallel, p.n * p.groups * a.d.points * bands * shares, [&](int64_t item, int) {
      const PhaseScope multiplying(r.phases, Phase::kProducts);
      Place at{};
      const int64_t share = item % shares, band = item / shares % bands, slice = item / shares / bands;
      at.o[0] = slice % a.d.points;
      at.group = slice / a.d.points % p.groups;
      at.n = slice / a.d.points / p.groups;
      const int64_t first = band * a.h.points / bands, last = (band + 1) * a.h.points / bands;
      const int64_t width = 2 * kernels.lanes;
      for (at.o[2] = 0; at.o[2] < a.w.points; at.o[2] += width) {
        at.columns = std::min(width, a.w.points - at.o[2]);
        Strip strip;
        for (int64_t piece = share * pieces / shares; piece < (share + 1) * pieces / shares; ++piece) {
          at.row = piece * rows / pieces;
          at.rows = static_cast<int>((piece + 1) * rows / pieces - at.row);
          for (at.channel = 0; at.channel < channels; at.channel += a.block)
            for (at.o[1] = first; at.o[1] < last; ++at.o[1]) compute(a, at, strip);
        }
      }
    });
  }

  int vectors(const Place& at) const { return at.columns > kernels.lanes ? 2 : 1; }
  T* pixel(T* image, const Axes& a, const Place& at) const {
    const int64_t i = a.d.pixel(at.o[0]), j = a.h.pixel(at.o[1]), k = a.w.pixel(at.o[2]);
    return image + at.n * to.batch_pitch + (at.group * rows + at.row) * to.channel_step() +
           ((i * a.h.written_size + j) * a.w.written_size + k) * to.pixel_step();
  }

  void compute(const Axes& a, const Place& at, Strip& strip) const {
    T buffer[kMostRows * 2 * kMostLanes];
    T* target = pixel(written, a, at);
    T* c = a.dense ? target : buffer;
    const int64_t ldc = a.dense ? to.channel_pitch : 2 * kernels.lanes;
    Outcome done = {at.channel > 0, true, false};
    sum(a, at, strip, c, ldc, done);
    if (!done.any)  // no tap reaches these pixels: the first block of channels leaves what the others add nothing to
      for (int i = 0; i < at.rows; ++i) std::fill(c + i * ldc, c + i * ldc + at.columns, T(0));
    if (at.channel + a.block < channels) return;
    if (!done.finite && done.partial) repair(a, at, c, ldc);
    finish(at, c, ldc, a.dense, target);
    if (!a.dense) scatter(at, c, ldc, a.w.out_step * to.pixel_step(), target);
  }

  // ---- The sum of a tile -------------------------------------------------------------------------------------------

  void sum(const Axes& a, const Place& at, Strip& strip, T* c, int64_t ldc, Outcome& done) const {
    const bool inner = at.o[1] >= a.inner_first && at.o[1] < a.inner_last;
    if (inner && strip.serves_inner_rows) return call(a, at, strip, c, ldc, done);
    const int64_t chunks = ceil_div(a.w.filter, kDirectTaps);
    int calls = 0;
    const auto flush = [&] {
      if (strip.lines == 0) return;
      call(a, at, strip, c, ldc, done);
      ++calls;
    };
    for (int64_t i = 0; i < a.w.copies * chunks; ++i) {
      if (!a.w.has_copy(at.o[2], at.columns, i / chunks)) continue;
      if (strip.chunk != i) classify(a.w, at, i / chunks, i % chunks * kDirectTaps, strip);
      strip.chunk = i;
      if (strip.taps == 0) continue;
      for (int64_t copy = 0; copy < a.d.copies * a.h.copies; ++copy) {
        strip.lines = 0;
        for (int64_t t0 = 0; t0 < a.d.filter; ++t0) {
          const int64_t depth = a.d.read(at.o[0], t0, copy / a.h.copies);
          if (depth == kOutside && !constant) continue;
          for (int64_t t1 = 0; t1 < a.h.filter; ++t1) {
            const int64_t row = a.h.read(at.o[1], t1, copy % a.h.copies), tap = t0 * a.h.filter + t1;
            const bool inside = depth != kOutside && row != kOutside;
            if (!inside && !constant) continue;
            // Cut at the same taps everywhere, so that pixels at the edge sum in the order of the others.
            if (tap / kDirectLines != strip.cut) flush(), strip.lines = 0;
            strip.cut = tap / kDirectLines;
            const int64_t x = (depth * a.h.read_size + row - at.o[1] * a.h.step) * a.w.read_size * from.pixel_step();
            add_line(strip, inside ? x : kOutsideLine, tap * a.w.filter);
          }
        }
        flush();
      }
    }
    strip.serves_inner_rows = inner && calls == 1 && a.w.copies * chunks == 1;
  }

  void add_line(Strip& strip, int64_t x, int64_t weight) const {
    strip.padding = (strip.lines > 0 && strip.padding) || x == kOutsideLine;
    DirectTap* taps = strip.list + strip.lines * strip.taps;
    for (int i = 0; i < strip.taps; ++i) {
      taps[i] = strip.tap[i];
      taps[i].x += x == kOutsideLine ? 0 : x;
      taps[i].w += weight;
    }
    strip.line_x[strip.lines++] = x;
  }

  void call(const Axes& a, const Place& at, Strip& strip, T* c, int64_t ldc, Outcome& done) const {
    DirectTile<T> tile;
    tile.w = weights(at) + at.channel * w_channel;
    tile.w_row = w_row, tile.w_channel = w_channel;
    tile.x = image(at) + at.channel * from.channel_step() + at.o[1] * a.h.step * a.w.read_size * from.pixel_step();
    tile.x_channel = from.channel_step();
    tile.channels = std::min(a.block, channels - at.channel);
    tile.lines = strip.lines, tile.line_taps = strip.taps;
    tile.taps = strip.list;
    tile.load = strip.padding ? DirectLoad::kStaged : strip.load;
    tile.block = from.layout == Layout::kChannelsLast ? kDirectBlock : 1;
    tile.line_x = strip.line_x;
    tile.table = strip.table;
    tile.pad = constant ? static_cast<T>(r.pad_value) : T(0);
    if (tile.load == DirectLoad::kStaged)
      for (int i = 0; i < strip.lines * strip.taps; ++i) strip.list[i].x = i % strip.taps * vectors(at) * kernels.lanes;
    done.finite = kernels.tile(&tile, at.rows, vectors(at), c, ldc, at.columns, done.any);
    done.any = true;
    done.partial = done.partial || strip.partial;
  }

  const T* image(const Place& at) const {
    return read + at.n * from.batch_pitch + at.group * channels * from.channel_step();
  }
  const T* weights(const Place& at) const {
    return w + at.group * (p.k / p.groups) * (p.c / p.groups) * taps(p) + at.row * w_row;
  }

  // Up to kDirectTaps taps from first_tap on; those that no lane reaches are left out.
  void classify(const DirectAxis& axis, const Place& at, int64_t copy, int64_t first_tap, Strip& strip) const {
    const int64_t step = axis.step, width = vectors(at) * kernels.lanes, point = at.o[2];
    const bool unit = from.pixel_step() == 1 && step <= 2;
    const bool mapped = forward && p.padding_mode != PaddingMode::kZeros;
    bool whole = step == 1;
    strip.taps = 0;
    strip.partial = false;
    for (int64_t tap = first_tap; tap < std::min(first_tap + kDirectTaps, axis.filter); ++tap) {
      int64_t start = 0, first = 0, last = 0;
      if (copy == 0) {
        if (!axis.start(tap, &start)) continue;
        axis.inside(tap, &first, &last);
        first = std::clamp(first - point, int64_t{0}, at.columns);
        last = std::clamp(last - point, first, at.columns);
        if (first == last && !mapped) continue;
      }
      start += point * step;
      DirectTap& to_fill = strip.tap[strip.taps++];
      to_fill = {start, tap, {}};
      for (int v = 0; v < 2; ++v)
        to_fill.bits[v] = direct_bits(first - v * kernels.lanes, last - v * kernels.lanes, kernels.lanes, step);
      strip.partial = strip.partial || first > 0 || last < at.columns;
      whole = whole && start >= 0 && start + width <= axis.read_size;
    }
    strip.load = whole ? DirectLoad::kWhole : step == 1 ? DirectLoad::kMasked : DirectLoad::kPairs;
    if (!unit || copy > 0 || (mapped && strip.partial)) strip.load = DirectLoad::kStaged;
    if (strip.load == DirectLoad::kStaged || constant) fill_table(axis, at, copy, strip);
    if (mapped) strip.partial = false;  // what lies outside is read from elsewhere, no zero is multiplied
  }

  void fill_table(const DirectAxis& axis, const Place& at, int64_t copy, Strip& strip) const {
    for (int i = 0; i < strip.taps; ++i)
      for (int64_t e = 0; e < 2 * kernels.lanes; ++e) {
        const int64_t x = e < at.columns ? axis.read(at.o[2] + e, strip.tap[i].w, copy) : kOutside;
        strip.table[i * 2 * kernels.lanes + e] = x == kOutside ? kOutside : x * from.pixel_step();
      }
  }

  // A masked lane multiplied a zero by a weight that is Inf or NaN: such sums are computed again, tap by tap.
  void repair(const Axes& a, const Place& at, T* c, int64_t ldc) const {
    for (int i = 0; i < at.rows; ++i)
      for (int64_t e = 0; e < at.columns; ++e)
        if (!std::isfinite(c[i * ldc + e])) c[i * ldc + e] = plain_sum(a, at, i, at.o[2] + e);
  }
  T plain_sum(const Axes& a, const Place& at, int64_t row, int64_t point) const {
    const T* factors = weights(at) + row * w_row;
    T sum = 0;
    for (int64_t channel = 0; channel < channels && !std::isnan(sum); ++channel)
      for (int64_t copy = 0; copy < a.d.copies * a.h.copies * a.w.copies; ++copy)
        for (int64_t tap = 0; tap < taps(p); ++tap) {
          const int64_t i = a.d.read(at.o[0], tap / a.w.filter / a.h.filter, copy / a.w.copies / a.h.copies);
          const int64_t j = a.h.read(at.o[1], tap / a.w.filter % a.h.filter, copy / a.w.copies % a.h.copies);
          const int64_t k = a.w.read(point, tap % a.w.filter, copy % a.w.copies);
          if (i == kOutside || j == kOutside || k == kOutside) continue;
          sum += factors[channel * w_channel + tap] *
                 image(at)[channel * from.channel_step() +
                           ((i * a.h.read_size + j) * a.w.read_size + k) * from.pixel_step()];
        }
    return sum;
  }

  // ---- The tile's way to memory ------------------------------------------------------------------------------------

  void finish(const Place& at, T* c, int64_t ldc, bool dense, const T* target) const {
    if (!r.bias && !r.residual && p.activation == Activation::kNone) return;
    const T* bias = r.bias ? static_cast<const T*>(r.bias) + at.group * rows + at.row : nullptr;
    T gathered[kMostRows * 2 * kMostLanes];
    const T* residual = r.residual ? static_cast<const T*>(r.residual) + (target - written) : nullptr;
    if (residual && !dense) {  // forward, channels last
      gemm.transpose(at.columns, at.rows, at.columns, residual, to.pixel_step(), gathered, ldc);
      residual = gathered;
    }
    gemm.epilogue(at.rows, at.columns, c, ldc, bias, residual, ldc, static_cast<int32_t>(p.activation), T(r.alpha));
  }

  void scatter(const Place& at, const T* c, int64_t ldc, int64_t step, T* target) const {
    if (to.layout == Layout::kChannelsLast) {
      gemm.transpose(at.rows, at.columns, at.rows, c, ldc, target, step);
      return;
    }
    for (int i = 0; i < at.rows; ++i, c += ldc, target += to.channel_pitch)
      for (int64_t e = 0; e < at.columns; ++e) target[e * step] = c[e];
  }

  const ConvProblem& p;
  const RunContext& r;
  const DirectKernelsOf<T>& kernels;
  const GemmKernelsOf<T>& gemm;
  const bool forward;
  const int64_t channels, rows, pieces;  // read and written, per group; register-tile rows
  const ImageLayout from, to;
  const T* read;
  T* written;
  const T* w;
  const int64_t w_row, w_channel;
  const bool constant;
};

bool why_not(const ConvProblem* p, const Machine*, char* text) {
  text[0] = 0;
  if (p->dtype != DType::kFloat32 && p->dtype != DType::kFloat64)
    snprintf(text, kTextCapacity, "direct computes f32 and f64, got %s", name_of(p->dtype));
  return text[0] != 0;
}

void estimate(const ConvProblem* p, const Machine* m, Estimate* e) { direct_estimate(*p, *m, e); }
int64_t workspace_bytes(const ConvProblem*, const Machine*, int, bool) { return 0; }
int64_t packed_bytes(const ConvProblem*, const Machine*) { return 0; }
int64_t multiplications(const ConvProblem* p, const Machine*) {
  const bool last = p->x_layout == Layout::kChannelsLast || p->y_layout == Layout::kChannelsLast;
  if (p->pass == Pass::kBackwardFilter && last) return products_inside(*p);
  return p->pass != Pass::kBackwardData && reads_padding(*p) ? multiply_adds(*p) : products_of_rows(*p);
}

int run(const ConvProblem* p, const RunContext* r) {
  if (p->pass == Pass::kBackwardFilter)
    direct_filter_run(*p, *r);
  else if (p->dtype == DType::kFloat64)
    Direct<double>(*p, *r).run();
  else
    Direct<float>(*p, *r).run();
  return 0;
}

}  // namespace

extern const Algorithm kDirect;
const Algorithm kDirect = {"direct",     1.0,     1,   SameBits::kOne, why_not,        estimate, workspace_bytes,
                           packed_bytes, nullptr, run, nullptr,        multiplications};

}  // namespace fastconv
