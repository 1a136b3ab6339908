// SPDX-License-Identifier: Apache-2.0
// Any geometry as a product: what outputs read is gathered into columns, a part of the outputs at a time, so that the
// workspace stays bounded; backward-data goes the other way, and x gathers what columns of its own it went into.
#include <cstdio>

#include "columns.cuh"
#include "conv_gemm.cuh"
#include "roofline.h"

namespace fastconv::cuda {
namespace {

// Columns that stay in the second cache are written and read there. Where so few pixels would leave multiprocessors without
// a tile, there are more of them.
constexpr int64_t kFewBytes = int64_t{32} << 20, kMostBytes = int64_t{256} << 20, kManyTiles = 264;

bool channels_last(const ConvProblem& p) { return p.x_layout == Layout::kChannelsLast; }
// Weights are used in the order of the columns.
bool reorders(const ConvProblem& p) {
  return channels_last(p) && taps(p) > 1 && p.c > p.groups && p.pass != Pass::kBackwardFilter;
}
int64_t weight_bytes(const ConvProblem& p) { return p.k * (p.c / p.groups) * taps(p) * element_size(p.dtype); }
int64_t room(int64_t bytes) { return round_up(bytes, 256); }

// `whole` in parts of at most `most`, as equal as multiples of `unit` allow.
int64_t part_of(int64_t whole, int64_t most, int64_t unit) {
  most = std::max(unit, most / unit * unit);
  return whole <= most ? whole : round_up(divide_up(whole, divide_up(whole, most)), unit);
}

// The workspace: weights in the order of columns, columns of a part, pieces of a product.
struct Blocking {
  int64_t images, pixels;            // of a part; not all pixels: images is 1
  int64_t groups, members, splits;   // backward-data: channels of a part
  int64_t weights, columns, pieces;  // bytes
};

Blocking forward_blocking(const ConvProblem& p) {
  const int64_t cg = p.c / p.groups, kg = p.k / p.groups, depth = cg * taps(p), plane = y_plane(p);
  const int64_t bytes = p.c * taps(p) * element_size(p.dtype);
  const int64_t filling = kManyTiles * 128 / divide_up(p.k, 128);
  const int64_t most = std::max(kFewBytes / bytes, std::min(filling, kMostBytes / bytes));
  Blocking b{};
  b.pixels = part_of(plane, most, 64);
  b.images = b.pixels < plane || p.n == 0 ? 1 : part_of(p.n, most / std::max<int64_t>(1, plane), 1);
  b.groups = p.groups, b.members = cg;
  b.columns = room(p.c * taps(p) * round_up(b.images * b.pixels, 4) * element_size(p.dtype));
  if (p.pass == Pass::kBackwardFilter) {
    b.splits = filter_splits(kg, depth, b.images * b.pixels, p.groups);
    if (b.splits > 1 || b.pixels < plane || b.images < p.n)
      b.pieces = piece_bytes(p.dtype, kg, depth, p.groups, b.splits);
  } else {
    b.splits = tensor_splits(kg, plane, depth, p.groups);
    const bool last = p.y_layout == Layout::kChannelsLast;
    if (b.splits > 1)
      b.pieces = last ? piece_bytes(p.dtype, b.images * b.pixels, kg, p.groups, b.splits)
                      : piece_bytes(p.dtype, kg, b.images * b.pixels, p.groups, b.splits);
  }
  return b;
}

Blocking data_blocking(const ConvProblem& p) {
  const int64_t cg = p.c / p.groups, plane = std::max<int64_t>(1, y_plane(p));
  const int64_t member = taps(p) * plane * computed_size(p.dtype), image = p.c * member;
  const int64_t tiles = divide_up(p.c * taps(p), 128) * divide_up(plane, 128);
  const int64_t filling = std::min(divide_up(kManyTiles, tiles), kMostBytes / image);
  Blocking b{};
  b.pixels = y_plane(p), b.splits = 1;
  b.images = part_of(std::max<int64_t>(1, p.n), std::max(kFewBytes / image, filling), 1);
  b.groups = image <= kMostBytes ? p.groups : part_of(p.groups, kMostBytes / (cg * member), 1);
  b.members = cg * member <= kMostBytes ? cg : part_of(cg, kMostBytes / member, 4);
  const int64_t depth = b.members * taps(p), outputs = b.images * b.pixels;
  b.columns = room(channels_last(p) ? piece_bytes(p.dtype, outputs, depth, b.groups, 1)
                                    : piece_bytes(p.dtype, depth, outputs, b.groups, 1));
  return b;
}

Blocking blocking_of(const ConvProblem& p, bool packed) {
  Blocking b = p.pass == Pass::kBackwardData ? data_blocking(p) : forward_blocking(p);
  if (reorders(p) && !packed) b.weights = room(weight_bytes(p));
  return b;
}

bool why_not(const ConvProblem* p, const Machine*, char* text) {
  text[0] = 0;
  if (is_half(p->dtype) && p->padding_mode == PaddingMode::kConstant && p->pass != Pass::kBackwardData)
    snprintf(text, kTextCapacity, "im2col_gemm would round the constant that it pads with to %s", name_of(p->dtype));
  return text[0] != 0;
}

// Columns are written once and read by as many tiles as there are above each other; most of it in the second cache.
void estimate(const ConvProblem* problem, const Machine* m, Estimate* e) {
  const ConvProblem& p = *problem;
  const Blocking b = blocking_of(p, false);
  const int64_t cg = p.c / p.groups, kg = p.k / p.groups, plane = y_plane(p);
  const int64_t parts = divide_up(p.n, b.images) * divide_up(plane, std::max<int64_t>(1, b.pixels)) *
                        divide_up(p.groups, b.groups) * divide_up(cg, b.members);
  const int64_t outputs = b.images * b.pixels, depth = b.members * taps(p);
  Estimate part;
  if (p.pass == Pass::kForward)
    gemm_estimate(p, *m, kg, outputs, depth, b.groups, b.splits, &part);
  else if (p.pass == Pass::kBackwardData)
    gemm_estimate(p, *m, depth, outputs, kg, b.groups, b.splits, &part);
  else
    gemm_estimate(p, *m, kg, depth, outputs, b.groups, b.splits, &part);
  for (int i = 0; i < part.terms; ++i) e->add(part.work[i], part.seconds[i] * times(parts));
  const double columns = times(p.n * plane, p.c * taps(p));
  const int64_t size = p.pass == Pass::kBackwardData ? computed_size(p.dtype) : element_size(p.dtype);
  // About 20 instructions for each element, and its bytes twice: guesses.
  e->add("columns", std::max(columns * 20 / rate(p, *m, 0.3), columns * 2 * times(size) / m->bytes_per_second));
  add_traffic("tensors", times(tensor_bytes(p)), *m, e);
  add_launches(static_cast<int>(std::min<int64_t>(1000, parts * (b.splits > 1 ? 3 : 2))) + (b.weights ? 1 : 0), e);
}

int64_t workspace_bytes(const ConvProblem* p, const Machine*, int, bool packed) {
  const Blocking b = blocking_of(*p, packed);
  return b.weights + b.columns + b.pieces;
}

int64_t packed_bytes(const ConvProblem* p, const Machine*) { return reorders(*p) ? weight_bytes(*p) : 0; }

Grid grid_of(int64_t elements) { return {std::min(divide_up(elements, kColumnThreads), kMostBlocksX)}; }

int pack(const ConvProblem* p, const RunContext* r, void* packed) {
  const int64_t cg = p->c / p->groups, count = taps(*p), elements = p->k * cg * count;
  starts(*r, Phase::kWeights);
  return by_dtype(p->dtype, [&](auto type) {
    typedef decltype(type) T;
    return launch(*r, columns_of_weights<T>, grid_of(elements), kColumnThreads, 0, static_cast<const T*>(r->w),
                  static_cast<T*>(packed), Divisor(cg), Divisor(count), cg, count, elements);
  });
}

// A run's view of it all.
template <class T>
struct Work {
  const RunContext& r;
  Conv<T> c;
  Blocking b;
  bool last;
  int64_t depth, plane;
  const T* weights;
  char *columns, *pieces;

