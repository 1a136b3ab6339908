// SPDX-License-Identifier: Apache-2.0
// Backward-data of strides and of few channels, as matrix products without a column matrix. The pixels of dx fall into
// phases (im2col.h), stride many on each axis, that different taps reach. All of them are computed from one copy of dy:
//
//   for each strip of rows of grid points, one group and a share of its blocks (the items that threads share):
//     copy what any phase reads of dy, all k, to the halo buffer (halo.h)                       in L2
//     for each block of channels:
//       for each phase of the rows and of the columns (of these, or all at once): register tiles over the strip
//                                                                                     -> turned[phases][channel][pixel]
//       rows of turned, the phases of the columns in turn, finished, to rows of dx              written once, in order
//
// Two ways to fill a tile, whichever leaves fewer lanes empty:
//   lanes are channels   6 pixels x 4 vectors, as in implicit_gemm.cc; implicit_gradient_tile.cc has the tile
//   lanes are pixels     6 units x 4 vectors, units being (phase of the columns, channel): for the 3 channels of an
//                        image; phase_tile.h
// A phase that no tap reaches costs the zeros that it stores: 3 of 4 in a 1 x 1 convolution of stride 2.
// The phases are the sub-pixels of Shi et al., "Real-time single image and video super-resolution using an efficient
// sub-pixel convolutional neural network", CVPR 2016.
#include "implicit_gemm_data.h"

#include <algorithm>
#include <type_traits>

#include "../parallel.h"
#include "../phases.h"
#include "implicit_gemm_data_blocking.h"
#include "implicit_gemm_data_pack.h"

namespace fastconv {
namespace {

// The weights of a group and of its blocks follow each other.
template <class T>
void pack_as(const ConvProblem& p, const Machine& m, const Parallel& parallel, const Stored<T>& w, void* packed) {
  const DataBlocking<T> b(p, m);
  parallel_for(parallel, b.groups * b.blocks, [&](int64_t item, int) {
    const int64_t group = item / b.blocks, begin = b.block_begin(item % b.blocks);
    const int64_t width = b.block_begin(item % b.blocks + 1) - begin;
    const int64_t first = (group * b.k * b.channels + begin) * b.all_taps;
    T* dst = static_cast<T*>(packed) + group * b.group_elements() + begin * b.weights_of_channel();
    if (b.pixel_lanes)
      pack_units(p, b, w, first, width, dst);
    else
      turn_weights(p, b, gemm_kernels<T>(m), w, first, width, std::min(width, b.channels - begin), dst);
  });
}

template <class T>
class DataProduct {
 public:
  DataProduct(const ConvProblem& problem, const RunContext& context, const T* packed_w, char* scratch)
      : p(problem),
        r(context),
        kernels(gemm_kernels<T>(*r.machine)),
        b(p, *r.machine),
        room(p, b),
        weights(packed_w),
        scratch_(scratch),
        x_layout{p.x_layout, r.x_batch_pitch, r.x_channel_pitch},
        y_layout{p.y_layout, r.y_batch_pitch, r.y_channel_pitch},
        x(*r.machine, p.dtype, r.x),
        y(*r.machine, p.dtype, r.y),
        finishes(r.bias || p.activation != Activation::kNone) {}

  static constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));

  // Scratch of a worker.
  struct Room {
    int64_t halo, places, offsets, sums, turned;
    Room(const ConvProblem& p, const DataBlocking<T>& b) {
      int64_t steps = 1;
      each_phase(p, [&](const ColumnGrid& grid, int64_t) {
        const int64_t tap_count = b.tap_count(grid);
        if (tap_count > 0) steps = std::max(steps, b.k_block(tap_count) * tap_count);
      });
      halo = aligned(b.halo_elements() * sizeof(T));
      places = aligned((b.points() + 8) * sizeof(int64_t));
      offsets = aligned(steps * sizeof(int64_t));
      sums = b.pixel_lanes ? 0 : aligned(b.points() * b.widest_block() * sizeof(T));
      turned = aligned(b.rows_together * b.phase_total[2] * b.widest_block() * b.pitch() * sizeof(T));
    }
    int64_t bytes() const { return halo + places + offsets + sums + turned; }
  };

