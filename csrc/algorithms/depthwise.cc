// SPDX-License-Identifier: Apache-2.0
// One input channel per group (any multiplier), any filter, stride, dilation and padding, three passes. Most problems
// are read where they lie: depthwise_planes.cc and depthwise_filter.cc (channels first), depthwise_pixels.cc (last).
// The others (a constant that is read, mixed layouts, strides of 3 and more along the rows, multipliers with
// channels last) are computed here, from a halo buffer (csrc/halo.h), one pass over memory.
//   for each image, block of groups and strip of grid points (the items that threads share):
//     copy the input rows of the strip into the halo
//     for each channel written, for each run of grid points: one kernel row
// Backward-data reads y in phases of x (csrc/im2col.h). Backward-filter keeps one vector of sums per tap over a strip,
// adds strips in order and images in a pairwise tree. Refuses more than one input channel per group.
#include "depthwise.h"

#include <algorithm>
#include <cstdio>

#include "../border.h"
#include "../counts.h"
#include "../halo.h"
#include "../machine.h"
#include "../parallel.h"
#include "../phases.h"
#include "../rounding.h"

namespace fastconv {
namespace {

constexpr int64_t kHaloElements = 32 << 10;  // of a block of groups: 128 KiB of float32, in L2
constexpr int64_t kItems = 8;

template <class T>
const DepthwiseKernelsOf<T>& depthwise_kernels(const Machine& m) {
  if constexpr (sizeof(T) == 8)
    return m.kernels->depthwise->f64;
  else
    return m.kernels->depthwise->f32;
}

struct Blocking {
  int64_t multiplier, taps;     // y channels per group; of the whole filter
  int64_t strip, halo, groups;  // grid points; elements of scratch; groups of a block
  int64_t parts;                // backward-filter: partial sums

  Blocking(const ConvProblem& p, int nr) {
    multiplier = p.k / p.groups;
    taps = fastconv::taps(p);
    const int64_t points = std::max<int64_t>(1, p.pass == Pass::kBackwardData ? x_plane(p) : y_plane(p));
    strip = ceil_div(points, ceil_div(points, kMostColumns));
    const int64_t read = p.pass == Pass::kBackwardData ? multiplier : 1;
    halo = 0;
    groups = 1;
    for (const int64_t wanted : {int64_t{1}, int64_t{16}}) {
      int64_t most = 0;
      each_grid(p, [&](const ColumnGrid& grid) {
        if (grid.taps() > 0)
          most = std::max(most, HaloGather<float>::scratch(grid, std::min(strip, grid.columns()), wanted * read, nr));
      });
      if (wanted == 1 || most <= kHaloElements) halo = most, groups = std::min(wanted, p.groups);
    }
    parts = std::clamp(ceil_div(kItems, ceil_div(p.groups, groups)), int64_t{1}, std::max<int64_t>(1, p.n));
  }

  // visit(grid) for every phase; one but in backward-data.
  template <class Visit>
  static void each_grid(const ConvProblem& p, const Visit& visit, double pad_value = 0) {
    if (p.pass != Pass::kBackwardData) return visit(forward_grid(p, pad_value));
    each_backward_data_grid(p, visit);
  }
};

template <class T>
class Depthwise {
 public:
  Depthwise(const ConvProblem& problem, const RunContext& context)
      : p(problem),
        r(context),
        gemm(gemm_kernels<T>(*r.machine)),
        kernels(depthwise_kernels<T>(*r.machine)),
        b(p, gemm.nr),
        x_layout{p.x_layout, r.x_batch_pitch, r.x_channel_pitch},
        y_layout{p.y_layout, r.y_batch_pitch, r.y_channel_pitch},
        w(static_cast<T*>(r.w)) {}

  static int64_t slot_bytes(const Blocking& b, int lanes) {
    const int64_t terms = b.multiplier * b.taps;
    return aligned(b.halo * sizeof(T)) + aligned(terms * 8) + aligned(terms * lanes * sizeof(T)) +
           2 * aligned(b.groups * b.multiplier * b.strip * sizeof(T));
  }

