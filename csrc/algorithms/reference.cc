// SPDX-License-Identifier: Apache-2.0
// The definition: every problem, every option, plain loops, float32 summed in double and float64 in long double.
//   fwd         y[n][k][o] = act(sum over c, t of x[n][c][o * stride + t * dilation - pad] * w[k][c][t] + bias[k]
//                                + residual[n][k][o])
//   bwd_data    x[n][c][i] = act(sum over all (k, o, t) whose tap reads i of y[n][k][o] * w[k][c][t] + bias[c])
//   bwd_filter  w[k][c][t] = sum over n, o of y[n][k][o] * x[n][c][o * stride + t * dilation - pad]
//
// All others are tested against it. float16 and bfloat16 are summed in double, rounded to float and then to the half;
// they need no workspace at all, so that there is an algorithm whatever max_workspace is: gradients go pixel by pixel,
// and weight by weight, instead of adding to sums.
#include <cmath>
#include <cstdio>

#include "../convert.h"
#include "../counts.h"
#include "../machine.h"
#include "../parallel.h"

namespace fastconv {
namespace {

template <class T>
struct Wider;
template <>
struct Wider<float> {
  typedef double type;
};
template <>
struct Wider<double> {
  typedef long double type;
};
template <>
struct Wider<uint16_t> {  // the bits of a half
  typedef double type;
};

// A tensor in memory.
template <class T>
class Elements {
 public:
  typedef typename Wider<T>::type A;
  Elements(const Machine& machine, DType dtype, const void* data)
      : halves_(is_half(dtype) ? &half_kernels(machine, dtype) : nullptr),
        data_(static_cast<T*>(const_cast<void*>(data))) {}
  A operator[](int64_t i) const {
    if constexpr (sizeof(T) == 2) {
      float value;
      halves_->widen(1, 1, data_ + i, 0, &value, 0);
      return value;
    } else {
      return data_[i];
    }
  }
  void put(int64_t i, A value) const {
    if constexpr (sizeof(T) == 2) {
      const float single = static_cast<float>(value);
      halves_->narrow(1, 1, &single, 0, data_ + i, 0);
    } else {
      data_[i] = static_cast<T>(value);
    }
  }

 private:
  const HalfKernels* halves_;
  T* data_;
};

// Where the elements of x or y lie.
struct Image {
  int64_t batch, channel, pixel;
};
Image image_of(Layout layout, int64_t batch_pitch, int64_t channel_pitch) {
  if (layout == Layout::kChannelsLast) return {batch_pitch, 1, channel_pitch};
  return {batch_pitch, channel_pitch, 1};
}

template <class A>
A hard_sigmoid(A v) {
  const A t = v + A(3);
  return (t < A(0) ? A(0) : t > A(6) ? A(6) : t) / A(6);
}

template <class A>
A log_one_plus_exp(A v) {
  return (v > A(0) ? v : A(0)) + std::log1p(std::exp(-std::abs(v)));
}

template <class A>
A activate(A v, Activation kind, A alpha) {
  const A zero = 0;
  switch (kind) {
    case Activation::kRelu:
      return v < zero ? zero : v;
    case Activation::kLeakyRelu:
      return v < zero ? alpha * v : v;
    case Activation::kRelu6:
      return v < zero ? zero : v > A(6) ? A(6) : v;
    case Activation::kElu:
      return v < zero ? alpha * std::expm1(v) : v;
    case Activation::kSigmoid:
      return A(1) / (A(1) + std::exp(-v));
    case Activation::kTanh:
      return std::tanh(v);
    case Activation::kSilu:
      return v / (A(1) + std::exp(-v));
    case Activation::kGelu:
      return A(0.5) * v * std::erfc(-v / std::sqrt(A(2)));
    case Activation::kHardSwish:
      return v * hard_sigmoid(v);
    case Activation::kHardSigmoid:
      return hard_sigmoid(v);
    case Activation::kGeluTanh:  // 2 z = 2 sqrt(2 / pi) (v + 0.044715 v^3)
      return v / (A(1) + std::exp(A(-2) * std::sqrt(A(2) / A(3.14159265358979323846264338327950288L)) *
                                  (v + A(0.044715L) * v * v * v)));
    case Activation::kSelu:
      return A(1.0507009873554804934193349852946L) *
             (v < zero ? A(1.6732632423543772848170429916717L) * std::expm1(v) : v);
    case Activation::kCelu:
      return v < zero ? alpha * std::expm1(v / alpha) : v;
    case Activation::kSoftplus:
      return log_one_plus_exp(alpha * v) / alpha;
    case Activation::kSoftsign:
      return v / (A(1) + std::abs(v));
    case Activation::kMish:
      return v * std::tanh(log_one_plus_exp(v));
    case Activation::kLogSigmoid:
      return -log_one_plus_exp(-v);
    default:
      return v;
  }
}

template <class T>
class Reference {
  typedef typename Wider<T>::type A;

