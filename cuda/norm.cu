// SPDX-License-Identifier: Apache-2.0
// Which launches an operation consists of. Each of them is written once, for a run and for the measurement of what it needs
// of the workspace: without a run nothing is launched.
#include <cstdio>

#include "norm.cuh"
#include "registry.h"

namespace fastconv::cuda {
namespace {

// Arrays cut from the workspace one after the other; without one they are only counted.
class Cutter {
 public:
  explicit Cutter(void* workspace) : base_(static_cast<char*>(workspace)) {}
  template <class N>
  N* array(int64_t count) {
    N* const result = base_ ? reinterpret_cast<N*>(base_ + used_) : nullptr;
    used_ += round_up(count * static_cast<int64_t>(sizeof(N)), 16);
    return result;
  }
  Partials partials(int64_t count) { return {array<double>(count), array<double>(count), array<double>(count)}; }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

bool in_columns(const NormContext& c) { return c.pixels == 1 || c.channels_last; }
Spans spans_of(const NormContext& c) { return Spans(c.n, c.c, c.pixels); }
template <class T>
Columns columns_of(const NormContext& c) {
  return Columns(1, c.n * c.pixels, c.c, kColumnPiece<T>);
}
Elements elements_of(const NormContext& c) { return Elements(c.n, c.c, c.pixels, c.channels_last); }

template <class T>
class Normalisation {
 public:
  // run null: only workspace() means something.
  Normalisation(const NormContext& context, const RunContext* run)
      : c(context), run_(run), cut_(run ? context.workspace : nullptr) {}
  int64_t workspace() const { return cut_.used(); }

  int operator()() {
    switch (c.op) {
      case NormOp::kChannelSum:
        return channel_sum();
      case NormOp::kBatchForward:
        return batch_forward();
      case NormOp::kBatchInference:
        return batch_inference();
      case NormOp::kBatchBackward:
        return batch_backward();
      case NormOp::kGroupForward:
        return group_forward();
      default:
        return group_backward();
    }
  }

 private:
  typedef Sum<T> S;

  template <class N>
  static const N* given(const void* data) {
    return static_cast<const N*>(data);
  }
  const T* x() const { return given<T>(c.x); }
  const T* dy() const { return given<T>(c.dy); }
  const S* gamma() const { return given<S>(c.gamma); }
  const S* beta() const { return given<S>(c.beta); }
  S* dgamma() const { return static_cast<S*>(c.dgamma); }
  S* dbeta() const { return static_cast<S*>(c.dbeta); }

  // Calls each launch unless one before it failed, or none is asked for.
  template <class... Launches>
  int all(const Launches&... launches) {
    int status = 0;
    if (run_) static_cast<void>((((status = launches()) == 0) && ...));
    return status;
  }

  int channel_sum() {
    const Spans spans = spans_of(c);
    const Columns columns = columns_of<T>(c);
    const Partials parts = cut_.partials((in_columns(c) ? columns.parts : spans.parts) * c.c);
    const Join join = in_columns(c) ? join_of(columns, c.c) : join_of(spans);
    return all([&] { return channel_sums(spans, columns, x(), nullptr, parts); },
               [&] { return finish_sum(*run_, join, parts, dgamma()); });
  }

  int channel_sums(const Spans& spans, const Columns& columns, const T* dy, const T* x, const Partials& to) {
    const Centres<S> centres = {nullptr, given<S>(c.mean)};
    if (!in_columns(c))
      return span_sums(*run_, spans, SpanTerms<T>{dy, x, nullptr, centres, Divisor(1), Divisor(1)}, to);
    return column_sums(*run_, columns, ColumnTerms<T>{dy, x, centres, nullptr, 0, 0, Divisor(1)}, to);
  }

