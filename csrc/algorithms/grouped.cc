// SPDX-License-Identifier: Apache-2.0
// Convolution with few channels per group, forward and backward-data: lanes are grid points, whatever the channels.
//
//   for each image, block of groups and band of grid points (the items that threads share):
//     for each group: copy what the band reads, with its padding, to planes of one pitch   (grouped_planes.h) in L1
//       for each piece of the channels written, for each tile of vectors of points: sum over (channel, tap), add bias,
//       store what lies inside the rows
//
// Channels-first results are stored straight from the registers; others, and the phases of a strided backward-data,
// go through a strip. Channels-last tensors are copied and stored in blocks of groups that fill a vector of channels.
#include "grouped.h"

#include <cstdio>

#include "../counts.h"
#include "../parallel.h"
#include "../phases.h"
#include "../strip_store.h"

namespace fastconv {
namespace {

constexpr int64_t kMostChannels = 64;

template <class T>
class Grouped {
 public:
  Grouped(const ConvProblem& problem, const RunContext& context)
      : p(problem),
        r(context),
        b(p, *r.machine),
        kernels(grouped_kernels<T>(*r.machine)),
        store(p, r, gemm_kernels<T>(*r.machine)),
        read_layout{b.forward ? p.x_layout : p.y_layout, b.forward ? r.x_batch_pitch : r.y_batch_pitch,
                    b.forward ? r.x_channel_pitch : r.y_channel_pitch},
        read(*r.machine, p.dtype, b.forward ? r.x : r.y),
        w(static_cast<const T*>(r.w)),
        simple(!r.residual && (p.activation == Activation::kNone || p.activation == Activation::kRelu)) {}

  // How the lanes of a band's vectors are stored, and where its taps are read: the same for all bands of one size.
  struct Tables {
    GroupedStep* steps;
    int64_t* first_run;
    GroupedRun* runs;
  };
  // Scratch of a worker, and, once for all, the tables of a whole band.
  struct Room {
    int64_t planes, steps, first_run, runs, strip, tables, total;
    Room(const GroupedBlocking<T>& b, bool residual) {
      planes = aligned(b.plane_elements * sizeof(T));
      steps = aligned(b.steps * sizeof(GroupedStep));
      first_run = aligned((b.vectors + 1) * sizeof(int64_t));
      runs = aligned((b.vectors + b.band_rows) * sizeof(GroupedRun));
      tables = steps + first_run + runs;
      strip = b.direct && !b.border ? 0 : aligned(b.group_block * b.rows * b.points * sizeof(T));
      total = planes + tables + (residual ? 2 : 1) * strip;
    }
    Tables at(char* place) const {
      return {reinterpret_cast<GroupedStep*>(place), reinterpret_cast<int64_t*>(place + steps),
              reinterpret_cast<GroupedRun*>(place + steps + first_run)};
    }
  };

  void run() const {
    const Room room(b, r.residual != nullptr);
    const int64_t blocks = ceil_div(b.groups, b.group_block);
    const auto phase = [&](const ColumnGrid& grid) {
      if (grid.adds) return;
      const GroupedBands bands(grid, b.band_rows, b.band_columns);
      const Tables whole = room.at(scratch());
      make_tables(grid, bands, {0, 0, 0, bands.rows, 0, bands.columns}, whole);
      parallel_for(r.parallel, p.n * bands.count() * blocks, [&](int64_t item, int slot) {
        GroupedPlace at;
        if (!bands.place(grid, item / blocks % bands.count(), &at)) return;
        at.n = item / blocks / bands.count();
        const bool cut = at.rows < bands.rows || at.columns < bands.columns;
        compute(grid, bands, at, item % blocks * b.group_block, worker(room, slot), room, cut ? nullptr : &whole);
      });
    };
    each_grouped_grid(p, phase, r.pad_value);
    if (!b.border) return;
    // An item has all blocks of padding of an image, because their pixels overlap.
    parallel_for(r.parallel, p.n * blocks, [&](int64_t item, int slot) {
      each_grouped_grid(p, [&](const ColumnGrid& grid) {
        if (!grid.adds) return;
        const GroupedBands bands(grid, b.band_rows, b.band_columns);
        GroupedPlace at;
        at.n = item / blocks;
        for (int64_t band = 0; band < bands.count(); ++band)
          if (bands.place(grid, band, &at))
            compute(grid, bands, at, item % blocks * b.group_block, worker(room, slot), room, nullptr);
      });
    });
  }

 private:
  char* scratch() const { return static_cast<char*>(r.workspace); }
  char* worker(const Room& room, int slot) const { return scratch() + room.tables + slot * room.total; }

