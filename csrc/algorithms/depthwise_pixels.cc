// SPDX-License-Identifier: Apache-2.0
// Depthwise, channels last, three passes: lanes are channels, images are read where they lie. The weights are turned to
// [tap][channel] first.
//   for each image, strip of rows and block of channels (the items that threads share):
//     for each plane along the depth, for each set of rows and of columns: kernel calls
//     (csrc/kernels/depthwise_pixels.cc)
// A block of channels is small enough that what neighbouring columns share stays in L1.
// Backward-filter: parts of the images and strips by vectors of channels; tiles of the filter as in
// depthwise_filter.cc.
#include <vector>

#include "../parallel.h"
#include "../phases.h"
#include "depthwise.h"

namespace fastconv {
namespace {

constexpr int64_t kWindowBytes = 24 << 10;  // of a block of channels: what a column reads, and its weights
constexpr int64_t kItems = 8;
constexpr int64_t kTallRows = 4;
constexpr int64_t kFewestRows = 8;  // of a strip

template <class T>
const DepthwisePixelKernelsOf<T>& pixel_kernels(const Machine& m) {
  if constexpr (sizeof(T) == 8)
    return m.kernels->depthwise_pixels->f64;
  else
    return m.kernels->depthwise_pixels->f32;
}

int kernel_step(const ConvProblem& p) { return SharedRows(phase_axis(p, 1, 0), 1).fits ? 1 : 2; }

// Filter columns [first, first + count) of every written column, `pixel` elements apart.
std::vector<DepthwiseColumn> columns_of(const ColumnAxis& a, int64_t first_tap, int64_t taps, int64_t pixel) {
  const int64_t distance = std::abs(a.offset_step);
  const int64_t start = a.offset + std::min<int64_t>(0, (a.taps - 1) * a.offset_step) + first_tap * distance;
  std::vector<DepthwiseColumn> columns;
  for (int64_t o = 0; o < a.columns; ++o) {
    const int64_t at = start + o * a.step;
    const int64_t first = std::clamp(ceil_div(std::max<int64_t>(0, -at), distance), int64_t{0}, taps);
    const int64_t last = std::clamp(floor_div(a.size - 1 - at, distance) + 1, first, taps);
    columns.push_back({(at + first * distance) * pixel, first, last - first});
  }
  return columns;
}

struct Cut {
  int64_t width, strips, height, vectors, parts;  // channels of a block; of rows written; parts: backward-filter

  // `alone`: nobody shares the strips, except that backward-filter's are the problem's.
  Cut(const ConvProblem& p, int64_t lanes, int64_t element, bool alone = false) {
    const bool filter = p.pass == Pass::kBackwardFilter;
    const int64_t rows = p.pass == Pass::kBackwardData ? p.size[1] : output_size(p, 1);
    const int64_t window =
        ((8 + p.filter[1]) * std::min<int64_t>(p.filter[2], 8) + p.filter[1] * p.filter[2]) * element;
    vectors = ceil_div(p.c, lanes);
    width = std::max<int64_t>(1, std::min(vectors, kWindowBytes / window / lanes)) * lanes;
    const int64_t slices = filter ? vectors : ceil_div(p.c, width);
    const int64_t wanted = ceil_div(kItems, std::max<int64_t>(1, p.n * (filter ? slices : 1)));
    const bool flat = p.size[0] == 1 && output_size(p, 0) == 1;
    strips = flat && (filter || !alone) ? std::clamp(wanted, int64_t{1}, std::max<int64_t>(1, rows / kFewestRows)) : 1;
    height = std::max<int64_t>(1, ceil_div(ceil_div(rows, strips), kFewestRows) * kFewestRows);
    strips = ceil_div(rows, height);
    parts = std::clamp(ceil_div(kItems, std::max<int64_t>(1, slices)), int64_t{1}, std::max<int64_t>(1, p.n * strips));
  }
};

template <class T>
class Pixels {
 public:
  Pixels(const ConvProblem& problem, const RunContext& context)
      : p(problem),
        r(context),
        kernels(pixel_kernels<T>(*r.machine)),
        forward(p.pass != Pass::kBackwardData),
        step(kernel_step(p)),
        pitch(ceil_div(p.c, kernels.lanes) * kernels.lanes),
        cut(p, kernels.lanes, sizeof(T), r.parallel.slots == 1),
        store(p, r),
        read_pixel(forward ? r.x_channel_pitch : r.y_channel_pitch),
        written_pixel(forward ? r.y_channel_pitch : r.x_channel_pitch) {
    for (int64_t phase = 0; phase < phases_of(p, 2); ++phase) {
      const ColumnAxis a = phase_axis(p, 2, phase);
      columns.push_back(columns_of(a, 0, a.taps, read_pixel));
    }
  }

