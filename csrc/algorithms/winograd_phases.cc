// SPDX-License-Identifier: Apache-2.0
#include "winograd_phases.h"

#include "../halo.h"
#include "../kernels/implicit_gradient_kernels.h"
#include "../parallel.h"
#include "../phases.h"
#include "../workspace.h"

namespace fastconv {
namespace {

constexpr int64_t kRows = 16;  // of a plane of x', moved at a time

int64_t bytes_of(int64_t elements, DType dtype) { return aligned(elements * element_size(dtype)); }

// A strided problem and its counterpart of stride 1. Channels of x' are ordered [group][i][j][channel of the group].
struct Phased {
  const ConvProblem& p;
  ConvProblem dense;
  int64_t channels;         // of x, of a group
  int64_t phases[2], all;   // on axes 1 and 2: those that some tap has
  int64_t plane, depths;    // of x': elements of one depth, depths
  int64_t image;            // elements
  int64_t weights, filter;  // elements of w'; of one of its channels, all taps

  explicit Phased(const ConvProblem& problem) : p(problem), dense(problem) {
    all = 1;
    for (int a = 1; a < kMaxSpatial; ++a) {
      phases[a - 1] = std::min(p.stride[a], p.filter[a]);
      all *= phases[a - 1];
      dense.filter[a] = phase_taps(p, a);
      dense.stride[a] = 1;
      dense.pad_begin[a] = dense.pad_end[a] = 0;
      dense.size[a] = output_size(p, a) + dense.filter[a] - 1;
    }
    channels = p.c / p.groups;
    dense.c = p.c * all;
    dense.x_layout = Layout::kChannelsFirst;
    plane = dense.size[1] * dense.size[2];
    depths = dense.size[0];
    image = dense.c * depths * plane;
    weights = p.k * channels * all * taps(dense);
    filter = taps(dense);
  }
  // The element of x' where a plane of channel `c` of the group begins.
  int64_t plane_at(int64_t group, int64_t i, int64_t j, int64_t c, int64_t depth) const {
    return ((((group * phases[0] + i) * phases[1] + j) * channels + c) * depths + depth) * plane;
  }
  // Of a coordinate of x' at a phase.
  int64_t coordinate(int axis, int64_t cell, int64_t phase) const {
    return cell * p.stride[axis] + phase - p.pad_begin[axis];
  }
  // No window reads what lies there or beyond: zero taps meet it.
  int64_t end(int axis) const {
    return (output_size(p, axis) - 1) * p.stride[axis] + p.filter[axis] - p.pad_begin[axis];
  }
  // Images whose x' is made at a time: they stay in L2, every thread has one, and there are tiles for all of them.
  int64_t chunk(const WinogradForm& form, const Machine& m, int slots) const {
    constexpr int64_t kTiles = 168;  // four blocks of fused tiles
    if (p.pass == Pass::kBackwardFilter || p.n == 0) return p.n;
    const WinogradGeometry g(form, of_images(1), m);
    const int64_t near = m.l2_bytes / 2 / std::max<int64_t>(1, bytes_of(image, p.dtype));
    const int64_t wanted = std::max({int64_t{slots}, near, ceil_div(kTiles * slots, std::max<int64_t>(1, g.tiles))});
    return ceil_div(p.n, ceil_div(p.n, wanted));
  }
  ConvProblem of_images(int64_t n) const {
    ConvProblem q = dense;
    q.n = n;
    return q;
  }
};

// visit(w, w') for the elements of all taps; those of w' that have none are not visited.
template <class Visit>
void each_tap(const Phased& d, int64_t k, const Visit& visit) {
  const ConvProblem &p = d.p, &q = d.dense;
  for (int64_t i = 0; i < d.phases[0]; ++i)
    for (int64_t j = 0; j < d.phases[1]; ++j)
      for (int64_t c = 0; c < d.channels; ++c) {
        const int64_t from = (k * d.channels + c) * taps(p);
        const int64_t to = ((k * d.all + i * d.phases[1] + j) * d.channels + c) * d.filter;
        for (int64_t depth = 0; depth < p.filter[0]; ++depth)
          for (int64_t t = i, t1 = 0; t < p.filter[1]; t += p.stride[1], ++t1)
            for (int64_t u = j, u1 = 0; u < p.filter[2]; u += p.stride[2], ++u1)
              visit(from + (depth * p.filter[1] + t) * p.filter[2] + u,
                    to + (depth * q.filter[1] + t1) * q.filter[2] + u1);
      }
}
// Elements as they are stored: float32, or the bits of halves.
template <class E>
void split_weights(const Phased& d, const Parallel& parallel, const E* w, E* split) {
  const int64_t of_k = d.channels * d.all * d.filter;
  parallel_for(parallel, d.p.k, [&](int64_t k, int) {
    std::fill_n(split + k * of_k, of_k, E(0));
    each_tap(d, k, [&](int64_t from, int64_t to) { split[to] = w[from]; });
  });
}
template <class E>
void join_weights(const Phased& d, const Parallel& parallel, const E* split, E* w) {
  parallel_for(parallel, d.p.k,
               [&](int64_t k, int) { each_tap(d, k, [&](int64_t to, int64_t from) { w[to] = split[from]; }); });
}

// x' of some images, and dx from dx'.
template <class E>
class Images {
 public:
  Images(const Phased& phased, const RunContext& context)
      : d(phased),
        p(d.p),
        r(context),
        kernels(gemm_kernels<float>(*r.machine)),
        interleave(r.machine->kernels->implicit_gradient->f32.phase.interleave),
        layout{p.x_layout, r.x_batch_pitch, r.x_channel_pitch},
        x(static_cast<E*>(r.x)) {
    const float value = p.padding_mode == PaddingMode::kConstant ? static_cast<float>(r.pad_value) : 0.0f;
    if constexpr (kHalf)
      half_kernels(*r.machine, p.dtype).narrow(1, 1, &value, 0, &pad_value, 0);
    else
      pad_value = value;
  }

