// SPDX-License-Identifier: Apache-2.0
// Which tile computes a product, and the second kernel of products that are cut along their depth.
#include <algorithm>

#include "gemm.cuh"
#include "gemm_tile.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kThreads = 256;

// One thread for each element of c.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gemm_sum_of_pieces(Gemm<T> g, Divisor columns, Divisor rows, int64_t elements, int64_t piece) {
  const Output<T>& c = g.c;
  const int64_t pitch = gemm_pitch<T>(g.n);
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < elements; i += int64_t{gridDim.x} * kThreads) {
    int64_t column, row;
    const int64_t line = columns.divide(i, &column), batch = rows.divide(line, &row);
    const Sum<T>* from = g.partial + line * pitch + column;
    Sum<T> sum = from[0];
    for (int64_t split = 1; split < g.splits; ++split) sum += from[split * piece];
    const int64_t at = c.batch * batch + c.rows.at(row) + c.columns.at(column);
    if (c.bias) sum += widen(c.bias[c.bias_batch * batch + (c.bias_of_rows ? row : column)]);
    if (c.residual) sum += widen(c.residual[at]);
    c.data[at] = narrowed<T>(activate(sum, c.activation, c.alpha));
  }
}

bool aligned(const void* data, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(bytes) == 0;
}

template <class T>
bool may_be_wide(const Operand<T>& o, int64_t lines, int64_t depth) {
  constexpr int64_t unit = std::min<int64_t>(16 / sizeof(T), 4);
  if (!aligned(o.data, unit * sizeof(T)) || o.batch % unit || !o.outer.multiple_of(unit)) return false;
  if (o.deep) return o.step == 1 && depth % unit == 0 && o.lines.multiple_of(unit);
  return o.lines.adjacent(unit) && lines % unit == 0 && o.step % unit == 0;
}

template <class T>
bool may_be_wide(const Output<T>& c, int64_t n) {
  constexpr int64_t unit = 16 / sizeof(Sum<T>);
  return aligned(c.data, unit * sizeof(T)) && c.batch % unit == 0 && n % unit == 0 && c.columns.adjacent(unit) &&
         c.rows.multiple_of(unit);
}

template <class Tile, int blocks_at_once, class T>
int launch_tile(const RunContext& context, const Gemm<T>& g) {
  const int64_t of_m = divide_up(g.m, Tile::kM), of_n = divide_up(g.n, Tile::kN);
  GemmLaunch<T> l{};
  l.g = g;
  const int64_t slabs_of_run = divide_up(g.depth, kSlab);
  l.slabs = g.runs * slabs_of_run;
  l.slabs_of_split = divide_up(l.slabs, g.splits);
  l.slabs_of_run = Divisor(std::max<int64_t>(1, slabs_of_run));
  l.rows_fast = of_m <= of_n;
  l.fast_tiles = Divisor(std::min(of_m, of_n)), l.slow_tiles = Divisor(std::max(of_m, of_n));
  l.splits = Divisor(g.splits);
  const int64_t blocks = of_m * of_n * g.splits * g.batches;
  starts(context, Phase::kProducts, times(of_m * Tile::kM, of_n * Tile::kN, g.batches) * times(l.slabs, kSlab));
  for (; l.first_block < blocks; l.first_block += kMostBlocksX) {
    const Grid grid{std::min(blocks - l.first_block, kMostBlocksX)};
    const int status =
        launch(context, gemm_tile<Tile, blocks_at_once>, grid, Tile::kThreads, sizeof(typename Tile::Smem), l);
    if (status != 0) return status;
  }
  return 0;
}

// Whether tiles of 128 x 128 are many enough, and not much emptier than small ones.
bool large_tiles(int64_t m, int64_t n, int64_t products, const Machine& machine) {
  const int64_t of_m = divide_up(m, 128), of_n = divide_up(n, 128);
  if (of_m * of_n * products < machine.multiprocessors) return false;
  return times(of_m * 128, of_n * 128) <= 1.15 * times(round_up(m, 64), round_up(n, 64));
}

// Whether places in a slab of 128 lines fit in 32 bits, by which the large tile saves registers.
template <class T>
bool near_enough(const Operand<T>& o) {
  return times(o.lines.span(128)) + times(kSlab, o.step) < 2147483647.0;
}

}  // namespace