  // Forward and backward-data.
  void run() const {
    const bool forward = p.pass == Pass::kForward;
    const int64_t read = forward ? 1 : b.multiplier, written = forward ? b.multiplier : 1;
    const auto phase = [&](const ColumnGrid& grid) {
      const int64_t points = grid.columns(), strips = ceil_div(points, b.strip), blocks = ceil_div(p.groups, b.groups);
      parallel_for(r.parallel, p.n * blocks * strips, [&](int64_t item, int slot) {
        const Buffers at = buffers(slot);
        const int64_t group = item / strips % blocks * b.groups, groups = std::min(b.groups, p.groups - group);
        const int64_t first = item % strips * b.strip, columns = std::min(b.strip, points - first);
        const int64_t column = item / strips / blocks * points + first;
        compute(grid, at, {group, groups, column, columns, read, written});
      });
    };
    Blocking::each_grid(p, phase, r.pad_value);
    if (!forward && shows_cells(p.padding_mode)) depthwise_border_run<T>(p, r, nullptr, 0);
  }

  void run_filter() const {
    const ColumnGrid grid = forward_grid(p, r.pad_value), identity = identity_grid(p);
    const int64_t points = grid.columns(), strips = ceil_div(points, b.strip), blocks = ceil_div(p.groups, b.groups);
    const int64_t weights = p.k * b.taps, pitch = aligned(weights * sizeof(T)) / static_cast<int64_t>(sizeof(T));
    T* sums = b.parts > 1 ? static_cast<T*>(r.workspace) : w;
    parallel_for(r.parallel, b.parts * blocks, [&](int64_t item, int slot) {
      const Buffers at = buffers(slot);
      const int64_t part = item / blocks, group = item % blocks * b.groups,
                    groups = std::min(b.groups, p.groups - group);
      T* mine = sums + part * pitch + group * b.multiplier * b.taps;
      std::fill(mine, mine + groups * b.multiplier * b.taps, T(0));
      for (int64_t n = part * p.n / b.parts; n < (part + 1) * p.n / b.parts; ++n)
        for (int64_t s = 0; s < strips; ++s)
          filter_strip(grid, identity, at, group, groups, n * points + s * b.strip,
                       std::min(b.strip, points - s * b.strip), mine);
    });
    if (b.parts == 1) return;
    parallel_for(r.parallel, 1, [&](int64_t, int) {
      const PhaseScope adding(r.phases, Phase::kSums);
      gemm.reduce(weights, b.parts, sums, pitch, w);
    });
  }

  static int64_t parts_bytes(const ConvProblem& p, const Blocking& b) {
    return p.pass == Pass::kBackwardFilter && b.parts > 1 ? b.parts * aligned(p.k * b.taps * sizeof(T)) : 0;
  }

 private:
  struct Buffers {
    T* halo;
    int64_t* offsets;  // of every (channel read, tap)
    T* weights;        // in the same order; backward-filter: vectors of sums
    T *strip, *residual;
  };

  Buffers buffers(int slot) const {
    char* at = static_cast<char*>(r.workspace) + parts_bytes(p, b) + slot * slot_bytes(b, kernels.lanes);
    const int64_t terms = b.multiplier * b.taps, strip = aligned(b.groups * b.multiplier * b.strip * sizeof(T));
    Buffers buffers;
    buffers.halo = reinterpret_cast<T*>(at);
    buffers.offsets = reinterpret_cast<int64_t*>(at += aligned(b.halo * sizeof(T)));
    buffers.weights = reinterpret_cast<T*>(at += aligned(terms * 8));
    buffers.strip = reinterpret_cast<T*>(at += aligned(terms * kernels.lanes * sizeof(T)));
    buffers.residual = reinterpret_cast<T*>(at + strip);
    return buffers;
  }

  // The points of a strip that threads share; `read` and `written` channels per group.
  struct Item {
    int64_t group, groups, column, columns, read, written;
  };

  void compute(const ColumnGrid& grid, const Buffers& at, const Item& i) const {
    const int64_t count = grid.taps();
    if (count == 0) return rows(grid, nullptr, at, i);  // a phase that no tap reaches is zeros
    const bool forward = p.pass == Pass::kForward;
    const HaloGather<T> gather(gemm, grid, i.column, i.columns);
    {
      const PhaseScope gathering(r.phases, Phase::kInput);
      gather.fill(forward ? x_layout : y_layout, static_cast<const T*>(forward ? r.x : r.y), i.group * i.read,
                  i.groups * i.read, at.halo);
    }
    const int64_t* taps = gather.tap_offsets(at.halo);
    for (int64_t c = 0; c < i.read; ++c)
      for (int64_t t = 0; t < count; ++t) at.offsets[c * count + t] = c * gather.channel_pitch() + taps[t];
    rows(grid, &gather, at, i);
  }