  void split(int64_t first, int64_t count, E* split) const {
    each_rows(count, d.dense.size[1], Phase::kInput, [&](const Rows& rows, int64_t cell, int64_t end) {
      for (int64_t i = 0; i < d.phases[0]; ++i)
        for (int64_t at = cell; at < end; ++at)
          split_row(first + rows.n, rows.depth, rows.channel, rows.channels, i, at, split + rows.n * d.image);
    });
  }

  void join(int64_t first, int64_t count, const E* split) const {
    each_rows(count, p.size[1], Phase::kOutput, [&](const Rows& rows, int64_t row, int64_t end) {
      for (int64_t y = row; y < end; ++y)
        join_row(first + rows.n, rows.depth, rows.channel, y, split + rows.n * d.image);
    });
  }

 private:
  static constexpr bool kHalf = sizeof(E) == 2;

  struct Rows {
    int64_t n, depth, channel, channels;
  };
  // visit(rows, begin, end) for some of `all` rows at a time, of one channel or, channels last, of a group's.
  template <class Visit>
  void each_rows(int64_t count, int64_t all, Phase phase, const Visit& visit) const {
    const int64_t together = p.x_layout == Layout::kChannelsLast ? d.channels : 1, parts = p.c / together;
    const int64_t blocks = ceil_div(all, kRows);
    parallel_for(r.parallel, count * parts * d.depths * blocks, [&](int64_t item, int) {
      const PhaseScope moving(r.phases, phase);
      const int64_t row = item % blocks * kRows, plane = item / blocks, part = plane / d.depths;
      visit(Rows{part / parts, plane % d.depths, part % parts * together, together}, row, std::min(row + kRows, all));
    });
  }

  int64_t row_of(int64_t n, int64_t depth, int64_t channel, int64_t y) const {
    return n * layout.batch_pitch + channel * layout.channel_step() +
           (depth * p.size[1] + y) * p.size[2] * layout.pixel_step();
  }

