// SPDX-License-Identifier: Apache-2.0
// Eight tile registers: four tiles of sums (2 of rows x 2 of columns), two of a, two of b. The instructions name their
// registers, so that loads and products are macros.
//
// A number is the sum of its parts, each the nearest bfloat16 to what is left of it: halves of the last place away from
// zero, and what would round to infinity is cut off. Of three parts the products of p and q with p + q < 3 are made,
// six of nine; of two all four, or three where float32 is cut to two parts, whose last product would be smaller than
// what was cut off.
#include <immintrin.h>

#include "amx_kernels.h"

namespace fastconv::amx {
namespace {

#define FC_INLINE inline __attribute__((always_inline))
#define FC_LAMBDA __attribute__((always_inline))

template <class T, T VALUE>
struct Constant {
  static constexpr T value = VALUE;
};

struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

constexpr TileShapes kShapes;  // in memory: gcc 12 takes it that only the first bytes are read

// ---- Products ----------------------------------------------------------------------------------------------------
// Part `p` of a to registers 4 and 5, part `q` of b to 6 and 7.
#define FC_LOAD_A(p)                                         \
  do {                                                       \
    _tile_loadd(4, a + (p) * x->a_part, a_pitch);            \
    if constexpr (ROWS == 2) {                               \
      _tile_loadd(5, a + (p) * x->a_part + a_tile, a_pitch); \
    }                                                        \
  } while (0)
#define FC_LOAD_B(q)                                 \
  do {                                               \
    _tile_loadd(6, b0 + (q) * x->b_part, b_pitch);   \
    if constexpr (COLUMNS == 2) {                    \
      _tile_loadd(7, b1 + (q) * x->b_part, b_pitch); \
    }                                                \
  } while (0)
#define FC_MULTIPLY()               \
  do {                              \
    _tile_dpbf16ps(0, 4, 6);        \
    if constexpr (COLUMNS == 2) {   \
      _tile_dpbf16ps(1, 4, 7);      \
    }                               \
    if constexpr (ROWS == 2) {      \
      _tile_dpbf16ps(2, 5, 6);      \
      if constexpr (COLUMNS == 2) { \
        _tile_dpbf16ps(3, 5, 7);    \
      }                             \
    }                               \
  } while (0)
#define FC_EACH_SUM(what)                                   \
  do {                                                      \
    what(0, c);                                             \
    if constexpr (COLUMNS == 2) {                           \
      what(1, c + kTileColumns);                            \
    }                                                       \
    if constexpr (ROWS == 2) {                              \
      what(2, c + kTileRows * x->c_pitch);                  \
      if constexpr (COLUMNS == 2) {                         \
        what(3, c + kTileRows * x->c_pitch + kTileColumns); \
      }                                                     \
    }                                                       \
  } while (0)
#define FC_ZERO(tile, place) _tile_zero(tile)
#define FC_LOAD(tile, place) _tile_loadd(tile, place, c_bytes)
#define FC_STORE(tile, place) _tile_stored(tile, place, c_bytes)

// The small products come first: they are added to small sums.
template <int PARTS, int PRODUCTS, int ROWS, int COLUMNS>
void block(const AmxProduct* x, int64_t tile) {
  float* c = x->c + tile * kTileColumns;
  const int64_t c_bytes = x->c_pitch * 4, a_pitch = x->a_pitch, a_tile = x->a_tile, b_pitch = x->b_pitch;
  if (x->accumulate)
    FC_EACH_SUM(FC_LOAD);
  else
    FC_EACH_SUM(FC_ZERO);
  for (int64_t step = 0; step < x->steps; ++step) {
    const char* a = x->a + x->a_steps[step];
    const char* b0 = x->b + x->b_steps[step] + x->b_tiles[tile];
    const char* b1 = COLUMNS == 2 ? x->b + x->b_steps[step] + x->b_tiles[tile + 1] : b0;
    (void)a_tile, (void)b1;
    if constexpr (PRODUCTS == 3) {  // as few loads as there can be
      FC_LOAD_A(0);
      FC_LOAD_B(1);
      FC_MULTIPLY();
      FC_LOAD_B(0);
      FC_MULTIPLY();
      FC_LOAD_A(1);
      FC_MULTIPLY();
      continue;
    }
    FC_LOAD_B(0);
    if constexpr (PARTS == 3) {
      FC_LOAD_A(2);
      FC_MULTIPLY();
      FC_LOAD_A(1);
      FC_MULTIPLY();
      FC_LOAD_B(1);
      FC_MULTIPLY();
      FC_LOAD_A(0);
      FC_MULTIPLY();
      FC_LOAD_B(2);
      FC_MULTIPLY();
      FC_LOAD_B(0);
    } else if constexpr (PARTS == 2) {
      FC_LOAD_A(1);
      FC_MULTIPLY();
      FC_LOAD_B(1);
      FC_MULTIPLY();
      FC_LOAD_A(0);
      FC_MULTIPLY();
      FC_LOAD_B(0);
    } else {
      FC_LOAD_A(0);
    }
    FC_MULTIPLY();
  }
  FC_EACH_SUM(FC_STORE);
}

template <int PARTS, int PRODUCTS, int ROWS>
void blocks(const AmxProduct* x) {
  int64_t tile = 0;
  for (; tile + 2 <= x->column_tiles; tile += 2) block<PARTS, PRODUCTS, ROWS, 2>(x, tile);
  if (tile < x->column_tiles) block<PARTS, PRODUCTS, ROWS, 1>(x, tile);
}

template <int PARTS, int PRODUCTS>
void rows_of(const AmxProduct* x) {
  x->row_tiles == 2 ? blocks<PARTS, PRODUCTS, 2>(x) : blocks<PARTS, PRODUCTS, 1>(x);
}

// The registers are set up and given back in every call: a thread that holds them has 8 KiB more to save when it
// sleeps.
void product(const AmxProduct* x) {
  _tile_loadconfig(&kShapes);
  if (x->parts == 3)
    rows_of<3, 6>(x);
  else if (x->parts == 2)
    x->products == 3 ? rows_of<2, 3>(x) : rows_of<2, 4>(x);
  else
    rows_of<1, 1>(x);
  _tile_release();
}

// ---- Parts -------------------------------------------------------------------------------------------------------
FC_INLINE __mmask16 lanes(int64_t count) {
  return count >= 16 ? __mmask16(0xffff) : count <= 0 ? __mmask16(0) : __mmask16((1u << count) - 1);
}

// The next part, in the upper half of each lane; *rest keeps what is left. An infinity stays one.
FC_INLINE __m512i next_part(__m512* rest) {
  const __m512i bits = _mm512_castps_si512(*rest), magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
  const __mmask16 rounds = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32(0x7f7f8000));
  const __m512i rounded = _mm512_mask_add_epi32(bits, rounds, bits, _mm512_set1_epi32(0x8000));
  const __m512i part = _mm512_and_si512(rounded, _mm512_set1_epi32(static_cast<int>(0xffff0000)));
  *rest = _mm512_sub_ps(*rest, _mm512_castsi512_ps(part));
  return part;
}

// 16 pairs: the first of each from `even`, the second from `odd`.
FC_INLINE __m512i paired(__m512i even, __m512i odd) { return _mm512_or_si512(_mm512_srli_epi32(even, 16), odd); }

// Lanes of a row from `cell` on, `step` apart, as float32 or, of bfloat16, its bits in the lower half.
template <AmxStored STORED, int STEP>
FC_INLINE __m512i load_lanes(__mmask16 mask, const void* row, int64_t cell) {
  if constexpr (STORED == AmxStored::kFloat32) {
    const float* from = static_cast<const float*>(row) + cell;
    if constexpr (STEP == 1) return _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, from));
    const __mmask16 low = __mmask16(_pdep_u32(mask, 0x55555555u)), high = __mmask16(_pdep_u32(mask, 0x55555555u) >> 16);
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512 one = _mm512_maskz_loadu_ps(low, from), two = _mm512_maskz_loadu_ps(high, from + 16);
    return _mm512_castps_si512(_mm512_permutex2var_ps(one, even, two));
  } else {
    const uint16_t* from = static_cast<const uint16_t*>(row) + cell;
    __m512i bits;
    if constexpr (STEP == 1)
      bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
    else
      bits = _mm512_maskz_loadu_epi16(__mmask32(_pdep_u32(mask, 0x55555555u)), from);
    if constexpr (STORED == AmxStored::kFloat16) {
      return _mm512_castps_si512(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(bits)));
    } else {
      return bits;
    }
  }
}