  void rows(const ColumnGrid& grid, const HaloGather<T>* gather, const Buffers& at, const Item& i) const {
    const bool forward = p.pass == Pass::kForward;
    const int64_t count = grid.taps(), group = i.group, groups = i.groups, column = i.column, columns = i.columns,
                  read = i.read, written = i.written;
    const ImageLayout& to = forward ? y_layout : x_layout;
    T* image = static_cast<T*>(forward ? r.y : r.x);
    const bool direct = to.layout == Layout::kChannelsFirst && grid.is_dense();
    for (int64_t g = 0; g < groups; ++g) {
      const PhaseScope multiplying(r.phases, Phase::kProducts);
      for (int64_t row = 0; row < written; ++row) {
        const int64_t channel = (group + g) * written + row;
        for (int64_t c = 0; c < read; ++c)
          select_weights(grid, w + ((group + g) * b.multiplier + (forward ? row : c)) * b.taps, at.weights + c * count);
        T* line = at.strip + (g * written + row) * b.strip;
        if (direct)
          line =
              image + column / grid.columns() * to.batch_pitch + channel * to.channel_pitch + column % grid.columns();
        if (gather) {
          const T* halo = gather->halo(at.halo) + g * read * gather->channel_pitch();
          int64_t slab = 0;
          each_run(grid, column, columns, [&](const Run& run) {
            kernels.row(run.count, read * count, at.offsets, at.weights, halo + gather->offset_of(run, &slab),
                        line + run.lane);
          });
        } else {
          std::fill(line, line + columns, T(0));
        }
        if (direct) finish(1, columns, line, 0, channel, r.residual ? residual_at(line) : nullptr, 0);
      }
    }
    if (direct) return;
    const PhaseScope storing(r.phases, Phase::kOutput);
    const int64_t channel = group * written, all = groups * written;
    if (r.residual)
      move_columns(gemm, grid, to, true, Stored<T>(static_cast<const T*>(r.residual)), column, columns, channel, all,
                   at.residual, b.strip);
    finish(all, columns, at.strip, b.strip, channel, r.residual ? at.residual : nullptr, b.strip);
    move_columns(gemm, grid, to, false, Stored<T>(image), column, columns, channel, all, at.strip, b.strip);
  }

  const T* residual_at(const T* line) const {
    return static_cast<const T*>(r.residual) + (line - static_cast<const T*>(r.y));
  }

  void finish(int64_t rows, int64_t columns, T* c, int64_t ldc, int64_t channel, const T* residual, int64_t ldr) const {
    if (!r.bias && !r.residual && p.activation == Activation::kNone) return;
    const T* bias = r.bias ? static_cast<const T*>(r.bias) + channel : nullptr;
    gemm.epilogue(rows, columns, c, ldc, bias, residual, ldr, static_cast<int32_t>(p.activation), T(r.alpha));
  }

  // The taps of a phase, in the order of the grid.
  void select_weights(const ColumnGrid& grid, const T* filter, T* dst) const {
    const ColumnAxis* a = grid.axis;
    for (int64_t t0 = 0; t0 < a[0].taps; ++t0)
      for (int64_t t1 = 0; t1 < a[1].taps; ++t1)
        for (int64_t t2 = 0; t2 < a[2].taps; ++t2)
          *dst++ = filter[((a[0].first_tap + t0 * a[0].tap_step) * p.filter[1] + a[1].first_tap + t1 * a[1].tap_step) *
                              p.filter[2] +
                          a[2].first_tap + t2 * a[2].tap_step];
  }