  void run() const {
    T* w = static_cast<T*>(r.workspace);
    parallel_for(r.parallel, 1, [&](int64_t, int) {
      const PhaseScope turning(r.phases, Phase::kWeights);
      gemm_kernels<T>(*r.machine).transpose(p.c, taps(p), pitch, static_cast<const T*>(r.w), taps(p), w, pitch);
    });
    const int64_t rows = forward ? output_size(p, 1) : p.size[1], blocks = ceil_div(p.c, cut.width);
    parallel_for(r.parallel, p.n * cut.strips * blocks, [&](int64_t item, int) {
      const PhaseScope multiplying(r.phases, Phase::kProducts);
      const int64_t n = item / blocks / cut.strips, channel = item % blocks * cut.width;
      const int64_t row = item / blocks % cut.strips * cut.height, last_row = std::min(rows, row + cut.height);
      for (int64_t phase = 0; phase < phases_of(p, 0); ++phase) {
        const ColumnAxis depth = phase_axis(p, 0, phase);
        for (int64_t o = 0; o < depth.columns; ++o) compute(n, channel, row, last_row, depth, o, w);
      }
    });
    if (!adds_border(p)) return;
    depthwise_border_run<T>(p, r, w, pitch);
    if (!store.more) return;
    const int64_t pixels = forward ? y_plane(p) : x_plane(p);
    parallel_for(r.parallel, p.n, [&](int64_t n, int) {
      const PhaseScope finishing(r.phases, Phase::kOutput);
      T* image = forward ? static_cast<T*>(r.y) + n * r.y_batch_pitch : static_cast<T*>(r.x) + n * r.x_batch_pitch;
      finish(image, pixels, p.c);
    });
  }

  void run_filter() const {
    const int64_t weights = p.k * taps(p), part_pitch = aligned(weights * sizeof(T)) / static_cast<int64_t>(sizeof(T));
    T* sums = static_cast<T*>(cut.parts > 1 ? r.workspace : r.w);
    const int64_t units = p.n * cut.strips;
    parallel_for(r.parallel, cut.parts * cut.vectors, [&](int64_t item, int) {
      const PhaseScope multiplying(r.phases, Phase::kProducts);
      const int64_t part = item / cut.vectors, channel = item % cut.vectors * kernels.lanes;
      filter_vector(channel, part * units / cut.parts, (part + 1) * units / cut.parts, sums + part * part_pitch);
    });
    if (cut.parts > 1)
      parallel_for(r.parallel, 1, [&](int64_t, int) {
        const PhaseScope adding(r.phases, Phase::kSums);
        gemm_kernels<T>(*r.machine).reduce(weights, cut.parts, sums, part_pitch, static_cast<T*>(r.w));
      });
    if (adds_border(p)) depthwise_border_run<T>(p, r, nullptr, 0);
  }