  // Row `cell` of the planes (i, j) of channels [channel, channel + count), which are of one group.
  void split_row(int64_t n, int64_t depth, int64_t channel, int64_t count, int64_t i, int64_t cell, E* split) const {
    const int64_t width = d.dense.size[2], pitch = d.depths * d.plane, at = d.coordinate(1, cell, i);
    const int64_t y = at < d.end(1) ? padded_source(p.padding_mode, at, p.size[1]) : kOutside;
    for (int64_t j = 0; j < d.phases[1]; ++j) {
      E* to = split + d.plane_at(channel / d.channels, i, j, channel % d.channels, depth) + cell * width;
      const int64_t start = d.coordinate(2, 0, j), step = p.stride[2];
      const int64_t shown = at < d.end(1) ? std::clamp(ceil_div(d.end(2) - start, step), int64_t{0}, width) : 0;
      if (y == kOutside) {
        fill(to, 0, shown, count, pitch, pad_value);
        fill(to, shown, width, count, pitch, E(0));
        continue;
      }
      const int64_t row = row_of(n, depth, channel, y);
      const auto [first, last] = Inside(start, step, shown, p.size[2]);
      fill(to, shown, width, count, pitch, E(0));
      gather(x + row + (start + first * step) * layout.pixel_step(), step, last - first, count, to + first, pitch);
      border(row, start, 0, first, count, pitch, to);
      border(row, start, last, shown, count, pitch, to);
    }
  }
  // Cells `step` apart, of channels side by side in the tensor's layout.
  void gather(const E* from, int64_t step, int64_t cells, int64_t count, E* to, int64_t pitch) const {
    if constexpr (!kHalf) {
      if (layout.layout == Layout::kChannelsFirst) return kernels.gather_row(cells, 0, cells, from, step, 0, to, 0, 1);
      return kernels.transpose(cells, count, cells, from, step * layout.pixel_step(), to, pitch);
    }
    for (int64_t c = 0; c < count; ++c)
      for (int64_t i = 0; i < cells; ++i)
        to[c * pitch + i] = from[i * step * layout.pixel_step() + c * layout.channel_step()];
  }
  void fill(E* to, int64_t first, int64_t last, int64_t count, int64_t pitch, E value) const {
    for (int64_t c = 0; c < count && first < last; ++c) std::fill(to + c * pitch + first, to + c * pitch + last, value);
  }
  void border(int64_t row, int64_t start, int64_t first, int64_t last, int64_t count, int64_t pitch, E* to) const {
    if (!shows_cells(p.padding_mode)) return fill(to, first, last, count, pitch, pad_value);
    for (int64_t cell = first; cell < last; ++cell) {
      const int64_t at = padded_source(p.padding_mode, start + cell * p.stride[2], p.size[2]);
      for (int64_t c = 0; c < count; ++c)
        to[c * pitch + cell] = x[row + at * layout.pixel_step() + c * layout.channel_step()];
    }
  }

