// SPDX-License-Identifier: Apache-2.0
// Depthwise backward-filter, channels first: a tile of the filter is summed in registers over whole planes.
//   for each part of the images and strips of rows, for each block of channels of y (the items that threads share):
//     for each channel, for each image, for each tile, plane and set of rows: one kernel call
//       (csrc/kernels/depthwise_taps.cc); then the lanes are added in a tree
//     or, where a tile is the whole filter and sees a plane at once, one call for all of it
// Parts come from the problem and are added in a pairwise tree.
#include <vector>

#include "../parallel.h"
#include "../phases.h"
#include "depthwise.h"
#include "direct.h"

namespace fastconv {
namespace {

constexpr int64_t kItemElements = 16 << 10;  // of a block of channels, read
constexpr int64_t kItems = 8;
constexpr int64_t kLeastAsked = 256, kMostAsked = 4096;  // elements of one that is asked for ahead
constexpr int64_t kFewestRows = 16;                      // of a strip

template <class T>
const DepthwiseTapsKernelsOf<T>& taps_kernels(const Machine& m) {
  if constexpr (sizeof(T) == 8)
    return m.kernels->depthwise_taps->f64;
  else
    return m.kernels->depthwise_taps->f32;
}

struct Cut {
  int64_t block, blocks, strips, parts;

  explicit Cut(const ConvProblem& p) {
    const int64_t elements = std::max<int64_t>(1, x_plane(p) + y_plane(p)), rows = output_size(p, 1);
    block = std::clamp(kItemElements / elements, int64_t{1}, p.k);
    blocks = ceil_div(p.k, block);
    const int64_t wanted = ceil_div(kItems, blocks);
    const int64_t most = output_size(p, 0) == 1 ? std::max<int64_t>(1, rows / kFewestRows) : 1;
    strips = std::clamp(ceil_div(wanted, std::max<int64_t>(1, p.n)), int64_t{1}, most);
    parts = std::clamp(wanted, int64_t{1}, std::max<int64_t>(1, p.n * strips));
  }
  int64_t part_bytes(const ConvProblem& p) const {
    return parts > 1 ? parts * aligned(p.k * taps(p) * computed_size(p.dtype)) : 0;
  }
};

// Some neighbouring taps of a filter row, and which elements of x they read.
template <class T>
struct TapTile {
  int64_t first, taps;
  std::vector<int64_t> x_of;
  std::vector<uint32_t> bits;
  int64_t left, right;

  TapTile(const ColumnAxis& a, int64_t first_tap, int64_t tap_count, int64_t lanes)
      : first(first_tap), taps(tap_count) {
    const int64_t width = lanes * a.step, vectors = ceil_div(a.columns, lanes);
    for (int64_t t = 0; t < taps; t += a.step) x_of.push_back(a.offset + (first + t) * a.offset_step);
    left = std::clamp(ceil_div(std::max<int64_t>(0, -x_of.front()), width), int64_t{0}, vectors);
    right = std::clamp(std::min(floor_div(a.size - x_of.back(), width), a.columns / lanes), left, vectors);
    for (int64_t v = 0; v < vectors; v = v == left && right > left ? right : v + 1)
      for (const int64_t x : x_of) {
        uint32_t set = 0;
        for (int64_t i = 0; i < width; ++i) {
          const int64_t at = v * width + i + x;
          if (at >= 0 && at < a.size && v * lanes + i / a.step < a.columns) set |= 1u << i;
        }
        bits.push_back(set);
      }
  }
};

// Elements first .. last - 1.
struct Span {
  int64_t first, last;
  bool holds(int64_t offset, const Span& s) const { return first <= offset + s.first && offset + s.last <= last; }
};

// A kernel call of every channel: `x` and `y` are where it begins in their planes, `sums` in the channel's sums.
template <class T>
struct TapCall {
  void (*kernel)(const DepthwiseTaps<T>*);
  int64_t x, y, sums;
  Span x_lanes, y_lanes;  // of the planes, by whole vectors
  DepthwiseTaps<T> at;
};

// Some rows of a strip and their calls [begin, end). All rows, but where x and y are widened a few at a time.
struct Segment {
  int64_t strip, first, last;
  size_t begin, end;
};

template <class T>
class Filter {
 public:
  Filter(const ConvProblem& problem, const RunContext& context)
      : p(problem),
        r(context),
        kernels(taps_kernels<T>(*r.machine)),
        grid(forward_grid(p)),
        stride(static_cast<int>(p.stride[2])),
        shared(grid.axis[1], stride),
        cut(p),
        gemm(gemm_kernels<T>(*r.machine)),
        stage(p),
        x(*r.machine, p.dtype, r.x),
        y(*r.machine, p.dtype, r.y),
        all_x{0, (p.n - 1) * r.x_batch_pitch + (p.c - 1) * r.x_channel_pitch + x_plane(p)},
        all_y{0, (p.n - 1) * r.y_batch_pitch + (p.k - 1) * r.y_channel_pitch + y_plane(p)} {
    // Tiles of 1, 3, 5 or 7 taps.
    for (int64_t t = 0; t < p.filter[2];) {
      int64_t count = std::min<int64_t>(kernels.most_taps, p.filter[2] - t);
      count -= (count + 1) % 2;
      tiles.emplace_back(grid.axis[2], t, count, kernels.lanes);
      t += count;
    }
    for (int64_t strip = 0; strip < cut.strips; ++strip) {
      const int64_t all = grid.axis[1].columns, end = (strip + 1) * all / cut.strips;
      for (int64_t row = strip * all / cut.strips, last; row < end; row = last) {
        last = x.is_half() ? std::min(end, row + stage.rows) : end;
        const size_t begin = calls.size();
        list_calls(row, last);
        segments.push_back({strip, row, last, begin, calls.size()});
      }
    }
  }

