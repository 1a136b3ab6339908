// SPDX-License-Identifier: Apache-2.0
//   products[(channel, tap)][pixel of y] = sum over k of w[k][channel][tap] * dy[k][pixel]
//   dx[channel][pixel] = sum over taps of products[(channel, tap)][the pixel of y that the tap reads]
//
// column_gemm.cc has the channels of a group as rows of its register tiles, and gathers each pixel of dy once for every
// tap. Here all taps are rows, so that three channels fill the tiles, each pixel of dy is moved once, and strides,
// which cut the taps into phases, do not show before the sums. The price is a store and a load of every product, which
// stay in L2: some rows of y are multiplied, and the rows of dx that have all their products are put together.
//
//   for each band of rows of dx, segment of the columns, some channels (the items that threads share):
//     for each block of rows of y:
//       for each plane of the filter, block of k, panel of pixels, piece of (channel, tap): one register tile
//       for each row of dx that is complete, each of its phases: one sum of shifted rows
//
// A filter of several planes adds its products into those of one plane of dx. Every product is one chain over ascending
// planes of the filter and k, cut by k alone, and every sum has the order of its taps: nothing depends on the bands.
#include "col2im.h"

#include "../machine.h"
#include "../parallel.h"
#include "../phases.h"
#include "col2im_blocking.h"
#include "col2im_border.h"
#include "col2im_sums.h"

namespace fastconv {
namespace {

typedef Col2imBlocking Blocking;

constexpr int64_t kPackedDepth = 32;  // rows of w whose lines stay near while all pieces take their share

// dst[group][chunk][plane of the filter][piece][k][rows of the piece]
template <class T>
void pack_as(const ConvProblem& p, const Machine& m, const Parallel& parallel, const Stored<T>& w, T* dst) {
  const GemmKernelsOf<T>& kernels = gemm_kernels<T>(m);
  const Blocking b(p, kernels);
  const int64_t of_k = b.channels * b.depths * b.taps;
  parallel_for(parallel, b.groups * b.chunks * b.depths, [&](int64_t item, int) {
    const int64_t plane = item % b.depths, chunk = item / b.depths % b.chunks, group = item / b.depths / b.chunks;
    const int64_t first = b.first_channel(chunk), rows = (b.first_channel(chunk + 1) - first) * b.taps;
    T* to = dst + (group * of_k + first * b.depths * b.taps + plane * rows) * b.depth;
    const int64_t pieces = ceil_div(rows, b.mr);
    for (int64_t k = 0, some_k; k < b.depth; k += some_k) {
      some_k = std::min(kPackedDepth, b.depth - k);
      for (int64_t piece = 0; piece < pieces; ++piece) {
        const int64_t begin = b.piece_begin(piece, pieces, rows), end = b.piece_begin(piece + 1, pieces, rows);
        for (int64_t row = begin, some; row < end; row += some) {
          const int64_t channel = first + row / b.taps, tap = row % b.taps;
          some = b.depths == 1 ? end - row : std::min(end - row, b.taps - tap);
          const int64_t from = (group * b.depth + k) * of_k + (channel * b.depths + plane) * b.taps + tap;
          w.gather_row(kernels, some, 0, some, from, 1, of_k, to + begin * b.depth + k * (end - begin) + row - begin,
                       end - begin, some_k);
        }
      }
    }
  });
}

template <class T>
class Products {
 public:
  Products(const ConvProblem& problem, const RunContext& context, const T* packed_w, char* scratch)
      : p(problem),
        r(context),
        kernels(gemm_kernels<T>(*r.machine)),
        b(p, kernels),
        room(p, b, kernels),
        sums(p, r, b, kernels, scratch),
        weights(packed_w),
        scratch_(scratch + sums.shared_bytes(p)),
        y_grid(identity_grid(p)),
        y_layout{p.y_layout, r.y_batch_pitch, r.y_channel_pitch},
        y(*r.machine, p.dtype, r.y) {}

  // Scratch of a worker.
  struct Room {
    int64_t panel, products, table, sums;
    Room(const ConvProblem& p, const Blocking& b, const GemmKernelsOf<T>& kernels) {
      const int64_t size = sizeof(T);
      panel = aligned((b.depth_block() + 1) * kernels.nr * size);
      products = aligned(b.most_rows() * b.pitch * size);
      table = aligned(b.ring * b.lines * static_cast<int64_t>(sizeof(T*)));
      sums = Col2imSums<T>::bytes(p, b);
    }
    int64_t bytes() const { return panel + products + table + sums; }
  };