template <AmxStored STORED, int STEP>
FC_INLINE void pair_of(int parts, __mmask16 written, __mmask16 has_even, __mmask16 has_odd, const void* even_row,
                       const void* odd_row, int64_t cell, char* dst, int64_t dst_part) {
  __m512i even = load_lanes<STORED, STEP>(has_even, even_row, cell);
  __m512i odd = load_lanes<STORED, STEP>(has_odd, odd_row, cell);
  if constexpr (STORED == AmxStored::kBFloat16) {
    _mm512_mask_storeu_epi32(dst, written, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
  } else {
    __m512 one = _mm512_castsi512_ps(even), two = _mm512_castsi512_ps(odd);
    for (int part = 0; part < parts; ++part) {
      const __m512i first = next_part(&one), second = next_part(&two);
      _mm512_mask_storeu_epi32(dst + part * dst_part, written, paired(first, second));
    }
  }
}

// Some lanes of some rows of `src`; rows that are not there are 0.
struct Rows {
  int64_t rows, count, first, last;
  const char* src;
  int64_t first_cell, step, pitch;  // in elements
};

// Lanes i to i + 16 of a row, or of two side by side, by visit(row, mask, other row, its mask, cell): where each lies
// and which of its lanes are wanted. Other steps than 1 and 2 are gathered on the stack.
template <int64_t SIZE, int STEP, class Visit>
FC_INLINE void visit_lanes(const Rows& x, int64_t row, int64_t i, bool has_other, const Visit& visit) {
  const char *one = x.src + row * x.pitch * SIZE, *two = one + x.pitch * SIZE;
  const __mmask16 inside = __mmask16(lanes(x.last - i) & ~lanes(x.first - i));
  const __mmask16 mask = row < x.rows ? inside : __mmask16(0), other = has_other ? inside : __mmask16(0);
  if constexpr (STEP > 0) {
    visit(one, mask, two, other, x.first_cell + i * STEP);
  } else {
    alignas(64) char cells[2][64] = {};
    for (int64_t j = 0; j < 16; ++j) {
      const int64_t at = (x.first_cell + (i + j) * x.step) * SIZE;
      if (mask >> j & 1) __builtin_memcpy(cells[0] + j * SIZE, one + at, SIZE);
      if (other >> j & 1) __builtin_memcpy(cells[1] + j * SIZE, two + at, SIZE);
    }
    visit(cells[0], __mmask16(0xffff), cells[1], __mmask16(0xffff), int64_t{0});
  }
}

struct Parts {
  int count;
  char* dst;
  int64_t pitch, part;  // in bytes
};

template <AmxStored STORED, int STEP>
void pairs_as(const Rows& x, int64_t pairs, const Parts& to) {
  for (int64_t pair = 0; pair < pairs; ++pair)
    for (int64_t i = 0; i < x.count; i += 16) {
      char* dst = to.dst + pair * to.pitch + i * 4;
      const auto visit = [&](const void* even, __mmask16 evens, const void* odd, __mmask16 odds,
                             int64_t cell) FC_LAMBDA {
        pair_of<STORED, STEP ? STEP : 1>(to.count, lanes(x.count - i), evens, odds, even, odd, cell, dst, to.part);
      };
      visit_lanes<STORED == AmxStored::kFloat32 ? 4 : 2, STEP>(x, 2 * pair, i, 2 * pair + 1 < x.rows, visit);
    }
}

template <AmxStored STORED, int STEP>
void rows_as(const Rows& x, const Parts& to) {
  for (int64_t row = 0; row < x.rows; ++row)
    for (int64_t i = 0; i < x.count; i += 16) {
      char* dst = to.dst + row * to.pitch + i * 2;
      const __mmask16 written = lanes(x.count - i);
      const auto visit = [&](const void* from, __mmask16 mask, const void*, __mmask16, int64_t cell) FC_LAMBDA {
        const __m512i bits = load_lanes<STORED, STEP ? STEP : 1>(mask, from, cell);
        if constexpr (STORED == AmxStored::kBFloat16) {
          _mm256_mask_storeu_epi16(dst, written, _mm512_cvtepi32_epi16(bits));
        } else {
          __m512 rest = _mm512_castsi512_ps(bits);
          for (int part = 0; part < to.count; ++part) {
            const __m512i upper = _mm512_srli_epi32(next_part(&rest), 16);
            _mm256_mask_storeu_epi16(dst + part * to.part, written, _mm512_cvtepi32_epi16(upper));
          }
        }
      };
      visit_lanes<STORED == AmxStored::kFloat32 ? 4 : 2, STEP>(x, row, i, false, visit);
    }
}

// what(stored, step) with both as constants.
template <class What>
void with_constants(AmxStored stored, int64_t step, const What& what) {
  const auto with_step = [&](auto constant) {
    if (step == 1)
      what(constant, Constant<int, 1>());
    else if (step == 2)
      what(constant, Constant<int, 2>());
    else
      what(constant, Constant<int, 0>());
  };
  if (stored == AmxStored::kFloat32)
    with_step(Constant<AmxStored, AmxStored::kFloat32>());
  else if (stored == AmxStored::kFloat16)
    with_step(Constant<AmxStored, AmxStored::kFloat16>());
  else
    with_step(Constant<AmxStored, AmxStored::kBFloat16>());
}

void split_rows(int parts, AmxStored stored, int64_t rows, int64_t count, int64_t first, int64_t last, const void* src,
                int64_t first_cell, int64_t step, int64_t src_pitch, char* dst, int64_t dst_pitch, int64_t dst_part) {
  const Rows x{rows, count, first, last, static_cast<const char*>(src), first_cell, step, src_pitch};
  const Parts to{parts, dst, dst_pitch, dst_part};
  with_constants(stored, step, [&](auto s, auto t) { rows_as<s.value, t.value>(x, to); });
}

void split_pairs(int parts, AmxStored stored, int64_t rows, int64_t pairs, int64_t count, int64_t first, int64_t last,
                 const void* src, int64_t first_cell, int64_t step, int64_t src_pitch, char* dst, int64_t dst_pitch,
                 int64_t dst_part) {
  const Rows x{rows, count, first, last, static_cast<const char*>(src), first_cell, step, src_pitch};
  const Parts to{parts, dst, dst_pitch, dst_part};
  with_constants(stored, step, [&](auto s, auto t) { pairs_as<s.value, t.value>(x, pairs, to); });
}

// The 16 x 16 matrix of pairs that v holds, transposed.
FC_INLINE void transpose(__m512i* v) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      v[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + 2 + j]);
      v[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + 2 + j]);
    }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; ++j) {
      t[i + j] = _mm512_shuffle_i32x4(v[i + j], v[i + 4 + j], 0x88);
      t[i + 4 + j] = _mm512_shuffle_i32x4(v[i + j], v[i + 4 + j], 0xdd);
    }
  for (int j = 0; j < 8; ++j) {
    v[j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0x88);
    v[8 + j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0xdd);
  }
}

