// SPDX-License-Identifier: Apache-2.0
// The workspace of a half: what all slices share, float32 w | bias | packed weights or parts of a gradient, then for
// each worker a slice's x | y | residual | gradient, dense float32, and the algorithm's own. Each part is there only
// where it is needed.
#include "half_problem.h"

#include <algorithm>
#include <atomic>

#include "convert.h"
#include "half_slices.h"
#include "machine.h"
#include "parallel.h"
#include "phases.h"
#include "prices.h"
#include "rounding.h"
#include "workspace.h"

namespace fastconv {
namespace {

// The runs of x or y: planes, or pixels with their channels.
Runs image_runs(Layout layout, int64_t n, int64_t channels, int64_t plane, int64_t batch_pitch, int64_t channel_pitch) {
  const bool planes = layout == Layout::kChannelsFirst;
  return {n, planes ? channels : plane, planes ? plane : channels, batch_pitch, channel_pitch};
}
Runs dense_runs(int64_t count) { return {1, 1, count, count, count}; }

int64_t filter_elements(const ConvProblem& p) { return p.k * (p.c / p.groups) * taps(p); }
int64_t x_elements(const ConvProblem& p) { return p.n * p.c * x_plane(p); }
int64_t y_elements(const ConvProblem& p) { return p.n * p.k * y_plane(p); }
int64_t residual_elements(const ConvProblem& p) {
  if (!(p.epilogue & kEpilogueResidual)) return 0;
  return p.pass == Pass::kBackwardData ? x_elements(p) : y_elements(p);
}
int64_t floats(int64_t elements) { return aligned(elements * static_cast<int64_t>(sizeof(float))); }

// Parts of the workspace, in bytes. An algorithm that takes halves needs no x, y and residual.
struct Room {
  int64_t w, bias, packed, sums = 0;   // once; sums: parts of a filter gradient
  int64_t x = 0, y = 0, residual = 0;  // of a slice
  int64_t dw = 0, inner = 0;           // a slice's gradient, what the algorithm needs for a slice
  int workers;                         // each has the room of a slice
  Room(const Algorithm& algorithm, const ConvProblem& stored, const HalfSlices& slices, const Machine& machine,
       int slots, bool has_packed) {
    const ConvProblem& p = slices.p;
    const bool filter = p.pass == Pass::kBackwardFilter, whole = slices.count() == 1;
    const TakenHalves taken = taken_halves(algorithm, p);
    w = has_packed || takes_w(taken) ? 0 : floats(filter_elements(p));
    const bool widened = p.epilogue & kEpilogueBias && taken != TakenHalves::kEverything;
    bias = widened ? floats(p.pass == Pass::kBackwardData ? p.c : p.k) : 0;
    const int64_t packed_size = filter ? 0 : algorithm.packed_bytes(&p, &machine);
    packed = whole || has_packed ? 0 : aligned(packed_size);
    workers = whole ? 1 : slots;
    if (filter && !whole) {
      w = 0;
      sums = slices.parts * floats(filter_elements(p));
      dw = floats(filter_elements(slices.at(0, 0, 0).problem));
    }
    const auto room_for = [&](const ConvProblem& q) {
      x = std::max(x, floats(x_elements(q)));
      y = std::max(y, floats(y_elements(q)));
      residual = std::max(residual, floats(residual_elements(q)));
      const bool comes_packed = whole ? has_packed : packed_size > 0;
      inner = std::max(inner, algorithm.workspace_bytes(&q, &machine, whole ? slots : 1, comes_packed));
    };
    if (takes_images(taken))
      inner = algorithm.workspace_bytes(&stored, &machine, slots, has_packed);
    else if (whole)
      room_for(p);
    else
      slices.each_kind([&](const HalfSlice& slice) { room_for(slice.problem); });
    inner = aligned(inner);
  }
  int64_t shared() const { return w + bias + packed + sums; }
  int64_t each() const { return x + y + residual + dw + inner; }
  int64_t bytes() const { return shared() + workers * each(); }
};

}  // namespace

ConvProblem computed_problem(const ConvProblem& problem) {
  ConvProblem p = problem;
  if (is_half(problem.dtype)) p.dtype = DType::kFloat32;
  return p;
}

namespace {

class HalfRun {
 public:
  HalfRun(const Algorithm& which, const ConvProblem& problem, const RunContext& context)
      : algorithm(which),
        stored(problem),
        dtype(problem.dtype),
        r(context),
        machine(*r.machine),
        p(computed_problem(problem)),
        taken(taken_halves(algorithm, p)),
        slices(algorithm, p, machine),
        room(algorithm, stored, slices, machine, r.parallel.slots, r.packed_w != nullptr),
        packs(p.pass != Pass::kBackwardFilter && algorithm.packed_bytes(&p, &machine) > 0) {}