 private:
  // The rows [row, last_row) of one plane, a block of channels.
  void compute(int64_t n, int64_t channel, int64_t row, int64_t last_row, const ColumnAxis& depth, int64_t o,
               const T* w) const {
    const T* read =
        forward ? static_cast<const T*>(r.x) + n * r.x_batch_pitch : static_cast<const T*>(r.y) + n * r.y_batch_pitch;
    T* image = forward ? static_cast<T*>(r.y) + n * r.y_batch_pitch : static_cast<T*>(r.x) + n * r.x_batch_pitch;
    const int64_t plane_rows = forward ? output_size(p, 1) : p.size[1];
    const int64_t plane = (depth.out_first + o * depth.out_step) * plane_rows;
    DepthwisePixels<T> at{};
    at.channels = std::min(cut.width, p.c - channel);
    at.bias = r.bias ? static_cast<const T*>(r.bias) + channel : nullptr;
    at.low = store.low, at.high = store.high;
    int64_t width = 0;
    for (int64_t phase = 0; phase < static_cast<int64_t>(columns.size()); ++phase) {
      const ColumnAxis b = phase_axis(p, 2, phase);
      const TapOrder order(b);
      width = b.out_size;
      at.columns = b.columns;
      at.column = columns[static_cast<size_t>(phase)].data();
      at.x_step = std::abs(b.offset_step) * read_pixel;
      at.w_step = order.step * pitch;
      at.y_pixel = b.out_step * written_pixel;
      for (int64_t row_phase = 0; row_phase < phases_of(p, 1); ++row_phase) {
        const ColumnAxis a = phase_axis(p, 1, row_phase);
        const SharedRows shared(a, step);
        for (int64_t residue = 0; residue < std::min(shared.residues, a.columns); ++residue) {
          const int64_t first = a.out_first + residue * a.out_step, unit = a.out_step * shared.residues;
          const int64_t j = ceil_div(std::max<int64_t>(0, row - first), unit);
          // An axis of one grid point has any step: rows beyond it are not its own.
          const int64_t points = shared.points(a, residue);
          const int64_t end = std::min(points, ceil_div(std::max<int64_t>(0, last_row - first), unit));
          if (j >= end) continue;
          at.rows = end - j;
          at.y_row = unit * width * written_pixel;
          at.y = image + channel + ((plane + first + unit * j) * width + b.out_first) * written_pixel;
          const int64_t begin = shared.begin(a, residue) + shared.pitch * shared.step * j;
          shared.set_limits(a, begin, &at);
          at.x_row = shared.pitch * b.size * read_pixel;
          at.x = read + channel + begin * b.size * read_pixel;
          const TapOrder rows(a);
          at.w_row = rows.step * p.filter[2] * pitch;
          at.w = w + channel + (rows.first * p.filter[2] + order.first) * pitch;
          call(at, depth, o, a.taps, a.size * b.size);
        }
      }
    }
    if (store.more && !adds_border(p))
      finish(image + channel + (plane + row) * width * written_pixel, (last_row - row) * width, at.channels);
  }

  // As few filter rows as the kernels know, or groups of them and the rest.
  void call(DepthwisePixels<T>& at, const ColumnAxis& depth, int64_t o, int64_t filter_rows, int64_t plane) const {
    std::vector<DepthwiseGroup> groups;
    const bool known = filter_rows <= kernels.most_filter_rows && filter_rows != 6;
    const int64_t height = known ? std::max<int64_t>(1, filter_rows) : kTallRows, rest = filter_rows % height;
    const T* bias = at.bias;
    const auto run_groups = [&](int64_t first, int64_t last, int64_t rows, bool accumulate, bool clamps) {
      groups.clear();
      for (int64_t t = 0; t < depth.taps && filter_rows > 0; ++t) {
        const int64_t z = o * depth.step + depth.offset + t * depth.offset_step;
        if (z < 0 || z >= depth.size) continue;
        const int64_t tap = (depth.first_tap + t * depth.tap_step) * p.filter[1] * p.filter[2] * pitch;
        for (int64_t row = first; row + rows <= last; row += rows)
          groups.push_back({z * plane * read_pixel, tap + row * at.w_row, row});
      }
      at.group = groups.data();
      at.groups = static_cast<int64_t>(groups.size());
      at.accumulate = accumulate, at.clamps = clamps;
      at.bias = accumulate ? nullptr : bias;
      kernels.rows(step, static_cast<int>(rows), at.rows)(&at);
    };
    run_groups(0, filter_rows - rest, height, false, store.clamps && rest == 0);
    if (rest > 0) run_groups(filter_rows - rest, filter_rows, rest, true, store.clamps);
    at.bias = bias;
  }

  void finish(T* at, int64_t pixels, int64_t channels) const {
    const T* residual = r.residual ? static_cast<const T*>(r.residual) + (at - static_cast<T*>(r.y)) : nullptr;
    gemm_kernels<T>(*r.machine)
        .epilogue(pixels, channels, at, written_pixel, nullptr, residual, written_pixel,
                  static_cast<int32_t>(p.activation), T(r.alpha));
  }