  int batch_forward() {
    const Spans spans = spans_of(c);
    const Columns columns = columns_of<T>(c);
    const Partials parts = cut_.partials((in_columns(c) ? columns.parts : spans.parts) * c.c);
    const Join join = in_columns(c) ? join_of(columns, c.c) : join_of(spans);
    S *const scale = cut_.template array<S>(c.c), *const shift = cut_.template array<S>(c.c);
    S *const mean = static_cast<S*>(c.mean), *const variance = static_cast<S*>(c.variance);
    return all(
        [&] {
          return in_columns(c) ? column_moments(*run_, columns, x(), parts) : span_moments(*run_, spans, x(), parts);
        },
        [&] {
          return finish_batch(*run_, join, parts, gamma(), beta(), c.eps,
                              BatchFactors<S>{mean, variance, scale, shift});
        },
        [&] { return apply_batch(*run_, elements_of(c), x(), mean, scale, shift, static_cast<T*>(c.y)); });
  }

  int batch_inference() {
    S* const scale = cut_.template array<S>(c.c);
    return all(
        [&] { return scale_of_inference(*run_, c.c, gamma(), given<S>(c.variance), c.eps, scale); },
        [&] { return apply_batch(*run_, elements_of(c), x(), given<S>(c.mean), scale, beta(), static_cast<T*>(c.y)); });
  }

  int batch_backward() {
    const Spans spans = spans_of(c);
    const Columns columns = columns_of<T>(c);
    const Partials parts = cut_.partials((in_columns(c) ? columns.parts : spans.parts) * c.c);
    const Join join = in_columns(c) ? join_of(columns, c.c) : join_of(spans);
    const BatchSlopes<S> slopes = {dgamma(), dbeta(), cut_.template array<S>(c.c), cut_.template array<S>(c.c),
                                   cut_.template array<S>(c.c)};
    return all([&] { return channel_sums(spans, columns, dy(), x(), parts); },
               [&] { return finish_batch_backward(*run_, join, parts, gamma(), given<S>(c.variance), c.eps, slopes); },
               [&] {
                 return apply_batch_backward(*run_, elements_of(c), dy(), x(), given<S>(c.mean), slopes,
                                             static_cast<T*>(c.dx));
               });
  }

  // Groups of channels first are rows; of channels last columns of every image.
  int64_t rows() const { return c.n * c.groups; }
  bool by_pixels() const { return c.channels_last && c.pixels > 1; }
  Spans row_spans() const { return Spans(1, rows(), c.c / c.groups * c.pixels); }
  Columns image_columns() const { return Columns(c.n, c.pixels, c.c, kColumnPiece<T>); }

  bool has_short_rows() const { return !by_pixels() && c.c / c.groups * c.pixels <= kShortRow; }

  int group_forward() {
    if (has_short_rows()) return all([&] { return group_rows<T>(*run_, c); });
    const Spans spans = row_spans();
    const Columns columns = image_columns();
    const Partials parts = cut_.partials(by_pixels() ? columns.images * columns.parts * c.c : spans.parts * rows());
    double *const mean = static_cast<double*>(c.mean), *const inverse = static_cast<double*>(c.variance);
    return all(
        [&] {
          return by_pixels() ? column_moments(*run_, columns, x(), parts) : span_moments(*run_, spans, x(), parts);
        },
        [&] {
          return finish_groups(*run_, by_pixels() ? join_of(columns, c.groups) : join_of(spans), rows(), parts, c.eps,
                               mean, inverse);
        },
        [&] {
          return apply_groups(*run_, elements_of(c), c.groups, x(), gamma(), beta(), mean, inverse,
                              static_cast<T*>(c.y));
        });
  }

  int group_backward() {
    const double *const mean = given<double>(c.mean), *const inverse = given<double>(c.variance);
    const GroupSlopes slopes = {mean, inverse, cut_.template array<double>(rows()),
                                cut_.template array<double>(rows())};
    const int status = c.pixels == 1 ? rows_backward(slopes) : channels_backward(slopes);
    if (!run_ || status != 0 || (c.pixels == 1 && has_short_rows())) return status;
    return apply_groups_backward(*run_, elements_of(c), c.groups, dy(), x(), gamma(), slopes, static_cast<T*>(c.dx));
  }

