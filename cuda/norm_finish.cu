// SPDX-License-Identifier: Apache-2.0
// From partial sums to the factors that the last pass needs: a warp for each statistic.
#include "norm.cuh"

namespace fastconv::cuda {
namespace {

// Calls work(statistic, lane) for `count` statistics, a warp each.
template <class Work>
__device__ __forceinline__ void for_statistics(int64_t count, const Work& work) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t step = int64_t{gridDim.x} * kNormWarps;
  for (int64_t r = int64_t{blockIdx.x} * kNormWarps + threadIdx.x / kWarp; r < count; r += step) work(r, lane);
}
Grid grid_of_statistics(int64_t count) { return Grid{std::min(divide_up(count, kNormWarps), kMostBlocksX)}; }

struct Moments {
  double values, mean, variance;
};
// Each lane's pieces in turn, then a tree; the squares around the mean of all.
__device__ __forceinline__ Moments joined_moments(const Join& j, const Partials& parts, int64_t r, int lane) {
  double values = 0, sum = 0, squares = 0, of;
  for (int64_t i = lane; i < j.pieces; i += kWarp) {
    const int64_t at = piece_of(j, r, i, &of);
    values += of, sum += of * parts.first[at];
  }
  values = warp_sum(values);
  const double mean = warp_sum(sum) / values;
  for (int64_t i = lane; i < j.pieces; i += kWarp) {
    const int64_t at = piece_of(j, r, i, &of);
    const double distance = parts.first[at] - mean;
    squares += parts.second[at] + of * distance * distance;
  }
  return {values, mean, warp_sum(squares) / values};
}

__device__ __forceinline__ double joined_sum(const Join& j, const double* parts, int64_t r, int lane) {
  double sum = 0, of;
  for (int64_t i = lane; i < j.pieces; i += kWarp) sum += parts[piece_of(j, r, i, &of)];
  return warp_sum(sum);
}

template <class S>
__global__ void __launch_bounds__(kNormThreads)
    batch_factors(Join join, Partials parts, const S* gamma, const S* beta, double eps, BatchFactors<S> to) {
  for_statistics(join.statistics, [&](int64_t c, int lane) {
    const Moments all = joined_moments(join, parts, c, lane);
    if (lane > 0) return;
    const double factor = static_cast<double>(gamma[c]) / sqrt(all.variance + eps);
    const S mean = static_cast<S>(all.mean);
    to.mean[c] = mean;
    to.variance[c] = static_cast<S>(all.variance);
    to.scale[c] = static_cast<S>(factor);
    // The part of the mean that S cannot hold goes into the shift.
    to.shift[c] = static_cast<S>(static_cast<double>(beta[c]) - (all.mean - static_cast<double>(mean)) * factor);
  });
}

template <class S>
__global__ void __launch_bounds__(kNormThreads)
    inference_scale(int64_t channels, const S* gamma, const S* variance, double eps, S* scale) {
  const int64_t step = int64_t{gridDim.x} * kNormThreads;
  for (int64_t c = int64_t{blockIdx.x} * kNormThreads + threadIdx.x; c < channels; c += step)
    scale[c] = static_cast<S>(static_cast<double>(gamma[c]) / sqrt(static_cast<double>(variance[c]) + eps));
}

// With h = (x - mean) / sigma and M values per channel: dgamma = sum(dy h), dbeta = sum(dy),
// dx = gamma / sigma (dy - dbeta / M - h dgamma / M).
template <class S>
__global__ void __launch_bounds__(kNormThreads)
    batch_slopes(Join join, Partials parts, const S* gamma, const S* variance, double eps, BatchSlopes<S> to) {
  const double values = static_cast<double>((join.parts - 1) * join.part + join.last);
  for_statistics(join.statistics, [&](int64_t c, int lane) {
    const double sum = joined_sum(join, parts.first, c, lane);
    // `mean` is the mean rounded to S: x - mean does not quite sum to zero, which a large sum of dy would enlarge.
    const double rounding = joined_sum(join, parts.second, c, lane) / values;
    const double product = joined_sum(join, parts.third, c, lane) - sum * rounding;
    if (lane > 0) return;
    const double inverse = 1 / sqrt(static_cast<double>(variance[c]) + eps);
    const double factor = static_cast<double>(gamma[c]) * inverse;
    to.dbeta[c] = static_cast<S>(sum);
    to.dgamma[c] = static_cast<S>(product * inverse);
    to.scale[c] = static_cast<S>(factor);
    to.slope[c] = static_cast<S>(-factor * inverse * inverse * product / values);
    to.dy_mean[c] = static_cast<S>(sum / values);
  });
}

__global__ void __launch_bounds__(kNormThreads)
    group_statistics(Join join, int64_t count, Partials parts, double eps, double* mean, double* inverse) {
  for_statistics(count, [&](int64_t r, int lane) {
    const Moments all = joined_moments(join, parts, r, lane);
    if (lane > 0) return;
    mean[r] = all.mean;
    inverse[r] = 1 / sqrt(all.variance + eps);
  });
}

__global__ void __launch_bounds__(kNormThreads) joined_sums(Join join, int64_t count, Partials parts, Partials to) {
  for_statistics(count, [&](int64_t r, int lane) {
    const double sum = joined_sum(join, parts.first, r, lane);
    const double product = joined_sum(join, parts.third, r, lane);
    if (lane == 0) to.first[r] = sum, to.third[r] = product;
  });
}

template <class S>
__global__ void __launch_bounds__(kNormThreads) channel_totals(Join join, Partials parts, S* to) {
  for_statistics(join.statistics, [&](int64_t c, int lane) {
    const double sum = joined_sum(join, parts.first, c, lane);
    if (lane == 0) to[c] = static_cast<S>(sum);
  });
}

template <class S>
__global__ void __launch_bounds__(kNormThreads) group_slopes(int64_t rows, Divisor groups, int64_t per, double values,
                                                             const S* gamma, Partials sums, GroupSlopes to) {
  for_statistics(rows, [&](int64_t r, int lane) {
    int64_t group;
    groups.divide(r, &group);
    double sum = 0, product = 0;
    for (int64_t i = lane; i < per; i += kWarp) {
      const double weight = gamma ? static_cast<double>(gamma[group * per + i]) : 1;
      sum += weight * sums.first[r * per + i], product += weight * sums.third[r * per + i];
    }
    sum = warp_sum(sum), product = warp_sum(product);
    if (lane > 0) return;
    const double inverse = to.inverse[r];
    to.slope[r] = -inverse * inverse * inverse * product / values;
    to.shift[r] = -inverse * sum / values;
  });
}

template <class S>
__global__ void __launch_bounds__(kNormThreads)
    parameter_slopes(int64_t n, int64_t channels, Divisor per, int64_t groups, Partials sums, const double* inverse,
                     S* dgamma, S* dbeta) {
  for_statistics(channels, [&](int64_t c, int lane) {
    const int64_t group = per.quotient(c);
    double sum = 0, product = 0;
    for (int64_t i = lane; i < n; i += kWarp) {
      sum += sums.first[i * channels + c];
      product += sums.third[i * channels + c] * (inverse ? inverse[i * groups + group] : 1);
    }
    sum = warp_sum(sum), product = warp_sum(product);
    if (lane > 0) return;
    dbeta[c] = static_cast<S>(sum), dgamma[c] = static_cast<S>(product);
  });
}

template <class S>
__global__ void __launch_bounds__(kNormThreads) zeros(int64_t count, S* a, S* b) {
  const int64_t step = int64_t{gridDim.x} * kNormThreads;
  for (int64_t i = int64_t{blockIdx.x} * kNormThreads + threadIdx.x; i < count; i += step) {
    a[i] = 0;
    if (b) b[i] = 0;
  }
}

}  // namespace