  void run() const {
    parallel_for(r.parallel, b.strips * b.groups * b.shares, [&](int64_t item, int slot) {
      const int64_t strip = item / b.shares / b.groups;
      Strip s;
      s.row = strip / b.segments * b.strip_rows;
      s.rows = std::min(b.strip_rows, b.rows - s.row);
      s.first = strip % b.segments * b.width;
      s.width = std::min(b.width, b.joined.axis[2].columns - s.first);
      compute(s, item / b.shares % b.groups, item % b.shares, scratch_ + slot * room.bytes());
    });
  }

 private:
  // Whole rows of grid points, or a segment of one.
  struct Strip {
    int64_t row, rows, first, width;
  };
  // Phases of the rows that are stored together: turned[phase of the rows][phase of the columns][channel][row], `width`
  // channels; those that are not shown are zeros.
  struct Rows {
    int64_t first, count;
    bool shown[kMostTogether];
    int64_t width;
    const T* turned;
  };
  // Where taps of dy lie, counted from a grid point's place: tap_offsets, or 0 for null.
  struct Source {
    const T* at;
    int64_t channel_step;
    const int64_t* tap_offsets;
    int64_t tap(int64_t joined_tap) const { return tap_offsets ? tap_offsets[joined_tap] : 0; }
  };

  void compute(const Strip& strip, int64_t group, int64_t share, char* mine) const {
    T* halo = reinterpret_cast<T*>(mine);
    int64_t* places = reinterpret_cast<int64_t*>(mine += room.halo);
    int64_t* offsets = reinterpret_cast<int64_t*>(mine += room.places);
    T* sums = reinterpret_cast<T*>(mine += room.offsets);
    T* turned = reinterpret_cast<T*>(mine += room.sums);
    const int64_t point = strip.row * b.joined.axis[2].columns + strip.first, points = strip.rows * strip.width;
    int64_t count = points;
    const Source source = find_source(strip, group, point, points, halo, places, &count);

    const int64_t last_block = (share + 1) * b.blocks / b.shares;
    for (int64_t block = share * b.blocks / b.shares; block < last_block; ++block) {
      const int64_t begin = b.block_begin(block), width = b.block_begin(block + 1) - begin;
      const int64_t channels = std::min(width, b.channels - begin);
      const T* block_weights = weights + group * b.group_elements() + begin * b.weights_of_channel();
      bool read = false;  // what `source` points to
      Rows rows{0, 0, {}, width, turned};
      each_phase(p, [&](const ColumnGrid& grid, int64_t before) {
        const int64_t phase = grid.axis[2].out_first, tap_count = b.tap_count(grid);
        if (phase == 0 && rows.count == 0) rows.first = grid.axis[1].out_first;
        const bool reached = grid.axis[0].taps > 0 && grid.axis[1].taps > 0;  // by a tap of some phase of the columns
        rows.shown[rows.count] = reached || finishes;
        T* to = turned + (rows.count * b.phase_total[2] + phase) * width * b.pitch();
        if (tap_count == 0) {
          for (int64_t c = 0; c < channels && rows.shown[rows.count]; ++c)
            std::fill_n(to + c * b.pitch(), line() * strip.rows, T(0));
        } else if (!b.pixel_lanes) {
          each_tap(p, grid, b.joined,
                   [&](int64_t number, int64_t, int64_t joined_tap) { offsets[number] = source.tap(joined_tap); });
          channel_tiles(points, tap_count, offsets, source, places, block_weights + before * width * b.k, width, sums,
                        !read);
          read = true;
          const PhaseScope turning(r.phases, Phase::kOutput);
          kernels.transpose(points, channels, points, sums, width, to, b.pitch());
        } else if (phase == 0) {
          int64_t number = 0;
          each_row_tap(p, grid, b.joined, [&](int64_t, int64_t joined_row) {
            for (int64_t j = 0; j < b.used_count; ++j)
              offsets[number++] = source.tap(joined_row * b.joined.axis[2].taps + b.used[j]);
          });
          pixel_tiles(count, tap_count, offsets, source, places, width * b.phase_total[2], &block_weights, to);
        }
        if (finishes)
          kernels.epilogue(channels, line() * strip.rows, to, b.pitch(),
                           r.bias ? static_cast<const T*>(r.bias) + group * b.channels + begin : nullptr, nullptr, 0,
                           static_cast<int32_t>(p.activation), T(r.alpha));
        if (phase + 1 < b.phase_total[2]) return;
        if (++rows.count < b.rows_together && grid.axis[1].out_first + 1 < b.phase_total[1]) return;
        store(strip, grid, group * b.channels + begin, channels, rows);
        rows.count = 0;
      });
    }
  }
  // Elements from one row of a channel in `turned` to the next.
  int64_t line() const { return b.pixel_lanes ? b.chunks * b.lanes : b.width; }