  void filter_strip(const ColumnGrid& grid, const ColumnGrid& identity, const Buffers& at, int64_t group,
                    int64_t groups, int64_t column, int64_t columns, T* dw) const {
    const HaloGather<T> gather(gemm, grid, column, columns);
    T* y = static_cast<T*>(r.y);
    const bool direct = y_layout.layout == Layout::kChannelsFirst;
    const int64_t channel = group * b.multiplier;
    {
      const PhaseScope gathering(r.phases, Phase::kInput);
      gather.fill(x_layout, static_cast<const T*>(r.x), group, groups, at.halo);
      if (!direct)
        move_columns(gemm, identity, y_layout, true, Stored<T>(y), column, columns, channel, groups * b.multiplier,
                     at.strip, b.strip);
    }
    const int64_t* taps = gather.tap_offsets(at.halo);
    const PhaseScope multiplying(r.phases, Phase::kProducts);
    for (int64_t k = 0; k < groups * b.multiplier; ++k) {
      const T* line = at.strip + k * b.strip;
      if (direct)
        line = y + column / grid.columns() * y_layout.batch_pitch + (channel + k) * y_layout.channel_pitch +
               column % grid.columns();
      const T* halo = gather.halo(at.halo) + k / b.multiplier * gather.channel_pitch();
      std::fill(at.weights, at.weights + b.taps * kernels.lanes, T(0));
      int64_t slab = 0;
      each_run(grid, column, columns, [&](const Run& run) {
        kernels.filter_row(run.count, b.taps, taps, halo + gather.offset_of(run, &slab), line + run.lane, at.weights);
      });
      kernels.filter_finish(b.taps, at.weights, dw + k * b.taps);
    }
  }

