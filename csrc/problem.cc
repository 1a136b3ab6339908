// SPDX-License-Identifier: Apache-2.0
// Geometry and validation of the two problems. The text form is in problem_text.cc.
#include "problem.h"

#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <initializer_list>

namespace fastconv {

int64_t output_size(int64_t size, int64_t filter, int64_t stride, int64_t dilation, int64_t pad_begin, int64_t pad_end,
                    bool ceil_mode) {
  const int64_t room = size + pad_begin + pad_end - ((filter - 1) * dilation + 1) + (ceil_mode ? stride - 1 : 0);
  if (room < 0) return 0;
  const int64_t count = room / stride + 1;
  return ceil_mode && (count - 1) * stride >= size + pad_begin ? count - 1 : count;
}

int64_t output_size(const ConvProblem& p, int axis) {
  return output_size(p.size[axis], p.filter[axis], p.stride[axis], p.dilation[axis], p.pad_begin[axis],
                     p.pad_end[axis]);
}

int64_t output_size(const PoolProblem& p, int axis) {
  if (p.adaptive) return p.output[axis];
  return output_size(p.size[axis], p.window[axis], p.stride[axis], p.dilation[axis], p.pad_begin[axis], p.pad_end[axis],
                     p.ceil_mode != 0);
}

int64_t x_plane(const ConvProblem& p) { return p.size[0] * p.size[1] * p.size[2]; }
int64_t y_plane(const ConvProblem& p) { return output_size(p, 0) * output_size(p, 1) * output_size(p, 2); }
int64_t taps(const ConvProblem& p) { return p.filter[0] * p.filter[1] * p.filter[2]; }
int64_t x_plane(const PoolProblem& p) { return p.size[0] * p.size[1] * p.size[2]; }
int64_t y_plane(const PoolProblem& p) { return output_size(p, 0) * output_size(p, 1) * output_size(p, 2); }

int64_t multiply_adds(const ConvProblem& p) { return p.n * p.k * y_plane(p) * (p.c / p.groups) * taps(p); }

int64_t tensor_bytes(const ConvProblem& p) {
  const int64_t elements = p.n * p.c * x_plane(p) + p.k * (p.c / p.groups) * taps(p) + p.n * p.k * y_plane(p);
  return elements * element_size(p.dtype);
}

bool copies_stay_near(const ConvProblem& p) { return 4 * p.n * (p.c * x_plane(p) + p.k * y_plane(p)) <= (1 << 20); }

int64_t element_size(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return 8;
    case DType::kFloat32:
      return 4;
    default:
      return 2;
  }
}

namespace {

__attribute__((format(printf, 2, 3))) bool refuse(char* text, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, kTextCapacity, format, arguments);
  va_end(arguments);
  return false;
}

const char* axis_name(int axis) { return axis == 0 ? "d" : axis == 1 ? "h" : "w"; }

// Sizes beyond this are refused, so that no product below can overflow int64.
constexpr int64_t kLargest = int64_t{1} << 40;

// `axis`: of which one the field is, or null. Nothing is formatted where all is well: that took longer than the check.
bool check_range(char* text, const char* field, int64_t value, int64_t least, const char* axis = nullptr) {
  if (value >= least && value <= kLargest) return true;
  return refuse(text, "%s%s%s is %" PRId64 "; expected %" PRId64 " to 2^40", field, axis ? " of axis " : "",
                axis ? axis : "", value, least);
}

// True when the product of the factors stays below 2^62.
bool product_fits(std::initializer_list<int64_t> factors) {
  int64_t product = 1;
  for (int64_t factor : factors)
    if (__builtin_mul_overflow(product, factor, &product) || product > (int64_t{1} << 62)) return false;
  return true;
}

// What convolution and pooling share: one spatial axis.
struct Axis {
  int index;
  bool used;
  int64_t size, filter, stride, dilation, pad_begin, pad_end;
  const char* filter_name;
};

