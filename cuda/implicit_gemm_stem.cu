// SPDX-License-Identifier: Apache-2.0
// implicit_gemm of few channels, forward (implicit_stem.h). A block has a tile of outputs and up to 64 filters:
//   the halo of all channels into shared memory, plane by plane, and the places of (channel, tap) in it
//   each warp, of 32 outputs and 32 or 64 filters: for each 16 of (channel, tap), 4 of each pixel from their places, and
//   the filters' from memory, where they are packed in the order of fragments and stay in L1 (all blocks read the same)
#include "implicit_stem.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kDown = 2, kRows = kDown * 16, kPackThreads = 256;
constexpr int64_t kMostFilters = 64;  // of a block

struct Stem {
  Tile tile;
  int32_t depth, steps, filters, across;                 // filters: of a block
  int32_t row_blocks, filter_blocks, all_blocks, units;  // of across * 8 filters: of a block, and in all
  int32_t places_at;
  Divisor by_filter_parts;
  Divisor32 by_row_blocks, by_tap_rows;
};

template <class A, int across>
__global__ void __launch_bounds__(kTileThreads, A::kPromotes ? 3 : 4)
    stem_images(Conv<typename A::T> c, Stem f, const typename A::T* packed) {
  typedef typename A::T T;
  auto& s = shared<TensorMemory>();
  const Tile& g = f.tile;
  T* cells = s.template at<T>(0);
  auto* places = s.template at<int32_t>(f.places_at);
  auto* stage = s.template at<float>(g.stage_at);
  TilePlace place;
  int64_t filter_part;
  const int64_t n = f.by_filter_parts.divide(tile_place(g, blockIdx.x, &place), &filter_part);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  const int first_filter = static_cast<int>(filter_part) * f.filters;
  for (int j = thread; j < kTilePlanes; j += kTileThreads) {
    s.channel[j] = first_filter + j;
    s.dest[j] = first_filter + j < c.p.k ? n * c.ys.batch + (first_filter + j) * c.ys.channel : -1;
    s.source[j] = n * c.xs.batch + j * c.xs.channel;
  }
  sync();
  load_box(g.source, cells, c.x, c.xs.pixel, place.source, s.source, 0);
  copy_async_commit();
  for (int k = thread; k < f.steps * kTensorStep; k += kTileThreads)
    places[k] = k < f.depth ? stem_place(g, f.by_tap_rows, k) : -1;
  copy_async_wait<0>();
  sync();

  const int outputs = g.items.total;
#pragma unroll 1
  for (int unit = thread / kWarp; unit < f.units; unit += kTensorWarps) {
    int row_block;
    const int filter_block = f.by_row_blocks.divide(unit, &row_block);
    int base[kDown][2];
#pragma unroll
    for (int i = 0; i < kDown * 2; ++i) {
      const int at = row_block * kRows + lane / 4 + i * 8;
      const Parts parts = parts_of(g.items, at < outputs ? at : 0);
      base[i / 2][i % 2] = parts.at[2] * g.axis[0].stride * g.source.pitch[0] +
                           parts.at[1] * g.axis[1].stride * g.source.pitch[1] + parts.at[0] * g.axis[2].stride;
    }
    const int64_t block = filter_part * f.filter_blocks + filter_block;
    const T* filters = packed + (block * f.steps * across * 8 * kQuad + lane) * kQuad;
    TensorSums<kDown, across> sums = {};
#pragma unroll 1
    for (int step = 0; step < f.steps; ++step, filters += across * 8 * kTensorStep) {
      Vector<uint32_t, sizeof(T)> pixels[kDown][2], columns[across];
#pragma unroll
      for (int j = 0; j < across; ++j) columns[j] = load_quad(filters + j * 8 * kTensorStep);
      const auto quad = load<kQuad>(places + step * kTensorStep + lane % 4 * kQuad);
#pragma unroll
      for (int i = 0; i < kDown * 2; ++i) {
        int at[kQuad];
#pragma unroll
        for (int e = 0; e < kQuad; ++e) at[e] = quad.at[e] < 0 ? -1 : base[i / 2][i % 2] + quad.at[e];
        pixels[i / 2][i % 2] = gather_quad(cells, at);
      }
      if constexpr (A::kPromotes) {
        TensorSums<kDown, across> more = {};
        multiply_quads<A, kDown, across>(pixels, columns, more);
        add_sums<kDown, across>(sums, more);
      } else {
        multiply_quads<A, kDown, across>(pixels, columns, sums);
      }
    }
    const int filter = filter_block * across * 8;
    put_stage<kDown, across>(g.dest, stage, outputs, row_block * kRows, filter, f.filters - filter, sums);
  }
  sync();
  store_tile(g, c, place, s, stage);
}