  const ConvProblem& p;
  const RunContext& r;
  const GemmKernelsOf<T>& gemm;
  const DepthwiseKernelsOf<T>& kernels;
  const Blocking b;
  const ImageLayout x_layout, y_layout;
  T* w;
};

bool why_not(const ConvProblem* p, const Machine*, char* text) {
  text[0] = 0;
  if (p->dtype != DType::kFloat32 && p->dtype != DType::kFloat64)
    snprintf(text, kTextCapacity, "depthwise computes f32 and f64, got %s", name_of(p->dtype));
  else if (p->c != p->groups)
    snprintf(text, kTextCapacity, "depthwise needs one input channel per group, got %lld",
             static_cast<long long>(p->c / p->groups));
  return text[0] != 0;
}

// Read where it lies: lanes beyond the last column are computed too, those at the borders are masked, each plane costs
// its calls, and memory is what large maps wait for.
void add_in_place(const ConvProblem& p, const Machine& m, Estimate* e) {
  const int64_t lanes = m.kernels->vector_bytes / element_size(p.dtype);
  const bool filter = p.pass == Pass::kBackwardFilter, forward = p.pass == Pass::kForward;
  const double bytes = times(tensor_bytes(p)), bytes_per_second = bytes > times(m.l2_bytes) ? 20e9 : 50e9;
  e->add(filter ? "filter bytes" : "bytes", bytes / bytes_per_second);
  if (p.x_layout == Layout::kChannelsLast) {
    const double vectors = times(p.n, ceil_div(p.c, lanes));
    const int64_t rows = forward || filter ? output_size(p, 0) * output_size(p, 1) : p.size[0] * p.size[1];
    const double terms = vectors * times(y_plane(p), taps(p));
    e->add(filter ? "filter pixels" : "pixel terms", terms * 0.3e-9);
    if (filter)
      return e->add("filter pixel rows",
                    vectors * times(rows, p.filter[0], ceil_div(p.filter[1], 3), ceil_div(p.filter[2], 7)) * 20e-9);
    e->add("pixels", vectors * times(forward ? y_plane(p) : x_plane(p)) * 2e-9);
    return e->add("pixel calls", times(p.n, ceil_div(p.c, 4 * lanes), rows) * 0.1e-6);
  }
  const int64_t columns = output_size(p, 2), width = filter || forward ? columns : ceil_div(p.size[2], p.stride[2]);
  const int64_t vectors = ceil_div(width, lanes), edges = std::min<int64_t>(vectors, 2);
  const double rows = times(p.n, p.k, output_size(p, 0), output_size(p, 1)),
               planes = times(p.n, p.k, output_size(p, 0), p.filter[0]);
  const bool strided = p.stride[2] > 1;
  if (filter) {
    const int64_t tiles = p.filter[0] * ceil_div(p.filter[1], 3) * ceil_div(p.filter[2], 7);
    e->add(strided ? "filter terms apart" : "filter terms", rows * times(vectors, taps(p)) * 0.5e-9);
    e->add("filter edges", rows * times(edges, tiles, p.filter[2]) * 1e-9);
    e->add("filter rows", rows * times(tiles) * 2e-9);
    return e->add("filter planes", planes * times(ceil_div(p.filter[1], 3), ceil_div(p.filter[2], 7)) * 50e-9 +
                                       times(p.k, tiles) * 0.1e-6);
  }
  const int64_t calls = strided && !forward ? 2 : std::min<int64_t>(p.dilation[1], 4);
  e->add(!strided ? "terms" : forward ? "terms apart" : "terms between", rows * times(vectors, taps(p)) * 0.3e-9);
  e->add("edges", rows * times(edges, p.filter[0], p.filter[2]) * 1e-9);
  e->add("rows", rows * times(p.filter[0], ceil_div(p.filter[1], 7)) * 1e-9);
  e->add("planes", planes * times(calls) * 30e-9);
}

void estimate(const ConvProblem* problem, const Machine* m, Estimate* e) {
  const ConvProblem& p = *problem;
  const bool in_place = depthwise_planes_serve(p) || depthwise_filter_serves(p) || depthwise_pixels_serve(p);
  e->add("start", 3e-6);
  if (adds_border(p) && (in_place || p.pass == Pass::kBackwardData))
    e->add("border", border_terms(p) * times(p.n, p.k) * 0.5e-9);
  if (in_place) return add_in_place(p, *m, e);
  const int64_t element = element_size(p.dtype), lanes = m->kernels->vector_bytes / element;
  const bool filter = p.pass == Pass::kBackwardFilter, last = p.x_layout == Layout::kChannelsLast;
  const double rows = times(p.n, p.k, output_size(p, 0), output_size(p, 1));
  e->add(filter ? "filter halo terms" : "halo terms", rows * times(ceil_div(output_size(p, 2), lanes), taps(p)) * 1e-9);
  e->add("halo rows", rows * times(p.filter[0]) * 30e-9);
  e->add(last ? "halo turned" : "halo", times(tensor_bytes(p) / element) * 0.5e-9);
}

template <class T>
int64_t workspace_as(const ConvProblem& p, const Machine& m, int slots) {
  if (depthwise_planes_serve(p)) return slots * DepthwiseStage(p).bytes();
  if (depthwise_filter_serves(p)) return depthwise_filter_bytes(p, m, slots);
  if (depthwise_pixels_serve(p)) return depthwise_pixels_bytes<T>(p, m);
  const Blocking b(p, gemm_kernels<T>(m).nr);
  return Depthwise<T>::parts_bytes(p, b) + slots * Depthwise<T>::slot_bytes(b, depthwise_kernels<T>(m).lanes);
}

int64_t workspace_bytes(const ConvProblem* p, const Machine* m, int slots, bool) {
  return p->dtype == DType::kFloat64 ? workspace_as<double>(*p, *m, slots) : workspace_as<float>(*p, *m, slots);
}

int64_t packed_bytes(const ConvProblem*, const Machine*) { return 0; }

int64_t table_bytes(const ConvProblem* p, const Machine* m, int slots) { return depthwise_table_bytes(*p, *m, slots); }

int64_t multiplications(const ConvProblem* p, const Machine*) {
  if (depthwise_planes_serve(*p) || depthwise_filter_serves(*p)) return products_of_rows(*p);
  return depthwise_pixels_serve(*p) ? products_inside(*p) : gathered_products(*p, true);
}

TakenHalves takes_halves(const ConvProblem* p) {
  return DepthwiseStage::serves(*p) ? TakenHalves::kImages : TakenHalves::kNone;
}

template <class T>
void run_as(const ConvProblem& p, const RunContext& r) {
  if (depthwise_planes_serve(p)) return depthwise_planes_run<T>(p, r);
  if (depthwise_filter_serves(p)) return depthwise_filter_run<T>(p, r);
  if (depthwise_pixels_serve(p)) return depthwise_pixels_run<T>(p, r);
  const Depthwise<T> depthwise(p, r);
  if (p.pass == Pass::kBackwardFilter)
    depthwise.run_filter();
  else
    depthwise.run();
}

int run(const ConvProblem* p, const RunContext* r) {
  if (p->dtype == DType::kFloat64)
    run_as<double>(*p, *r);
  else
    run_as<float>(*p, *r);
  return 0;
}

}  // namespace

extern const Algorithm kDepthwise;
const Algorithm kDepthwise = {"depthwise",  1.0,     1,   SameBits::kOne, why_not,         estimate,   workspace_bytes,
                              packed_bytes, nullptr, run, takes_halves,   multiplications, table_bytes};

}  // namespace fastconv
