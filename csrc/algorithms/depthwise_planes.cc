// SPDX-License-Identifier: Apache-2.0
// Depthwise, channels first, forward and backward-data: planes are read where they lie and written once.
//   for each image, block of channels and strip of rows (the items that threads share):
//     for each channel written, for each of its planes along the depth:
//       for each set of rows that share what they read: kernel calls (csrc/kernels/depthwise_planes.cc)
// Such a set is all rows, every d-th one of a filter with dilation d, or every second one of backward-data with stride
// 2. A tall filter takes several calls, which add to y. One long row is cut into rows of one vector: neighbours share
// what a filter longer than a vector reads.
#include <vector>

#include "../parallel.h"
#include "../phases.h"
#include "depthwise.h"
#include "depthwise_columns.h"

namespace fastconv {
namespace {

constexpr int64_t kItemElements = 16 << 10;  // of a block of channels, read and written
constexpr int64_t kItems = 8;
constexpr int64_t kTallRows = 4;       // of a group of a filter taller than the kernels know
constexpr int64_t kFewestVectors = 4;  // of a long row that is cut

template <class T>
const DepthwisePlaneKernelsOf<T>& plane_kernels(const Machine& m) {
  if constexpr (sizeof(T) == 8)
    return m.kernels->depthwise_planes->f64;
  else
    return m.kernels->depthwise_planes->f32;
}

template <class T>
class Planes {
 public:
  Planes(const ConvProblem& problem, const RunContext& context)
      : p(problem),
        r(context),
        gemm(gemm_kernels<T>(*r.machine)),
        kernels(plane_kernels<T>(*r.machine)),
        forward(p.pass == Pass::kForward),
        multiplier(p.k / p.groups),
        read_plane(forward ? x_plane(p) : y_plane(p)),
        columns(p, kernels.lanes),
        store(p, r),
        stage(p),
        x(*r.machine, p.dtype, r.x),
        y(*r.machine, p.dtype, r.y),
        residual(*r.machine, p.dtype, r.residual),
        whole(static_cast<size_t>(columns.steps.size()), ~0u) {
    for (int a = 0; a < kMaxSpatial; ++a) written_size[a] = forward ? output_size(p, a) : p.size[a];
    slices.resize(static_cast<size_t>(written_size[0]));
    for (int64_t phase = 0; phase < phases_of(p, 0); ++phase) {
      const ColumnAxis depth = phase_axis(p, 0, phase);
      for (int64_t o = 0; o < depth.columns; ++o)
        add_calls(depth, o, slices[static_cast<size_t>(depth.out_first + o * depth.out_step)]);
    }
  }

  void run() const {
    const int64_t channels = forward ? p.k : p.c, elements = x_plane(p) + y_plane(p);
    const int64_t block = std::clamp(kItemElements / std::max<int64_t>(1, elements), int64_t{1}, channels);
    const int64_t blocks = ceil_div(channels, block), rows = written_size[1];
    const bool alone = r.parallel.slots == 1 || written_size[0] > 1;  // strips have more edges
    const int64_t wanted = alone ? 1 : ceil_div(kItems, std::max<int64_t>(1, p.n * blocks));
    const int64_t height = x.is_half() ? stage.rows : std::max<int64_t>(1, aligned_rows(ceil_div(rows, wanted)));
    const int64_t strips = rows > 0 ? ceil_div(rows, height) : 0;
    parallel_for(r.parallel, p.n * blocks * strips, [&](int64_t item, int slot) {
      T* room = reinterpret_cast<T*>(static_cast<char*>(r.workspace) + slot * stage.bytes());
      const int64_t n = item / strips / blocks, first = item / strips % blocks * block;
      const int64_t row = item % strips * height, last_row = std::min(rows, row + height);
      const int64_t last = std::min(channels, first + block);
      const int64_t step = x.is_half() ? stage.channels : multiplier == 1 && written_size[0] == 1 ? block : 1;
      for (int64_t channel = first; channel < last; channel += step)
        if (x.is_half())
          compute_halves(n, channel, std::min(step, last - channel), row, last_row, room);
        else
          compute(n, channel, std::min(step, last - channel), row, last_row);
    });
    if (!adds_border(p)) return;
    depthwise_border_run<T>(p, r, nullptr, 0);
    if (!store.more) return;
    parallel_for(r.parallel, p.n * channels, [&](int64_t item, int) {
      const PhaseScope finishing(r.phases, Phase::kOutput);
      for (int64_t i = 0; i < written_size[0]; ++i) {
        const int64_t at = written_at(item / channels, item % channels) + i * written_size[1] * written_size[2];
        finish((forward ? y : x).at(at), r.residual ? residual.at(at) : nullptr, written_size[1]);
      }
    });
  }