  int run() {
    const bool filter = p.pass == Pass::kBackwardFilter;
    char* at = static_cast<char*>(r.workspace);
    w = reinterpret_cast<float*>(at);
    if (!r.packed_w && !filter && !takes_w(taken)) read(r.parallel, dense_runs(filter_elements(p)), r.w, w);
    if (r.packed_w && !packs) w = const_cast<float*>(static_cast<const float*>(r.packed_w));
    if (room.bias) {
      bias = reinterpret_cast<float*>(at + room.w);
      read(r.parallel, dense_runs(p.pass == Pass::kBackwardData ? p.c : p.k), r.bias, bias);
    }
    void* own_packed = at + room.w + room.bias;
    packed = packs ? r.packed_w : nullptr;
    if (room.packed) {
      RunContext inner = r;
      inner.w = w;
      const PhaseScope packing(r.phases, Phase::kWeights);
      algorithm.pack(&p, &inner, own_packed);
      packed = own_packed;
    }
    if (takes_images(taken)) {
      RunContext inner = r;
      inner.w_dtype = w_dtype();
      inner.w = takes_w(taken) ? r.w : w, inner.packed_w = packed;
      if (bias) inner.bias = bias;
      inner.workspace = worker(0);
      inner.pad_value = pad_value();
      status = algorithm.run(&stored, &inner);
      if (filter && taken == TakenHalves::kImages) write(r.parallel, dense_runs(filter_elements(p)), w, r.w);
    } else if (slices.count() == 1) {
      compute(slices.whole(), r.parallel, worker(0), takes_w(taken) ? r.w : w);
      if (filter && !takes_w(taken)) write(r.parallel, dense_runs(filter_elements(p)), w, r.w);
    } else if (filter) {
      add_slices(static_cast<float*>(own_packed));
    } else {
      parallel_for(r.parallel, slices.count(), [&](int64_t item, int slot) {
        const int64_t band = item % slices.bands, group = item / slices.bands % slices.group_blocks;
        const HalfSlice slice = slices.at(item / slices.bands / slices.group_blocks, group, band);
        compute(slice, make_parallel(1), worker(slot), w + slice.group * group_weights());
      });
    }
    return status;
  }

 private:
  char* worker(int slot) const { return static_cast<char*>(r.workspace) + room.shared() + slot * room.each(); }
  DType w_dtype() const { return takes_w(taken) ? dtype : DType::kFloat32; }
  double pad_value() const { return rounded_to(machine, dtype, static_cast<float>(r.pad_value)); }
  int64_t group_weights() const { return filter_elements(p) / p.groups; }
  void read(const Parallel& parallel, const Runs& runs, const void* half, float* single) const {
    const PhaseScope converting(r.phases, Phase::kConversions);
    widen(machine, parallel, dtype, runs, half, single);
  }

  void write(const Parallel& parallel, const Runs& runs, const float* single, void* half) const {
    const PhaseScope converting(r.phases, Phase::kConversions);
    narrow(machine, parallel, dtype, runs, single, static_cast<uint16_t*>(half));
  }