template <class S>
int finish_batch(const RunContext& run, const Join& join, const Partials& parts, const S* gamma, const S* beta,
                 double eps, const BatchFactors<S>& to) {
  return launch(run, batch_factors<S>, grid_of_statistics(join.statistics), kNormThreads, 0, join, parts, gamma, beta,
                eps, to);
}

template <class S>
int scale_of_inference(const RunContext& run, int64_t channels, const S* gamma, const S* variance, double eps,
                       S* scale) {
  return launch(run, inference_scale<S>, Grid{divide_up(channels, kNormThreads)}, kNormThreads, 0, channels, gamma,
                variance, eps, scale);
}

template <class S>
int finish_batch_backward(const RunContext& run, const Join& join, const Partials& parts, const S* gamma,
                          const S* variance, double eps, const BatchSlopes<S>& to) {
  return launch(run, batch_slopes<S>, grid_of_statistics(join.statistics), kNormThreads, 0, join, parts, gamma,
                variance, eps, to);
}

int finish_groups(const RunContext& run, const Join& join, int64_t count, const Partials& parts, double eps,
                  double* mean, double* inverse) {
  return launch(run, group_statistics, grid_of_statistics(count), kNormThreads, 0, join, count, parts, eps, mean,
                inverse);
}

template <class S>
int finish_sum(const RunContext& run, const Join& join, const Partials& parts, S* sum) {
  return launch(run, channel_totals<S>, grid_of_statistics(join.statistics), kNormThreads, 0, join, parts, sum);
}

