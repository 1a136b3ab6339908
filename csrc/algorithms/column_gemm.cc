// SPDX-License-Identifier: Apache-2.0
// Forward and backward-data:
//   [M x depth] * [depth x columns] -> [M x columns]
//   M        channels written, per group         (fwd: K/g of y;      bwd_data: C/g of x)
//   depth    (channel read, tap)                 (fwd: C/g of x, RS;  bwd_data: K/g of y, the phase's taps)
//   columns  (image, pixel written of the phase) (fwd has one phase)
//
//   for each strip of columns, some rows and one block of groups (the items that threads share):
//     for each block of depth:                      at most ~512, cut between channels
//       gather the strip's columns into panels      [columns/nr][depth][nr], in L2; rows of pixels of a 1 x 1
//                                                   convolution are moved there by the first tile that reads them
//       for each block of pieces (<= mr rows each, in L2), for each panel (in L1), for each piece: one register tile;
//                                                   for a last panel of very few columns one tile of several pieces
//
// The written channels-first rows of one image are dense, so tiles go straight to them; otherwise they go to a strip
// buffer [rows][columns] that is moved to its pixels at the end. Weights are packed [group][phase][piece][depth][rows].
// Every sum runs over ascending depth in blocks that depend on channels and taps alone.
#include "column_gemm.h"

#include <algorithm>

#include "../counts.h"
#include "../machine.h"
#include "../parallel.h"
#include "../phases.h"
#include "../strip_store.h"
#include "../weight_rows.h"
#include "column_gemm_blocking.h"

namespace fastconv {
namespace {

typedef ColumnBlocking Blocking;

constexpr int64_t kPackedDepth = 32;  // rows of w whose lines stay near while all pieces take their share

int64_t packed_taps(const ConvProblem& p) {
  int64_t sum = 0;
  each_phase(p, [&](const ColumnGrid& grid, int64_t) { sum += grid.taps(); });
  return sum;
}

Blocking blocking_of(const ConvProblem& p, const Machine& m) {
  return p.dtype == DType::kFloat64 ? Blocking(p, m.kernels->gemm->f64) : Blocking(p, m.kernels->gemm->f32);
}

// dst[group][phase][piece][depth][rows of the piece]
template <class T>
void pack_as(const ConvProblem& p, const Machine& m, const Parallel& parallel, const Stored<T>& w, T* dst) {
  const GemmKernelsOf<T>& kernels = gemm_kernels<T>(m);
  const Blocking b(p, kernels);
  // Backward-data of one tap: rows of w lie side by side, so that all pieces of some of them are packed together.
  if (!b.forward && b.all_taps == 1 && b.packed_taps == 1) {
    const int64_t blocks = ceil_div(b.channels, kPackedDepth);
    return parallel_for(parallel, b.groups * blocks, [&](int64_t item, int) {
      const int64_t group = item / blocks * b.rows * b.channels, depth = item % blocks * kPackedDepth;
      const int64_t count = std::min(kPackedDepth, b.channels - depth);
      for (int64_t piece = 0; piece < b.pieces; ++piece) {
        const int64_t begin = b.piece_begin(piece), rows = b.piece_begin(piece + 1) - begin;
        w.gather_row(kernels, rows, 0, rows, group + depth * b.rows + begin, 1, b.rows,
                     dst + group + begin * b.channels + depth * rows, rows, count);
      }
    });
  }
  each_phase(p, [&](const ColumnGrid& grid, int64_t before) {
    parallel_for(parallel, b.groups * b.pieces, [&](int64_t item, int) {
      const int64_t group = item / b.pieces, piece = item % b.pieces;
      const int64_t begin = b.piece_begin(piece), rows = b.piece_begin(piece + 1) - begin;
      pack_weight_rows(p, kernels, grid, w, group * b.rows * b.channels * b.all_taps, b.rows, b.channels, b.all_taps,
                       begin, rows, rows,
                       dst + (group * b.rows * b.packed_taps + before * b.rows + begin * grid.taps()) * b.channels);
    });
  });
}

template <class T>
class Multiplication {
 public:
  Multiplication(const ConvProblem& problem, const RunContext& context, const T* packed_w, char* scratch)
      : p(problem),
        r(context),
        kernels(gemm_kernels<T>(*r.machine)),
        b(p, kernels),
        folds(folds_border(p)),
        store(p, r, kernels),
        weights(packed_w),
        scratch_(scratch),
        read_layout{b.forward ? p.x_layout : p.y_layout, b.forward ? r.x_batch_pitch : r.y_batch_pitch,
                    b.forward ? r.x_channel_pitch : r.y_channel_pitch},
        read(*r.machine, p.dtype, b.forward ? r.x : r.y) {}

