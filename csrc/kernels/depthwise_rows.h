// SPDX-License-Identifier: Apache-2.0
// What the depthwise kernels that read images share; included inside the anonymous namespace of a kernel file.

#pragma once

// Bits first .. last - 1 of 32.
FC_INLINE uint32_t row_bits(int64_t first, int64_t last) {
  if (first < 0) first = 0;
  if (last > 32) last = 32;
  if (last <= first) return 0;
  return (last - first == 32 ? ~0u : (1u << (last - first)) - 1u) << first;
}

// One load, whatever follows: GCC would fold it into every multiply-add that takes it, and loads are what is scarce.
template <class T>
FC_INLINE V<T> load_once(const T* p) {
  V<T> v = load(p);
#if defined(FC_ISA_AVX512)
  asm("" : "+v"(v));
#elif defined(__x86_64__) && !defined(FC_ISA_WIDE)
  asm("" : "+x"(v));
#elif defined(FC_ISA_NEON)
  asm("" : "+w"(v));
#endif
  return v;
}
template <class T, bool WHOLE>
FC_INLINE V<T> load_some(const T* p, uint32_t bits) {
  if constexpr (WHOLE) return load_once(p);
  return load_bits(p, bits);
}

template <class T>
FC_INLINE void deinterleave(V<T> a, V<T> b, V<T>* even, V<T>* odd) {
  constexpr int lanes = Vec<T>::lanes;
  typename Vec<T>::ints low{}, high{};
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) low[i] = 2 * i, high[i] = 2 * i + 1;
  *even = __builtin_shuffle(a, b, low);
  *odd = __builtin_shuffle(a, b, high);
}

template <class T>
FC_INLINE V<T> clamp(V<T> v, T low, T high) {  // NaN passes
  v = splat(low) > v ? splat(low) : v;
  return splat(high) < v ? splat(high) : v;
}

// acc[o] += w[r] * v for the written rows o that read row `i` by filter row r.
template <class T, int STEP, int FILTER, int ROWS>
FC_INLINE void spread(int i, const V<T>* w, V<T> v, V<T>* acc) {
#pragma GCC unroll 8
  for (int r = 0; r < FILTER; ++r) {
    const int o = i - r;
    if (o >= 0 && o % STEP == 0 && o / STEP < ROWS) acc[o / STEP] += w[r] * v;
  }
}