void turn(const char* src, int64_t src_pitch, char* dst, int64_t dst_pitch) {
  __m512i v[16];
  for (int64_t i = 0; i < 16; ++i) v[i] = _mm512_loadu_si512(src + i * src_pitch);
  transpose(v);
  for (int64_t i = 0; i < 16; ++i) _mm512_storeu_si512(dst + i * dst_pitch, v[i]);
}

void turn_pixels(bool pairs, int64_t count, int64_t first, int64_t last, int64_t channels, const char* src,
                 int64_t src_pitch, char* dst, int64_t dst_pitch) {
  const __mmask32 wanted = channels >= 32 ? ~__mmask32(0) : (__mmask32(1) << channels) - 1;
  for (int64_t i = 0; i < count; i += 16) {
    __m512i v[16];
    for (int64_t j = 0; j < 16; ++j)
      v[j] = _mm512_maskz_loadu_epi16(first <= i + j && i + j < last ? wanted : 0, src + (i + j) * src_pitch);
    transpose(v);
    const __mmask16 written = lanes(count - i);
    for (int64_t j = 0; j < 16; ++j) {
      if (pairs) {
        _mm512_mask_storeu_epi32(dst + j * dst_pitch + i * 4, written, v[j]);
        continue;
      }
      char* even = dst + 2 * j * dst_pitch + i * 2;
      _mm256_mask_storeu_epi16(even, written, _mm512_cvtepi32_epi16(v[j]));
      _mm256_mask_storeu_epi16(even + dst_pitch, written, _mm512_cvtepi32_epi16(_mm512_srli_epi32(v[j], 16)));
    }
  }
}

}  // namespace

extern const AmxKernels kAmxKernels;
const AmxKernels kAmxKernels = {product, split_rows, split_pairs, turn, turn_pixels};

}  // namespace fastconv::amx
