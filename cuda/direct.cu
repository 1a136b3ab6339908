// SPDX-License-Identifier: Apache-2.0
// The definition, one thread for each element of y or x and one block for each weight: refuses nothing. Fast nowhere; what
// no other algorithm takes is done by it.
#include <cstdio>

#include "../csrc/counts.h"
#include "positions.cuh"
#include "roofline.h"

namespace fastconv::cuda {
namespace {

constexpr int kThreads = 128;

template <class T>
__global__ void __launch_bounds__(kThreads)
    direct_forward(Conv<T> c, Positions positions, Plane filter, int64_t elements) {
  const ConvProblem& p = c.p;
  const int64_t taps = p.filter[0] * p.filter[1] * p.filter[2], cg = c.group_c;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < elements; i += int64_t{gridDim.x} * kThreads) {
    const Position at = position_of(i, positions);
    const T* x = c.x + at.n * c.xs.batch + at.group * cg * c.xs.channel;
    const T* w = c.w + at.channel * cg * taps;
    Sum<T> sum = 0;
    for (int64_t tap = 0; tap < taps; ++tap) {  // one loop for all axes: a nest spills
      int64_t t[kMaxSpatial];
      filter.places(tap, t);
      const int64_t a0 = source(c, 0, at.place[0], t[0]), a1 = source(c, 1, at.place[1], t[1]);
      const int64_t a2 = source(c, 2, at.place[2], t[2]);
      if (a0 == kOutside || a1 == kOutside || a2 == kOutside) {
        if (p.padding_mode == PaddingMode::kConstant)
          for (int64_t ch = 0; ch < cg; ++ch) sum += c.pad_value * widen(w[ch * taps + tap]);
        continue;
      }
      const T* cell = x + ((a0 * p.size[1] + a1) * p.size[2] + a2) * c.xs.pixel;
      for (int64_t ch = 0; ch < cg; ++ch) sum += widen(cell[ch * c.xs.channel]) * widen(w[ch * taps + tap]);
    }
    finish(c, c.y, at.n * c.ys.batch + at.channel * c.ys.channel + at.pixel * c.ys.pixel, at.channel, sum);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    direct_backward_data(Conv<T> c, Positions positions, Plane filter, Strides strides, int64_t elements) {
  const ConvProblem& p = c.p;
  const int64_t taps = p.filter[0] * p.filter[1] * p.filter[2], cg = c.group_c, kg = c.group_k;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < elements; i += int64_t{gridDim.x} * kThreads) {
    const Position at = position_of(i, positions);
    const T* y = c.y + at.n * c.ys.batch + at.group * kg * c.ys.channel;
    const T* w = c.w + (at.group * kg * cg + at.member) * taps;
    Sum<T> sum = 0;
    const Places places0 = places_of(c, 0, at.place[0]), places1 = places_of(c, 1, at.place[1]);
    const Places places2 = places_of(c, 2, at.place[2]);
    const int64_t count0 = 1 + places0.below + places0.above, count1 = 1 + places1.below + places1.above;
    const int64_t count2 = 1 + places2.below + places2.above;
    for (int64_t tap = 0; tap < taps; ++tap) {  // one loop for all axes, as above
      int64_t t[kMaxSpatial];
      filter.places(tap, t);
      for (int64_t i0 = 0, i1 = 0, i2 = 0; i0 < count0;) {
        const int64_t o0 = output_at(c, strides, 0, place(c, 0, places0, i0), t[0]);
        const int64_t o1 = output_at(c, strides, 1, place(c, 1, places1, i1), t[1]);
        const int64_t o2 = output_at(c, strides, 2, place(c, 2, places2, i2), t[2]);
        if (o0 != kOutside && o1 != kOutside && o2 != kOutside) {
          const T* dy = y + ((o0 * c.out[1] + o1) * c.out[2] + o2) * c.ys.pixel;
          for (int64_t k = 0; k < kg; ++k) sum += widen(dy[k * c.ys.channel]) * widen(w[k * cg * taps + tap]);
        }
        if (++i2 < count2) continue;
        i2 = 0;
        if (++i1 < count1) continue;
        i1 = 0, ++i0;
      }
    }
    finish(c, c.x, at.n * c.xs.batch + at.channel * c.xs.channel + at.pixel * c.xs.pixel, at.channel, sum);
  }
}

// Takes apart the positions of weights and of the pixels that they sum over.
struct Weights {
  Divisor taps, members, of_group, pixels;
  Plane filter, outputs;
  Weights(const ConvProblem& p, const int64_t* out)
      : taps(p.filter[0] * p.filter[1] * p.filter[2]),
        members(p.c / p.groups),
        of_group(p.k / p.groups),
        pixels(out[0] * out[1] * out[2]),
        filter(p.filter),
        outputs(out) {}
};

template <class T>
struct FilterSums {
  Sum<T> sums[kThreads];
};

// A block sums the products of one weight: each thread every kThreads-th pixel, then pairs of threads.
template <class T>
__global__ void __launch_bounds__(kThreads) direct_backward_filter(Conv<T> c, Weights taken, int64_t weights) {
  auto& s = shared<FilterSums<T>>();
  const ConvProblem& p = c.p;
  const int64_t plane = c.out[0] * c.out[1] * c.out[2];
  for (int64_t i = blockIdx.x; i < weights; i += gridDim.x) {
    int64_t tap, member, rest, t[kMaxSpatial];
    const int64_t k = taken.members.divide(taken.taps.divide(i, &tap), &member);
    const int64_t channel = taken.of_group.divide(k, &rest) * c.group_c + member;
    taken.filter.places(tap, t);
    Sum<T> sum = 0;
    for (int64_t at = threadIdx.x; at < p.n * plane; at += kThreads) {
      int64_t pixel, o[kMaxSpatial];
      const int64_t n = taken.pixels.divide(at, &pixel);
      taken.outputs.places(pixel, o);
      const int64_t a0 = source(c, 0, o[0], t[0]), a1 = source(c, 1, o[1], t[1]), a2 = source(c, 2, o[2], t[2]);
      Sum<T> value = 0;
      if (a0 != kOutside && a1 != kOutside && a2 != kOutside)
        value =
            widen(c.x[n * c.xs.batch + channel * c.xs.channel + ((a0 * p.size[1] + a1) * p.size[2] + a2) * c.xs.pixel]);
      else if (p.padding_mode == PaddingMode::kConstant)
        value = c.pad_value;
      else
        continue;
      sum += value * widen(c.y[n * c.ys.batch + k * c.ys.channel + pixel * c.ys.pixel]);
    }
    s.sums[threadIdx.x] = sum;
    for (unsigned half = kThreads / 2; half > 0; half /= 2) {
      sync();
      if (threadIdx.x < half) s.sums[threadIdx.x] += s.sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) c.w[i] = narrowed<T>(s.sums[0]);
    sync();
  }
}

bool why_not(const ConvProblem*, const Machine*, char* text) {
  text[0] = 0;
  return false;
}

void estimate(const ConvProblem* p, const Machine* m, Estimate* e) {
  add_launches(1, e);
  // Every product loads both its numbers, x across a stride, through the caches.
  e->add("products", times(multiply_adds(*p)) * 2 / rate(*p, *m, 0.03));
}

int64_t workspace_bytes(const ConvProblem*, const Machine*, int, bool) { return 0; }
int64_t packed_bytes(const ConvProblem*, const Machine*) { return 0; }

int run(const ConvProblem* p, const RunContext* r) {
  starts(*r, Phase::kProducts, static_cast<double>(products_inside(*p)));
  return by_dtype(p->dtype, [&](auto type) {
    typedef decltype(type) T;
    const Conv<T> c = conv_of<T>(*p, *r);
    const auto blocks = [](int64_t elements) { return Grid{std::min(divide_up(elements, kThreads), kMostBlocksX)}; };
    switch (p->pass) {
      case Pass::kForward: {
        const int64_t elements = p->n * p->k * y_plane(*p);
        const Positions positions(p->y_layout, p->k, c.group_k, c.out);
        return launch(*r, direct_forward<T>, blocks(elements), kThreads, 0, c, positions, Plane(p->filter), elements);
      }
      case Pass::kBackwardData: {
        const int64_t elements = p->n * p->c * x_plane(*p);
        const Positions positions(p->x_layout, p->c, c.group_c, p->size);
        const Strides strides(*p);
        return launch(*r, direct_backward_data<T>, blocks(elements), kThreads, 0, c, positions, Plane(p->filter),
                      strides, elements);
      }
      default: {
        const int64_t weights = p->k * (p->c / p->groups) * taps(*p);
        return launch(*r, direct_backward_filter<T>, Grid{std::min(weights, kMostBlocksX)}, kThreads,
                      sizeof(FilterSums<T>), c, Weights(*p, c.out), weights);
      }
    }
  });
}

int64_t multiplications(const ConvProblem* p, const Machine* m) { return count_multiplications(*p, *m, run); }

}  // namespace

extern const Algorithm kDirect;
const Algorithm kDirect = {"direct",     1.0,     1,   SameBits::kOne, why_not,        estimate, workspace_bytes,
                           packed_bytes, nullptr, run, nullptr,        multiplications};

}  // namespace fastconv::cuda