  void join_row(int64_t n, int64_t depth, int64_t channel, int64_t y, const E* split) const {
    const int64_t width = d.dense.size[2], s = p.stride[2], pitch = d.depths * d.plane;
    const int64_t i = (y + p.pad_begin[1]) % p.stride[1], cell = (y + p.pad_begin[1]) / p.stride[1];
    const E* from = split + d.plane_at(channel / d.channels, i, 0, channel % d.channels, depth) + cell * width;
    const int64_t of_phase = d.channels * pitch, row = row_of(n, depth, channel, y), size = p.size[2];
    if (layout.layout == Layout::kChannelsLast) {
      for (int64_t j = 0; j < s; ++j) {
        const int64_t first = std::max<int64_t>(0, ceil_div(p.pad_begin[2] - j, s));  // cell of x'
        const int64_t at = d.coordinate(2, first, j), count = ceil_div(size - at, s);
        if (count > 0) turn(count, from + j * of_phase + first, pitch, x + row + at * layout.pixel_step());
      }
      return;
    }
    // The kernel begins with the first phase; what lies before that is up to a stride of single cells.
    const int64_t head = std::min(size, (s - p.pad_begin[2] % s) % s), next = (p.pad_begin[2] + head) / s;
    for (int64_t at = 0; at < head; ++at)
      x[row + at] = from[(at + p.pad_begin[2]) % s * of_phase + (at + p.pad_begin[2]) / s];
    if constexpr (!kHalf) return interleave(size - head, s, from + next, of_phase, x + row + head);
    for (int64_t j = 0; j < std::min(s, size - head); ++j) {
      const E* phase = from + j * of_phase + next;
      E* to = x + row + head + j;
      for (int64_t c = 0, count = ceil_div(size - head - j, s); c < count; ++c) to[c * s] = phase[c];
    }
  }
  // Rows of a group's channels to pixels a stride apart.
  void turn(int64_t count, const E* from, int64_t pitch, E* to) const {
    const int64_t step = p.stride[2] * layout.pixel_step();
    if constexpr (!kHalf) return kernels.transpose(d.channels, count, d.channels, from, pitch, to, step);
    for (int64_t i = 0; i < count; ++i)
      for (int64_t c = 0; c < d.channels; ++c) to[i * step + c] = from[c * pitch + i];
  }

