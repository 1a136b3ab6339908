// SPDX-License-Identifier: Apache-2.0
// A tensor as an algorithm sees it: elements of T, or float16 and bfloat16 that are widened to T as they are read and
// rounded once as they are written. What is converted passes through a few KiB of stack, in L1.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "convert.h"
#include "machine.h"

namespace fastconv {

template <class T>
class Stored {
 public:
  Stored(const T* data) : data_(const_cast<T*>(data)) {}  // elements of T
  Stored(const Machine& machine, DType dtype, const void* data)
      : data_(const_cast<void*>(data)), half_(fastconv::is_half(dtype) ? &half_kernels(machine, dtype) : nullptr) {}

  bool is_half() const { return half_ != nullptr; }
  T value(int64_t element) const {
    if (!half_) return *at(element);
    T value{};
    if constexpr (std::is_same_v<T, float>) half_->widen(1, 1, halves(element), 0, &value, 0);
    return value;
  }
  // Where elements of T lie.
  T* at(int64_t element) const { return static_cast<T*>(data_) + element; }

  // GemmKernelsOf<T>::gather_row from element `from` on; a negative step reads backwards.
  void gather_row(const GemmKernelsOf<T>& kernels, int64_t count, int64_t first, int64_t last, int64_t from,
                  int64_t step, int64_t pitch, T* dst, int64_t dst_pitch, int64_t rows) const {
    if (!half_) return kernels.gather_row(count, first, last, at(from), step, pitch, dst, dst_pitch, rows);
    if constexpr (std::is_same_v<T, float>) {
      if (step == 1) {
        if (first > 0) kernels.gather_row(first, 0, 0, nullptr, 0, 0, dst, dst_pitch, rows);
        if (first < last) half_->widen(rows, last - first, halves(from + first), pitch, dst + first, dst_pitch);
        if (last < count) kernels.gather_row(count - last, 0, 0, nullptr, 0, 0, dst + last, dst_pitch, rows);
        return;
      }
      const int64_t most = (kRoom - 1) / std::max<int64_t>(1, std::abs(step)) + 1;  // lanes that fit
      if (last - first > most) {
        kernels.gather_row(first, 0, 0, nullptr, 0, 0, dst, dst_pitch, rows);
        for (int64_t i = first, some; i < last; i += some) {
          some = std::min(most, last - i);
          gather_row(kernels, some, 0, some, from + i * step, step, pitch, dst + i, dst_pitch, rows);
        }
        return kernels.gather_row(count - last, 0, 0, nullptr, 0, 0, dst + last, dst_pitch, rows);
      }
      if (last <= first) return kernels.gather_row(count, 0, 0, nullptr, 0, 0, dst, dst_pitch, rows);
      alignas(64) float room[kRoom];
      const int64_t lowest = std::min(first * step, (last - 1) * step), span = std::abs((last - 1 - first) * step) + 1;
      for (int64_t row = 0, some; row < rows; row += some) {
        some = std::min(rows - row, kRoom / span);
        half_->widen(some, span, halves(from + lowest + row * pitch), pitch, room, span);
        kernels.gather_row(count, first, last, room - lowest, step, span, dst + row * dst_pitch, dst_pitch, some);
      }
    }
  }
  // GemmKernelsOf<T>::transpose of rows `pitch` apart from element `from` on.
  void transpose(const GemmKernelsOf<T>& kernels, int64_t rows, int64_t columns, int64_t width, int64_t from,
                 int64_t pitch, T* dst, int64_t dst_pitch) const {
    if (!half_) return kernels.transpose(rows, columns, width, at(from), pitch, dst, dst_pitch);
    if constexpr (std::is_same_v<T, float>) {
      alignas(64) float room[kRoom];
      const int64_t tall = std::min(rows, kRows), wide = std::max<int64_t>(1, kRoom / std::max<int64_t>(1, tall));
      for (int64_t row = 0; row < std::max<int64_t>(1, rows); row += kRows) {
        const int64_t some = std::min(kRows, rows - row), last = row + kRows >= rows;
        for (int64_t c = 0; c < columns; c += wide) {
          const int64_t few = std::min(wide, columns - c);
          if (few == pitch)  // the rows follow each other
            half_->widen(1, some * few, halves(from + row * pitch), 0, room, 0);
          else
            half_->widen(some, few, halves(from + row * pitch + c), pitch, room, few);
          kernels.transpose(some, few, last ? width - row : some, room, few, dst + c * dst_pitch + row, dst_pitch);
        }
      }
    }
  }
  // Whether each_rows takes rows of `count`.
  bool fits(int64_t count) const { return !half_ || count <= kRoom; }
  // visit(first row, rows, where they lie, their pitch): rows of `count` elements as elements of T, where they lie or a
  // few at a time.
  template <class Visit>
  void each_rows(int64_t rows, int64_t count, int64_t from, int64_t pitch, const Visit& visit) const {
    if (!half_) return visit(int64_t{0}, rows, static_cast<const T*>(at(from)), pitch);
    if constexpr (std::is_same_v<T, float>) {
      alignas(64) float room[kRoom];
      for (int64_t row = 0, some; row < rows; row += some) {
        some = std::min(kRoom / count, rows - row);
        half_->widen(some, count, halves(from + row * pitch), pitch, room, count);
        visit(row, some, static_cast<const float*>(room), count);
      }
    }
  }

