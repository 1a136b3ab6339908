// SPDX-License-Identifier: Apache-2.0
// implicit_gemm of few channels, backward-filter (implicit_stem.h): rows are (channel, tap), columns filters, the depth
// the outputs. A block has up to 64 filters and every parts-th tile of all images, whose cells of x it puts into shared
// memory plane by plane, and those of y pixel by pixel.
//   each warp, of 48 rows and 32 or 64 filters: over the outputs of the tile, 16 at a time; where there are fewer such
//   rows than warps, several warps share the outputs by turns, and are added in order
// The blocks' sums are added by partial_sums.cu.
#include "implicit_stem.cuh"
#include "partial_sums.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kDown = 3, kRows = kDown * 16, kEight = 8;
constexpr int64_t kMostOutputs = 512;  // of a tile
// Partial sums are as large as y is for a few images: fewer blocks than elsewhere.
constexpr int64_t kStemBlocks = 3 * 132;

struct FilterStem {
  Tile tile;
  int64_t parts, works, filter_parts, chunks;
  int32_t depth, filters, across;  // rows in all; filters: across * 8, of a block
  int32_t all_units, units, slices, steps;
  int32_t zeros_at, places_at;
  Divisor by_chunks, by_filter_parts;
  Divisor32 by_units, by_tap_rows;
};

// sums += the products of 16 outputs. `rows`: where each of the thread's rows lies from an output's first cell.
template <class A, int across>
__device__ __forceinline__ void multiply_outputs(const typename A::T* x, const typename A::T* y,
                                                 const typename A::T* zeros, const int32_t* places, int y_step,
                                                 const int (&rows)[kDown][2], TensorSums<kDown, across>& sums) {
  typedef typename A::T T;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, q = lane % 4;
  // Which outputs a thread holds: halves 4 neighbours, floats every fourth, so that those of y lie in different banks.
  int mine[kQuad];
#pragma unroll
  for (int e = 0; e < kQuad; ++e) mine[e] = places[sizeof(T) == 2 ? q * kQuad + e : q + e * 4];
  Vector<uint32_t, sizeof(T)> cells[kDown][2];
#pragma unroll
  for (int i = 0; i < kDown * 2; ++i) {
    int at[kQuad];
#pragma unroll
    for (int e = 0; e < kQuad; ++e) at[e] = mine[e] < 0 ? -1 : mine[e] + rows[i / 2][i % 2];
    cells[i / 2][i % 2] = gather_quad(x, at);
  }
  if constexpr (sizeof(T) == 2) {
    uint32_t a[kDown][4], b[across / 2][4];
    const int row = lane % 8, output = row / 2 * kQuad + row % 2 + lane / 8 % 2 * 2;
    const bool there = places[output] >= 0;
    const T* from = y + output * y_step + lane / 16 * kEight;
#pragma unroll
    for (int j = 0; j < across / 2; ++j) load_matrices_transposed(b[j], there ? from + j * 2 * kEight : zeros);
#pragma unroll
    for (int i = 0; i < kDown; ++i)
#pragma unroll
      for (int k = 0; k < 4; ++k) a[i][k] = cells[i][k % 2].at[k / 2];
    A::template multiply<kDown, across>(a, b, sums);
  } else {
    Vector<uint32_t, sizeof(T)> columns[across];
#pragma unroll
    for (int j = 0; j < across; ++j) {
      int at[kQuad];
#pragma unroll
      for (int e = 0; e < kQuad; ++e) at[e] = mine[e] < 0 ? -1 : (q + e * 4) * y_step + j * kEight + lane / 4;
      columns[j] = gather_quad(y, at);
    }
    multiply_quads<A, kDown, across>(cells, columns, sums);
  }
}