  void make_tables(const ColumnGrid& grid, const GroupedBands& bands, const GroupedPlace& at, const Tables& to) const {
    const bool direct = b.direct && !grid.adds;
    int64_t pitch = at.columns;
    if (grid.taps() > 0) {
      const GroupedPlanes<T> planes(*r.machine, grid, bands);
      list_steps(planes, to.steps);
      pitch = planes.pitch;
    }
    list_runs(at, pitch, direct ? grid.axis[2].columns : at.columns, to);
  }

  void compute(const ColumnGrid& grid, const GroupedBands& bands, const GroupedPlace& at, int64_t group, char* mine,
               const Room& room, const Tables* whole) const {
    T* planes = reinterpret_cast<T*>(mine);
    Tables tables = room.at(mine + room.planes);
    T* strip = reinterpret_cast<T*>(mine + room.planes + room.tables);
    T* residual_strip = reinterpret_cast<T*>(mine + room.planes + room.tables + room.strip);
    const ColumnAxis* a = grid.axis;
    const GroupedPlanes<T> from(*r.machine, grid, bands);
    const bool direct = b.direct && !grid.adds, empty = grid.taps() == 0;
    const int64_t groups = std::min(b.group_block, b.groups - group), points = at.rows * at.columns;
    const int64_t first = at.n * grid.columns() + (at.o0 * a[1].columns + at.row) * a[2].columns + at.column;
    if (whole)
      tables = *whole;
    else
      make_tables(grid, bands, at, tables);

    GroupedBand<T> band{};
    band.vectors = ceil_div((at.rows - 1) * (empty ? at.columns : from.pitch) + at.columns, int64_t{kernels.lanes});
    band.first_run = tables.first_run;
    band.runs = tables.runs;
    band.step_count = b.channels * grid.taps();
    band.steps = tables.steps;
    band.w_row = b.forward ? b.channels * b.all_taps : b.all_taps;
    band.relu = direct && simple && p.activation == Activation::kRelu;
    band.y_row = direct ? store.row_pitch() : points;
    const auto fill = [&](int64_t channel, int64_t channels) {
      const PhaseScope gathering(r.phases, Phase::kInput);
      from.fill(read_layout, read, at, channel, channels, planes);
    };
    if (!empty && b.together) fill(group * b.channels, groups * b.channels);
    for (int64_t g = group; g < group + groups; ++g) {
      if (!empty && !b.together) fill(g * b.channels, b.channels);
      const PhaseScope multiplying(r.phases, Phase::kProducts);
      band.x = planes + (b.together && !empty ? (g - group) * b.channels * from.channel_pitch : 0);
      T* y = direct ? store.row(first, g * b.rows) : strip + (g - group) * b.rows * points;
      for (int64_t piece = 0; piece < b.pieces; ++piece) {
        const int64_t begin = b.piece_begin(piece);
        band.rows = static_cast<int>(b.piece_begin(piece + 1) - begin);
        band.w = w + g * b.rows * b.channels * b.all_taps + begin * band.w_row;
        band.bias = direct && simple && r.bias ? static_cast<const T*>(r.bias) + g * b.rows + begin : nullptr;
        band.y = y + begin * band.y_row;
        if (!empty && g + 1 < b.groups) look_ahead(grid, at, g + 1, piece, &band);
        kernels.band(&band);
      }
      if (direct && !simple)
        each_part(at, a[2].columns, [&](int64_t point, int64_t, int64_t count) {
          store.finish_in_place(b.rows, count, y + point, g * b.rows);
        });
    }
    if (direct) return;
    const PhaseScope storing(r.phases, Phase::kOutput);
    const bool halves = read.is_half();
    if (!grid.adds && a[2].out_step == 2 && !r.residual && p.x_layout == Layout::kChannelsFirst && !halves)
      return spread(grid, at, group * b.rows, groups * b.rows, strip);
    each_part(at, a[2].columns, [&](int64_t column, int64_t point, int64_t count) {
      store.move(grid, first + column, count, group * b.rows, groups * b.rows, strip + point, points,
                 residual_strip + point);
    });
  }

  template <class Planes>
  void list_steps(const Planes& planes, GroupedStep* step) const {
    const ColumnAxis* a = planes.grid.axis;
    for (int64_t c = 0; c < b.channels; ++c)
      each_tap(planes.grid, [&](int64_t t0, int64_t t1, int64_t t2) {
        const int64_t tap =
            ((a[0].first_tap + t0 * a[0].tap_step) * p.filter[1] + a[1].first_tap + t1 * a[1].tap_step) * p.filter[2] +
            a[2].first_tap + t2 * a[2].tap_step;
        *step++ = {planes.offset(c, t0, t1, t2), c * b.all_taps * (b.forward ? 1 : b.rows) + tap};
      });
  }