  static int64_t slot_bytes(const Blocking& b, int nr, bool residual) {
    return aligned(b.panel_elements(nr) * sizeof(T)) + aligned(b.gather_elements * sizeof(T)) +
           (residual ? 2 : 1) * aligned(b.strip_elements() * sizeof(T));
  }

  void run() const {
    const auto phase = [&](const ColumnGrid& grid, int64_t before) {
      if (grid.adds) return;
      const int64_t columns = grid.columns(), images = b.direct ? p.n : 1;
      const int64_t all_columns = b.direct ? columns : columns * p.n;
      const int64_t strips = ceil_div(all_columns, b.strip_columns), blocks = ceil_div(b.groups, b.group_block);
      parallel_for(r.parallel, images * strips * blocks * b.row_chunks, [&](int64_t item, int slot) {
        const auto [strip, share] = StripAndShare(item, images * strips, blocks * b.row_chunks, all_columns, b.rows);
        Item i = item_of(share % b.row_chunks, b.row_chunks, share / b.row_chunks, before);
        i.column = strip % strips * b.strip_columns;
        i.columns = std::min(b.strip_columns, all_columns - i.column);
        i.column += strip / strips * columns;
        compute(grid, i, slot);
      });
    };
    each_phase(p, phase, r.pad_value);
    if (b.border_images > 0) run_border();
  }

 private:
  struct Item {
    const T* weights;  // of the phase, group 0
    int64_t first_piece, last_piece, group, groups, column, columns;
  };

  Item item_of(int64_t chunk, int64_t chunks, int64_t block, int64_t before) const {
    const int64_t group = block * b.group_block;
    return {weights + before * b.rows * b.channels,
            b.chunk_piece(chunk, chunks),
            b.chunk_piece(chunk + 1, chunks),
            group,
            std::min(b.group_block, b.groups - group),
            0,
            0};
  }

  // An item has all blocks of padding of some images, because their pixels overlap.
  void run_border() const {
    const int64_t blocks = ceil_div(b.groups, b.group_block), shares = blocks * b.border_chunks;
    parallel_for(r.parallel, ceil_div(p.n, b.border_images) * shares, [&](int64_t item, int slot) {
      const int64_t first = item / shares * b.border_images, last = std::min(p.n, first + b.border_images);
      each_phase(p, [&](const ColumnGrid& grid, int64_t before) {
        if (!grid.adds) return;
        Item i = item_of(item % b.border_chunks, b.border_chunks, item / b.border_chunks % blocks, before);
        for (i.column = first * grid.columns(); i.column < last * grid.columns(); i.column += i.columns) {
          i.columns = std::min(b.strip_columns, last * grid.columns() - i.column);
          compute(grid, i, slot);
        }
      });
    });
  }