bool check_axis(const Axis& a, char* text) {
  const char* name = axis_name(a.index);
  if (!a.used) {
    if (a.size == 1 && a.filter == 1 && a.stride == 1 && a.dilation == 1 && a.pad_begin == 0 && a.pad_end == 0)
      return true;
    return refuse(text, "axis %s is not used by this many spatial axes; expected size, %s, stride and dilation 1 there",
                  name, a.filter_name);
  }
  const struct {
    const char* what;
    int64_t value, least;
  } fields[] = {{"size", a.size, 1},         {a.filter_name, a.filter, 1},  {"stride", a.stride, 1},
                {"dilation", a.dilation, 1}, {"pad_begin", a.pad_begin, 0}, {"pad_end", a.pad_end, 0}};
  for (const auto& f : fields)
    if (!check_range(text, f.what, f.value, f.least, name)) return false;
  if (!product_fits({a.filter, a.dilation}) || a.filter * a.dilation > kLargest)
    return refuse(text, "%s times dilation of axis %s is beyond 2^40", a.filter_name, name);
  return true;
}

}  // namespace

bool validate(const ConvProblem& p, char* text) {
  text[0] = 0;
  if (p.spatial_rank < 1 || p.spatial_rank > kMaxSpatial)
    return refuse(text, "spatial_rank is %d; expected 1, 2 or 3", p.spatial_rank);
  if (!check_range(text, "n", p.n, 0) || !check_range(text, "c", p.c, 1) || !check_range(text, "k", p.k, 1) ||
      !check_range(text, "groups", p.groups, 1))
    return false;
  if (p.c % p.groups) return refuse(text, "c is %" PRId64 ", which groups=%" PRId64 " does not divide", p.c, p.groups);
  if (p.k % p.groups) return refuse(text, "k is %" PRId64 ", which groups=%" PRId64 " does not divide", p.k, p.groups);
  for (int i = 0; i < kMaxSpatial; ++i) {
    const Axis axis = {i,
                       i >= kMaxSpatial - p.spatial_rank,
                       p.size[i],
                       p.filter[i],
                       p.stride[i],
                       p.dilation[i],
                       p.pad_begin[i],
                       p.pad_end[i],
                       "filter"};
    if (!check_axis(axis, text)) return false;
    if (output_size(p, i) == 0)
      return refuse(text,
                    "the filter spans %" PRId64 " along axis %s, the padded input only %" PRId64
                    "; expected a smaller filter or dilation, or more padding",
                    (p.filter[i] - 1) * p.dilation[i] + 1, axis_name(i), p.size[i] + p.pad_begin[i] + p.pad_end[i]);
    if (p.padding_mode == PaddingMode::kReflect && (p.pad_begin[i] >= p.size[i] || p.pad_end[i] >= p.size[i]))
      return refuse(text,
                    "reflect padding of axis %s is %" PRId64 " and %" PRId64 "; expected less than its size %" PRId64,
                    axis_name(i), p.pad_begin[i], p.pad_end[i], p.size[i]);
    if (p.padding_mode == PaddingMode::kCircular && (p.pad_begin[i] > p.size[i] || p.pad_end[i] > p.size[i]))
      return refuse(text,
                    "circular padding of axis %s is %" PRId64 " and %" PRId64 "; expected at most its size %" PRId64,
                    axis_name(i), p.pad_begin[i], p.pad_end[i], p.size[i]);
  }
  if (!product_fits({p.n, p.c, p.size[0], p.size[1], p.size[2], 8}) ||
      !product_fits({p.n, p.k, output_size(p, 0), output_size(p, 1), output_size(p, 2), 8}) ||
      !product_fits({p.k, p.c / p.groups, p.filter[0], p.filter[1], p.filter[2], 8}) ||
      !product_fits({p.n, p.k, output_size(p, 0), output_size(p, 1), output_size(p, 2), p.c / p.groups, p.filter[0],
                     p.filter[1], p.filter[2]}))
    return refuse(text, "the tensors are too large: their bytes or multiplications pass 2^62");
  const bool finished = p.activation != Activation::kNone || p.epilogue != 0;
  if (p.pass == Pass::kBackwardFilter && finished)
    return refuse(text, "bwd_filter takes no bias, residual or activation; those belong to fwd and bwd_data");
  if (p.pass == Pass::kBackwardData && (p.epilogue & kEpilogueResidual))
    return refuse(text, "bwd_data takes no residual; that belongs to fwd");
  if (p.pass == Pass::kBackwardData && finished && p.padding_mode != PaddingMode::kZeros)
    return refuse(text, "bwd_data with a bias or activation pads with zeros, got padding mode %s",
                  name_of(p.padding_mode));
  return true;
}