  // A vector of channels: every tile of the filter, summed over images and strips.
  void filter_vector(int64_t channel, int64_t first_unit, int64_t last_unit, T* dw) const {
    const ColumnAxis b = phase_axis(p, 2, 0);
    const int64_t lanes = kernels.lanes, channels = std::min<int64_t>(lanes, p.c - channel), all = taps(p);
    for (int64_t t2 = 0; t2 < p.filter[2];) {
      int64_t count = std::min<int64_t>(kernels.most_tile_taps, p.filter[2] - t2);
      count -= (count + 1) % 2;
      const std::vector<DepthwiseColumn> tile = columns_of(b, t2, count, read_pixel);
      for (int64_t t0 = 0; t0 < p.filter[0]; ++t0)
        for (int64_t t1 = 0; t1 < p.filter[1]; t1 += kernels.most_tile_rows) {
          const int64_t rows = std::min<int64_t>(kernels.most_tile_rows, p.filter[1] - t1);
          alignas(64) T sums[kMostSums] = {};
          const auto kernel = kernels.taps(step, static_cast<int>(rows), static_cast<int>(count));
          for (int64_t unit = first_unit; unit < last_unit; ++unit) add_unit(channel, unit, t0, t1, tile, kernel, sums);
          for (int64_t i = 0; i < rows; ++i)
            for (int64_t t = 0; t < count; ++t)
              for (int64_t c = 0; c < channels; ++c)
                dw[(channel + c) * all + ((t0 * p.filter[1] + t1 + i) * p.filter[2] + t2 + t)] =
                    sums[(i * count + t) * lanes + c];
        }
      t2 += count;
    }
  }

  void add_unit(int64_t channel, int64_t unit, int64_t t0, int64_t t1, const std::vector<DepthwiseColumn>& tile,
                void (*kernel)(const DepthwisePixelTaps<T>*), T* sums) const {
    const ColumnAxis depth = phase_axis(p, 0, 0), a = phase_axis(p, 1, 0), b = phase_axis(p, 2, 0);
    const SharedRows shared(a, step);
    const int64_t n = unit / cut.strips, first = unit % cut.strips * cut.height;
    const int64_t last = std::min(a.columns, first + cut.height);
    DepthwisePixelTaps<T> at{};
    at.x_row = shared.pitch * b.size * read_pixel;
    at.x_step = b.offset_step * read_pixel;
    at.y_row = shared.residues * b.columns * written_pixel;
    at.y_pixel = written_pixel;
    at.columns = b.columns;
    at.channels = p.c - channel;
    at.column = tile.data();
    at.sums = sums;
    for (int64_t o = 0; o < depth.columns; ++o) {
      const int64_t z = o * depth.step + depth.offset + t0 * depth.offset_step;
      if (z < 0 || z >= depth.size) continue;
      shared.each_residue(a, first, last, t1, [&](int64_t point, int64_t rows, int64_t begin) {
        at.rows = rows;
        shared.set_limits(a, begin, &at);
        at.x = static_cast<const T*>(r.x) + n * r.x_batch_pitch + channel + (z * a.size + begin) * b.size * read_pixel;
        at.y = static_cast<const T*>(r.y) + n * r.y_batch_pitch + channel +
               (o * a.columns + point) * b.columns * written_pixel;
        kernel(&at);
      });
    }
  }

  const ConvProblem& p;
  const RunContext& r;
  const DepthwisePixelKernelsOf<T>& kernels;
  const bool forward;
  const int step;
  const int64_t pitch;  // of the turned weights
  const Cut cut;
  const DepthwiseStore<T> store;
  const int64_t read_pixel, written_pixel;
  std::vector<std::vector<DepthwiseColumn>> columns;  // by phase
};

}  // namespace

bool depthwise_pixels_serve(const ConvProblem& p) {
  if (p.x_layout != Layout::kChannelsLast || p.y_layout != Layout::kChannelsLast || !begins_with_zeros(p)) return false;
  if (p.k != p.groups || x_plane(p) == 0 || y_plane(p) == 0) return false;
  const ColumnAxis rows = phase_axis(p, 1, 0);
  return SharedRows(rows, 1).fits || SharedRows(rows, 2).fits;
}

template <class T>
int64_t depthwise_pixels_bytes(const ConvProblem& p, const Machine& m) {
  const int64_t lanes = pixel_kernels<T>(m).lanes, element = sizeof(T);
  if (p.pass != Pass::kBackwardFilter) return aligned(ceil_div(p.c, lanes) * lanes * taps(p) * element);
  const Cut cut(p, lanes, element);
  return cut.parts > 1 ? cut.parts * aligned(p.k * taps(p) * element) : 0;
}
template int64_t depthwise_pixels_bytes<float>(const ConvProblem&, const Machine&);
template int64_t depthwise_pixels_bytes<double>(const ConvProblem&, const Machine&);

template <class T>
void depthwise_pixels_run(const ConvProblem& p, const RunContext& r) {
  const Pixels<T> pixels(p, r);
  if (p.pass == Pass::kBackwardFilter)
    pixels.run_filter();
  else
    pixels.run();
}
template void depthwise_pixels_run<float>(const ConvProblem&, const RunContext&);
template void depthwise_pixels_run<double>(const ConvProblem&, const RunContext&);

}  // namespace fastconv