  void compute(const ColumnGrid& grid, const Item& i, int slot) const {
    char* mine = scratch_ + slot * slot_bytes(b, kernels.nr, r.residual != nullptr);
    T* panels = reinterpret_cast<T*>(mine);
    mine += aligned(b.panel_elements(kernels.nr) * sizeof(T));
    T* scratch = reinterpret_cast<T*>(mine);
    mine += aligned(b.gather_elements * sizeof(T));
    T* strip = reinterpret_cast<T*>(mine);
    T* residual_strip = reinterpret_cast<T*>(mine + aligned(b.strip_elements() * sizeof(T)));
    const int64_t first_row = b.piece_begin(i.first_piece), last_row = b.piece_begin(i.last_piece);
    const int64_t tap_count = grid.taps(), depth = b.channels * tap_count;
    const bool direct = b.direct && !grid.adds;
    // Pixels that lie side by side, of one image.
    const bool moves =
        direct && tap_count == 1 && grid.reads_as_written() && !folds && read_layout.layout == Layout::kChannelsFirst;
    // Few columns that are left over go to the panels before, one to each.
    const int64_t panel_count = i.columns / kernels.nr, rest = i.columns % kernels.nr;
    const int64_t wide = moves && kernels.widest > kernels.nr && rest <= panel_count ? rest : 0;
    const int64_t gathered_from = moves ? panel_count * kernels.nr + wide : 0;
    const int64_t image = i.column / grid.columns(), pixel = i.column % grid.columns();

    // Groups of a block are gathered together, then computed one by one: a block of depth spans all their channels.
    for (int64_t channel = 0; channel < b.channels; channel += b.channel_block) {
      const int64_t channels = std::min(b.channel_block, b.channels - channel);
      const int64_t gathered = i.groups > 1 ? i.groups * b.channels : channels;
      {
        const PhaseScope gathering(r.phases, Phase::kInput);
        if (gathered_from < i.columns)
          pack_columns(kernels, grid, read_layout, read, i.column + gathered_from, i.columns - gathered_from,
                       i.group * b.channels + channel, gathered, panels + gathered_from * gathered * tap_count,
                       scratch);
        if (folds)
          fold_border(p, read_layout, read.at(0), i.column, i.columns, i.group * b.channels + channel, gathered,
                      kernels.nr, panels);
      }
      for (int64_t g = 0; g < i.groups; ++g) {
        const int64_t channel0 = (i.group + g) * b.rows + first_row;
        T* c = direct ? store.row(i.column, channel0) : strip;
        const int64_t ldc = direct ? store.row_pitch() : b.strip_columns;
        const T* a = i.weights + (i.group + g) * b.rows * b.channels * b.packed_taps;
        const T* source = read.at(image * read_layout.batch_pitch + pixel +
                                  ((i.group + g) * b.channels + channel) * read_layout.channel_pitch);
        const bool last = channel + channels == b.channels;
        // Enough pieces to fill a share of L2, then every panel (in L1) against all of them.
        const int64_t block = std::max<int64_t>(1, kRowElements / (channels * tap_count * kernels.mr + 1));
        TileSums<T> out[kMostPieces];
        const T* factor[kMostPieces];
        // Where the rows begin that are moved after this depth block's: of the next one, or of the next strip.
        const T* following = last ? source + i.columns - channel * read_layout.channel_pitch
                                  : source + channels * read_layout.channel_pitch;
        for (int64_t from = i.first_piece; from < i.last_piece; from += block) {
          const PhaseScope multiplying(r.phases, Phase::kProducts);
          for (int64_t j = 0, columns; j < i.columns; j += columns) {
            const int64_t width = j < wide * kernels.widest ? kernels.widest : kernels.nr;
            columns = std::min(width, i.columns - j);
            T* panel = panels + (j * gathered + g * b.channels * width) * tap_count;
            const int64_t until = std::min(from + block, i.last_piece);
            const int64_t together = columns <= kernels.few_columns ? kernels.few_pieces : 1;
            // Each tile asks for its share of the rows of the next panel.
            const bool asks = moves && from == i.first_piece;
            const int64_t asked = asks ? ceil_div(channels, until - from) : 0;
            const int64_t x_pitch = asks ? read_layout.channel_pitch : 0;
            const T* next_x = !asks ? panel : j + width < gathered_from ? source + j + width : following;
            for (int64_t piece = from; piece < until; piece += together) {
              bool ends = false;
              const int64_t count = std::min(together, until - piece);
              for (int64_t k = 0; k < count; ++k) {
                const int64_t begin = b.piece_begin(piece + k), rows = b.piece_begin(piece + k + 1) - begin;
                factor[k] = a + begin * depth + channel * tap_count * rows;
                T* to = c + (begin - first_row) * ldc + j;
                const bool ends_panel = piece + k + 1 == until;
                out[k] = {to,
                          rows,
                          columns,
                          ldc,
                          channel > 0,
                          factor[k] + rows * depth,
                          ends_panel ? c + (b.piece_begin(from) - first_row) * ldc + j + width : to + rows * ldc,
                          next_x + (piece + k - from) * asked * x_pitch,
                          x_pitch,
                          asked * (kernels.nr / kernels.lanes)};
                ends = last && direct && store.end_in_tile(channel0 + begin - first_row, &out[k]);
              }
              if (together > 1)
                kernels.few_tile(static_cast<int>(count), channels * tap_count, factor, panel, out);
              else if (j < gathered_from && piece == i.first_piece)
                kernels.moving_tile(channels, factor[0], source + j, read_layout.channel_pitch, panel, out);
              else
                kernels.tile(channels * tap_count, factor[0], panel, out);
              for (int64_t k = 0; last && direct && !ends && k < count; ++k)
                store.finish_in_place(out[k].rows, columns, out[k].c, channel0 + b.piece_begin(piece + k) - first_row);
            }
          }
        }
        const PhaseScope storing(r.phases, Phase::kOutput);
        if (last && !direct)
          store.move(grid, i.column, i.columns, channel0, last_row - first_row, strip, b.strip_columns, residual_strip);
      }
    }
  }