  void run() const {
    const int64_t weights = p.k * taps(p), pitch = aligned(weights * sizeof(T)) / static_cast<int64_t>(sizeof(T));
    T* sums = static_cast<T*>(cut.parts > 1 ? r.workspace : r.w);
    parallel_for(r.parallel, cut.parts * cut.blocks, [&](int64_t item, int slot) {
      const int64_t part = item / cut.blocks, first = item % cut.blocks * cut.block, units = p.n * cut.strips;
      char* mine = static_cast<char*>(r.workspace) + cut.part_bytes(p) + slot * slot_bytes(p, *r.machine);
      const int64_t last = std::min(p.k, first + cut.block);
      const int64_t first_unit = part * units / cut.parts, last_unit = (part + 1) * units / cut.parts;
      if (is_one_call()) return compute_channels(first, last, first_unit, last_unit, sums + part * pitch);
      for (int64_t k = first; k < last; ++k)
        compute(k, first_unit, last_unit, sums + part * pitch + k * taps(p), reinterpret_cast<T*>(mine));
    });
    if (cut.parts > 1)
      parallel_for(r.parallel, 1, [&](int64_t, int) {
        const PhaseScope adding(r.phases, Phase::kSums);
        gemm_kernels<T>(*r.machine).reduce(weights, cut.parts, sums, pitch, static_cast<T*>(r.w));
      });
    if (adds_border(p)) depthwise_border_run<T>(p, r, nullptr, 0);
  }

  static int64_t tile_count(const ConvProblem& p, const Machine& m) {
    const DepthwiseTapsKernelsOf<T>& kernels = taps_kernels<T>(m);
    const int64_t whole = p.filter[2] / kernels.most_taps, rest = p.filter[2] % kernels.most_taps;
    const int64_t across = whole + (rest == 0 ? 0 : rest % 2 == 1 ? 1 : 2);  // tiles have odd widths
    return p.filter[0] * ceil_div(p.filter[1], int64_t{kernels.most_filter_rows}) * across;
  }
  // Sums of all tiles, and a strip of x and of y where those are halves.
  static int64_t slot_bytes(const ConvProblem& p, const Machine& m) {
    return aligned(tile_count(p, m) * kMostSums * sizeof(T)) + DepthwiseStage(p).bytes();
  }
  // Of the lists of calls and segments, at most.
  static int64_t call_bytes(const ConvProblem& p, const Machine& m) {
    const int64_t strips = Cut(p).strips, rows = output_size(p, 1);
    const int64_t segments = strips + (is_half(p.dtype) ? rows / DepthwiseStage(p).rows : 0);
    const SharedRows shared(forward_grid(p).axis[1], static_cast<int>(p.stride[2]));
    const int64_t calls = segments * tile_count(p, m) * output_size(p, 0) * std::min(shared.residues, rows);
    return calls * static_cast<int64_t>(sizeof(TapCall<T>)) + segments * static_cast<int64_t>(sizeof(Segment));
  }

 private:
  // visit(first tap of depth, of rows, how many of them, tile of columns, number of the tile)
  template <class Visit>
  void each_tile(const Visit& visit) const {
    int64_t number = 0;
    for (int64_t t0 = 0; t0 < p.filter[0]; ++t0)
      for (int64_t t1 = 0; t1 < p.filter[1]; t1 += kernels.most_filter_rows) {
        const int rows = static_cast<int>(std::min<int64_t>(kernels.most_filter_rows, p.filter[1] - t1));
        for (const TapTile<T>& tile : tiles) visit(t0, t1, rows, tile, number++);
      }
  }

