// SPDX-License-Identifier: Apache-2.0
// What the 32 threads of a warp do together, by what each of them brought. Fragments as cuda/device.cuh describes them.
#include "emulation.h"

namespace fastconv::cuda::host {

void meet(const Brought*) {}

void exchange(const Brought* lanes) {
  // All values before any result: they may be the same variable.
  unsigned char values[kWarp][16];
  const size_t bytes = lanes[0].number / kWarp;
  for (int i = 0; i < kWarp; ++i) memcpy(values[i], lanes[i].a, bytes);
  for (int i = 0; i < kWarp; ++i) memcpy(lanes[i].to, values[lanes[i].number % kWarp], bytes);
}

namespace {

typedef uint32_t Fragments[4];

uint16_t element(const void* row, int column) {
  uint16_t value;
  memcpy(&value, static_cast<const char*>(row) + 2 * column, sizeof value);
  return value;
}
uint32_t pair(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }

}  // namespace

void read_matrices(const Brought* lanes) {
  for (int lane = 0; lane < kWarp; ++lane)
    for (int matrix = 0; matrix < 4; ++matrix) {
      const void* row = lanes[8 * matrix + lane / 4].a;
      const int column = 2 * (lane % 4);
      static_cast<uint32_t*>(lanes[lane].to)[matrix] = pair(element(row, column), element(row, column + 1));
    }
}

void read_matrices_transposed(const Brought* lanes) {
  for (int lane = 0; lane < kWarp; ++lane)
    for (int matrix = 0; matrix < 4; ++matrix) {
      const int row = 8 * matrix + 2 * (lane % 4), column = lane / 4;
      static_cast<uint32_t*>(lanes[lane].to)[matrix] =
          pair(element(lanes[row].a, column), element(lanes[row + 1].a, column));
    }
}

namespace {

int64_t products = 0;

// Products are exact in float: two mantissas of at most 11 bits. Each sum is rounded to float, in ascending order of the
// inner index: a tensor core rounds (or cuts off) less often, so that no test passes because the emulation is more exact.
template <int depth>
void multiply(const float (&a)[16][depth], const float (&b)[depth][8], const Brought* lanes) {
  products += 16 * 8 * depth;
  for (int lane = 0; lane < kWarp; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
      float& d = static_cast<float*>(lanes[lane].to)[i];
      float sum = d;
      for (int inner = 0; inner < depth; ++inner) {
        const float product = a[row][inner] * b[inner][column];
        sum += product;
      }
      d = sum;
    }
}

// `widen` makes a float of 16 bits.
template <class Widen>
void multiply_halves(const Brought* lanes, const Widen& widen) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    const int row = lane / 4, column = 2 * (lane % 4);
    for (int half = 0; half < 2; ++half) {
      const auto of = [half](const void* words, int i) {
        return static_cast<uint16_t>(static_cast<const uint32_t*>(words)[i] >> 16 * half);
      };
      for (int i = 0; i < 4; ++i) a[row + 8 * (i % 2)][column + 8 * (i / 2) + half] = widen(of(lanes[lane].a, i));
      for (int i = 0; i < 2; ++i) b[column + 8 * i + half][row] = widen(of(lanes[lane].b, i));
    }
  }
  multiply(a, b, lanes);
}

}  // namespace

void multiply_f16(const Brought* lanes) { multiply_halves(lanes, float_of_half); }

void multiply_bf16(const Brought* lanes) {
  multiply_halves(lanes, [](uint16_t bits) { return float_of_bits(static_cast<uint32_t>(bits) << 16); });
}

void multiply_tf32(const Brought* lanes) {
  bool rounded = true;
  const auto of = [&](const void* words, int i) {
    const uint32_t bits = static_cast<const uint32_t*>(words)[i];
    if ((bits & 0x1fff) && (bits & 0x7fffffff) <= 0x7f800000) rounded = false;
    return float_of_bits(bits);
  };
  float a[16][8], b[8][8];
  for (int lane = 0; lane < kWarp; ++lane) {
    const int row = lane / 4, column = lane % 4;
    for (int i = 0; i < 4; ++i) a[row + 8 * (i % 2)][column + 4 * (i / 2)] = of(lanes[lane].a, i);
    for (int i = 0; i < 2; ++i) b[column + 4 * i][row] = of(lanes[lane].b, i);
  }
  if (!rounded) report(nullptr, "mma_tf32 was given a number that as_tf32 did not round");
  multiply(a, b, lanes);
}

}  // namespace fastconv::cuda::host

// For tests: how many products `mma` has made since the last call, the zeros that fill its tiles among them.
extern "C" __attribute__((visibility("default"))) int64_t fastconv_emulated_products() {
  const int64_t made = fastconv::cuda::host::products;
  fastconv::cuda::host::products = 0;
  return made;
}