 private:
  // A kernel call of every channel: pointers are those of the first, what is counted from them.
  struct Call {
    DepthwisePlane<T> plane;
    void (*kernel)(const DepthwisePlane<T>*);  // for all rows
    int filter_rows;
    int64_t x, y, w;
    int64_t first, unit;  // image rows written: first + unit * j
    int64_t step, taps;   // rows read: those of the filter's phase
    size_t group;
  };
  static_assert(sizeof(Call) <= kPlaneCallBytes);
  struct Slice {
    std::vector<Call> calls;
    std::vector<DepthwiseGroup> groups;
  };

  // Multiples of both block heights of the kernels would be best; strips are few.
  static int64_t aligned_rows(int64_t rows) { return ceil_div(rows, 8) * 8; }

  void add_calls(const ColumnAxis& depth, int64_t o, Slice& slice) {
    const int64_t plane_read = read_plane / depth.size;
    std::vector<DepthwiseGroup> groups;
    for (int64_t m = 0; m < (forward ? 1 : multiplier); ++m)
      for (int64_t t = 0; t < depth.taps; ++t) {
        const int64_t at = o * depth.step + depth.offset + t * depth.offset_step;
        if (at < 0 || at >= depth.size) continue;
        const int64_t tap = (depth.first_tap + t * depth.tap_step) * p.filter[1] * p.filter[2];
        groups.push_back({m * r.y_channel_pitch * !forward + at * plane_read, m * taps(p) + tap, 0});
      }
    for (int64_t phase = 0; phase < phases_of(p, 1); ++phase) {
      const ColumnAxis a = phase_axis(p, 1, phase);
      const SharedRows shared(a, columns.stride);
      for (int64_t residue = 0; residue < std::min(shared.residues, a.columns); ++residue)
        add_rows(groups, a, shared, residue, slice);
    }
  }

  void add_rows(const std::vector<DepthwiseGroup>& groups, const ColumnAxis& a, const SharedRows& shared,
                int64_t residue, Slice& slice) const {
    const int64_t begin = shared.begin(a, residue), read_width = phase_axis(p, 2, 0).size;
    const TapOrder order(a);
    Call call{};
    call.plane = plane_of(shared.points(a, residue));
    call.plane.x_row = shared.pitch * read_width;
    call.plane.y_row = a.out_step * shared.residues * columns.pixels;
    call.plane.w_row = order.step * p.filter[2];
    shared.set_limits(a, begin, &call.plane);
    call.first = a.out_first + residue * a.out_step;
    call.unit = a.out_step * shared.residues;
    call.step = shared.step, call.taps = a.taps;
    call.x = begin * read_width;
    call.y = call.first * columns.pixels;
    call.w = order.first * p.filter[2];
    const bool one_row = a.columns == 1 && a.taps == 1 && columns.right - columns.left >= kFewestVectors;
    if (one_row && begin >= 0 && begin < a.size && !groups.empty()) return add_long_row(call, groups, slice);
    add_tall(call, a.taps, groups, slice);
  }

  DepthwisePlane<T> plane_of(int64_t rows) const {
    DepthwisePlane<T> plane{};
    plane.rows = rows;
    plane.columns = columns.columns;
    plane.pixels = columns.pixels;
    plane.step = columns.steps.data();
    plane.steps = static_cast<int64_t>(columns.steps.size());
    plane.bits = columns.bits.data();
    plane.left = columns.left, plane.right = columns.right;
    return plane;
  }