template <class T>
int gemm_add_partials(const RunContext& context, const Gemm<T>& g) {
  const int64_t elements = g.batches * g.m * g.n;
  if (elements == 0) return 0;
  const int64_t piece = g.batches * g.m * gemm_pitch<T>(g.n);
  starts(context, Phase::kSums);
  return launch(context, gemm_sum_of_pieces<T>, Grid{std::min(divide_up(elements, kThreads), kMostBlocksX)}, kThreads,
                0, g, Divisor(g.n), Divisor(g.m), elements, piece);
}

template <class T>
int gemm(const RunContext& context, Gemm<T> g) {
  if (g.m == 0 || g.n == 0 || g.batches == 0) return 0;
  g.a.wide = may_be_wide(g.a, g.m, g.depth), g.b.wide = may_be_wide(g.b, g.n, g.depth);
  g.c.wide = may_be_wide(g.c, g.n);
  int status = 0;
  if (g.m <= 32) {
    status = launch_tile<Tile<T, int64_t, 2, 2, 4, 8>, 3>(context, g);
  } else if (g.n <= 32) {
    status = launch_tile<Tile<T, int64_t, 4, 1, 8, 4>, 3>(context, g);
  } else {
    bool done = false;
    if constexpr (sizeof(T) == 4) {
      if (near_enough(g.a) && near_enough(g.b) && large_tiles(g.m, g.n, g.splits * g.batches, *context.machine)) {
        done = true;
        status = launch_tile<Tile<T, int32_t, 4, 2, 8, 8>, 2>(context, g);
      }
    }
    if (!done) status = launch_tile<Tile<T, int64_t, 2, 2, 8, 4>, 3>(context, g);
  }
  if (status != 0 || !g.partial || g.unfinished) return status;
  return gemm_add_partials(context, g);
}

template int gemm(const RunContext&, Gemm<float>);
template int gemm(const RunContext&, Gemm<double>);
template int gemm(const RunContext&, Gemm<Half>);
template int gemm(const RunContext&, Gemm<BFloat16>);
template int gemm_add_partials(const RunContext&, const Gemm<float>&);
template int gemm_add_partials(const RunContext&, const Gemm<double>&);
template int gemm_add_partials(const RunContext&, const Gemm<Half>&);
template int gemm_add_partials(const RunContext&, const Gemm<BFloat16>&);

// A multiprocessor reaches about 0.75 of its peak with tiles of 128 x 128 and 0.6 with small ones: guesses.
void gemm_estimate(const ConvProblem& p, const Machine& machine, int64_t m, int64_t n, int64_t depth, int64_t batches,
                   int64_t splits, Estimate* e) {
  if (m == 0 || n == 0 || batches == 0) return;
  int64_t tile_m = 64, tile_n = 64;
  double fraction = 0.6;
  int resident = 3;
  if (m <= 32) {
    tile_m = 32, tile_n = 128, fraction = 0.45;
  } else if (n <= 32) {
    tile_m = 128, tile_n = 32, fraction = 0.45;
  } else if (p.dtype == DType::kFloat32 && large_tiles(m, n, splits * batches, machine)) {
    tile_m = tile_n = 128, fraction = 0.75, resident = 2;
  }
  const int64_t of_m = divide_up(m, tile_m), of_n = divide_up(n, tile_n);
  const double sums = times(of_m * tile_m, of_n * tile_n, batches);
  const double busy = occupancy(of_m * of_n * batches * splits, resident, machine);
  e->add("products", sums * times(depth) * 2 / rate(p, machine, fraction) / busy);
  if (splits > 1)
    add_traffic("pieces", times(m, n, batches) * static_cast<double>(2 * splits * computed_size(p.dtype)), machine, e);
}

int64_t gemm_splits(int64_t m, int64_t n, int64_t depth, int64_t batches, int64_t blocks, int64_t shortest) {
  const int64_t tiles = std::max<int64_t>(1, divide_up(m, 64) * divide_up(n, 64) * batches);
  return std::max<int64_t>(1, std::min(divide_up(blocks, tiles), depth / shortest));
}

}  // namespace fastconv::cuda