  Work(const ConvProblem& p, const RunContext& context)
      : r(context), c(conv_of<T>(p, context)), b(blocking_of(p, context.packed_w)), last(channels_last(p)) {
    depth = c.group_c * taps(p), plane = y_plane(p);
    weights = c.w;
    if (reorders(p)) weights = static_cast<const T*>(context.packed_w ? context.packed_w : context.workspace);
    columns = static_cast<char*>(context.workspace) + b.weights, pieces = columns + b.columns;
  }

  // work(part) for one part of the outputs after the other, until it answers other than 0.
  template <class Each>
  int each_part(const Each& work) const {
    ColumnPart part{0, 0, 0, 0, 0, c.p.groups, 0, c.group_c};
    for (; part.first_image < c.p.n; part.first_image += b.images)
      for (part.first_pixel = 0; part.first_pixel < plane; part.first_pixel += b.pixels) {
        part.images = std::min(b.images, c.p.n - part.first_image);
        part.pixels = std::min(b.pixels, plane - part.first_pixel);
        const int status = work(part);
        if (status != 0) return status;
      }
    return 0;
  }
  ColumnSteps steps_of(const ColumnPart& part) const {
    const int64_t pixel = c.p.c * (depth / c.group_c), pitch = round_up(part.images * part.pixels, 4);
    if (last) return {part.pixels * pixel, pixel, depth, 1, c.group_c};
    return {part.pixels, 1, depth * pitch, depth / c.group_c * pitch, pitch};
  }
  int gather(const ColumnPart& part) const {
    const int64_t elements = part.images * part.pixels * c.p.c;
    starts(r, Phase::kInput);
    return launch(r, im2col<T>, grid_of(elements), kColumnThreads, 0, c, part, steps_of(part),
                  ColumnPlaces(c.p.x_layout, part, c.out), reinterpret_cast<T*>(columns), elements);
  }
  Operand<T> weights_by_depth() const {
    return {weights, Axis::flat(depth), Axis::flat(0), 1, c.group_k * depth, true, false};
  }
};

template <class T>
int run_forward(const Work<T>& work) {
  const Conv<T>& c = work.c;
  return work.each_part([&](const ColumnPart& part) {
    int status = work.gather(part);
    if (status != 0) return status;
    const ColumnSteps steps = work.steps_of(part);
    const int64_t outputs = part.images * part.pixels;
    const Operand<T> columns = {reinterpret_cast<const T*>(work.columns),
                                Axis::flat(steps.pixel),
                                Axis::flat(0),
                                work.last ? 1 : steps.tap,
                                steps.group,
                                work.last,
                                false};
    const int64_t offset = part.first_image * c.ys.batch + part.first_pixel * c.ys.pixel;
    Gemm<T> g = tensor_product(work.weights_by_depth(), columns, c.group_k, outputs, work.depth, c.p.groups, c.ys,
                               pixel_axis(c.ys, part.images, part.pixels), finished(c, c.y, offset));
    g.splits = work.b.splits;
    if (g.splits > 1) g.partial = reinterpret_cast<Sum<T>*>(work.pieces);
    return gemm(work.r, g);
  });
}

template <class T>
int run_backward_filter(const Work<T>& work) {
  const Conv<T>& c = work.c;
  const int64_t count = work.depth / c.group_c;
  Gemm<T> g{};
  g.m = c.group_k, g.n = work.depth, g.batches = c.p.groups, g.splits = work.b.splits, g.runs = g.depth = 0;
  g.c.data = c.w, g.c.rows = Axis::flat(work.depth), g.c.batch = c.group_k * work.depth;
  g.c.columns = work.last && count > 1 ? Axis::runs(c.group_c, 1, count) : Axis::flat(1);
  if (work.b.pieces) g.partial = reinterpret_cast<Sum<T>*>(work.pieces), g.unfinished = true;
  int status = work.each_part([&](const ColumnPart& part) {
    const int failed = work.gather(part);
    if (failed != 0) return failed;
    const ColumnSteps steps = work.steps_of(part);
    const T* y = c.y + part.first_image * c.ys.batch + part.first_pixel * c.ys.pixel;
    g.a = {y, Axis::flat(c.ys.channel), Axis::flat(0), 0, c.group_k * c.ys.channel, c.ys.channel != 1, false};
    g.b = {reinterpret_cast<const T*>(work.columns),
           Axis::flat(work.last ? 1 : steps.tap),
           Axis::flat(0),
           0,
           steps.group,
           !work.last,
           false};
    sum_over_pixels(&g, part.images, part.pixels, {c.ys.batch, c.ys.pixel}, {steps.image, steps.pixel});
    const int result = gemm(work.r, g);
    g.added = true;
    return result;
  });
  if (status != 0) return status;
  if (c.p.n * work.plane == 0) {  // zeros
    g.partial = nullptr, g.splits = 1;
    return gemm(work.r, g);
  }
  return g.partial ? gemm_add_partials(work.r, g) : 0;
}

// The products of a part, then what x gathers of them.
template <class T>
int data_part(const Work<T>& work, const ColumnPart& part) {
  const Conv<T>& c = work.c;
  const int64_t count = work.depth / c.group_c, rows = part.members * count, outputs = part.images * work.plane;
  const int64_t of_weights = part.first_group * c.group_k * work.depth + part.first_member * (work.last ? 1 : count);
  const Operand<T> weights = {work.weights + of_weights,
                              work.last ? Axis::runs(part.members, c.group_c, 1) : Axis::flat(1),
                              Axis::flat(0),
                              work.depth,
                              c.group_k * work.depth,
                              false,
                              false};
  const T* y = c.y + part.first_image * c.ys.batch + part.first_group * c.group_k * c.ys.channel;
  const auto pixels = pixels_by_channels<T>(y, c.ys, pixel_axis(c.ys, part.images, work.plane), c.group_k);
  Gemm<T> g{};
  g.m = work.last ? outputs : rows, g.n = work.last ? rows : outputs, g.depth = c.group_k, g.batches = part.groups;
  g.a = work.last ? pixels : weights, g.b = work.last ? weights : pixels;
  g.partial = reinterpret_cast<Sum<T>*>(work.columns), g.unfinished = true;
  const int status = gemm(work.r, g);
  if (status != 0) return status;

  const int64_t pitch = gemm_pitch<T>(g.n);
  const ColumnSteps steps = work.last ? ColumnSteps{work.plane * pitch, pitch, outputs * pitch, 1, part.members}
                                      : ColumnSteps{work.plane, 1, rows * pitch, count * pitch, pitch};
  const int64_t elements = part.images * part.groups * part.members * x_plane(c.p);
  const auto kernel = shows_cells(c.p.padding_mode) ? col2im<true, T> : col2im<false, T>;
  starts(work.r, Phase::kOutput);
  return launch(work.r, kernel, grid_of(elements), kColumnThreads, 0, c, part, steps,
                Positions(c.p.x_layout, part.groups * part.members, part.members, c.p.size), Strides(c.p),
                reinterpret_cast<const Sum<T>*>(work.columns), elements);
}

template <class T>
int run_backward_data(const Work<T>& work) {
  const Conv<T>& c = work.c;
  const Blocking& b = work.b;
  ColumnPart part{};
  for (; part.first_image < c.p.n; part.first_image += b.images)
    for (part.first_group = 0; part.first_group < c.p.groups; part.first_group += b.groups)
      for (part.first_member = 0; part.first_member < c.group_c; part.first_member += b.members) {
        part.images = std::min(b.images, c.p.n - part.first_image);
        part.groups = std::min(b.groups, c.p.groups - part.first_group);
        part.members = std::min(b.members, c.group_c - part.first_member);
        const int status = data_part(work, part);
        if (status != 0) return status;
      }
  return 0;
}

int run(const ConvProblem* p, const RunContext* r) {
  if (reorders(*p) && !r->packed_w) {
    const int status = pack(p, r, r->workspace);
    if (status != 0) return status;
  }
  return by_dtype(p->dtype, [&](auto type) {
    const Work<decltype(type)> work(*p, *r);
    if (p->pass == Pass::kForward) return run_forward(work);
    return p->pass == Pass::kBackwardData ? run_backward_data(work) : run_backward_filter(work);
  });
}

int64_t multiplications(const ConvProblem* p, const Machine* m) { return count_multiplications(*p, *m, run); }

}  // namespace

extern const Algorithm kIm2colGemm;
const Algorithm kIm2colGemm = {"im2col_gemm", 1.0,  1,   SameBits::kOne, why_not,        estimate, workspace_bytes,
                               packed_bytes,  pack, run, nullptr,        multiplications};

}  // namespace fastconv::cuda