// One element of [block of filters][step][filter][16 of (channel, tap)] to a thread.
template <class Word>
__global__ void __launch_bounds__(kPackThreads)
    pack_stem_filters(const Word* w, Word* packed, int64_t elements, int64_t filters, int depth, int width,
                      Divisor by_steps) {
  for (int64_t i = int64_t{blockIdx.x} * kPackThreads + threadIdx.x; i < elements;
       i += int64_t{gridDim.x} * kPackThreads) {
    const int64_t in_all = i / kTensorStep;
    int64_t step;
    const int64_t block = by_steps.divide(in_all / width, &step);
    const int64_t filter = block * width + in_all % width, k = step * kTensorStep + i % kTensorStep;
    packed[i] = filter < filters && k < depth ? w[filter * depth + k] : Word(0);
  }
}

// Of a block of filters, what a warp takes: 64 of halves; floats have twice the registers.
void set_filters(const ConvProblem& p, Stem* f) {
  f->depth = narrow_int(p.c * taps(p)), f->steps = narrow_int(divide_up(f->depth, kTensorStep));
  f->across = is_half(p.dtype) && p.k > 32 ? 8 : 4;
  f->filters = narrow_int(std::min(p.k, kMostFilters));
  f->filter_blocks = narrow_int(divide_up(f->filters, f->across * 8));
  f->all_blocks = narrow_int(divide_up(p.k, f->filters)) * f->filter_blocks;
}

bool plan(const ConvProblem& p, Stem* f, double* bytes = nullptr, double* products = nullptr) {
  Tile& g = f->tile;
  g = Tile{};
  const int64_t element = element_size(p.dtype), piece = 16 / element;
  set_axes(p, &g);
  set_filters(p, f);
  g.dest.planes = f->filters;
  const bool last = p.y_layout == Layout::kChannelsLast && p.x_layout == Layout::kChannelsLast;
  const TileLengths ws(std::max(1, g.axis[2].dest), last ? 1 : piece, 512), hs(std::max(1, g.axis[1].dest), 1, 64),
      ds(std::max(1, g.axis[0].dest), 1, 8);
  Stem best{};
  double least = 0;
  for (int d = 0; d < ds.count; ++d)
    for (int h = 0; h < hs.count; ++h)
      for (int w = 0; w < ws.count; ++w) {
        g.axis[0].tile = ds.at[d], g.axis[1].tile = hs.at[h], g.axis[2].tile = ws.at[w];
        const int64_t outputs = int64_t{ds.at[d]} * hs.at[h] * ws.at[w];
        const int64_t cell_bytes = lay_out_cells(p, element, &g);
        for (int i = 0; i < kMaxSpatial; ++i) g.dest.count[i] = g.axis[i].tile;
        const int64_t stage_bytes = lay_out_stage(&g.dest, outputs), place_bytes = int64_t{f->steps} * kTensorStep * 4;
        if (cell_bytes + place_bytes + stage_bytes > kTensorArena) continue;
        f->places_at = narrow_int(round_up(cell_bytes, 16));
        g.stage_at = f->places_at + narrow_int(place_bytes);
        if (g.stage_at + stage_bytes > kTensorArena) continue;
        f->row_blocks = narrow_int(divide_up(outputs, kRows)), f->units = f->row_blocks * f->filter_blocks;
        set_tiles(p, &g);
        g.blocks *= divide_up(p.k, f->filters);
        const double moved = static_cast<double>(cell_bytes) + times(outputs, f->filters, element);
        const double multiplied = times(round_up(f->units, kTensorWarps), kRows, f->across * 8, f->steps, kTensorStep);
        const double cost = (kBlockOverhead + moved + multiplied / (element == 2 ? 60 : 15)) *
                            std::max(static_cast<double>(g.blocks), kBlocksAtOnce);
        if (least == 0 || cost < least) {
          least = cost, best = *f;
          if (bytes)
            *bytes = moved * static_cast<double>(g.blocks), *products = multiplied * static_cast<double>(g.blocks);
        }
      }
  if (least == 0) return false;
  *f = best;
  set_stem_divisors(&g);
  f->by_filter_parts = Divisor(divide_up(p.k, f->filters));
  f->by_row_blocks = Divisor32(f->row_blocks), f->by_tap_rows = Divisor32(g.axis[1].taps);
  return true;
}