  void run() const {
    const int64_t shares = b.segments * b.groups * b.chunks;
    const int64_t slots = r.parallel.slots, all = b.planes * shares;
    // Whole planes, some together where they are small, or, where threads would find unequal shares, parts of one,
    // whose first rows are multiplied twice.
    const int64_t small = std::max<int64_t>(1, 4 * b.nr / std::max<int64_t>(1, b.height * b.width));
    const int64_t together = std::max(small, all / (4 * slots));
    const bool equal = all % slots == 0 || all >= 4 * slots;
    // Threads that would have nothing to do may multiply as many rows twice, others a quarter.
    const int64_t again = (b.window - 1) * (all < slots ? 2 : 4), most = b.height / std::max<int64_t>(1, again);
    const int64_t parts = equal ? 1 : std::clamp(slots, int64_t{1}, std::max<int64_t>(1, most));
    const int64_t bands = parts > 1 ? b.planes * parts : ceil_div(b.planes, together);
    parallel_for(r.parallel, bands * shares, [&](int64_t item, int slot) {
      const int64_t band = item / shares, share = item % shares;
      Item i;
      i.first = parts > 1 ? band / parts * p.size[1] + band % parts * p.size[1] / parts : band * together * p.size[1];
      i.last = parts > 1 ? band / parts * p.size[1] + (band % parts + 1) * p.size[1] / parts
                         : std::min(b.planes, (band + 1) * together) * p.size[1];
      i.group = share % b.groups;
      i.chunk = share / b.groups % b.chunks;
      char* at = scratch_ + slot * room.bytes();
      i.panel = reinterpret_cast<T*>(at);
      i.products = reinterpret_cast<T*>(at += room.panel);
      i.table = reinterpret_cast<const T**>(at += room.products);
      i.columns = sums.columns(share / b.groups / b.chunks, at + room.table);
      compute(&i);
    });
  }

 private:
  struct Item {
    int64_t first, last;  // rows of dx, of all planes end to end
    int64_t group, chunk;
    typename Col2imSums<T>::Columns columns;
    T *panel, *products;
    // The lines of products from `from` to below `until`, rows of y of all planes end to end.
    const T** table;
    int64_t from = 0, until = 0, blocks = 0;
  };

  int64_t first_line(int64_t row) const { return row / p.size[1] * b.height + b.first_read(p, 1, row % p.size[1]); }
  int64_t end_line(int64_t row) const {
    return row / p.size[1] * b.height + b.end_read(p, 1, row % p.size[1], b.height);
  }

  void compute(Item* i) const {
    const int64_t limit = end_line(i->last - 1);
    const auto complete = [&](int64_t row) { return end_line(row) <= i->until || first_line(row) >= end_line(row); };
    for (int64_t row = i->first, next; row < i->last; row = next) {
      while (!complete(row)) {
        const int64_t begin = std::max(i->until, first_line(row));
        int64_t end = std::min(begin + b.lines, limit);
        if (!b.plain) end = std::min(end, (row / p.size[1] + 1) * b.height);
        keep(i, first_line(row), begin);
        multiply(*i, row / p.size[1], begin, end);
        const T* block = i->products + i->blocks++ % b.ring * b.lines * b.line;
        for (; i->until < end; ++i->until) i->table[i->until - i->from] = block + (i->until - begin) * b.line;
      }
      const int64_t plane_end = std::min(i->last, (row / p.size[1] + 1) * p.size[1]);
      for (next = row + 1; next < plane_end && next - row < Blocking::kRowsTogether && complete(next);) ++next;
      const PhaseScope storing(r.phases, Phase::kOutput);
      sums.put_together(i->columns, i->group, i->chunk, row, next - row, i->table, i->from);
    }
  }

  // Lines before `from` are not needed any more; the next one is `begin`.
  static void keep(Item* i, int64_t from, int64_t begin) {
    if (from >= i->until) {
      i->from = i->until = begin;
      return;
    }
    std::copy(i->table + (from - i->from), i->table + (i->until - i->from), i->table);
    i->from = from;
  }

  // The next block of the ring becomes the products of the lines begin .. end.
  void multiply(const Item& i, int64_t plane, int64_t begin, int64_t end) const {
    const PhaseScope multiplying(r.phases, Phase::kProducts);
    const int64_t columns = (end - begin - 1) * b.line + i.columns.right - i.columns.left;
    if (columns <= 0) return;
    T* to = i.products + i.blocks % b.ring * b.lines * b.line;
    if (b.plain) return product(i, 0, begin * b.width + i.columns.left, columns, to, false);
    const int64_t n = plane / p.size[0], at = plane % p.size[0], size = output_size(p, 0);
    const ColumnAxis& a = sums.axis(0, at % p.stride[0]);
    bool adds = false;
    for (int64_t tap = 0; tap < a.taps; ++tap) {
      const int64_t depth = at / p.stride[0] + a.offset + tap * a.offset_step;
      if (depth < 0 || depth >= size) continue;
      const int64_t line = (n * size + depth) * b.height + begin - plane * b.height;
      product(i, a.first_tap + tap * a.tap_step, line * b.width + i.columns.left, columns, to, adds);
      adds = true;
    }
    const int64_t rows = (b.first_channel(i.chunk + 1) - b.first_channel(i.chunk)) * b.taps;
    for (int64_t row = 0; !adds && row < rows; ++row) std::fill_n(to + row * b.pitch, columns, T(0));
  }