int join_sums(const RunContext& run, const Join& join, int64_t count, const Partials& parts, const Partials& to) {
  return launch(run, joined_sums, grid_of_statistics(count), kNormThreads, 0, join, count, parts, to);
}

template <class S>
int finish_group_slopes(const RunContext& run, int64_t rows, int64_t groups, int64_t per, double values, const S* gamma,
                        const Partials& sums, const GroupSlopes& to) {
  return launch(run, group_slopes<S>, grid_of_statistics(rows), kNormThreads, 0, rows, Divisor(groups), per, values,
                gamma, sums, to);
}

template <class S>
int finish_parameters(const RunContext& run, int64_t n, int64_t channels, int64_t groups, const Partials& sums,
                      const double* inverse, S* dgamma, S* dbeta) {
  return launch(run, parameter_slopes<S>, grid_of_statistics(channels), kNormThreads, 0, n, channels,
                Divisor(channels / groups), groups, sums, inverse, dgamma, dbeta);
}

template <class S>
int fill_with_zeros(const RunContext& run, int64_t count, S* a, S* b) {
  return launch(run, zeros<S>, Grid{divide_up(count, kNormThreads)}, kNormThreads, 0, count, a, b);
}

#define FC_INSTANTIATE(S)                                                                                           \
  template int finish_batch(const RunContext&, const Join&, const Partials&, const S*, const S*, double,            \
                            const BatchFactors<S>&);                                                                \
  template int scale_of_inference(const RunContext&, int64_t, const S*, const S*, double, S*);                      \
  template int finish_batch_backward(const RunContext&, const Join&, const Partials&, const S*, const S*, double,   \
                                     const BatchSlopes<S>&);                                                        \
  template int finish_group_slopes(const RunContext&, int64_t, int64_t, int64_t, double, const S*, const Partials&, \
                                   const GroupSlopes&);                                                             \
  template int finish_parameters(const RunContext&, int64_t, int64_t, int64_t, const Partials&, const double*, S*,  \
                                 S*);                                                                               \
  template int finish_sum(const RunContext&, const Join&, const Partials&, S*);                                     \
  template int fill_with_zeros(const RunContext&, int64_t, S*, S*);
FC_INSTANTIATE(float)
FC_INSTANTIATE(double)
#undef FC_INSTANTIATE

}  // namespace fastconv::cuda
