// SPDX-License-Identifier: Apache-2.0
// implicit_gemm and implicit_gemm_tf32: convolutions as matrix products on the tensor cores, whose column matrix is
// never built (implicit_tile.cuh has the product, implicit_gemm.h its sizes). Here: what is refused, how work is
// shared, packed weights, and the two entries of the list. Few channels have kernels of their own (implicit_stem.h).
//
// Limits, for float16 of 128 rows and channels or more: 2 * rows * depth * pixels FLOP at the rate of mma.sync (sm_90:
// about 0.6 of what the data sheet has). A tile of 128 x 128 loads 256 * 64 bytes a step for 128 * 128 * 32 products,
// 64 FLOP a byte from L2. Few channels or 1x1 taps are limited by memory instead: x and y once, and x again for every
// 128 rows that L2 does not hold. float32 by three products: a third of tf32's rate.
#include <cstdio>

#include "conv.cuh"
#include "implicit_gemm.h"
#include "implicit_stem.h"

namespace fastconv::cuda {
namespace {

constexpr int64_t kMostAxisPhases = 512;  // of backward-data
constexpr int64_t kAlign = 256;

// ---- How products are shared ---------------------------------------------------------------------------------------
struct ShapeChoice {
  ImplicitShape shape;
  int resident;       // blocks of a multiprocessor
  double efficiency;  // of the tensor cores' peak, when tiles are full: guesses
};
constexpr ShapeChoice kLarge{ImplicitShape::kLarge, 2, 0.55}, kSmall{ImplicitShape::kSmall, 3, 0.4},
    kFlat{ImplicitShape::kFlat, 3, 0.35};

int64_t blocks_of(ImplicitShape shape, int64_t groups, int64_t rows, int64_t columns) {
  return divide_up(rows, rows_of(shape)) * groups * divide_up(columns, columns_of(shape));
}
// The share of the peak that goes into wanted products. A multiprocessor with fewer blocks than it could hold waits
// more.
double speed_of(const ShapeChoice& c, int64_t groups, int64_t rows, int64_t columns, int64_t copies, const Machine& m) {
  const int64_t blocks = blocks_of(c.shape, groups, rows, columns), all = blocks * copies;
  const double wanted = times(groups, rows, columns) / times(blocks, rows_of(c.shape), columns_of(c.shape));
  const double full = times(all) / times(c.resident, std::max(1, m.multiprocessors));
  return c.efficiency * wanted * occupancy(all, 1, m) * (0.5 + 0.5 * std::min(1.0, full));
}

struct ImageWork {
  int64_t phases = 0, pixels = 0, steps = 0;  // the largest phase's, of one image
  int64_t weights = 0;                        // packed elements
  double products = 0;                        // with depth as padded to steps, of one image and all groups
  explicit ImageWork(const ConvProblem& p) : phases(phase_count(p)) {
    const ImplicitSizes sizes(p);
    for (int64_t i = 0; i < phases; ++i) {
      const ImplicitPhase phase = phase_of(p, i);
      pixels = std::max(pixels, phase.pixels), steps = std::max(steps, sizes.steps(phase));
      weights += sizes.weights(phase);
      products += times(sizes.groups, sizes.rows, phase.pixels, sizes.steps(phase) * sizes.depth);
    }
  }
};

double best_speed(const ConvProblem& p, const Machine& m, ImplicitSharing* sharing) {
  const ImplicitSizes sizes(p);
  const ImageWork work(p);
  // Chunks from the problem of one image: long sums for few pixels, which one image's tiles leave the device idle with.
  constexpr int64_t kFewPixels = 256, kLongSum = 64, kBlocks = 256, kMostChunks = 16, kLeastSteps = 8;
  int64_t chunks = 1;
  if (work.pixels <= kFewPixels && work.steps >= kLongSum) {
    const int64_t tiles = blocks_of(ImplicitShape::kSmall, sizes.groups, sizes.rows, work.pixels) * work.phases;
    chunks = std::clamp<int64_t>(std::min(divide_up(kBlocks, tiles), work.steps / kLeastSteps), 1, kMostChunks);
  }
  sharing->chunk = std::max<int64_t>(1, divide_up(work.steps, chunks));
  const bool chunked = sharing->chunk < work.steps;
  double best = 0;
  for (const ShapeChoice& c : {kLarge, kSmall, kFlat}) {
    if (chunked && c.shape == ImplicitShape::kLarge) continue;
    // Chunks have blocks of their own where tiles alone leave half of the multiprocessors without work.
    const int64_t columns = p.n * work.pixels, tiles = blocks_of(c.shape, sizes.groups, sizes.rows, columns);
    const bool apart = chunked && tiles * work.phases * 2 <= m.multiprocessors;
    const int64_t parts = apart ? divide_up(work.steps, sharing->chunk) : 1;
    const double speed = speed_of(c, sizes.groups, sizes.rows, std::max<int64_t>(1, columns), work.phases * parts, m);
    if (speed <= best) continue;
    best = speed, sharing->shape = c.shape, sharing->chunks = parts;
  }
  return best;
}

double best_filter_speed(const ConvProblem& p, const Machine& m) {
  const FilterSharing f = filter_sharing_of(p);
  return speed_of(f.shape == ImplicitShape::kLarge ? kLarge : kSmall, p.groups, f.rows, f.columns, f.parts, m);
}

int64_t packed_elements(const ConvProblem& p) {
  if (is_stem(p)) return stem_packed_elements(p);
  return p.pass == Pass::kBackwardFilter ? 0 : ImageWork(p).weights;
}
int64_t scratch_bytes(const ConvProblem& p, const Machine& m) {
  if (is_stem(p)) return stem_scratch(p);
  if (p.pass == Pass::kBackwardFilter) {
    const FilterSharing f = filter_sharing_of(p);
    return f.parts * p.groups * f.rows * f.columns * 4;
  }
  const ImplicitSizes sizes(p);
  const ImplicitSharing sharing = sharing_of(p, m);
  if (sharing.chunks == 1) return 0;
  int64_t sums = 0;
  for (int64_t i = phase_count(p); i-- > 0;) {
    const ImplicitPhase phase = phase_of(p, i);
    sums += divide_up(sizes.steps(phase), sharing.chunk) * sizes.groups * sizes.rows * p.n * phase.pixels;
  }
  return sums * 4;
}

// ---- Packed weights ------------------------------------------------------------------------------------------------
struct PackPhase {
  int64_t at, elements;  // packed
  int32_t steps, depth;
  int32_t first_tap[kMaxSpatial], between_taps[kMaxSpatial];
  Divisor by_steps;
  Divisor32 tap_plane, tap_row;
};
template <class Word>
struct PackTask {
  const Word* w;
  Word* packed;
  int64_t row_step, channel_step, group_step;  // of w
  int64_t filter[kMaxSpatial];
  Divisor by_rows;
  Divisor32 by_channels;
  int32_t channels;
  PackPhase phases[kMostPhases];
};
constexpr int kPackThreads = 256;

// One element of [group][step][row][depth of the step] to a thread; blockIdx.y: the phase.
template <class Word>
__global__ void __launch_bounds__(kPackThreads) implicit_pack(PackTask<Word> t) {
  constexpr int kDepth = 64 / static_cast<int>(sizeof(Word));
  const PackPhase& phase = t.phases[blockIdx.y];
  for (int64_t i = int64_t{blockIdx.x} * kPackThreads + threadIdx.x; i < phase.elements;
       i += int64_t{gridDim.x} * kPackThreads) {
    int64_t row, step;
    const int64_t group = phase.by_steps.divide(t.by_rows.divide(i / kDepth, &row), &step);
    const int k = static_cast<int>(step) * kDepth + static_cast<int>(i % kDepth);
    int channel, t1, t2;
    const int t0 = phase.tap_plane.divide(phase.tap_row.divide(t.by_channels.divide(k, &channel), &t2), &t1);
    const int64_t tap = ((phase.first_tap[0] + int64_t{t0} * phase.between_taps[0]) * t.filter[1] + phase.first_tap[1] +
                         int64_t{t1} * phase.between_taps[1]) *
                            t.filter[2] +
                        phase.first_tap[2] + int64_t{t2} * phase.between_taps[2];
    t.packed[phase.at + i] =
        k < phase.depth ? t.w[group * t.group_step + row * t.row_step + channel * t.channel_step + tap] : Word(0);
  }
}

template <class Word>
int pack_words(const ConvProblem& p, const RunContext& r, void* packed) {
  const ImplicitSizes sizes(p);
  const int64_t all_taps = taps(p), of_filter = p.c / p.groups * all_taps;
  PackTask<Word> t{};
  t.w = static_cast<const Word*>(r.w), t.packed = static_cast<Word*>(packed);
  t.row_step = is_forward(p) ? of_filter : all_taps, t.channel_step = is_forward(p) ? all_taps : of_filter;
  t.group_step = p.k / p.groups * of_filter;
  std::copy(p.filter, p.filter + kMaxSpatial, t.filter);
  t.by_rows = Divisor(sizes.rows), t.by_channels = Divisor32(sizes.channels);
  t.channels = static_cast<int32_t>(sizes.channels);
  const int64_t phases = phase_count(p);
  int64_t at = 0;
  for (int64_t first = 0; first < phases; first += kMostPhases) {
    const int64_t count = std::min<int64_t>(kMostPhases, phases - first);
    int64_t most = 0;
    for (int64_t i = 0; i < count; ++i) {
      const ImplicitPhase from = phase_of(p, first + i);
      PackPhase& phase = t.phases[i];
      phase = {};
      phase.at = at, phase.elements = sizes.weights(from);
      at += phase.elements, most = std::max(most, phase.elements);
      phase.steps = static_cast<int32_t>(sizes.steps(from));
      phase.depth = static_cast<int32_t>(from.taps * sizes.channels);
      for (int axis = 0; axis < kMaxSpatial; ++axis) {
        phase.first_tap[axis] = static_cast<int32_t>(from.axis[axis].first_tap);
        phase.between_taps[axis] = static_cast<int32_t>(from.axis[axis].between_taps);
      }
      phase.by_steps = Divisor(std::max<int32_t>(1, phase.steps));
      phase.tap_plane = Divisor32(std::max<int64_t>(1, from.axis[1].taps));
      phase.tap_row = Divisor32(std::max<int64_t>(1, from.axis[2].taps));
    }
    const Grid grid{std::min(divide_up(most, kPackThreads), kMostBlocksX), count};
    const int status = launch(r, implicit_pack<Word>, grid, kPackThreads, 0, t);
    if (status) return status;
  }
  return 0;
}

// ---- The entries of the list ---------------------------------------------------------------------------------------
constexpr char kName[] = "implicit_gemm", kTf32Name[] = "implicit_gemm_tf32";

bool refuse(char* text, const char* name, const char* sentence) {
  snprintf(text, kTextCapacity, "%s %s", name, sentence);
  return true;
}

bool why_not_any(const ConvProblem& p, const Machine& m, const char* name, char* text) {
  text[0] = 0;
  if (m.architecture < 80) return refuse(text, name, "needs the tensor cores of compute capability 8.0 or later");
  if (p.padding_mode != PaddingMode::kZeros) {
    snprintf(text, kTextCapacity, "%s takes zeros around x, got padding_mode %s", name, name_of(p.padding_mode));
    return true;
  }
  const bool forward = is_forward(p);
  bool far = false;
  for (int i = 0; i < kMaxSpatial; ++i) {
    const int64_t reach = p.filter[i] * p.dilation[i] + p.pad_begin[i] + p.pad_end[i];
    far = far || p.size[i] + reach >= kMostPlace || p.stride[i] >= kMostPlace;
  }
  const int64_t column_tiles = divide_up(p.n * (forward ? y_plane(p) : x_plane(p)), 64);
  far = far || (p.pass == Pass::kBackwardFilter && p.n * y_plane(p) >= kMostPlace) ||
        taps(p) * std::max(p.c, p.k) >= kMostPlace || column_tiles > kMostPlace / std::max(p.c, p.k);
  if (far) return refuse(text, name, "counts the places of an axis and of a tile's products in 32 bits: too many here");
  if (p.pass == Pass::kBackwardFilter && p.groups > kMostBlocksYZ)
    return refuse(text, name, "has a block for each group's gradient: too many groups");
  if (p.pass == Pass::kBackwardData && phase_count(p) > kMostAxisPhases)
    return refuse(text, name, "has a phase of backward-data for every place within a stride: too many here");
  return false;
}
bool why_not(const ConvProblem* p, const Machine* m, char* text) {
  text[0] = 0;
  if (p->dtype == DType::kFloat64) return refuse(text, kName, "has no float64: tensor cores round it");
  return why_not_any(*p, *m, kName, text);
}
bool why_not_tf32(const ConvProblem* p, const Machine* m, char* text) {
  text[0] = 0;
  if (p->dtype != DType::kFloat32) {
    snprintf(text, kTextCapacity, "%s rounds float32, got %s", kTf32Name, name_of(p->dtype));
    return true;
  }
  return why_not_any(*p, *m, kTf32Name, text);
}

void estimate_as(const ConvProblem& p, const Machine& m, bool one_product, Estimate* e) {
  const double peak = is_half(p.dtype) ? m.flops_f16 : one_product ? m.flops_tf32 : m.flops_tf32 / 3;
  const double size = static_cast<double>(element_size(p.dtype));
  const bool filter = p.pass == Pass::kBackwardFilter;
  if (is_stem(p)) {
    double moved = 0, products = 0;
    stem_work(p, &moved, &products);
    add_launches(2, e);
    // Guesses: of the bandwidth 80 %, of the peak 40 %. They overlap; what is longer counts.
    const double moving = (moved + 2 * static_cast<double>(scratch_bytes(p, m))) / 0.8 / m.bytes_per_second;
    const double multiplying = 2 * products / (0.4 * peak);
    e->add("memory", moving);
    if (multiplying > moving) e->add("products", multiplying - moving);
    return;
  }
  double products, speed;
  ImplicitSharing sharing{};
  if (filter) {
    const FilterSharing f = filter_sharing_of(p);
    products = times(p.groups, f.rows, f.columns, f.steps) * static_cast<double>(ImplicitSizes(p).depth);
    speed = best_filter_speed(p, m);
  } else {
    products = times(p.n) * ImageWork(p).products;
    speed = best_speed(p, m, &sharing);
  }
  // Elements that are copied one by one hold the tensor cores up.
  const bool last = p.x_layout == Layout::kChannelsLast && (!filter || p.y_layout == Layout::kChannelsLast);
  const int64_t piece = 16 / element_size(p.dtype);
  const bool pieces = last && p.c / p.groups % piece == 0 && (is_forward(p) || p.k / p.groups % piece == 0);
  if (!pieces) speed *= is_half(p.dtype) ? 0.5 : 0.8;
  add_launches(static_cast<int>(1 + (filter || sharing.chunks > 1) +
                                (filter ? 0 : 2 * divide_up(phase_count(p), kMostPhases) - 1)),
               e);
  e->add("products", 2 * products / (peak * std::max(speed, 1e-6)));
  // What passes through memory while nothing else can go on: tiles overlap it with their products where there are many.
  const double bytes = static_cast<double>(tensor_bytes(p)) + 2 * static_cast<double>(scratch_bytes(p, m)) +
                       2 * size * static_cast<double>(packed_elements(p));
  add_traffic("memory", bytes, m, e);
}
void estimate(const ConvProblem* p, const Machine* m, Estimate* e) { estimate_as(*p, *m, false, e); }
void estimate_tf32(const ConvProblem* p, const Machine* m, Estimate* e) { estimate_as(*p, *m, true, e); }

int64_t packed_bytes(const ConvProblem* p, const Machine*) { return packed_elements(*p) * element_size(p->dtype); }
int64_t workspace_bytes(const ConvProblem* p, const Machine* m, int, bool packed) {
  return (packed ? 0 : round_up(packed_bytes(p, m), kAlign)) + scratch_bytes(*p, *m);
}
int pack(const ConvProblem* p, const RunContext* r, void* packed) {
  starts(*r, Phase::kWeights);
  if (is_stem(*p)) return pack_stem(*p, *r, packed);
  return is_half(p->dtype) ? pack_words<uint16_t>(*p, *r, packed) : pack_words<uint32_t>(*p, *r, packed);
}

int run_as(const ConvProblem& p, const RunContext& r, bool one_product) {
  const bool stem = is_stem(p);
  if (p.pass == Pass::kBackwardFilter && stem) return run_stem_filter(p, r, r.workspace, one_product);
  if (p.pass == Pass::kBackwardFilter)
    return is_half(p.dtype) ? implicit_filter_half(p, r, r.workspace)
                            : implicit_filter_float(p, r, r.workspace, one_product);
  const void* weights = r.packed_w;
  char* scratch = static_cast<char*>(r.workspace);
  if (!weights) {
    weights = scratch;
    const int status = pack(&p, &r, scratch);
    if (status) return status;
    scratch += round_up(packed_bytes(&p, r.machine), kAlign);
  }
  if (stem) return run_stem(p, r, weights, one_product);
  return is_half(p.dtype) ? implicit_images_half(p, r, weights, scratch)
                          : implicit_images_float(p, r, weights, scratch, one_product);
}
int run(const ConvProblem* p, const RunContext* r) { return run_as(*p, *r, false); }
int run_tf32(const ConvProblem* p, const RunContext* r) { return run_as(*p, *r, true); }
int64_t multiplications(const ConvProblem* p, const Machine* m) { return count_multiplications(*p, *m, run); }
int64_t multiplications_tf32(const ConvProblem* p, const Machine* m) { return count_multiplications(*p, *m, run_tf32); }

}  // namespace

ImplicitSharing sharing_of(const ConvProblem& p, const Machine& m) {
  ImplicitSharing sharing{ImplicitShape::kSmall, 1, 1};
  best_speed(p, m, &sharing);
  return sharing;
}

FilterSharing filter_sharing_of(const ConvProblem& p) {
  FilterSharing f{};
  f.rows = p.k / p.groups, f.columns = taps(p) * (p.c / p.groups);
  f.steps = divide_up(p.n * y_plane(p), 64 / element_size(p.dtype));
  // Large tiles where there is enough of everything; parts for about 512 blocks, each of 16 steps or more.
  f.shape = f.rows > 64 && f.columns > 64 ? ImplicitShape::kLarge : ImplicitShape::kSmall;
  constexpr int64_t kBlocks = 512, kLeastSteps = 16, kMostParts = 256;
  const int64_t tiles = blocks_of(f.shape, p.groups, f.rows, f.columns);
  const int64_t parts = std::clamp<int64_t>(std::min(divide_up(kBlocks, tiles), f.steps / kLeastSteps), 1, kMostParts);
  f.part = std::max<int64_t>(1, divide_up(f.steps, parts));
  f.parts = std::max<int64_t>(1, divide_up(f.steps, f.part));
  return f;
}

// float32: see StrictProduct. tf32 keeps 11 bits of 24.
extern const Algorithm kImplicitGemm, kImplicitGemmTf32;
const Algorithm kImplicitGemm = {kName,        2.0,  1,   SameBits::kOne, why_not,        estimate, workspace_bytes,
                                 packed_bytes, pack, run, nullptr,        multiplications};
const Algorithm kImplicitGemmTf32 = {
    kTf32Name,       8192.0,       1,    SameBits::kOne, why_not_tf32, estimate_tf32,
    workspace_bytes, packed_bytes, pack, run_tf32,       nullptr,      multiplications_tf32};

}  // namespace fastconv::cuda