 public:
  Reference(const ConvProblem& problem, const RunContext& context)
      : p(problem),
        r(context),
        xs(image_of(p.x_layout, r.x_batch_pitch, r.x_channel_pitch)),
        ys(image_of(p.y_layout, r.y_batch_pitch, r.y_channel_pitch)),
        x(*r.machine, p.dtype, r.x),
        w(*r.machine, p.dtype, r.w),
        y(*r.machine, p.dtype, r.y),
        bias(*r.machine, p.dtype, r.bias),
        residual(*r.machine, p.dtype, r.residual) {
    for (int a = 0; a < kMaxSpatial; ++a) out[a] = output_size(p, a);
  }

  void forward(int64_t n, int64_t k) const {
    const int64_t cg = p.c / p.groups, c0 = k / (p.k / p.groups) * cg;
    each_output([&](const int64_t* o, int64_t pixel) {
      A sum = 0;
      for (int64_t c = 0; c < cg; ++c)
        each_tap(o, [&](int64_t tap, int64_t at) {
          if (at == kOutside && p.padding_mode != PaddingMode::kConstant) return;
          const A value = at == kOutside ? outside() : x[n * xs.batch + (c0 + c) * xs.channel + at * xs.pixel];
          sum += value * w[(k * cg + c) * taps(p) + tap];
        });
      const int64_t at = n * ys.batch + k * ys.channel + pixel * ys.pixel;
      if (p.epilogue & kEpilogueBias) sum += bias[k];
      if (p.epilogue & kEpilogueResidual) sum += residual[at];
      y.put(at, activate<A>(sum, p.activation, A(r.alpha)));
    });
  }

  void backward_data(int64_t n, int64_t c, A* sums) const {
    const int64_t cg = p.c / p.groups, kg = p.k / p.groups, k0 = c / cg * kg;
    const int64_t plane = x_plane(p);
    const A start = p.epilogue & kEpilogueBias ? bias[c] : A(0);
    for (int64_t i = 0; i < plane; ++i) sums[i] = start;
    for (int64_t k = k0; k < k0 + kg; ++k)
      each_output([&](const int64_t* o, int64_t pixel) {
        const A value = y[n * ys.batch + k * ys.channel + pixel * ys.pixel];
        each_tap(o, [&](int64_t tap, int64_t at) {
          if (at != kOutside) sums[at] += value * w[(k * cg + c % cg) * taps(p) + tap];
        });
      });
    for (int64_t i = 0; i < plane; ++i)
      x.put(n * xs.batch + c * xs.channel + i * xs.pixel, activate<A>(sums[i], p.activation, A(r.alpha)));
  }

  // The same sums without room for them: of every pixel those outputs and taps that read it.
  void backward_data_by_pixels(int64_t n, int64_t c) const {
    const int64_t cg = p.c / p.groups, kg = p.k / p.groups, k0 = c / cg * kg;
    int64_t i[kMaxSpatial], at = n * xs.batch + c * xs.channel;
    for (i[0] = 0; i[0] < p.size[0]; ++i[0])
      for (i[1] = 0; i[1] < p.size[1]; ++i[1])
        for (i[2] = 0; i[2] < p.size[2]; ++i[2], at += xs.pixel) {
          A sum = p.epilogue & kEpilogueBias ? bias[c] : A(0);
          each_reader(i, [&](int64_t pixel, int64_t tap) {
            for (int64_t k = k0; k < k0 + kg; ++k)
              sum += y[n * ys.batch + k * ys.channel + pixel * ys.pixel] * w[(k * cg + c % cg) * taps(p) + tap];
          });
          x.put(at, activate<A>(sum, p.activation, A(r.alpha)));
        }
  }