namespace {

// A window of one size, a stride from the next: none may lie wholly in the padding.
bool check_windows(const PoolProblem& p, int i, char* text) {
  if (p.output[i] != 0) return refuse(text, "output is for adaptive pooling; expected 0, got %" PRId64, p.output[i]);
  const int64_t span = (p.window[i] - 1) * p.dilation[i] + 1;
  if (p.pad_begin[i] >= span || p.pad_end[i] >= span)
    return refuse(text,
                  "padding of axis %s is %" PRId64 " and %" PRId64 ", the window spans %" PRId64
                  "; expected less padding than that, or a window could lie outside the input",
                  axis_name(i), p.pad_begin[i], p.pad_end[i], span);
  if (output_size(p, i) == 0)
    return refuse(text,
                  "the window spans %" PRId64 " along axis %s, the padded input only %" PRId64
                  "; expected a smaller window or dilation, or more padding",
                  span, axis_name(i), p.size[i] + p.pad_begin[i] + p.pad_end[i]);
  // With dilation a window's taps can step over a short input, from the padding before it to the padding after it.
  for (int64_t o = 0, count = output_size(p, i); p.dilation[i] > p.size[i] && o < count; ++o) {
    const int64_t start = o * p.stride[i] - p.pad_begin[i];
    const int64_t skip = start < 0 ? (-start + p.dilation[i] - 1) / p.dilation[i] : 0;
    if (skip >= p.window[i] || start + skip * p.dilation[i] >= p.size[i])
      return refuse(text,
                    "dilation %" PRId64 " of axis %s steps over the whole input of size %" PRId64
                    "; expected every window to touch it",
                    p.dilation[i], axis_name(i), p.size[i]);
  }
  return true;
}

bool check_adaptive(const PoolProblem& p, int i, bool used, char* text) {
  if (!check_range(text, "output", p.output[i], 1, axis_name(i))) return false;
  if (p.window[i] != 1 || p.stride[i] != 1 || p.dilation[i] != 1 || p.pad_begin[i] || p.pad_end[i] ||
      (!used && p.output[i] != 1))
    return refuse(text, "axis %s has a window, or more outputs than it is used for; expected 1 in adaptive pooling",
                  axis_name(i));
  if (!product_fits({p.size[i], p.output[i] + 1}))
    return refuse(text, "size times output of axis %s passes 2^62", axis_name(i));
  return true;
}

}  // namespace

bool validate(const PoolProblem& p, char* text) {
  text[0] = 0;
  if (p.spatial_rank < 1 || p.spatial_rank > kMaxSpatial)
    return refuse(text, "spatial_rank is %d; expected 1, 2 or 3", p.spatial_rank);
  if (!check_range(text, "n", p.n, 0) || !check_range(text, "c", p.c, 0) || !check_range(text, "divisor", p.divisor, 0))
    return false;
  if (p.pass == Pass::kBackwardFilter)
    return refuse(text, "%s pooling has no pass %s", name_of(p.kind), name_of(p.pass));
  for (int i = 0; i < kMaxSpatial; ++i) {
    const bool used = i >= kMaxSpatial - p.spatial_rank;
    const Axis axis = {i,       used, p.size[i], p.window[i], p.stride[i], p.dilation[i], p.pad_begin[i], p.pad_end[i],
                       "window"};
    if (!check_axis(axis, text) || !(p.adaptive ? check_adaptive(p, i, used, text) : check_windows(p, i, text)))
      return false;
  }
  if (!product_fits({p.n, p.c, p.size[0], p.size[1], p.size[2], 8}) ||
      !product_fits({p.n, p.c, output_size(p, 0), output_size(p, 1), output_size(p, 2), 8}))
    return refuse(text, "the tensors are too large: their bytes pass 2^62");
  return true;
}

}  // namespace fastconv