  // Backward-filter: parts of the slices by blocks of groups, sums[part][weight].
  void add_slices(float* sums) {
    const GemmKernelsOf<float>& kernels = gemm_kernels<float>(machine);
    const int64_t all = filter_elements(p), pitch = floats(all) / 4, steps = slices.image_blocks * slices.bands;
    parallel_for(r.parallel, slices.parts * slices.group_blocks, [&](int64_t item, int slot) {
      const int64_t part = item / slices.group_blocks, block = item % slices.group_blocks;
      const int64_t first = part * steps / slices.parts, last = (part + 1) * steps / slices.parts;
      float* one = reinterpret_cast<float*>(worker(slot) + room.x + room.y + room.residual);
      for (int64_t step = first; step < last; ++step) {
        const HalfSlice slice = slices.at(step / slices.bands, block, step % slices.bands);
        float* sum = sums + part * pitch + slice.group * group_weights();
        compute(slice, make_parallel(1), worker(slot), step == first ? sum : one);
        if (step > first) kernels.reduce(filter_elements(slice.problem), 2, sum, one - sum, sum);
      }
    });
    constexpr int64_t kShare = 4096;
    parallel_for(r.parallel, ceil_div(all, kShare), [&](int64_t item, int) {
      const int64_t begin = item * kShare, count = std::min(kShare, all - begin);
      if (slices.parts > 1) kernels.reduce(count, slices.parts, sums + begin, pitch, sums + begin);
      write(make_parallel(1), dense_runs(count), sums + begin, static_cast<uint16_t*>(r.w) + begin);
    });
  }

  void compute(const HalfSlice& s, const Parallel& parallel, char* mine, void* weights) {
    const ConvProblem& q = s.problem;
    float* x = reinterpret_cast<float*>(mine);
    float* y = reinterpret_cast<float*>(mine += room.x);
    float* residual = reinterpret_cast<float*>(mine += room.y);
    const bool forward = q.pass == Pass::kForward, data = q.pass == Pass::kBackwardData;
    const int64_t xs = x_plane(q), ys = y_plane(q), of_group = (data ? p.c : p.k) / p.groups;
    const Runs x_runs = image_runs(q.x_layout, q.n, q.c, xs, r.x_batch_pitch, r.x_channel_pitch);
    const Runs y_runs = image_runs(q.y_layout, q.n, q.k, ys, r.y_batch_pitch, r.y_channel_pitch);
    const int64_t y_size[kMaxSpatial] = {output_size(p, 0), output_size(p, 1), output_size(p, 2)};
    const int64_t x_at = place(s, q.x_layout, p.c / p.groups, r.x_batch_pitch, r.x_channel_pitch, s.x_row, p.size);
    const int64_t y_at = place(s, q.y_layout, p.k / p.groups, r.y_batch_pitch, r.y_channel_pitch, s.y_row, y_size);

    RunContext inner = r;
    inner.parallel = parallel;
    inner.x = x, inner.w = weights, inner.y = y;
    inner.packed_w = packed;
    inner.w_dtype = w_dtype();
    inner.x_batch_pitch = q.c * xs, inner.x_channel_pitch = q.x_layout == Layout::kChannelsFirst ? xs : q.c;
    inner.y_batch_pitch = q.k * ys, inner.y_channel_pitch = q.y_layout == Layout::kChannelsFirst ? ys : q.k;
    inner.workspace = mine + room.residual + room.dw;
    inner.pad_value = pad_value();
    inner.bias = bias ? bias + s.group * of_group : nullptr;
    if (!data) read(parallel, x_runs, static_cast<const uint16_t*>(r.x) + x_at, x);
    if (!forward) read(parallel, y_runs, static_cast<const uint16_t*>(r.y) + y_at, y);
    if (room.residual) {
      read(parallel, data ? x_runs : y_runs, static_cast<const uint16_t*>(r.residual) + (data ? x_at : y_at), residual);
      inner.residual = residual;
    }
    if (const int failed = algorithm.run(&q, &inner)) status = failed;
    if (forward) write(parallel, y_runs, y, static_cast<uint16_t*>(r.y) + y_at);
    if (data) write(parallel, x_runs, x, static_cast<uint16_t*>(r.x) + x_at);
  }

  // Where a slice begins in a tensor.
  int64_t place(const HalfSlice& s, Layout layout, int64_t channels, int64_t batch_pitch, int64_t channel_pitch,
                int64_t row, const int64_t* size) const {
    for (int a = slices.axis + 1; a < kMaxSpatial; ++a) row *= size[a];
    const bool planes = layout == Layout::kChannelsFirst;
    return s.image * batch_pitch + s.group * channels * (planes ? channel_pitch : 1) +
           row * (planes ? 1 : channel_pitch);
  }