  Source find_source(const Strip& strip, int64_t group, int64_t point, int64_t points, T* halo, int64_t* places,
                     int64_t* count) const {
    const PhaseScope gathering(r.phases, Phase::kInput);
    if (b.in_place) return place_in_tensor(group, point, points, places);
    const HaloGather<T> gather(kernels, b.joined, point, points);
    gather.fill(y_layout, y, group * b.k, b.k, halo);
    *count = place_in_halo(gather, strip, point, points, places);
    return {gather.halo(halo), gather.channel_pitch(), gather.tap_offsets(halo)};
  }

  Source place_in_tensor(int64_t group, int64_t point, int64_t points, int64_t* places) const {
    const int64_t step = y_layout.pixel_step();
    each_run(b.joined, point, points, [&](const Run& run) {
      const int64_t row = run.o[0] * b.joined.axis[1].size + run.o[1];
      int64_t place = run.n * y_layout.batch_pitch + (row * b.joined.axis[2].size + run.o[2]) * step;
      for (int64_t i = 0; i < run.count; ++i, place += step) places[run.lane + i] = place;
    });
    return {y.at(group * b.k * y_layout.channel_step()), y_layout.channel_step(), nullptr};
  }

  // The grid points, or the first ones of vectors of them and a tile's worth of repetitions; returns how many.
  int64_t place_in_halo(const HaloGather<T>& gather, const Strip& strip, int64_t point, int64_t points,
                        int64_t* places) const {
    int64_t slab = 0, count = 0;
    each_run(b.joined, point, points, [&](const Run& run) {
      const int64_t place = gather.offset_of(run, &slab), step = b.pixel_lanes ? b.lanes : 1;
      for (int64_t i = 0; i < run.count; i += step) places[count++] = place + i;
      // The last segment may have fewer vectors than room.
      if (b.pixel_lanes)
        for (int64_t i = ceil_div(strip.width, b.lanes); i < b.chunks; ++i) places[count++] = place;
    });
    std::fill_n(places + count, 8, places[count - 1]);
    return count;
  }

  // From the taps of one k those of a block of k.
  void repeat_offsets(int64_t tap_count, int64_t step, int64_t* offsets) const {
    const int64_t k_block = b.k_block(tap_count);
    for (int64_t k = 1; k < k_block; ++k)
      for (int64_t tap = 0; tap < tap_count; ++tap) offsets[k * tap_count + tap] = offsets[tap] + k * step;
  }