  // As few filter rows as the kernels know, or groups of them and the rest.
  void add_tall(Call call, int64_t filter_rows, const std::vector<DepthwiseGroup>& groups, Slice& slice) const {
    const int most = kernels.most_filter_rows[static_cast<int>(columns.way)];
    const bool known = filter_rows <= most && filter_rows != 6;
    const int64_t height = known ? std::max<int64_t>(1, filter_rows) : kTallRows;
    const std::vector<DepthwiseGroup> none;
    if (filter_rows == 0 || groups.empty()) return add(call, 1, none, slice);
    std::vector<DepthwiseGroup> tall;
    for (const DepthwiseGroup& group : groups)
      for (int64_t row = 0; row + height <= filter_rows; row += height)
        tall.push_back({group.x, group.w + row * call.plane.w_row, row});
    add(call, height, tall, slice);
    const int64_t rest = filter_rows % height;
    if (rest == 0) return;
    call.plane.accumulate = true;
    tall.clear();
    for (const DepthwiseGroup& group : groups)
      tall.push_back({group.x, group.w + (filter_rows - rest) * call.plane.w_row, filter_rows - rest});
    add(call, rest, tall, slice);
  }

  void add(Call call, int64_t filter_rows, const std::vector<DepthwiseGroup>& groups, Slice& slice) const {
    call.filter_rows = static_cast<int>(filter_rows);
    call.kernel = kernels.rows(columns.way, call.filter_rows, call.plane.rows);
    call.group = slice.groups.size();
    call.plane.groups = static_cast<int64_t>(groups.size());
    slice.groups.insert(slice.groups.end(), groups.begin(), groups.end());
    slice.calls.push_back(call);
  }

  // The edges as they are; the vectors between them as rows of one vector each.
  void add_long_row(Call call, const std::vector<DepthwiseGroup>& groups, Slice& slice) const {
    const int64_t lanes = kernels.lanes;
    const auto shifted = [&](int64_t vector) {
      Call part = call;
      part.x += vector * lanes * columns.stride;
      part.y += vector * lanes * columns.sets;
      part.plane.columns -= vector * lanes;
      part.plane.pixels -= vector * lanes * columns.sets;
      part.plane.bits = columns.bits_of(vector);
      part.plane.left = part.plane.right = 0;
      return part;
    };
    if (columns.left > 0) {
      Call edge = shifted(0);
      edge.plane.columns = columns.left * lanes;
      edge.plane.pixels = edge.plane.columns * columns.sets;
      add_tall(edge, 1, groups, slice);
    }
    if (columns.right < columns.vectors) add_tall(shifted(columns.right), 1, groups, slice);
    Call middle = shifted(columns.left);
    middle.plane.rows = columns.right - columns.left;
    middle.plane.columns = lanes;
    middle.plane.pixels = lanes * columns.sets;
    middle.plane.first_row = std::numeric_limits<int64_t>::min() / 2;
    middle.plane.x_row = lanes * columns.stride / middle.step;
    middle.plane.y_row = lanes * columns.sets;
    middle.plane.right = 1;
    middle.plane.bits = whole.data();
    middle.unit = 0;
    // Of a block with fewer rows than the kernel's, the others lie beyond the vectors that are whole.
    const auto read_rows = [&](int64_t filter_rows) { return (middle.plane.rows - 1) * middle.step + filter_rows; };
    middle.plane.last_row = read_rows(1);
    // Steps a vector apart are filter rows.
    const int64_t steps = static_cast<int64_t>(columns.steps.size()), block = kTallRows * lanes;
    const bool shares =
        columns.way == DepthwiseWay::kPlain && steps > lanes && columns.steps[1].x == columns.steps[0].x + 1;
    if (!shares) return add_tall(middle, 1, groups, slice);
    middle.plane.w_row = (columns.steps[1].w[0] - columns.steps[0].w[0]) * lanes;
    for (int64_t first = 0; first < steps; first += block) {
      const int64_t count = std::min(block, steps - first), height = count / lanes, full = count % lanes;
      const auto add_steps = [&](int64_t step, int64_t number, int64_t filter_rows) {
        if (number <= 0) return;
        middle.plane.step = columns.steps.data() + step;
        middle.plane.steps = number;
        middle.plane.last_row = read_rows(filter_rows);
        add(middle, filter_rows, groups, slice);
        middle.plane.accumulate = true;
      };
      add_steps(first, full, height + 1);
      if (height > 0) add_steps(first + full, lanes - full, height);
    }
  }