  const Algorithm& algorithm;
  const ConvProblem& stored;
  const DType dtype;
  const RunContext& r;
  const Machine& machine;
  const ConvProblem p;
  const TakenHalves taken;
  const HalfSlices slices;
  const Room room;
  const bool packs;
  float *w = nullptr, *bias = nullptr;
  const void* packed = nullptr;
  std::atomic<int> status{0};
};

}  // namespace

Estimate estimate(const Algorithm& algorithm, const ConvProblem& problem, const Machine& machine, bool packed) {
  const ConvProblem p = computed_problem(problem);
  const ConvProblem& asked = algorithm.knows_halves ? problem : p;
  Estimate e;
  algorithm.estimate(&asked, &machine, &e);
  const double beyond = static_cast<double>(tensor_bytes(p) - machine.l2_bytes);
  if (beyond > 0) e.add("memory", beyond / machine.bytes_per_second);
  // The algorithms count it themselves where it is the rule.
  const int64_t packs = !packed && p.pass == Pass::kForward ? algorithm.packed_bytes(&asked, &machine) : 0;
  if (packs > 0) e.add(kWeightsPacked, 0.1e-9 * static_cast<double>(packs));
  for (int i = 0; i < e.terms; ++i) e.seconds[i] *= price_of(machine, algorithm.name, e.work[i]);
  if (is_half(problem.dtype) && !algorithm.knows_halves) {
    const double bytes = 4.0 * static_cast<double>(tensor_bytes(p) / 4 + residual_elements(p));
    const bool near = taken_halves(algorithm, p) != TakenHalves::kNone || HalfSlices(algorithm, p, machine).count() > 1;
    e.add("conversions", (near ? 0.4 : 1.5) * bytes / machine.bytes_per_second);
  }
  return e;
}

int64_t workspace_bytes(const Algorithm& algorithm, const ConvProblem& problem, const Machine& machine, int slots,
                        bool packed) {
  const ConvProblem p = computed_problem(problem);
  if (!is_half(problem.dtype)) return algorithm.workspace_bytes(&p, &machine, slots, packed);
  return Room(algorithm, problem, HalfSlices(algorithm, p, machine), machine, slots, packed).bytes();
}

int64_t packed_bytes(const Algorithm& algorithm, const ConvProblem& problem, const Machine& machine) {
  const ConvProblem p = computed_problem(problem);
  const int64_t bytes = algorithm.packed_bytes(algorithm.knows_halves ? &problem : &p, &machine);
  const bool keeps = is_half(problem.dtype) && problem.pass != Pass::kBackwardFilter &&
                     taken_halves(algorithm, p) != TakenHalves::kEverything;
  return bytes == 0 && keeps ? filter_elements(problem) * 4 : bytes;
}

bool pack(const Algorithm& algorithm, const ConvProblem& problem, const Machine& machine, const Parallel& parallel,
          const void* w, void* packed) {
  RunContext context{};
  context.machine = &machine, context.parallel = parallel, context.w = const_cast<void*>(w);
  if (!is_half(problem.dtype)) {
    algorithm.pack(&problem, &context, packed);
    return true;
  }
  const ConvProblem p = computed_problem(problem);
  const bool as_they_are = algorithm.packed_bytes(&p, &machine) == 0;
  const int64_t elements = filter_elements(p);
  if (takes_w(taken_halves(algorithm, p)) && !as_they_are) {
    algorithm.pack(&problem, &context, packed);
    return true;
  }
  const Workspace widened(as_they_are ? 0 : elements * 4);
  if (widened.failed()) return false;
  float* single = static_cast<float*>(as_they_are ? packed : widened.data());
  widen(machine, parallel, problem.dtype, dense_runs(elements), w, single);
  context.w = single;
  if (!as_they_are) algorithm.pack(&p, &context, packed);
  return true;
}

int run(const Algorithm& algorithm, const ConvProblem& problem, const RunContext& context) {
  if (!is_half(problem.dtype)) return algorithm.run(&problem, &context);
  return HalfRun(algorithm, problem, context).run();
}

}  // namespace fastconv
