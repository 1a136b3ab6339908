// SPDX-License-Identifier: Apache-2.0
// Winograd convolution F(m x m, 3 x 3), m 2 and 4: the matrices and points of csrc/winograd_math.h, strict float32 products.
//
//   U = G w G^T                               once, or when weights are packed
//   for each slab of tiles:
//     V = B^T d B                             of what the pass reads
//     M[point][k][tile] = U[point] V[point]   one product of matrices for each point and group
//     A^T M A, bias, activation               to what the pass writes
//
// The filter's gradient is the exact adjoint of the forward pass in the filter: V = B^T x B and D = A y A^T of a slab,
// U[point] += D[point] V[point]^T over its tiles, at last w = G^T U G.
//
// A slab is about what the L2 of a large device holds: V and M, 36 or 16 numbers for 16 or 4 points, are to reach memory
// as little as possible, and yet its products are to keep all multiprocessors busy for several rounds. No bit of a forward
// or backward-data result depends on the slabs, since no sum crosses tiles.
#include <cstdio>

#include "winograd.cuh"

namespace fastconv::cuda {
namespace {

// Tiles of a slab come in units where there are several slabs. The filter's gradient is summed in pieces: as many as give
// work to kWantedBlocks blocks of 64 x 64 sums, if each has kLeastPiece tiles and all together fit kPieceBytes.
constexpr int64_t kWantedBlocks = 1024, kPieceBytes = 64 << 20;
#if defined(FASTCONV_CUDA_HOST)  // the problems of the tests are small: so that they have several slabs and pieces too
constexpr int64_t kSlabBytes = 96 << 10, kTileUnit = 8, kLeastPiece = 8;
#else
constexpr int64_t kSlabBytes = 64 << 20, kTileUnit = 128, kLeastPiece = 128;
#endif

constexpr int64_t bytes_of(int64_t elements) { return round_up(elements * int64_t{sizeof(float)}, 256); }

struct Blocking {
  const ConvProblem& p;
  int m;
  int64_t points;
  WinogradTiles tiles;
  int64_t slab;        // tiles
  int64_t splits = 1;  // sums of the filter's gradient
  WinogradFilters u;
  WinogradSlab x, y;  // numbers of tiles in the domain of the points, for each tensor

  Blocking(int tile, const ConvProblem& problem)
      : p(problem),
        m(tile),
        points((tile + 2) * (tile + 2)),
        tiles(p, tile),
        slab(slab_tiles(tiles.count, bytes_of(points * (p.c + p.k)))),
        u(p, points),
        x(p.x_layout, p.c, p.groups, points, slab),
        y(p.y_layout, p.k, p.groups, points, slab) {
    if (p.pass != Pass::kBackwardFilter) return;
    const int64_t kg = p.k / p.groups, blocks = divide_up(kg, 64) * divide_up(u.c, 64) * p.groups * points;
    const int64_t most = std::min(slab / kLeastPiece, kPieceBytes / bytes_of(u.elements()));
    splits = std::max<int64_t>(1, std::min(divide_up(kWantedBlocks, blocks), most));
  }