  void backward_filter(int64_t k, int64_t c, A* sums) const {
    const int64_t cg = p.c / p.groups, channel = k / (p.k / p.groups) * cg + c;
    for (int64_t t = 0; t < taps(p); ++t) sums[t] = 0;
    for (int64_t n = 0; n < p.n; ++n)
      each_output([&](const int64_t* o, int64_t pixel) {
        const A value = y[n * ys.batch + k * ys.channel + pixel * ys.pixel];
        each_tap(o, [&](int64_t tap, int64_t at) {
          if (at != kOutside)
            sums[tap] += value * x[n * xs.batch + channel * xs.channel + at * xs.pixel];
          else if (p.padding_mode == PaddingMode::kConstant)
            sums[tap] += value * outside();
        });
      });
    for (int64_t t = 0; t < taps(p); ++t) w.put((k * cg + c) * taps(p) + t, sums[t]);
  }

  // The same for one weight at a time.
  void backward_filter_by_taps(int64_t k, int64_t c) const {
    const int64_t cg = p.c / p.groups, channel = k / (p.k / p.groups) * cg + c;
    int64_t t[kMaxSpatial], weight = (k * cg + c) * taps(p);
    for (t[0] = 0; t[0] < p.filter[0]; ++t[0])
      for (t[1] = 0; t[1] < p.filter[1]; ++t[1])
        for (t[2] = 0; t[2] < p.filter[2]; ++t[2]) {
          A sum = 0;
          for (int64_t n = 0; n < p.n; ++n)
            each_output([&](const int64_t* o, int64_t pixel) {
              const int64_t at = source(o, t);
              if (at == kOutside && p.padding_mode != PaddingMode::kConstant) return;
              const A value = at == kOutside ? outside() : x[n * xs.batch + channel * xs.channel + at * xs.pixel];
              sum += y[n * ys.batch + k * ys.channel + pixel * ys.pixel] * value;
            });
          w.put(weight++, sum);
        }
  }

 private:
  // visit(o[3], flat output pixel)
  template <class Visit>
  void each_output(const Visit& visit) const {
    int64_t o[kMaxSpatial], pixel = 0;
    for (o[0] = 0; o[0] < out[0]; ++o[0])
      for (o[1] = 0; o[1] < out[1]; ++o[1])
        for (o[2] = 0; o[2] < out[2]; ++o[2]) visit(o, pixel++);
  }

  // visit(flat tap, flat input pixel or kOutside)
  template <class Visit>
  void each_tap(const int64_t* o, const Visit& visit) const {
    int64_t t[kMaxSpatial], at[kMaxSpatial], tap = 0;
    for (t[0] = 0; t[0] < p.filter[0]; ++t[0]) {
      at[0] = place(0, o[0], t[0]);
      for (t[1] = 0; t[1] < p.filter[1]; ++t[1]) {
        at[1] = place(1, o[1], t[1]);
        for (t[2] = 0; t[2] < p.filter[2]; ++t[2], ++tap) {
          at[2] = place(2, o[2], t[2]);
          const bool outside = at[0] == kOutside || at[1] == kOutside || at[2] == kOutside;
          visit(tap, outside ? kOutside : (at[0] * p.size[1] + at[1]) * p.size[2] + at[2]);
        }
      }
    }
  }

  // visit(flat output pixel, flat tap) for those that read this pixel of x.
  template <class Visit>
  void each_reader(const int64_t* i, const Visit& visit) const {
    each_pair(0, i[0], [&](int64_t o0, int64_t t0) {
      each_pair(1, i[1], [&](int64_t o1, int64_t t1) {
        each_pair(2, i[2], [&](int64_t o2, int64_t t2) {
          visit((o0 * out[1] + o1) * out[2] + o2, (t0 * p.filter[1] + t1) * p.filter[2] + t2);
        });
      });
    });
  }