  int64_t read_at(int64_t n, int64_t channel) const {
    return forward ? n * r.x_batch_pitch + channel / multiplier * r.x_channel_pitch
                   : n * r.y_batch_pitch + channel * multiplier * r.y_channel_pitch;
  }
  int64_t written_at(int64_t n, int64_t channel) const {
    return forward ? n * r.y_batch_pitch + channel * r.y_channel_pitch
                   : n * r.x_batch_pitch + channel * r.x_channel_pitch;
  }

  // Rows [row, last_row) of some channels, of one where they have several planes or share what they read.
  void compute(int64_t n, int64_t channel, int64_t channels, int64_t row, int64_t last_row) const {
    const PhaseScope multiplying(r.phases, Phase::kProducts);
    const int64_t to = written_at(n, channel), width = written_size[2], plane = written_size[1] * width;
    const int64_t pitch = forward ? r.y_channel_pitch : r.x_channel_pitch;
    for (int64_t i = 0; i < written_size[0]; ++i) {
      T* at = (forward ? y : x).at(to + i * plane);
      compute_slice(slices[static_cast<size_t>(i)], (forward ? x : y).at(read_at(n, channel)),
                    forward ? r.x_channel_pitch : r.y_channel_pitch, at, pitch, channel, channels, row, last_row);
      for (int64_t c = 0; store.more && !adds_border(p) && c < channels; ++c) {
        const int64_t first = row * width + c * pitch;
        finish(at + first, r.residual ? residual.at(to + i * plane + first) : nullptr, last_row - row);
      }
    }
  }

  // The same of halves and of some channels, which come and go through `room`. Pointers are to where row 0 would lie.
  void compute_halves(int64_t n, int64_t channel, int64_t channels, int64_t row, int64_t last_row, T* room) const {
    const auto [first, last] = stage.read_rows(row, last_row);
    const int64_t read_width = forward ? p.size[2] : output_size(p, 2), width = written_size[2];
    const int64_t cells = (last - first) * read_width, pixels = (last_row - row) * width;
    const int64_t to = written_at(n, channel) + row * width;
    const int64_t pitch = forward ? r.y_channel_pitch : r.x_channel_pitch;
    T *made = room + channels * cells, *addends = made + channels * pixels;
    {
      const PhaseScope widening(r.phases, Phase::kConversions);
      (forward ? x : y)
          .gather_row(gemm, cells, 0, cells, read_at(n, channel) + first * read_width, 1,
                      forward ? r.x_channel_pitch : r.y_channel_pitch, room, cells, channels);
      if (r.residual) residual.gather_row(gemm, pixels, 0, pixels, to, 1, pitch, addends, pixels, channels);
    }
    {
      const PhaseScope multiplying(r.phases, Phase::kProducts);
      compute_slice(slices[0], room - first * read_width, cells, made - row * width, pixels, channel, channels, row,
                    last_row);
      for (int64_t c = 0; store.more && c < channels; ++c)
        finish(made + c * pixels, r.residual ? addends + c * pixels : nullptr, last_row - row);
    }
    const PhaseScope narrowing(r.phases, Phase::kConversions);
    (forward ? y : x).put_rows(gemm, channels, pixels, made, pixels, to, pitch);
  }