  void channel_tiles(int64_t points, int64_t tap_count, int64_t* offsets, const Source& source, const int64_t* places,
                     const T* w, int64_t width, T* sums, bool first_time) const {
    const PhaseScope multiplying(r.phases, Phase::kProducts);
    const int64_t k_block = b.k_block(tap_count), step = source.channel_step;
    const int64_t tiles = ceil_div(points, int64_t{b.tiles.rows});
    repeat_offsets(tap_count, step, offsets);
    for (int64_t k = 0; k < b.k; k += k_block) {
      const int64_t steps = std::min(k_block, b.k - k) * tap_count;
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t begin = tile * points / tiles, size = (tile + 1) * points / tiles - begin;
        // Read where it lies: what follows two lines on.
        if (first_time && b.in_place && step > 1 && begin % kLine < size)
          for (int64_t i = 0; i < steps; ++i)
            __builtin_prefetch(source.at + (k + i) * step + places[begin] + 2 * kLine);
        b.tiles.tile(static_cast<int>(size), width, steps, offsets, source.at + k * step, places + begin, nullptr, w,
                     sums + begin * width, width, k > 0);
      }
      w += steps * width;
    }
  }
  // Moves *w on to the next phase of the rows.
  void pixel_tiles(int64_t chunks, int64_t tap_count, int64_t* offsets, const Source& source, const int64_t* places,
                   int64_t units, const T** w, T* to) const {
    const PhaseScope multiplying(r.phases, Phase::kProducts);
    const int64_t k_block = b.k_block(tap_count), step = source.channel_step;
    const int64_t tiles = ceil_div(units, int64_t{b.phases.units});
    repeat_offsets(tap_count, step, offsets);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t begin = tile * units / tiles, size = (tile + 1) * units / tiles - begin;
      const int64_t chunk_count = b.phases.chunks[size - 1];
      for (int64_t k = 0; k < b.k; k += k_block) {
        const int64_t steps = std::min(k_block, b.k - k) * tap_count;
        for (int64_t chunk = 0; chunk < chunks; chunk += chunk_count)
          b.phases.tile(static_cast<int>(size), steps, offsets, source.at + k * step, places + chunk, *w,
                        to + begin * b.pitch() + chunk * b.lanes, b.pitch(), k > 0);
        *w += steps * size;
      }
    }
  }

  // The rows of dx of some phases of the rows; a channel's follow each other, so that its lines are written once.
  void store(const Strip& strip, const ColumnGrid& grid, int64_t channel, int64_t channels, const Rows& rows) const {
    const PhaseScope storing(r.phases, Phase::kOutput);
    const ColumnAxis *a = grid.axis, *joined = b.joined.axis;
    const int64_t phases = b.phase_total[2], step = x_layout.pixel_step(), of_phase = rows.width * b.pitch();
    const int64_t first = strip.first * p.stride[2], count = std::min(p.size[2] - first, strip.width * p.stride[2]);
    int64_t places[kStrip * kMostTogether];  // of rows; below 0 where there is none
    for (int64_t i = 0; i < strip.rows; ++i) {
      const int64_t row = strip.row + i, o1 = row % joined[1].columns, o0 = row / joined[1].columns % joined[0].columns;
      const int64_t n = row / joined[1].columns / joined[0].columns, at0 = a[0].out_first + o0 * p.stride[0];
      for (int64_t j = 0; j < rows.count; ++j) {
        const int64_t at1 = rows.first + j + o1 * p.stride[1];
        const bool exists = at0 < p.size[0] && at1 < p.size[1];
        places[i * rows.count + j] =
            exists ? n * x_layout.batch_pitch + ((at0 * p.size[1] + at1) * p.size[2] + first) * step : -1;
      }
    }
    const int64_t dst = channel * x_layout.channel_step();
    if (x_layout.layout == Layout::kChannelsFirst) {
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t of_channel = dst + c * x_layout.channel_pitch;
        const int64_t* place = places;
        for (int64_t i = 0; i < strip.rows; ++i)
          for (int64_t j = 0; j < rows.count; ++j, ++place) {
            const T* src = rows.turned + j * phases * of_phase + c * b.pitch() + i * line();
            if (*place < 0) continue;
            if (rows.shown[j])
              interleave(count, phases, src, of_phase, of_channel + *place);
            else
              x.fill_zeros(of_channel + *place, count);
          }
      }
      return;
    }
    for (int64_t i = 0; i < strip.rows * rows.count; ++i) {
      if (places[i] < 0) continue;
      const int64_t j = i % rows.count;
      for (int64_t phase = 0; phase < phases; ++phase) {
        const int64_t pixels = ceil_div(count - phase, p.stride[2]);
        const int64_t at = dst + places[i] + phase * step;
        if (rows.shown[j])
          x.put_transposed(kernels, channels, pixels,
                           rows.turned + (j * phases + phase) * of_phase + i / rows.count * line(), b.pitch(), at,
                           p.stride[2] * step);
        else
          for (int64_t pixel = 0; pixel < pixels; ++pixel) x.fill_zeros(at + pixel * p.stride[2] * step, channels);
      }
    }
  }

  // `count` pixels of a row of dx from element `to` on, of the phases of the columns in turn.
  void interleave(int64_t count, int64_t phases, const T* src, int64_t of_phase, int64_t to) const {
    if (!x.is_half()) return b.phases.interleave(count, phases, src, of_phase, x.at(to));
    alignas(64) T room[Stored<T>::kRoom];
    const int64_t most = std::max<int64_t>(1, Stored<T>::kRoom / phases);  // of a phase
    for (int64_t first = 0; first * phases < count; first += most) {
      const int64_t some = std::min(count - first * phases, most * phases);
      b.phases.interleave(some, phases, src + first, of_phase, room);
      x.put_rows(kernels, 1, some, room, 0, to + first * phases, 0);
    }
  }

  const ConvProblem& p;
  const RunContext& r;
  const GemmKernelsOf<T>& kernels;
  const DataBlocking<T> b;
  const Room room;
  const T* weights;
  char* scratch_;
  const ImageLayout x_layout, y_layout;
  const Stored<T> x, y;
  const bool finishes;
};

