// SPDX-License-Identifier: Apache-2.0
// Losses of one x and one target t at a time, their sums and their slopes in x. alpha is the Huber loss's delta or the
// smooth absolute loss's beta.
#include "norm_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const PairLossKernels kPairLossKernels;
namespace {

#include "vector_math.h"

// log(x), but at least -100, as PyTorch's binary cross-entropy has it. Its relative error stays small: see vlog.
template <class T>
FC_INLINE V<T> clamped_log(V<T> x) {
  const V<T> y = vlog<T>(x), least = splat(T(-100));
  return select<T>(y < least, least, y);
}

// log(1 - x) likewise; what 1 - x loses of x is added to first order.
template <class T>
FC_INLINE V<T> clamped_log_of_rest(V<T> x) {
  const V<T> rest = splat(T(1)) - x, lost = (splat(T(1)) - rest) - x;
  const V<T> y = vlog<T>(rest) + select<T>(rest > V<T>{}, lost / rest, V<T>{}), least = splat(T(-100));
  return select<T>(y < least, least, y);
}

template <class T>
FC_INLINE V<T> pair_loss(V<T> x, V<T> t, PairLoss kind, T alpha) {
  const V<T> zero{}, one = splat(T(1)), a = splat(alpha), half = splat(T(0.5)), d = x - t, distance = vabs<T>(d);
  switch (kind) {
    case PairLoss::kSquare:
      return d * d;
    case PairLoss::kAbsolute:
      return distance;
    case PairLoss::kHuber:
      return select<T>(distance <= a, half * d * d, a * (distance - half * a));
    case PairLoss::kSmoothAbsolute:
      return select<T>(distance < a, half * d * d / a, distance - half * a);
    case PairLoss::kEntropy:
      return (t - one) * clamped_log_of_rest<T>(x) - t * clamped_log<T>(x);
    case PairLoss::kEntropyOfLogits:
      return (select<T>(x > zero, x, zero) - x * t) + vlog1p_of_unit<T>(vexp<T>(-vabs<T>(x)));
    case PairLoss::kDivergence:
      return select<T>(t == zero, zero, t * vlog<T>(t)) - t * x;
    default:
      return vexp<T>(t) * (t - x);
  }
}

template <class T>
FC_INLINE V<T> pair_slope(V<T> x, V<T> t, PairLoss kind, T alpha) {
  const V<T> zero{}, one = splat(T(1)), d = x - t;
  const V<T> sign = select<T>(d > zero, one, select<T>(d < zero, -one, d));
  switch (kind) {
    case PairLoss::kSquare:
      return d + d;
    case PairLoss::kAbsolute:
      return sign;
    case PairLoss::kHuber:
      return vclamp<T>(d, -alpha, alpha);
    case PairLoss::kSmoothAbsolute:
      return select<T>(vabs<T>(d) < splat(alpha), d / splat(alpha), sign);
    case PairLoss::kEntropy: {
      const V<T> spread = (one - x) * x, least = splat(T(1e-12));
      return d / select<T>(spread < least, least, spread);
    }
    case PairLoss::kEntropyOfLogits:
      return vsigmoid<T>(x) - t;
    case PairLoss::kDivergence:
      return -t;
    default:
      return -vexp<T>(t);
  }
}

template <class T, int32_t KIND = 0>
void loss(int32_t kind, T alpha, int64_t count, const T* x, const T* t, T* loss_of) {
  if (kind != KIND) {
    if constexpr (KIND < (int32_t)PairLoss::kDivergenceOfLogs) loss<T, KIND + 1>(kind, alpha, count, x, t, loss_of);
    return;
  }
  for (int64_t i = 0; i < count; i += Vec<T>::lanes) {
    const V<T> a = load_lanes(x + i, 0, count - i), b = load_lanes(t + i, 0, count - i);
    store_first(loss_of + i, pair_loss<T>(a, b, (PairLoss)KIND, alpha), count - i);
  }
}

template <class T>
double sum(int32_t kind, T alpha, int64_t count, const T* x, const T* t) {
  constexpr int64_t piece = 512;
  T losses[piece];
  double total[8] = {};
  for (int64_t i = 0; i < count; i += piece) {
    const int64_t n = count - i < piece ? count - i : piece;
    loss<T>(kind, alpha, n, x + i, t + i, losses);
    int64_t j = 0;
    for (; j + 8 <= n; j += 8)
      for (int lane = 0; lane < 8; ++lane) total[lane] += (double)losses[j + lane];
    for (int lane = 0; j < n; ++j, ++lane) total[lane] += (double)losses[j];
  }
  return ((total[0] + total[4]) + (total[2] + total[6])) + ((total[1] + total[5]) + (total[3] + total[7]));
}

template <class T, int32_t KIND = 0>
void backward(int32_t kind, T alpha, int64_t count, const T* dloss, bool one, const T* x, const T* t, T* dx) {
  if (kind != KIND) {
    if constexpr (KIND < (int32_t)PairLoss::kDivergenceOfLogs)
      backward<T, KIND + 1>(kind, alpha, count, dloss, one, x, t, dx);
    return;
  }
  const V<T> single = splat(dloss[0]);
  for (int64_t i = 0; i < count; i += Vec<T>::lanes) {
    const V<T> a = load_lanes(x + i, 0, count - i), b = load_lanes(t + i, 0, count - i);
    const V<T> g = one ? single : load_lanes(dloss + i, 0, count - i);
    store_first(dx + i, g * pair_slope<T>(a, b, (PairLoss)KIND, alpha), count - i);
  }
}

}  // namespace

const PairLossKernels kPairLossKernels = {{loss<float>, sum<float>, backward<float>},
                                          {loss<double>, sum<double>, backward<double>}};

}  // namespace fastconv::FC_ISA