  // Channels are so far apart in what is read, and in what is written.
  void compute_slice(const Slice& slice, const T* read, int64_t read_pitch, T* written, int64_t written_pitch,
                     int64_t channel, int64_t channels, int64_t row, int64_t last_row) const {
    const T* w = static_cast<const T*>(r.w) + (forward ? channel : channel * multiplier) * taps(p);
    const T* bias = r.bias ? static_cast<const T*>(r.bias) + channel : nullptr;
    const bool whole_plane = row == 0 && last_row == written_size[1];
    for (size_t i = 0; i < slice.calls.size(); ++i) {
      const Call& call = slice.calls[i];
      DepthwisePlane<T> at = call.plane;
      at.x = read + call.x;
      at.y = written + call.y;
      at.w = w + call.w;
      at.group = slice.groups.data() + call.group;
      at.bias = at.accumulate ? nullptr : bias;
      at.channels = channels;
      at.x_channel = read_pitch;
      at.y_channel = written_pitch;
      at.w_channel = taps(p);
      const bool last = i + 1 == slice.calls.size() || !slice.calls[i + 1].plane.accumulate;
      at.clamps = last && store.clamps;
      at.low = store.low, at.high = store.high;
      auto kernel = call.kernel;
      if (call.unit > 0 && !whole_plane) {
        const int64_t j = ceil_div(std::max<int64_t>(0, row - call.first), call.unit);
        at.rows = std::min(at.rows, ceil_div(std::max<int64_t>(0, last_row - call.first), call.unit)) - j;
        if (at.rows <= 0) continue;
        at.x += j * call.step * at.x_row;
        at.y += j * at.y_row;
        at.first_row -= j * call.step, at.last_row -= j * call.step;
        kernel = kernels.rows(columns.way, call.filter_rows, at.rows);
      }
      // Of a block with fewer rows than the kernel's, the others are not there either. (The middle of a long row says
      // so.)
      if (x.is_half() && call.unit > 0) at.last_row = std::min(at.last_row, (at.rows - 1) * call.step + call.taps);
      kernel(&at);
    }
  }

  void finish(T* at, const T* addend, int64_t rows) const {
    gemm.epilogue(1, rows * written_size[2], at, 0, nullptr, addend, 0, static_cast<int32_t>(p.activation), T(r.alpha));
  }

  const ConvProblem& p;
  const RunContext& r;
  const GemmKernelsOf<T>& gemm;
  const DepthwisePlaneKernelsOf<T>& kernels;
  const bool forward;
  const int64_t multiplier, read_plane;
  int64_t written_size[kMaxSpatial];
  const DepthwiseColumns columns;
  const DepthwiseStore<T> store;
  const DepthwiseStage stage;
  const Stored<T> x, y, residual;
  const std::vector<uint32_t> whole;
  std::vector<Slice> slices;
};

}  // namespace

bool depthwise_planes_serve(const ConvProblem& p) {
  if (p.x_layout != Layout::kChannelsFirst || p.y_layout != Layout::kChannelsFirst || !begins_with_zeros(p))
    return false;
  if (p.pass == Pass::kBackwardFilter || x_plane(p) == 0 || y_plane(p) == 0) return false;
  const DepthwiseWay way = depthwise_way(p);
  const ColumnAxis columns = phase_axis(p, 2, 0), rows = phase_axis(p, 1, 0);
  if (way == DepthwiseWay::kEvenOdd && (columns.step != 2 || (columns.offset_step != 1 && columns.taps > 1)))
    return false;
  if (way == DepthwiseWay::kInterleaved && phases_of(p, 2) != 2) return false;
  return SharedRows(rows, way == DepthwiseWay::kEvenOdd ? 2 : 1).fits;
}

template <class T>
void depthwise_planes_run(const ConvProblem& p, const RunContext& r) {
  Planes<T>(p, r).run();
}
template void depthwise_planes_run<float>(const ConvProblem&, const RunContext&);
template void depthwise_planes_run<double>(const ConvProblem&, const RunContext&);

}  // namespace fastconv