template <class A, int across>
__global__ void __launch_bounds__(kTileThreads, sizeof(typename A::T) == 4 ? 2 : 3)
    stem_filter(Conv<typename A::T> c, FilterStem f, float* parts) {
  typedef typename A::T T;
  auto& s = shared<TensorMemory>();
  const Tile& g = f.tile;
  T* x = s.template at<T>(0);
  T* y = s.template at<T>(g.stage_at);
  T* zeros = s.template at<T>(f.zeros_at);
  auto* places = s.template at<int32_t>(f.places_at);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  int64_t chunk, filter_part;
  const int64_t part = f.by_filter_parts.divide(f.by_chunks.divide(blockIdx.x, &chunk), &filter_part);
  const int64_t first_filter = filter_part * f.filters;
  int unit;
  const int slice = f.by_units.divide(thread / kWarp, &unit);
  unit += static_cast<int>(chunk) * f.units;
  const bool busy = slice < f.slices && unit < f.all_units;
  const int first_row = (busy ? unit : 0) * kRows + lane / 4;
  int rows[kDown][2];
#pragma unroll
  for (int i = 0; i < kDown * 2; ++i)
    rows[i / 2][i % 2] = stem_place(g, f.by_tap_rows, min_of(first_row + i * 8, f.depth - 1));
  if (thread < kEight) zeros[thread] = T{};
  TensorSums<kDown, across> sums = {};
#pragma unroll 1
  for (int64_t work = part; work < f.works; work += f.parts) {
    TilePlace place;
    const int64_t n = tile_place(g, work, &place);
    sync();
    for (int j = thread; j < kTilePlanes; j += kTileThreads) {
      s.source[j] = n * c.xs.batch + j * c.xs.channel;
      s.dest[j] = first_filter + j < c.p.k ? n * c.ys.batch + (first_filter + j) * c.ys.channel : -1;
    }
    list_places(g, place, f.steps, places);
    load_boxes(g, c, place, s, x, y);
    if (!busy) continue;
#pragma unroll 1
    for (int step = slice; step < f.steps; step += f.slices) {
      const T* from = y + step * kTensorStep * g.dest.pitch[2];
      const int32_t* of_step = places + step * kTensorStep;
      if constexpr (A::kPromotes) {
        TensorSums<kDown, across> more = {};
        multiply_outputs<A, across>(x, from, zeros, of_step, g.dest.pitch[2], rows, more);
        add_sums<kDown, across>(sums, more);
      } else {
        multiply_outputs<A, across>(x, from, zeros, of_step, g.dest.pitch[2], rows, sums);
      }
    }
  }
  if (f.slices > 1) add_slices<kDown, across>(s.template at<float>(0), f.units, f.slices, slice, sums);
  if (slice > 0 || !busy) return;
#pragma unroll
  for (int i = 0; i < kDown * 2; ++i) {
    const int row = first_row + i * 8;
    if (row >= f.depth) continue;
#pragma unroll
    for (int j = 0; j < across * 2; ++j) {
      const int64_t filter = first_filter + j / 2 * kEight + lane % 4 * 2 + j % 2;
      if (filter < c.p.k) parts[(part * c.p.k + filter) * f.depth + row] = sums[i / 2][j / 2][i % 2 * 2 + j % 2];
    }
  }
}