  // One pixel: a channel has one value in an image, and the sums of a group are weighted at once.
  int rows_backward(const GroupSlopes& slopes) {
    const int64_t per = c.c / c.groups;
    const Spans spans = row_spans();
    const Columns columns = columns_of<T>(c);
    const Partials parts = cut_.partials(spans.parts * rows()), joined = cut_.partials(std::max(rows(), c.c)),
                   of_columns = cut_.partials(columns.parts * c.c);
    const Centres<S> centres = {slopes.mean, nullptr};
    const SpanTerms<T> terms = {dy(), x(), gamma(), centres, Divisor(1), Divisor(c.groups)};
    const ColumnTerms<T> of_parameters = {dy(), x(), centres, slopes.inverse, 0, c.groups, Divisor(per)};
    const int status = has_short_rows()
                           ? all([&] { return group_rows_backward<T>(*run_, c); })
                           : all([&] { return span_sums(*run_, spans, terms, parts); },
                                 [&] { return join_sums(*run_, join_of(spans), rows(), parts, joined); },
                                 [&] {
                                   return finish_group_slopes<S>(*run_, rows(), c.groups, 1, static_cast<double>(per),
                                                                 nullptr, joined, slopes);
                                 });
    if (status != 0) return status;
    return all([&] { return column_sums(*run_, columns, of_parameters, of_columns); },
               [&] { return join_sums(*run_, join_of(columns, c.c), c.c, of_columns, joined); },
               [&] { return finish_parameters(*run_, 1, c.c, c.groups, joined, nullptr, dgamma(), dbeta()); });
  }

  // Sums of each channel of each image first; the parameters and the groups take theirs from them.
  int channels_backward(const GroupSlopes& slopes) {
    const int64_t all_channels = c.n * c.c, per = c.c / c.groups;
    const Spans spans(1, all_channels, c.pixels);
    const Columns columns = image_columns();
    const Partials parts = cut_.partials((by_pixels() ? columns.parts : spans.parts) * all_channels),
                   joined = cut_.partials(all_channels);
    const Centres<S> centres = {slopes.mean, nullptr};
    const SpanTerms<T> terms = {dy(), x(), nullptr, centres, Divisor(per), Divisor(1)};
    const ColumnTerms<T> of_pixels = {dy(), x(), centres, nullptr, c.groups, 0, Divisor(per)};
    return all(
        [&] {
          return by_pixels() ? column_sums(*run_, columns, of_pixels, parts) : span_sums(*run_, spans, terms, parts);
        },
        [&] {
          return join_sums(*run_, by_pixels() ? join_of(columns, c.c) : join_of(spans), all_channels, parts, joined);
        },
        [&] {
          return finish_group_slopes(*run_, rows(), c.groups, per, static_cast<double>(per * c.pixels), gamma(), joined,
                                     slopes);
        },
        [&] { return finish_parameters(*run_, c.n, c.c, c.groups, joined, slopes.inverse, dgamma(), dbeta()); });
  }

  const NormContext& c;
  const RunContext* run_;
  Cutter cut_;
};

bool is_softmax(const NormContext& c) { return c.op == NormOp::kSoftmax || c.op == NormOp::kSoftmaxBackward; }
bool is_empty(const NormContext& c) { return c.n == 0 || c.c == 0 || c.pixels == 0; }

}  // namespace

int64_t norm_workspace(const NormContext* context) {
  if (is_empty(*context) || is_softmax(*context)) return 0;
  int64_t bytes = 0;
  by_dtype(context->dtype, [&](auto type) {
    Normalisation<decltype(type)> measured(*context, nullptr);
    const int status = measured();
    bytes = measured.workspace();
    return status;
  });
  return bytes;
}

int norm(const NormContext* context) {
  const NormContext& c = *context;
  const RunContext run = run_context(c.machine, c.stream, c.error);
  if (is_softmax(c)) return is_empty(c) ? 0 : softmax(c, run);
  if (c.op > NormOp::kSoftmaxBackward) {
    snprintf(c.error, kTextCapacity, "normalisation %d is not one of this library", static_cast<int>(c.op));
    return 1;
  }
  return by_dtype(c.dtype, [&](auto type) {
    typedef decltype(type) T;
    if (!is_empty(c)) return Normalisation<T>(c, &run)();
    if (!c.dgamma || c.c == 0) return 0;
    return fill_with_zeros(run, c.c, static_cast<Sum<T>*>(c.dgamma), static_cast<Sum<T>*>(c.dbeta));
  });
}

}  // namespace fastconv::cuda
