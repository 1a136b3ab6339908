// SPDX-License-Identifier: Apache-2.0
// The last pass of a normalisation: each element by the factors of its channel and image, which are looked up once for
// the neighbours that share them.
#include "norm.cuh"

namespace fastconv::cuda {
namespace {

struct Element {
  int64_t outer, channel, rest;  // outer: images, or of channels last pixels; rest: of the run
};
__device__ __forceinline__ Element element_of(const Elements& e, int64_t i) {
  Element at;
  at.outer = e.by_channels.divide(e.by_run.divide(i, &at.rest), &at.channel);
  return at;
}
// To the next one; whether it is another channel's.
__device__ __forceinline__ bool advance(const Elements& e, Element* at) {
  if (++at->rest < e.run) return false;
  at->rest = 0;
  if (++at->channel == e.channels) at->channel = 0, ++at->outer;
  return true;
}

// Rules have Factors, factors(image, channel) and result(factors, x, dy), in Sum<T>.
template <class T, bool backward, class Rule>
__global__ void __launch_bounds__(kPointThreads)
    apply_all(Elements e, Rule rule, int32_t vectors, const T* dy, const T* x, T* to) {
  for_pieces<T>(e.count, vectors, [&](int64_t i, int64_t left, bool whole) {
    auto piece = load_piece(x + i, left, whole), gradient = piece;
    if constexpr (backward) gradient = load_piece(dy + i, left, whole);
    Element at = element_of(e, i);
    auto factors = rule.factors(e.by_pixels.quotient(at.outer), at.channel);
#pragma unroll
    for (int u = 0; u < kPiece<T>; ++u) {
      piece.at[u] = narrowed<T>(rule.result(factors, widen(piece.at[u]), widen(gradient.at[u])));
      if (u + 1 < kPiece<T> && u + 1 < left && advance(e, &at))
        factors = rule.factors(e.by_pixels.quotient(at.outer), at.channel);
    }
    store_piece(to + i, piece, left, whole);
  });
}

template <class T, bool backward, class Rule>
int apply(const RunContext& run, const Elements& e, const Rule& rule, const T* dy, const T* x, T* to) {
  return launch(run, apply_all<T, backward, Rule>, grid_of_pieces<T>(e.count), kPointThreads, 0, e, rule,
                aligned_pieces(dy, x, to), dy, x, to);
}

template <class S>
struct OfBatch {
  const S *mean, *scale, *shift;
  struct Factors {
    S mean, scale, shift;
  };
  __device__ __forceinline__ Factors factors(int64_t, int64_t c) const { return {mean[c], scale[c], shift[c]}; }
  __device__ __forceinline__ S result(const Factors& f, S x, S) const { return (x - f.mean) * f.scale + f.shift; }
};

template <class S>
struct OfBatchBackward {
  const S *mean, *dy_mean, *scale, *slope;
  struct Factors {
    S mean, dy_mean, scale, slope;
  };
  __device__ __forceinline__ Factors factors(int64_t, int64_t c) const {
    return {mean[c], dy_mean[c], scale[c], slope[c]};
  }
  __device__ __forceinline__ S result(const Factors& f, S x, S dy) const {
    return (dy - f.dy_mean) * f.scale + (x - f.mean) * f.slope;
  }
};

template <class S>
struct OfGroups {
  Divisor per;
  int64_t groups;
  Centres<S> centres;
  const double* inverse;
  const S *gamma, *beta;
  struct Factors {
    Centre<S> centre;
    S scale, shift;
  };
  __device__ __forceinline__ Factors factors(int64_t image, int64_t c) const {
    const int64_t group = image * groups + per.quotient(c);
    return {centres.at(group), gamma[c] * static_cast<S>(inverse[group]), beta[c]};
  }
  __device__ __forceinline__ S result(const Factors& f, S x, S) const {
    return f.centre.distance(x) * f.scale + f.shift;
  }
};

template <class S>
struct OfGroupsBackward {
  Divisor per;
  int64_t groups;
  Centres<S> centres;
  const double *inverse, *slope, *shift;
  const S* gamma;
  struct Factors {
    Centre<S> centre;
    S scale, slope, shift;
  };
  __device__ __forceinline__ Factors factors(int64_t image, int64_t c) const {
    const int64_t group = image * groups + per.quotient(c);
    return {centres.at(group), gamma[c] * static_cast<S>(inverse[group]), static_cast<S>(slope[group]),
            static_cast<S>(shift[group])};
  }
  __device__ __forceinline__ S result(const Factors& f, S x, S dy) const {
    return dy * f.scale + (f.centre.distance(x) * f.slope + f.shift);
  }
};

}  // namespace

template <class T>
int apply_batch(const RunContext& run, const Elements& e, const T* x, const Sum<T>* mean, const Sum<T>* scale,
                const Sum<T>* shift, T* y) {
  return apply<T, false>(run, e, OfBatch<Sum<T>>{mean, scale, shift}, static_cast<const T*>(nullptr), x, y);
}

template <class T>
int apply_batch_backward(const RunContext& run, const Elements& e, const T* dy, const T* x, const Sum<T>* mean,
                         const BatchSlopes<Sum<T>>& s, T* dx) {
  return apply<T, true>(run, e, OfBatchBackward<Sum<T>>{mean, s.dy_mean, s.scale, s.slope}, dy, x, dx);
}

template <class T>
int apply_groups(const RunContext& run, const Elements& e, int64_t groups, const T* x, const Sum<T>* gamma,
                 const Sum<T>* beta, const double* mean, const double* inverse, T* y) {
  typedef Sum<T> S;
  const OfGroups<S> rule = {Divisor(e.channels / groups), groups, Centres<S>{mean, nullptr}, inverse, gamma, beta};
  return apply<T, false>(run, e, rule, static_cast<const T*>(nullptr), x, y);
}

template <class T>
int apply_groups_backward(const RunContext& run, const Elements& e, int64_t groups, const T* dy, const T* x,
                          const Sum<T>* gamma, const GroupSlopes& s, T* dx) {
  typedef Sum<T> S;
  const OfGroupsBackward<S> rule = {
      Divisor(e.channels / groups), groups, Centres<S>{s.mean, nullptr}, s.inverse, s.slope, s.shift, gamma};
  return apply<T, true>(run, e, rule, dy, x, dx);
}

#define FC_INSTANTIATE(T)                                                                                             \
  template int apply_batch(const RunContext&, const Elements&, const T*, const Sum<T>*, const Sum<T>*, const Sum<T>*, \
                           T*);                                                                                       \
  template int apply_batch_backward(const RunContext&, const Elements&, const T*, const T*, const Sum<T>*,            \
                                    const BatchSlopes<Sum<T>>&, T*);                                                  \
  template int apply_groups(const RunContext&, const Elements&, int64_t, const T*, const Sum<T>*, const Sum<T>*,      \
                            const double*, const double*, T*);                                                        \
  template int apply_groups_backward(const RunContext&, const Elements&, int64_t, const T*, const T*, const Sum<T>*,  \
                                     const GroupSlopes&, T*);
FC_INSTANTIATE(float)
FC_INSTANTIATE(double)
FC_INSTANTIATE(Half)
FC_INSTANTIATE(BFloat16)
#undef FC_INSTANTIATE

}  // namespace fastconv::cuda