template <class T>
int64_t packed_as(const ConvProblem& p, const Machine& m) {
  const DataBlocking<T> b(p, m);
  return b.groups * b.group_elements() * static_cast<int64_t>(sizeof(T));
}

template <class T>
int64_t workspace_as(const ConvProblem& p, const Machine& m, int slots, bool packed) {
  const typename DataProduct<T>::Room room(p, DataBlocking<T>(p, m));
  return slots * room.bytes() + (packed ? 0 : aligned(packed_as<T>(p, m)));
}

template <class T>
void run_as(const ConvProblem& p, const RunContext& r) {
  char* workspace = static_cast<char*>(r.workspace);
  const T* packed = static_cast<const T*>(r.packed_w);
  if (!packed) {
    const PhaseScope packing(r.phases, Phase::kWeights);
    pack_as<T>(p, *r.machine, r.parallel, Stored<T>(*r.machine, r.w_dtype, r.w), workspace);
    packed = reinterpret_cast<const T*>(workspace);
    workspace += aligned(packed_as<T>(p, *r.machine));
  }
  DataProduct<T>(p, r, packed, workspace).run();
}

bool is_double(const ConvProblem& p) { return p.dtype == DType::kFloat64; }

}  // namespace

bool implicit_data_takes(const ConvProblem& p, const Machine& m) {
  if (p.stride[0] > 1 || p.stride[1] > 1 || p.stride[2] > 1) return true;
  return is_double(p) ? DataBlocking<double>(p, m).pixel_lanes : DataBlocking<float>(p, m).pixel_lanes;
}

int64_t implicit_data_workspace(const ConvProblem& p, const Machine& m, int slots, bool packed) {
  return is_double(p) ? workspace_as<double>(p, m, slots, packed) : workspace_as<float>(p, m, slots, packed);
}

int64_t implicit_data_packed_bytes(const ConvProblem& p, const Machine& m) {
  return is_double(p) ? packed_as<double>(p, m) : packed_as<float>(p, m);
}

void implicit_data_pack(const ConvProblem& p, const Machine& m, const Parallel& parallel, const void* w, void* packed) {
  is_double(p) ? pack_as(p, m, parallel, Stored<double>(m, p.dtype, w), packed)
               : pack_as(p, m, parallel, Stored<float>(m, p.dtype, w), packed);
}

void implicit_data_run(const ConvProblem& p, const RunContext& r) {
  is_double(p) ? run_as<double>(p, r) : run_as<float>(p, r);
}

}  // namespace fastconv