  const ConvProblem& p;
  const RunContext& r;
  const GemmKernelsOf<T>& kernels;
  const Blocking b;
  const bool folds;
  const StripStore<T> store;
  const T* weights;
  char* scratch_;
  const ImageLayout read_layout;
  const Stored<T> read;
};

template <class T>
void run_as(const ConvProblem& p, const RunContext& r) {
  char* workspace = static_cast<char*>(r.workspace);
  const T* packed = static_cast<const T*>(r.packed_w);
  if (!packed) {
    const PhaseScope packing(r.phases, Phase::kWeights);
    pack_as(p, *r.machine, r.parallel, Stored<T>(*r.machine, r.w_dtype, r.w), reinterpret_cast<T*>(workspace));
    packed = reinterpret_cast<const T*>(workspace);
    workspace += aligned(column_gemm_packed_bytes(p));
  }
  Multiplication<T>(p, r, packed, workspace).run();
}

}  // namespace

int64_t column_gemm_packed_bytes(const ConvProblem& p) {
  constexpr int64_t kVectorBehind = 64;  // few_tile reads it
  return p.k * (p.c / p.groups) * packed_taps(p) * computed_size(p.dtype) + kVectorBehind;
}

int64_t column_gemm_workspace(const ConvProblem& p, const Machine& m, int slots, bool packed) {
  const Blocking b = blocking_of(p, m);
  const bool residual = p.epilogue & kEpilogueResidual;
  const int64_t slot = p.dtype == DType::kFloat64
                           ? Multiplication<double>::slot_bytes(b, m.kernels->gemm->f64.nr, residual)
                           : Multiplication<float>::slot_bytes(b, m.kernels->gemm->f32.nr, residual);
  return slots * slot + (packed ? 0 : aligned(column_gemm_packed_bytes(p)));
}

void column_gemm_pack(const ConvProblem& p, const Machine& m, const Parallel& parallel, const void* w, void* packed) {
  if (p.dtype == DType::kFloat64)
    pack_as(p, m, parallel, Stored<double>(m, p.dtype, w), static_cast<double*>(packed));
  else
    pack_as(p, m, parallel, Stored<float>(m, p.dtype, w), static_cast<float*>(packed));
}

namespace {
template <class T>
void estimate_as(const ConvProblem& p, const Machine& m, Estimate* e) {
  const GemmKernelsOf<T>& kernels = gemm_kernels<T>(m);
  const Blocking b(p, kernels);
  const double peak = sizeof(T) == 8 ? m.flops_f64 : m.flops_f32;
  // A narrow last panel takes fewer vectors, with more loads for its multiply-adds: in the end, one load a cycle.
  const auto cycles = [&](int64_t vectors) {
    const double rows = kernels.mr, v = static_cast<double>(vectors);
    return vectors ? std::max(0.5 * rows * v + 0.3 * (rows + v), rows + v) : 0.0;
  };
  const double full = cycles(kernels.nr / kernels.lanes), strip = static_cast<double>(b.strip_columns);
  const int64_t narrow = b.strip_columns % kernels.nr;
  const bool wide =
      b.all_taps == 1 && b.direct && narrow <= b.strip_columns / kernels.nr * (kernels.widest - kernels.nr);
  const double few = static_cast<double>(narrow) * (wide ? 0.6 : 0.4) + (wide || !narrow ? 0.0 : 1.5);
  const double narrow_cycles = narrow <= kernels.few_columns ? few : cycles(ceil_div(narrow, int64_t{kernels.lanes}));
  const double panels = static_cast<double>(b.strip_columns / kernels.nr) + narrow_cycles / full;
  const double lanes = strip / kernels.nr / panels;
  const bool reads_last = (b.forward ? p.x_layout : p.y_layout) == Layout::kChannelsLast;
  const bool writes_last = (b.forward ? p.y_layout : p.x_layout) == Layout::kChannelsLast;
  // Transpositions are those of whole vectors.
  const auto whole = [&](int64_t channels) { return ceil_div(channels, int64_t{kernels.lanes}) * kernels.lanes; };
  const int64_t together = b.group_block * b.channel_block;
  const double turned = times(whole(together)) / times(together);
  e->add("start", 2e-6);
  e->add("products", 2.0 * times(multiply_adds(p)) / (peak * lanes));
  // Packed weights are asked for by the tiles before, gemm_tile.cc.
  e->add(b.forward ? "weights" : "packing",
         (b.forward ? 0.02e-9 : 0.2e-9) * times(column_gemm_packed_bytes(p)) / sizeof(T));
  each_phase(p, [&](const ColumnGrid& grid, int64_t) {
    if (grid.adds) return;
    const int64_t columns = b.direct ? grid.columns() : grid.columns() * p.n, images = b.direct ? p.n : 1;
    const int64_t length = std::min(b.strip_columns, columns), taps = grid.taps();
    const int64_t depth_blocks = ceil_div(b.channels, b.channel_block),
                  panel_count = ceil_div(length, int64_t{kernels.nr});
    const double strips = times(images, ceil_div(columns, b.strip_columns)),
                 read = strips * times(b.row_chunks, p.groups, b.channels);
    e->add("items", strips * times(b.row_chunks, ceil_div(b.groups, b.group_block), depth_blocks) * 0.3e-6);
    e->add("tiles", strips * times(b.groups, depth_blocks, panel_count, b.pieces) * 20e-9);
    if (taps == 0) return;
    if (b.all_taps == 1)
      return e->add(reads_last ? "columns turned" : "columns",
                    read * times(length) * (reads_last ? turned : 1) * 0.2e-9);
    if (grid.is_cut_in_patches()) return e->add("patches", read * times(length, taps) * 0.3e-9);
    const HaloCounts halo(grid, length, Strides::kTakenApart);
    e->add("halo lines", read * halo.lines * 3e-9);
    e->add(reads_last ? "halo turned" : "halo", read * halo.elements * (reads_last ? turned : 1) * 0.2e-9);
    // A row of a panel is put together from the runs of a row of the grid.
    const double runs = 1 + times(kernels.nr) / times(std::max<int64_t>(1, grid.axis[2].columns));
    e->add("rows of panels", read * times(taps, panel_count) * (0.35 + runs) * 3e-9);
  });
  const double written =
      times(p.n, b.forward ? y_plane(p) : x_plane(p), writes_last ? whole(b.rows) : b.rows, b.groups);
  const bool strided = !b.forward && p.stride[0] * p.stride[1] * p.stride[2] > 1;
  e->add(writes_last ? "moved to pixels"
         : b.direct  ? "stored"
         : strided   ? "moved apart"
                     : "moved",
         written * (writes_last ? 0.6e-9 : 0.15e-9));
  if (b.forward || !shows_cells(p.padding_mode)) return;
  // Added into the columns one by one, or multiplied in narrow panels and added to the pixels.
  const double terms = border_terms(p) * static_cast<double>(p.n * p.k);
  e->add("border", b.border_images == 0 ? terms * static_cast<double>(b.row_chunks) * 0.7e-9
                                        : terms * (4.0 * static_cast<double>(b.rows) / peak + 0.5e-9) + 5e-6);
}
}  // namespace

void column_gemm_estimate(const ConvProblem& p, const Machine& m, Estimate* e) {
  p.dtype == DType::kFloat64 ? estimate_as<double>(p, m, e) : estimate_as<float>(p, m, e);
}

TakenHalves column_gemm_takes_halves(const ConvProblem* p) {
  if (p->pass == Pass::kBackwardFilter) return copies_stay_near(*p) ? TakenHalves::kNone : TakenHalves::kImages;
  const bool adds = p->pass == Pass::kBackwardData && shows_cells(p->padding_mode);
  return adds || copies_stay_near(*p) ? TakenHalves::kWeights : TakenHalves::kAll;
}

int64_t column_gemm_multiplications(const ConvProblem& p) { return gathered_products(p, !folds_border(p)); }

void column_gemm_run(const ConvProblem& p, const RunContext& r) {
  if (p.dtype == DType::kFloat64)
    run_as<double>(p, r);
  else
    run_as<float>(p, r);
}

}  // namespace fastconv