  int64_t sums_of(int rows, const TapTile<T>& tile) const { return rows * tile.taps * kernels.lanes; }

  // Every unit, a strip of rows of an image, is read by all tiles while it is near.
  void compute(int64_t k, int64_t first_unit, int64_t last_unit, T* dw, T* sums) const {
    T* room = sums;
    each_tile([&](int64_t, int64_t, int rows, const TapTile<T>& tile, int64_t) {
      std::fill_n(room, sums_of(rows, tile), T(0));
      room += kMostSums;
    });
    for (int64_t unit = first_unit; unit < last_unit; ++unit) {
      const int64_t n = unit / cut.strips;
      const int64_t of_x = n * r.x_batch_pitch + k / (p.k / p.groups) * r.x_channel_pitch;
      const int64_t of_y = n * r.y_batch_pitch + k * r.y_channel_pitch;
      for (const Segment& segment : segments)
        if (segment.strip == unit % cut.strips) add_segment(segment, of_x, of_y, room, sums);
    }
    each_tile([&](int64_t t0, int64_t t1, int rows, const TapTile<T>& tile, int64_t number) {
      const int count = static_cast<int>(tile.taps);
      T* to = dw + (t0 * p.filter[1] + t1) * p.filter[2] + tile.first;
      const auto total = direct_kernels<T>(*r.machine).filter_total;
      if (count == p.filter[2]) return total(rows * count, sums + number * kMostSums, to);
      T totals[kMostSums];
      total(rows * count, sums + number * kMostSums, totals);
      for (int i = 0; i < rows; ++i) std::copy(totals + i * count, totals + (i + 1) * count, to + i * p.filter[2]);
    });
  }

  // One tile is the whole filter, and sees a channel of an image at once.
  bool is_one_call() const {
    return calls.size() == 1 && segments.size() == 1 && tiles.front().taps * kernels.most_filter_rows >= taps(p) &&
           p.k == p.groups && !x.is_half();
  }
  void compute_channels(int64_t first, int64_t last, int64_t first_image, int64_t last_image, T* dw) const {
    const PhaseScope multiplying(r.phases, Phase::kProducts);
    const TapCall<T>& call = calls.front();
    const auto x_of = [&](int64_t image, int64_t k) { return image * r.x_batch_pitch + k * r.x_channel_pitch; };
    const auto y_of = [&](int64_t image, int64_t k) { return image * r.y_batch_pitch + k * r.y_channel_pitch; };
    // All planes but some of the first and the last have neighbours in memory.
    const auto spills = [&](int64_t image, int64_t k) {
      return all_x.holds(x_of(image, k), call.x_lanes) && all_y.holds(y_of(image, k), call.y_lanes);
    };
    DepthwiseTaps<T> at = call.at;
    at.x = x.at(x_of(first_image, first) + call.x), at.y = y.at(y_of(first_image, first) + call.y);
    at.channels = last - first, at.x_channel = r.x_channel_pitch, at.y_channel = r.y_channel_pitch;
    at.images = last_image - first_image, at.x_image = r.x_batch_pitch, at.y_image = r.y_batch_pitch;
    at.spill_last = at.channels;
    while (at.spill_first < at.spill_last && !spills(first_image, first + at.spill_first)) ++at.spill_first;
    while (at.spill_first < at.spill_last && !spills(last_image - 1, first + at.spill_last - 1)) --at.spill_last;
    at.asks = x_plane(p) >= kLeastAsked && x_plane(p) <= kMostAsked && at.images == 1;
    at.sums = nullptr;
    at.totals = dw + first * taps(p);
    call.kernel(&at);
  }

  // `room` is for halves, made wider.
  void add_segment(const Segment& segment, int64_t of_x, int64_t of_y, T* room, T* sums) const {
    const T *image, *gradient;
    if (x.is_half()) {
      const auto [from, to] = stage.read_rows(segment.first, segment.last);
      const int64_t x_width = grid.axis[2].size, y_width = grid.axis[2].columns, cells = (to - from) * x_width;
      const int64_t pixels = (segment.last - segment.first) * y_width;
      T* y_room = room + stage.read;
      const PhaseScope widening(r.phases, Phase::kConversions);
      x.gather_row(gemm, cells, 0, cells, of_x + from * x_width, 1, 0, room, 0, 1);
      y.gather_row(gemm, pixels, 0, pixels, of_y + segment.first * y_width, 1, 0, y_room, 0, 1);
      image = room - from * x_width, gradient = y_room - segment.first * y_width;
    } else {
      image = x.at(of_x), gradient = y.at(of_y);
    }
    const PhaseScope multiplying(r.phases, Phase::kProducts);
    for (size_t i = segment.begin; i < segment.end; ++i) {
      const TapCall<T>& call = calls[i];
      DepthwiseTaps<T> at = call.at;
      at.x = image + call.x, at.y = gradient + call.y, at.sums = sums + call.sums;
      at.spill_last = !x.is_half() && all_x.holds(of_x, call.x_lanes) && all_y.holds(of_y, call.y_lanes) ? 1 : 0;
      call.kernel(&at);
    }
  }