bool plan(const ConvProblem& p, FilterStem* f, double* bytes, double* products) {
  Tile& g = f->tile;
  g = Tile{};
  const int64_t element = element_size(p.dtype);
  set_axes(p, &g);
  f->depth = narrow_int(p.c * taps(p)), f->across = is_half(p.dtype) && p.k > 32 ? 8 : 4;
  f->filters = f->across * kEight, f->filter_parts = divide_up(p.k, f->filters);
  f->all_units = narrow_int(divide_up(f->depth, kRows));
  f->chunks = divide_up(f->all_units, kTensorWarps), f->units = narrow_int(divide_up(f->all_units, f->chunks));
  f->slices = kTensorWarps / f->units;
  const int64_t y_pitch = odd_pitch(f->filters, kEight);
  const TileLengths ws(std::max(1, g.axis[2].dest), 1, 512), hs(std::max(1, g.axis[1].dest), 1, 256),
      ds(std::max(1, g.axis[0].dest), 1, 8);
  Tile best{};
  double least = 0;
  for (int d = 0; d < ds.count; ++d)
    for (int h = 0; h < hs.count; ++h)
      for (int w = 0; w < ws.count; ++w) {
        g.axis[0].tile = ds.at[d], g.axis[1].tile = hs.at[h], g.axis[2].tile = ws.at[w];
        const int64_t outputs = int64_t{ds.at[d]} * hs.at[h] * ws.at[w];
        if (outputs > kMostOutputs) continue;
        for (int i = 0; i < kMaxSpatial; ++i) g.dest.count[i] = g.axis[i].tile;
        set_tiles(p, &g);
        const int64_t x_bytes = round_up(lay_out_cells(p, element, &g), 16);
        const int64_t y_bytes = round_up(outputs * y_pitch * element, 16), steps = divide_up(outputs, kTensorStep);
        if (x_bytes + y_bytes + 32 + steps * kTensorStep * 4 > kTensorArena) continue;
        const double moved = static_cast<double>(x_bytes) + times(outputs, std::min<int64_t>(p.k, f->filters), element);
        const double multiplied = times(kTensorWarps, kRows, f->filters, divide_up(steps, f->slices), kTensorStep);
        const double cost =
            (kBlockOverhead + moved + multiplied / (element == 2 ? 60 : 15)) * static_cast<double>(g.blocks);
        if (least == 0 || cost < least) {
          least = cost, best = g, f->steps = narrow_int(steps);
          best.stage_at = narrow_int(x_bytes);
          f->zeros_at = narrow_int(x_bytes + y_bytes), f->places_at = f->zeros_at + 32;
          if (bytes) {
            const double blocks = static_cast<double>(g.blocks) * times(f->filter_parts, f->chunks);
            *bytes = moved * blocks, *products = multiplied * blocks;
          }
        }
      }
  if (least == 0) return false;
  g = best;
  g.dest.plane = 1, g.dest.planes = f->filters, g.dest.pitch[2] = narrow_int(y_pitch);
  g.dest.pitch[1] = g.dest.count[2] * g.dest.pitch[2], g.dest.pitch[0] = g.dest.count[1] * g.dest.pitch[1];
  f->works = g.blocks;
  f->parts =
      std::clamp<int64_t>(divide_up(kStemBlocks, f->filter_parts * f->chunks), 1, std::max<int64_t>(1, f->works));
  set_stem_divisors(&g);
  f->by_chunks = Divisor(f->chunks), f->by_filter_parts = Divisor(f->filter_parts);
  f->by_units = Divisor32(f->units), f->by_tap_rows = Divisor32(g.axis[1].taps);
  return true;
}

template <class A>
int launch_filter(const ConvProblem& p, const RunContext& r, const FilterStem& planned, void* scratch) {
  typedef typename A::T T;
  const Conv<T> c = conv_of<T>(p, r);
  FilterStem f = planned;
  Tile& g = f.tile;
  set_cell_pieces(c, &g);
  g.dest.piece = g.dest.channels_last ? piece_of(g.dest, sizeof(T), c.y, c.ys, p.k, 0, 0) : 1;
  g.dest.order = order_of(g.dest);
  starts(r, Phase::kProducts,
         times(f.filter_parts, f.all_units, f.works, f.steps) * times(kRows, f.filters, kTensorStep, A::kProducts));
  const auto go = [&](void (*kernel)(Conv<T>, FilterStem, float*)) {
    return launch(r, kernel, Grid{f.filter_parts * f.chunks * f.parts}, kTileThreads, sizeof(TensorMemory), c, f,
                  static_cast<float*>(scratch));
  };
  if constexpr (sizeof(T) == 2) {
    if (f.across == 8) return go(stem_filter<A, 8>);
  }
  return go(stem_filter<A, 4>);
}

bool has_none(const ConvProblem& p) { return p.n == 0 || y_plane(p) == 0; }

}  // namespace

bool plan_stem_filter(const ConvProblem& p, double* bytes, double* products) {
  FilterStem f{};
  return has_none(p) || plan(p, &f, bytes, products);
}

int64_t stem_filter_scratch(const ConvProblem& p) {
  FilterStem f{};
  if (has_none(p)) return 0;
  plan(p, &f, nullptr, nullptr);
  return f.parts * p.k * f.depth * 4;
}

int run_stem_filter(const ConvProblem& p, const RunContext& r, void* scratch, bool one_product) {
  const int64_t weights = p.k * p.c * taps(p);
  if (has_none(p)) return sum_parts(p, r, scratch, 0, weights);
  FilterStem f{};
  plan(p, &f, nullptr, nullptr);
  const int status =
      by_arithmetic(p.dtype, one_product, [&](auto kind) { return launch_filter<decltype(kind)>(p, r, f, scratch); });
  return status ? status : sum_parts(p, r, scratch, f.parts, weights);
}

}  // namespace fastconv::cuda