  // visit(output, tap) of one axis for those that read its coordinate i.
  template <class Visit>
  void each_pair(int axis, int64_t i, const Visit& visit) const {
    for (int64_t o = 0; o < out[axis]; ++o)
      for (int64_t t = 0; t < p.filter[axis]; ++t)
        if (place(axis, o, t) == i) visit(o, t);
  }

  // The flat input pixel that a tap of an output reads, or kOutside.
  int64_t source(const int64_t* o, const int64_t* t) const {
    int64_t at[kMaxSpatial];
    for (int a = 0; a < kMaxSpatial; ++a)
      if ((at[a] = place(a, o[a], t[a])) == kOutside) return kOutside;
    return (at[0] * p.size[1] + at[1]) * p.size[2] + at[2];
  }

  A outside() const { return sizeof(T) == 4 ? A(static_cast<float>(r.pad_value)) : A(r.pad_value); }

  int64_t place(int axis, int64_t o, int64_t t) const {
    return padded_source(p.padding_mode, o * p.stride[axis] + t * p.dilation[axis] - p.pad_begin[axis], p.size[axis]);
  }

  const ConvProblem& p;
  const RunContext& r;
  const Image xs, ys;
  const Elements<T> x, w, y, bias, residual;
  int64_t out[kMaxSpatial];
};

bool why_not(const ConvProblem* p, const Machine*, char* text) {
  text[0] = 0;
  if (p->dtype == DType::kFloat32 || p->dtype == DType::kFloat64) return false;
  snprintf(text, kTextCapacity, "reference computes f32 and f64, got %s", name_of(p->dtype));
  return true;
}

void estimate(const ConvProblem* p, const Machine*, Estimate* e) {
  e->add("start", 1e-6);
  e->add("products", 6e-9 * static_cast<double>(multiply_adds(*p)));  // measured: 4 to 8 ns
}

// One accumulator per input pixel or tap and worker; long double takes 16 bytes.
int64_t sums_of(const ConvProblem& p) {
  if (p.pass == Pass::kForward || is_half(p.dtype)) return 0;
  return p.pass == Pass::kBackwardData ? x_plane(p) : taps(p);
}
int64_t workspace_bytes(const ConvProblem* p, const Machine*, int slots, bool) { return sums_of(*p) * 16 * slots; }
int64_t packed_bytes(const ConvProblem*, const Machine*) { return 0; }
int64_t multiplications(const ConvProblem* p, const Machine*) { return products_inside(*p); }

template <class T>
void run_as(const ConvProblem& p, const RunContext& r) {
  typedef typename Wider<T>::type A;
  const Reference<T> reference(p, r);
  constexpr bool kHalf = sizeof(T) == 2;
  A* scratch = static_cast<A*>(r.workspace);
  const int64_t sums = sums_of(p);
  switch (p.pass) {
    case Pass::kForward:
      return parallel_for(r.parallel, p.n * p.k, [&](int64_t i, int) { reference.forward(i / p.k, i % p.k); });
    case Pass::kBackwardData:
      return parallel_for(r.parallel, p.n * p.c, [&](int64_t i, int slot) {
        kHalf ? reference.backward_data_by_pixels(i / p.c, i % p.c)
              : reference.backward_data(i / p.c, i % p.c, scratch + slot * sums);
      });
    case Pass::kBackwardFilter: {
      const int64_t cg = p.c / p.groups;
      return parallel_for(r.parallel, p.k * cg, [&](int64_t i, int slot) {
        kHalf ? reference.backward_filter_by_taps(i / cg, i % cg)
              : reference.backward_filter(i / cg, i % cg, scratch + slot * sums);
      });
    }
  }
}

int run(const ConvProblem* p, const RunContext* r) {
  if (is_half(p->dtype))
    run_as<uint16_t>(*p, *r);
  else if (p->dtype == DType::kFloat32)
    run_as<float>(*p, *r);
  else
    run_as<double>(*p, *r);
  return 0;
}

TakenHalves takes_halves(const ConvProblem*) { return TakenHalves::kEverything; }

}  // namespace

extern const Algorithm kReference;
const Algorithm kReference = {"reference",  1.0,     1,   SameBits::kAll, why_not,        estimate, workspace_bytes,
                              packed_bytes, nullptr, run, takes_halves,   multiplications};

}  // namespace fastconv