  // The calls for rows [first, last) of y in every plane along the depth.
  void list_calls(int64_t first, int64_t last) {
    const ColumnAxis &depth = grid.axis[0], &a = grid.axis[1], &b = grid.axis[2];
    each_tile([&](int64_t t0, int64_t t1, int filter_rows, const TapTile<T>& tile, int64_t number) {
      TapCall<T> call{};
      call.kernel = kernels.taps(stride, filter_rows, static_cast<int>(tile.taps));
      call.sums = number * kMostSums;
      DepthwiseTaps<T>& at = call.at;
      at.x_row = shared.pitch * b.size;
      at.y_row = shared.residues * b.columns;
      at.columns = b.columns;
      at.x_of = tile.x_of.data();
      at.bits = tile.bits.data();
      at.left = tile.left, at.right = tile.right;
      for (int64_t o = 0; o < depth.columns; ++o) {
        const int64_t plane = o * depth.step + depth.offset + t0 * depth.offset_step;
        if (plane < 0 || plane >= depth.size) continue;
        shared.each_residue(a, first, last, t1, [&](int64_t point, int64_t rows, int64_t begin) {
          at.rows = rows;
          shared.set_limits(a, begin, &at);
          if (x.is_half()) at.last_row = std::min(at.last_row, (rows - 1) * stride + filter_rows);
          call.x = (plane * a.size + begin) * b.size;
          call.y = (o * a.columns + point) * b.columns;
          const int64_t width = ceil_div(b.columns, int64_t{kernels.lanes}) * kernels.lanes;
          call.x_lanes = {call.x + at.first_row * at.x_row + tile.x_of.front(),
                          call.x + (at.last_row - 1) * at.x_row + tile.x_of.back() + width * stride};
          call.y_lanes = {call.y, call.y + (rows - 1) * at.y_row + width};
          calls.push_back(call);
        });
      }
    });
  }

  const ConvProblem& p;
  const RunContext& r;
  const DepthwiseTapsKernelsOf<T>& kernels;
  const ColumnGrid grid;
  const int stride;
  const SharedRows shared;
  const Cut cut;
  const GemmKernelsOf<T>& gemm;
  const DepthwiseStage stage;
  const Stored<T> x, y;
  const Span all_x, all_y;
  std::vector<TapTile<T>> tiles;
  std::vector<TapCall<T>> calls;
  std::vector<Segment> segments;
};

}  // namespace

bool depthwise_filter_serves(const ConvProblem& p) {
  if (p.x_layout != Layout::kChannelsFirst || p.y_layout != Layout::kChannelsFirst || !begins_with_zeros(p))
    return false;
  if (p.pass != Pass::kBackwardFilter || x_plane(p) == 0 || y_plane(p) == 0) return false;
  const ColumnAxis columns = phase_axis(p, 2, 0);
  if (columns.step > 2 || (columns.step == 2 && columns.offset_step != 1 && columns.taps > 1)) return false;
  return SharedRows(phase_axis(p, 1, 0), columns.step).fits;
}

int64_t depthwise_filter_call_bytes(const ConvProblem& p, const Machine& m) {
  return p.dtype == DType::kFloat64 ? Filter<double>::call_bytes(p, m) : Filter<float>::call_bytes(p, m);
}

int64_t depthwise_filter_bytes(const ConvProblem& p, const Machine& m, int slots) {
  const int64_t slot = p.dtype == DType::kFloat64 ? Filter<double>::slot_bytes(p, m) : Filter<float>::slot_bytes(p, m);
  return Cut(p).part_bytes(p) + slots * slot;
}

template <class T>
void depthwise_filter_run(const ConvProblem& p, const RunContext& r) {
  Filter<T>(p, r).run();
}
template void depthwise_filter_run<float>(const ConvProblem&, const RunContext&);
template void depthwise_filter_run<double>(const ConvProblem&, const RunContext&);

}  // namespace fastconv