  void fill_zeros(int64_t from, int64_t count) const {
    const int64_t size = half_ ? 2 : static_cast<int64_t>(sizeof(T));
    std::memset(static_cast<char*>(data_) + from * size, 0, static_cast<size_t>(count * size));
  }
  // Element to + row * pitch + i * step becomes src[row * src_pitch + i].
  void put_rows(const GemmKernelsOf<T>& kernels, int64_t rows, int64_t count, const T* src, int64_t src_pitch,
                int64_t to, int64_t pitch, int64_t step = 1) const {
    if (!half_ && step == 1) return kernels.gather_row(count, 0, count, src, 1, src_pitch, at(to), pitch, rows);
    if constexpr (std::is_same_v<T, float>) {
      if (half_ && step == 1) return half_->narrow(rows, count, src, src_pitch, halves(to), pitch);
      if (half_) {
        uint16_t room[kRoom];
        for (int64_t row = 0; row < rows; ++row)
          for (int64_t first = 0; first < count; first += kRoom) {
            const int64_t some = std::min(kRoom, count - first);
            half_->narrow(1, some, src + row * src_pitch + first, 0, room, 0);
            spread(room, some, halves(to + row * pitch + first * step), step);
          }
        return;
      }
    }
    for (int64_t row = 0; row < rows; ++row) spread(src + row * src_pitch, count, at(to + row * pitch), step);
  }
  // Element to + column * pitch + row becomes src[row * src_pitch + column].
  void put_transposed(const GemmKernelsOf<T>& kernels, int64_t rows, int64_t columns, const T* src, int64_t src_pitch,
                      int64_t to, int64_t pitch) const {
    if (!half_) return kernels.transpose(rows, columns, rows, src, src_pitch, at(to), pitch);
    if constexpr (std::is_same_v<T, float>) {
      alignas(64) float room[kRoom];
      for (int64_t row = 0; row < rows; row += kRows) {
        const int64_t some = std::min(kRows, rows - row), wide = kRoom / some;
        for (int64_t c = 0; c < columns; c += wide) {
          const int64_t few = std::min(wide, columns - c);
          kernels.transpose(some, few, some, src + row * src_pitch + c, src_pitch, room, some);
          half_->narrow(few, some, room, some, halves(to + c * pitch + row), pitch);
        }
      }
    }
  }

  static constexpr int64_t kRoom = 4096;  // elements on the stack

 private:
  static constexpr int64_t kRows = 64;  // of a transposition at a time: whole vectors
  uint16_t* halves(int64_t element) const { return static_cast<uint16_t*>(data_) + element; }
  template <class E>
  static void spread(const E* src, int64_t count, E* dst, int64_t step) {
    for (int64_t i = 0; i < count; ++i) dst[i * step] = src[i];
  }

  void* data_;
  const HalfKernels* half_ = nullptr;
};

}  // namespace fastconv