  const Phased& d;
  const ConvProblem& p;
  const RunContext& r;
  const GemmKernelsOf<float>& kernels;
  void (*interleave)(int64_t count, int64_t phases, const float* src, int64_t pitch, float* dst);
  const ImageLayout layout;
  E* x;
  E pad_value;
};

// Parts of the workspace, in bytes: w' | packed w' | bias' | x' | the form's own.
struct Room {
  int64_t w, packed, bias, x, inner;
  Room(const WinogradForm& form, const Phased& d, const Machine& m, int slots, bool has_packed) {
    const int64_t chunk = d.chunk(form, m, slots);
    const bool filter = d.p.pass == Pass::kBackwardFilter, data = d.p.pass == Pass::kBackwardData;
    w = has_packed ? 0 : bytes_of(d.weights, DType::kFloat32);  // or halves
    packed = has_packed || filter || chunk == d.p.n ? 0 : aligned(winograd_packed_bytes(form, d.dense, m));
    bias = data && d.p.epilogue & kEpilogueBias ? bytes_of(d.dense.c, DType::kFloat32) : 0;
    x = bytes_of(chunk * d.image, d.p.dtype);
    // The last images may be fewer, and so the schedule another one.
    const bool comes_packed = has_packed || packed > 0;
    const ConvProblem last = d.of_images(d.p.n % std::max<int64_t>(1, chunk));
    inner = std::max(winograd_workspace_of(form, d.of_images(chunk), m, slots, comes_packed),
                     winograd_workspace_of(form, last, m, slots, comes_packed));
  }
};

}  // namespace

bool winograd_has_phases(const WinogradForm& form, const ConvProblem& p) {
  return form.stride == 1 && (p.stride[1] > 1 || p.stride[2] > 1);
}

bool phases_cover(const ConvProblem& p) {
  for (int a = 1; a < kMaxSpatial; ++a)
    if (p.filter[a] < p.stride[a] ||
        (output_size(p, a) + phase_taps(p, a) - 1) * p.stride[a] < p.size[a] + p.pad_begin[a])
      return false;
  return true;
}

void winograd_phases_estimate(const WinogradForm& form, const ConvProblem& p, const Machine& m, Estimate* e) {
  const Phased d(p);
  winograd_estimate(form, d.dense, m, e);
  e->add("phases", 1e-9 * times(p.n, d.image));
  if (p.pass != Pass::kForward) e->add("phases of weights", 1e-9 * times(d.weights));
}

int64_t winograd_phases_workspace(const WinogradForm& form, const ConvProblem& p, const Machine& m, int slots,
                                  bool packed) {
  int64_t most = 0;
  for (int s = 1; s <= slots; ++s) {  // with fewer threads there may be more chunks, and packed weights for them
    const Room room(form, Phased(p), m, s, packed);
    most = std::max(most, room.w + room.packed + room.bias + room.x + room.inner);
  }
  return most;
}

int64_t winograd_phases_multiplications(const WinogradForm& form, const ConvProblem& p, const Machine& m) {
  return winograd_multiplications(form, Phased(p).dense, m);
}

int64_t winograd_phases_packed_bytes(const WinogradForm& form, const ConvProblem& p, const Machine& m) {
  return winograd_packed_bytes(form, Phased(p).dense, m);
}

namespace {

template <class E>
int pack_as(const WinogradForm& form, const Phased& d, const Machine& m, const Parallel& parallel, const void* w,
            void* packed) {
  const Workspace split(bytes_of(d.weights, d.p.dtype));
  if (split.failed()) return 1;
  split_weights(d, parallel, static_cast<const E*>(w), static_cast<E*>(split.data()));
  return winograd_pack(form, d.dense, m, parallel, split.data(), packed);
}

template <class E>
void run_as(const WinogradForm& form, const Phased& d, const Room& room, const RunContext& r, RunContext& inner) {
  const ConvProblem& p = d.p;
  const Images<E> images(d, r);
  E* x = static_cast<E*>(inner.x);
  if (p.pass == Pass::kBackwardFilter) {
    images.split(0, p.n, x);
    winograd_run(form, d.dense, inner);
    return join_weights(d, r.parallel, static_cast<const E*>(inner.w), static_cast<E*>(r.w));
  }
  if (room.w) {
    const PhaseScope packing(r.phases, Phase::kWeights);
    split_weights(d, r.parallel, static_cast<const E*>(r.w), static_cast<E*>(inner.w));
    void* packed = static_cast<char*>(inner.w) + room.w;
    if (room.packed) {
      winograd_pack(form, d.dense, *r.machine, r.parallel, inner.w, packed);
      inner.packed_w = packed;
    }
  }
  const int64_t chunk = d.chunk(form, *r.machine, r.parallel.slots);
  for (int64_t n = 0; n < p.n; n += chunk) {
    const ConvProblem q = d.of_images(std::min(chunk, p.n - n));
    inner.y = static_cast<E*>(r.y) + n * r.y_batch_pitch;
    if (r.residual) inner.residual = static_cast<const E*>(r.residual) + n * r.y_batch_pitch;
    if (p.pass == Pass::kForward) images.split(n, q.n, x);
    winograd_run(form, q, inner);
    if (p.pass == Pass::kBackwardData) images.join(n, q.n, x);
  }
}

}  // namespace

int winograd_phases_pack(const WinogradForm& form, const ConvProblem& p, const Machine& m, const Parallel& parallel,
                         const void* w, void* packed) {
  return (is_half(p.dtype) ? pack_as<uint16_t> : pack_as<float>)(form, Phased(p), m, parallel, w, packed);
}

int winograd_phases_run(const WinogradForm& form, const ConvProblem& p, const RunContext& r) {
  const Phased d(p);
  const Room room(form, d, *r.machine, r.parallel.slots, r.packed_w != nullptr);
  char* at = static_cast<char*>(r.workspace);
  RunContext inner = r;
  inner.w = at;
  float* bias = reinterpret_cast<float*>(at += room.w + room.packed);
  inner.x = at += room.bias;
  inner.x_batch_pitch = d.image, inner.x_channel_pitch = d.depths * d.plane;
  inner.workspace = at + room.x;
  if (room.bias) {
    for (int64_t c = 0; c < d.dense.c; ++c)
      bias[c] = static_cast<const float*>(r.bias)[c / d.channels / d.all * d.channels + c % d.channels];
    inner.bias = bias;
  }
  (is_half(p.dtype) ? run_as<uint16_t> : run_as<float>)(form, d, room, r, inner);
  return 0;
}

}  // namespace fastconv