  // The share of a piece in what the next group's band reads.
  void look_ahead(const ColumnGrid& grid, const GroupedPlace& at, int64_t group, int64_t piece,
                  GroupedBand<T>* band) const {
    if (b.together || read.is_half()) return;
    const ColumnAxis* a = grid.axis;
    const int64_t depth = std::clamp(at.o0 * a[0].step + a[0].offset, int64_t{0}, a[0].size - 1);
    const int64_t top = at.row * a[1].step + a[1].offset + std::min<int64_t>(0, reach_of(a[1]));
    const int64_t first = std::clamp(top, int64_t{0}, a[1].size);
    const int64_t last = std::clamp(top + (at.rows - 1) * a[1].step + std::abs(reach_of(a[1])) + 1, first, a[1].size);
    const int64_t begin = piece * b.channels / b.pieces;
    band->ahead_channels = (piece + 1) * b.channels / b.pieces - begin;
    band->ahead_pitch = read_layout.channel_pitch;
    band->ahead_count = (last - first) * a[2].size;
    band->ahead = read.at(at.n * read_layout.batch_pitch + (group * b.channels + begin) * read_layout.channel_pitch +
                          (depth * a[1].size + first) * a[2].size);
  }

  // A phase whose pixels are every other one of a row.
  void spread(const ColumnGrid& grid, const GroupedPlace& at, int64_t channel, int64_t channels, T* strip) const {
    const ColumnAxis* a = grid.axis;
    const int64_t points = at.rows * at.columns, pitch = r.x_channel_pitch;
    if (r.bias || p.activation != Activation::kNone)
      gemm_kernels<T>(*r.machine)
          .epilogue(channels, points, strip, points, r.bias ? static_cast<const T*>(r.bias) + channel : nullptr,
                    nullptr, 0, static_cast<int32_t>(p.activation), T(r.alpha));
    const int64_t depth = a[0].out_first + at.o0 * a[0].out_step, column = a[2].out_first + 2 * at.column;
    T* x = static_cast<T*>(r.x) + at.n * r.x_batch_pitch + channel * pitch + depth * a[1].out_size * a[2].out_size +
           column;
    for (int64_t i = 0; i < at.rows; ++i) {
      const int64_t row = a[1].out_first + (at.row + i) * a[1].out_step;
      kernels.spread(channels, at.columns, strip + i * at.columns, points, x + row * a[2].out_size, pitch);
    }
  }

  // The band's points that lie one after the other in the grid: all of them, or a row each.
  // visit(place counted along the grid, place in the band, count)
  template <class Visit>
  static void each_part(const GroupedPlace& at, int64_t width, const Visit& visit) {
    if (at.columns == width || at.rows == 1) return visit(0, 0, at.rows * at.columns);
    for (int64_t i = 0; i < at.rows; ++i) visit(i * width, i * at.columns, at.columns);
  }

  void list_runs(const GroupedPlace& at, int64_t pitch, int64_t y_pitch, const Tables& to) const {
    const int64_t lanes = kernels.lanes, end = (at.rows - 1) * pitch + at.columns;
    GroupedRun* run = to.runs;
    int64_t row = 0, *first_run = to.first_run;
    for (int64_t q = 0; q < end; q += lanes) {
      *first_run++ = run - to.runs;
      for (; row < at.rows && row * pitch < q + lanes; ++row) {
        const int64_t start = row * pitch - q, from = std::max<int64_t>(0, start);
        const int64_t count = std::min(lanes, start + at.columns) - from;
        if (count > 0) *run++ = {row * y_pitch - start, ((1u << count) - 1u) << from};
        if (start + pitch > lanes) break;  // goes on in the next vector
      }
    }
    *first_run = run - to.runs;
  }