  // By the weights of a plane of the filter: `columns` pixels from `pixel` on, of all images end to end.
  void product(const Item& i, int64_t filter_plane, int64_t pixel, int64_t columns, T* to, bool adds) const {
    const int64_t first = b.first_channel(i.chunk), rows = (b.first_channel(i.chunk + 1) - first) * b.taps;
    const int64_t pieces = ceil_div(rows, b.mr), of_image = y_plane(p), block = b.depth_block();
    const T* w = weights + ((i.group * b.channels + first) * b.depths * b.taps + filter_plane * rows) * b.depth;
    const bool dense = y_layout.layout == Layout::kChannelsFirst && !y.is_half();
    for (int64_t k = 0; k < b.depth; k += block) {
      const int64_t depth = std::min(block, b.depth - k), channel = i.group * b.depth + k;
      const int64_t asked = ceil_div(depth, pieces);
      for (int64_t j = 0; j < columns; j += b.nr) {
        const int64_t count = std::min<int64_t>(b.nr, columns - j), at = (pixel + j) % of_image;
        const T* source = nullptr;
        if (dense) source = y.at((pixel + j) / of_image * y_layout.batch_pitch + at + channel * y_layout.channel_pitch);
        const bool moves = dense && count == b.nr && at + b.nr <= of_image;
        if (!moves)
          pack_columns(kernels, y_grid, y_layout, y, pixel + j, count, channel, depth, i.panel,
                       static_cast<T*>(nullptr));
        for (int64_t piece = 0; piece < pieces; ++piece) {
          const int64_t begin = b.piece_begin(piece, pieces, rows), end = b.piece_begin(piece + 1, pieces, rows);
          const T* factor = w + begin * b.depth + k * (end - begin);
          T* c = to + begin * b.pitch + j;
          const bool last = piece + 1 == pieces;
          TileSums<T> out = {c,
                             end - begin,
                             count,
                             b.pitch,
                             adds || k > 0,
                             last ? w : factor + (end - begin) * b.depth,
                             last ? to + j + b.nr : c + (end - begin) * b.pitch,
                             moves ? source + b.nr + piece * asked * y_layout.channel_pitch : factor,
                             moves ? y_layout.channel_pitch : 0,
                             moves ? asked * (b.nr / kernels.lanes) : 0};
          if (moves && piece == 0)
            kernels.moving_tile(depth, factor, source, y_layout.channel_pitch, i.panel, &out);
          else
            kernels.tile(depth, factor, i.panel, &out);
        }
      }
    }
  }

  const ConvProblem& p;
  const RunContext& r;
  const GemmKernelsOf<T>& kernels;
  const Blocking b;
  const Room room;
  const Col2imSums<T> sums;
  const T* weights;
  char* scratch_;
  const ColumnGrid y_grid;
  const ImageLayout y_layout;
  const Stored<T> y;
};

template <class T>
int64_t workspace_as(const ConvProblem& p, const Machine& m, int slots, bool packed) {
  const GemmKernelsOf<T>& kernels = gemm_kernels<T>(m);
  const Blocking b(p, kernels);
  const typename Products<T>::Room room(p, b, kernels);
  return Col2imSums<T>::shared_bytes(p) + slots * room.bytes() + (packed ? 0 : aligned(col2im_packed_bytes(p)));
}

template <class T>
void run_as(const ConvProblem& p, const RunContext& r) {
  char* workspace = static_cast<char*>(r.workspace);
  const T* packed = static_cast<const T*>(r.packed_w);
  if (!packed) {
    const PhaseScope packing(r.phases, Phase::kWeights);
    pack_as(p, *r.machine, r.parallel, Stored<T>(*r.machine, r.w_dtype, r.w), reinterpret_cast<T*>(workspace));
    packed = reinterpret_cast<const T*>(workspace);
    workspace += aligned(col2im_packed_bytes(p));
  }
  Products<T>(p, r, packed, workspace).run();
}

bool is_double(const ConvProblem& p) { return p.dtype == DType::kFloat64; }

}  // namespace

int64_t col2im_packed_bytes(const ConvProblem& p) { return p.k * (p.c / p.groups) * taps(p) * computed_size(p.dtype); }

int64_t col2im_workspace(const ConvProblem& problem, const Machine& m, int slots, bool packed) {
  const ConvProblem p = col2im_padded(problem);
  const int64_t beside = col2im_border_bytes(problem, slots);
  return beside + (is_double(p) ? workspace_as<double>(p, m, slots, packed) : workspace_as<float>(p, m, slots, packed));
}

void col2im_pack(const ConvProblem& p, const Machine& m, const Parallel& parallel, const void* w, void* packed) {
  if (is_double(p))
    pack_as(p, m, parallel, Stored<double>(m, p.dtype, w), static_cast<double*>(packed));
  else
    pack_as(p, m, parallel, Stored<float>(m, p.dtype, w), static_cast<float*>(packed));
}

void col2im_run(const ConvProblem& problem, const RunContext& context) {
  const ConvProblem p = col2im_padded(problem);
  const RunContext r = col2im_into_padded(problem, p, context);
  is_double(p) ? run_as<double>(p, r) : run_as<float>(p, r);
  if (shows_cells(problem.padding_mode)) col2im_fold(problem, p, context);
}

}  // namespace fastconv
