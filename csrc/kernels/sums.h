// SPDX-License-Identifier: Apache-2.0
// Sums in float64 over runs of T, and loads and stores of part of a vector; included inside the anonymous namespace of
// a kernel file, after norm_kernels.h and simd.h.

constexpr int kWide = Vec<double>::lanes;  // elements taken at a time

template <class T>
struct Half;
template <>
struct Half<float> {
  typedef float type __attribute__((vector_size(kVectorBytes / 2)));
};

// As float64. __builtin_convertvector is two conversions and a shuffle to GCC.
FC_INLINE V<double> widened(Half<float>::type half) {
#if defined(FC_ISA_AVX512)
  return (V<double>)_mm512_maskz_cvtps_pd(0xff, (__m256)half);
#elif defined(FC_ISA_AVX2)
  return (V<double>)_mm256_cvtps_pd((__m128)half);
#else
  return __builtin_convertvector(half, V<double>);
#endif
}

// kWide elements as float64; with `count` below kWide the others are zero and their memory is not touched.
template <class T>
FC_INLINE V<double> widen(const T* p, int64_t count) {
  if constexpr (sizeof(T) == 8) {
    return count >= kWide ? load(p) : load_lanes(p, 0, count);
  } else {
    typename Half<T>::type half;
    if (count >= kWide) {
      memcpy(&half, p, sizeof half);
    } else {
      const V<T> lanes = load_lanes(p, 0, count);
      memcpy(&half, &lanes, sizeof half);
    }
    return widened(half);
  }
}

// v in the first `count` lanes, zero in the others.
FC_INLINE V<double> first_lanes(V<double> v, int64_t count) {
  if (count >= kWide) return v;
  Vec<double>::ints lane{};
#pragma GCC unroll 8
  for (int i = 0; i < kWide; ++i) lane[i] = i;
  return select<double>(lane < Vec<double>::ints{} + count, v, V<double>{});
}

// Sum of term(index, count) over the runs, in four running sums; term returns kWide values, zero from `count` on, or
// several such vectors with + and +=.
template <class Value, class Term>
FC_INLINE Value sum_vectors(const Runs& chunk, const Term& term) {
  Value s0{}, s1{}, s2{}, s3{};
  for (int64_t r = 0; r < chunk.runs; ++r) {
    int64_t i = r * chunk.pitch;
    const int64_t end = i + chunk.length;
    for (; i + 4 * kWide <= end; i += 4 * kWide) {
      s0 += term(i, kWide);
      s1 += term(i + kWide, kWide);
      s2 += term(i + 2 * kWide, kWide);
      s3 += term(i + 3 * kWide, kWide);
    }
    for (; i + kWide <= end; i += kWide) s0 += term(i, kWide);
    if (i < end) s1 += term(i, end - i);
  }
  return (s0 + s1) + (s2 + s3);
}

template <class Term>
FC_INLINE double sum_of(const Runs& chunk, const Term& term) {
  return horizontal_sum<double>(sum_vectors<V<double>>(chunk, term));
}

template <class T>
FC_INLINE V<T> load_count(const T* p, int64_t count) {
  return count >= Vec<T>::lanes ? load(p) : load_lanes(p, 0, count);
}
template <class T>
FC_INLINE void store_count(T* p, V<T> v, int64_t count) {
  if (count >= Vec<T>::lanes)
    store(p, v);
  else
    store_first(p, v, count);
}

// Calls visit(index, lanes) for vectors of T over [0, count).
template <class T, class Visit>
FC_INLINE void for_vectors(int64_t count, const Visit& visit) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) visit(i, lanes);
  if (i < count) visit(i, count - i);
}