  const ConvProblem& p;
  const RunContext& r;
  const GroupedBlocking<T> b;
  const GroupedKernelsOf<T>& kernels;
  const StripStore<T> store;
  const ImageLayout read_layout;
  const Stored<T> read;
  const T* w;
  const bool simple;  // the epilogue is that of the tiles
};

template <class T>
int64_t workspace_as(const ConvProblem& p, const Machine& m, int slots) {
  const typename Grouped<T>::Room room(GroupedBlocking<T>(p, m), p.epilogue & kEpilogueResidual);
  return room.tables + slots * room.total;
}

template <class T>
void estimate_as(const ConvProblem& p, const Machine& m, Estimate* e) {
  const GroupedBlocking<T> b(p, m);
  const GroupedKernelsOf<T>& kernels = grouped_kernels<T>(m);
  const double rows = times(b.rows) / times(b.pieces), images = times(p.n, b.groups);
  const double vectors = kernels.vectors(static_cast<int>(ceil_div(b.rows, b.pieces)));
  const bool last = (b.forward ? p.x_layout : p.y_layout) == Layout::kChannelsLast;
  e->add("start", 3e-6);
  each_grouped_grid(p, [&](const ColumnGrid& grid) {
    const GroupedBands bands(grid, b.band_rows, b.band_columns);
    const double all = images * times(bands.count());
    const auto add = [&](const char* work, double seconds) { e->add(grid.adds ? "border" : work, seconds); };
    add("bands", all * 0.2e-6);
    if (grid.taps() == 0) return;
    const GroupedPlanes<T> planes(m, grid, bands);
    const double tiles = times(planes.vectors({0, 0, 0, bands.rows, 0, bands.columns}), b.pieces);
    const double loads = rows / vectors / 2 + 1;  // those across two lines of the cache count twice
    add("products",
        grouped_seconds<T>(1.25 * all * tiles * times(b.channels, grid.taps()) * std::max(rows / 2, loads), p, m));
    add("tiles", all * tiles / vectors * 8e-9);
    const double plane_rows = times(grid.axis[0].taps, planes.h.lines, planes.h.length, planes.w.lines);
    const bool apart = grid.axis[2].step > 1;
    add("plane rows", all * times(b.channels) * plane_rows * 3e-9);
    add(last    ? "planes turned"
        : apart ? "planes apart"
                : "planes",
        all * times(b.channels, planes.channel_pitch) * 0.15e-9);
  });
  const double written = images * times(b.forward ? y_plane(p) : x_plane(p), b.rows);
  const bool strided = !b.direct && (b.forward ? p.y_layout : p.x_layout) == Layout::kChannelsFirst;
  e->add(b.direct  ? "stored"
         : strided ? "spread"
                   : "turned",
         written * (b.direct  ? 0.08e-9
                    : strided ? 0.9e-9
                              : 0.35e-9));
}

bool is_double(const ConvProblem* p) { return p->dtype == DType::kFloat64; }

bool why_not(const ConvProblem* p, const Machine*, char* text) {
  text[0] = 0;
  if (p->dtype != DType::kFloat32 && p->dtype != DType::kFloat64)
    snprintf(text, kTextCapacity, "grouped computes f32 and f64, got %s", name_of(p->dtype));
  else if (p->c / p->groups > kMostChannels || p->k / p->groups > kMostChannels)
    snprintf(text, kTextCapacity, "grouped needs at most %lld channels per group, got %lld in and %lld out",
             static_cast<long long>(kMostChannels), static_cast<long long>(p->c / p->groups),
             static_cast<long long>(p->k / p->groups));
  return text[0] != 0;
}

void estimate(const ConvProblem* p, const Machine* m, Estimate* e) {
  if (p->pass == Pass::kBackwardFilter) return grouped_filter_estimate(*p, *m, e);
  is_double(p) ? estimate_as<double>(*p, *m, e) : estimate_as<float>(*p, *m, e);
}

int64_t workspace_bytes(const ConvProblem* p, const Machine* m, int slots, bool) {
  if (p->pass == Pass::kBackwardFilter) return grouped_filter_workspace(*p, *m, slots);
  return is_double(p) ? workspace_as<double>(*p, *m, slots) : workspace_as<float>(*p, *m, slots);
}

int64_t packed_bytes(const ConvProblem*, const Machine*) { return 0; }

int run(const ConvProblem* p, const RunContext* r) {
  if (p->pass == Pass::kBackwardFilter)
    grouped_filter_run(*p, *r);
  else
    is_double(p) ? Grouped<double>(*p, *r).run() : Grouped<float>(*p, *r).run();
  return 0;
}

// Not what blocks of padding are added to.
TakenHalves takes_halves(const ConvProblem* p) {
  const bool adds = p->pass == Pass::kBackwardData && shows_cells(p->padding_mode);
  return adds ? TakenHalves::kNone : TakenHalves::kImages;
}

int64_t multiplications(const ConvProblem* p, const Machine*) { return gathered_products(*p, true); }

}  // namespace

extern const Algorithm kGrouped;
const Algorithm kGrouped = {"grouped",    1.0,     1,   SameBits::kOne, why_not,        estimate, workspace_bytes,
                            packed_bytes, nullptr, run, takes_halves,   multiplications};

}  // namespace fastconv