template <class A>
int launch_stem(const ConvProblem& p, const RunContext& r, const Stem& planned, const void* packed) {
  typedef typename A::T T;
  const Conv<T> c = conv_of<T>(p, r);
  Stem f = planned;
  Tile& g = f.tile;
  set_cell_pieces(c, &g);
  g.dest.piece = piece_of(g.dest, sizeof(T), c.y, c.ys, p.k, 0, g.axis[2].tile);
  if (g.dest.piece != 16 / static_cast<int32_t>(sizeof(T))) g.dest.piece = 1;
  g.dest.order = order_of(g.dest);
  starts(r, Phase::kProducts,
         times(g.blocks, f.units, kRows, f.across * 8) * times(f.steps, kTensorStep, A::kProducts));
  const auto go = [&](void (*kernel)(Conv<T>, Stem, const T*)) {
    return launch(r, kernel, Grid{g.blocks}, kTileThreads, sizeof(TensorMemory), c, f, static_cast<const T*>(packed));
  };
  if constexpr (sizeof(T) == 2) {
    if (f.across == 8) return go(stem_images<A, 8>);
  }
  return go(stem_images<A, 4>);
}

template <class Word>
int pack_words(const ConvProblem& p, const RunContext& r, void* packed) {
  Stem f{};
  set_filters(p, &f);
  const int64_t elements = stem_packed_elements(p);
  return launch(r, pack_stem_filters<Word>, Grid{std::min(divide_up(elements, kPackThreads), kMostBlocksX)},
                kPackThreads, 0, static_cast<const Word*>(r.w), static_cast<Word*>(packed), elements, p.k, f.depth,
                f.across * 8, Divisor(f.steps));
}

}  // namespace

bool is_stem(const ConvProblem& p) {
  if (p.groups != 1 || p.c > kStemChannels || p.pass == Pass::kBackwardData) return false;
  for (int i = 0; i < kMaxSpatial; ++i)
    if (p.stride[i] >= 1 << 15) return false;
  if (p.c * taps(p) > 2048 || p.k >= kLongestAxis) return false;  // places fit a quarter of shared memory
  Stem f{};
  return p.pass == Pass::kForward ? plan(p, &f) : plan_stem_filter(p);
}

void stem_work(const ConvProblem& p, double* bytes, double* products) {
  Stem f{};
  *bytes = *products = 0;
  if (p.n == 0 || y_plane(p) == 0) return;
  if (p.pass == Pass::kForward)
    plan(p, &f, bytes, products);
  else
    plan_stem_filter(p, bytes, products);
}

int64_t stem_packed_elements(const ConvProblem& p) {
  if (p.pass != Pass::kForward) return 0;
  Stem f{};
  set_filters(p, &f);
  return int64_t{f.all_blocks} * f.steps * f.across * 8 * kTensorStep;
}
int64_t stem_scratch(const ConvProblem& p) { return p.pass == Pass::kForward ? 0 : stem_filter_scratch(p); }

int pack_stem(const ConvProblem& p, const RunContext& r, void* packed) {
  return is_half(p.dtype) ? pack_words<uint16_t>(p, r, packed) : pack_words<uint32_t>(p, r, packed);
}

int run_stem(const ConvProblem& p, const RunContext& r, const void* packed, bool one_product) {
  if (p.n == 0 || y_plane(p) == 0) return 0;
  Stem f{};
  plan(p, &f);
  return by_arithmetic(p.dtype, one_product, [&](auto kind) { return launch_stem<decltype(kind)>(p, r, f, packed); });
}

}  // namespace fastconv::cuda