  static int64_t slab_tiles(int64_t count, int64_t tile_bytes) {
    const int64_t most = std::max(kTileUnit, kSlabBytes / tile_bytes / kTileUnit * kTileUnit);
    const int64_t slabs = std::max<int64_t>(1, divide_up(count, most));
    return round_up(std::max<int64_t>(1, divide_up(count, slabs)), slabs > 1 ? kTileUnit : 4);
  }
  int64_t slabs() const { return divide_up(tiles.count, slab); }
  // Of what the pass reads as tiles of cells, and of the other tensor.
  const WinogradSlab& cells() const { return p.pass == Pass::kBackwardData ? y : x; }
  const WinogradSlab& results() const { return p.pass == Pass::kBackwardData ? x : y; }
};

// Parts of the workspace, in bytes.
struct Room {
  int64_t u, cells, results;
  Room(const Blocking& b, bool packed)
      : u(packed ? 0 : bytes_of(b.splits * b.u.elements())),
        cells(bytes_of(b.cells().elements())),
        results(bytes_of(b.results().elements())) {}
  int64_t all() const { return u + cells + results; }
};

Operand<float> operand_of(const float* data, int64_t line_step, int64_t depth_step, int64_t batch) {
  Operand<float> o{};
  o.data = data;
  o.lines = Axis::flat(line_step), o.outer = Axis::flat(0), o.step = depth_step, o.batch = batch;
  o.deep = depth_step == 1;
  return o;
}
Output<float> output_of(float* data, int64_t row, int64_t batch) {
  Output<float> o{};
  o.data = data, o.rows = Axis::flat(row), o.columns = Axis::flat(1), o.batch = batch;
  return o;
}

// M[point] of a slab from V and U, whose rows are k; both in the order of what is written.
int multiply(const Blocking& b, const RunContext& r, const WinogradSlab& v, const WinogradFilters& u,
             const WinogradSlab& products) {
  const bool forward = b.p.pass == Pass::kForward;
  const auto of_tiles = operand_of(v.at, v.tile_step(), v.channel_step(), v.point);
  const auto of_filters = operand_of(u.at, forward ? u.row : 1, forward ? 1 : u.row, u.point);
  Gemm<float> g{};
  g.depth = v.group_channels(), g.batches = b.p.groups * b.points;
  g.m = products.channels_last ? v.used : products.group_channels();
  g.n = products.channels_last ? products.group_channels() : v.used;
  g.a = products.channels_last ? of_tiles : of_filters;
  g.b = products.channels_last ? of_filters : of_tiles;
  g.c = output_of(products.at, products.row, products.point);
  return gemm(r, g);
}

// U[point] (+)= D V^T, in b.splits sums.
Gemm<float> gradient_product(const Blocking& b, const WinogradSlab& v, const WinogradSlab& d,
                             const WinogradFilters& u) {
  Gemm<float> g{};
  g.m = d.group_channels(), g.n = v.group_channels(), g.depth = v.used, g.batches = b.p.groups * b.points;
  g.splits = b.splits;
  g.a = operand_of(d.at, d.channel_step(), d.tile_step(), d.point);
  g.b = operand_of(v.at, v.channel_step(), v.tile_step(), v.point);
  g.c = output_of(u.at, u.row, u.point);
  g.partial = u.at, g.unfinished = true;
  return g;
}

// work(first, end) for the tiles of each slab, until one fails.
template <class Work>
int each_slab(const Blocking& b, const Work& work) {
  int status = 0;
  for (int64_t first = 0; first < b.tiles.count && !status; first += b.slab)
    status = work(first, std::min(b.tiles.count, first + b.slab));
  return status;
}

int run_images(const Blocking& b, const RunContext& r) {
  const Room room(b, r.packed_w != nullptr);
  char* at = static_cast<char*>(r.workspace);
  WinogradFilters u = b.u;
  WinogradSlab v = b.cells(), products = b.results();
  u.at = static_cast<float*>(r.packed_w ? const_cast<void*>(r.packed_w) : r.workspace);
  v.at = reinterpret_cast<float*>(at + room.u);
  products.at = reinterpret_cast<float*>(at + room.u + room.cells);
  if (b.tiles.count == 0) return 0;
  if (!r.packed_w) {
    starts(r, Phase::kWeights);
    if (const int status = winograd_filter(b.m, b.p, r, u)) return status;
  }
  return each_slab(b, [&](int64_t first, int64_t end) {
    const WinogradSlab from = v.slice(first, end), to = products.slice(first, end);
    starts(r, Phase::kInput);
    int status = winograd_input(b.m, b.p, r, b.tiles, from);
    if (!status) status = multiply(b, r, from, u, to);
    starts(r, Phase::kOutput);
    return status ? status : winograd_output(b.m, b.p, r, b.tiles, to);
  });
}

int run_filter(const Blocking& b, const RunContext& r) {
  const Room room(b, false);
  char* at = static_cast<char*>(r.workspace);
  WinogradFilters u = b.u;
  WinogradSlab v = b.x, d = b.y;
  u.at = static_cast<float*>(r.workspace);
  v.at = reinterpret_cast<float*>(at + room.u);
  d.at = reinterpret_cast<float*>(at + room.u + room.cells);
  int status = each_slab(b, [&](int64_t first, int64_t end) {
    const WinogradSlab cells = v.slice(first, end), points = d.slice(first, end);
    starts(r, Phase::kInput);
    int failed = winograd_input(b.m, b.p, r, b.tiles, cells);
    if (!failed) failed = winograd_gradient(b.m, b.p, r, b.tiles, points);
    Gemm<float> g = gradient_product(b, cells, points, u);
    g.added = first > 0;
    return failed ? failed : gemm(r, g);
  });
  // Into the first of the sums, element by element.
  if (!status && b.splits > 1 && b.tiles.count > 0) status = gemm_add_partials(r, gradient_product(b, v, d, u));
  starts(r, Phase::kOutput);
  return status ? status : winograd_filter_gradient(b.m, b.p, r, u, b.tiles.count > 0);
}

bool why_not(const char* name, const ConvProblem& p, char* text) {
  text[0] = 0;
  if (p.dtype == DType::kFloat64)
    snprintf(text, kTextCapacity, "%s computes in float32, got %s", name, name_of(p.dtype));
  else if (p.filter[0] != 1 || p.filter[1] != 3 || p.filter[2] != 3)
    snprintf(text, kTextCapacity, "%s needs a filter of 3 x 3, got %lld x %lld x %lld", name,
             static_cast<long long>(p.filter[0]), static_cast<long long>(p.filter[1]),
             static_cast<long long>(p.filter[2]));
  else if (p.stride[0] != 1 || p.stride[1] != 1 || p.stride[2] != 1)
    snprintf(text, kTextCapacity, "%s needs stride 1, got %lld x %lld x %lld", name,
             static_cast<long long>(p.stride[0]), static_cast<long long>(p.stride[1]),
             static_cast<long long>(p.stride[2]));
  else if (p.pad_begin[0] != 0 || p.pad_end[0] != 0)
    snprintf(text, kTextCapacity, "%s pads no depth, got %lld and %lld", name, static_cast<long long>(p.pad_begin[0]),
             static_cast<long long>(p.pad_end[0]));
  else if (p.pass == Pass::kBackwardData && shows_cells(p.padding_mode))
    snprintf(text, kTextCapacity, "%s computes bwd_data of zero and constant padding, got padding mode %s", name,
             name_of(p.padding_mode));
  return text[0] != 0;
}

void estimate(int m, const ConvProblem& p, const Machine& machine, Estimate* e) {
  const Blocking b(m, p);
  const bool filter = p.pass == Pass::kBackwardFilter;
  const int64_t slabs = b.slabs(), batches = p.groups * b.points;
  const int64_t cg = p.c / p.groups, kg = p.k / p.groups;
  add_launches(static_cast<int>(std::min<int64_t>(3 * slabs + 1, 1 << 20)), e);
  Estimate products{};
  ConvProblem computed = p;
  computed.dtype = DType::kFloat32;
  if (filter)
    gemm_estimate(computed, machine, kg, cg, b.slab, batches, b.splits, &products);
  else if (b.results().channels_last)
    gemm_estimate(computed, machine, b.slab, b.results().group_channels(), b.cells().group_channels(), batches, 1,
                  &products);
  else
    gemm_estimate(computed, machine, b.results().group_channels(), b.slab, b.cells().group_channels(), batches, 1,
                  &products);
  e->add("products", products.total() * times(slabs));
  // A slab is written and read once. What of it L2 holds counts half: its speed is taken as twice that of memory.
  const double slab_bytes = times(b.points, sizeof(float), b.slab, p.c + p.k);
  const double held = std::min(1.0, static_cast<double>(machine.l2_bytes) / slab_bytes);
  add_traffic("slabs", 2 * times(slabs) * slab_bytes * (1 - held / 2), machine, e);
  add_traffic("tensors", times(tensor_bytes(p)), machine, e);
  add_traffic("filters", 2 * times(b.splits, b.u.elements(), sizeof(float)), machine, e);
}

constexpr char kNameF2x2[] = "winograd_f2x2_3x3", kNameF4x4[] = "winograd_f4x4_3x3";

template <int m>
int run(const ConvProblem* p, const RunContext* r) {
  const Blocking b(m, *p);
  return p->pass == Pass::kBackwardFilter ? run_filter(b, *r) : run_images(b, *r);
}

template <const char* NAME, int m>
constexpr Algorithm algorithm_of(double error_factor, int exact_on_integers) {
  return {NAME,
          error_factor,
          exact_on_integers,
          SameBits::kOne,
          [](const ConvProblem* p, const Machine*, char* text) { return why_not(NAME, *p, text); },
          [](const ConvProblem* p, const Machine* machine, Estimate* e) { estimate(m, *p, *machine, e); },
          [](const ConvProblem* p, const Machine*, int, bool packed) { return Room(Blocking(m, *p), packed).all(); },
          [](const ConvProblem* p, const Machine*) {
            return p->pass == Pass::kBackwardFilter ? 0 : bytes_of(Blocking(m, *p).u.elements());
          },
          [](const ConvProblem* p, const RunContext* r, void* packed) {
            WinogradFilters u = Blocking(m, *p).u;
            u.at = static_cast<float*>(packed);
            return winograd_filter(m, *p, *r, u);
          },
          run<m>,
          [](const ConvProblem*) { return TakenHalves::kAll; },
          [](const ConvProblem* p, const Machine* machine) { return count_multiplications(*p, *machine, run<m>); }};
}

}  // namespace

// Error factors as on the CPU (csrc/algorithms/winograd_forms.cc).
extern const Algorithm kWinogradF2x23x3, kWinogradF4x43x3;
const Algorithm kWinogradF2x23x3 = algorithm_of<kNameF2x2, 2>(2.5, 1);
const Algorithm kWinogradF4x43x3 = algorithm_of<kNameF4x4, 4>(7.0, 0);

}  // namespace fastconv::cuda
