// SPDX-License-Identifier: Apache-2.0
// What a step of a program may name: parts of buffers, each checked against the size of its buffer.
#pragma once

#include <cinttypes>
#include <tuple>

#include "../session.h"
#include "arrays.h"

namespace fastconv {

// Rows and ImagePart (session.h) as they come from Python.
typedef std::tuple<int32_t, int64_t, int64_t, int64_t, int64_t> RowsTuple;
typedef std::tuple<int32_t, int64_t, int64_t, int64_t> PartTuple;

inline DType float_named(const std::string& name) {
  DType dtype;
  if (!find_by_name(name.c_str(), &dtype) || is_half(dtype))
    throw ProblemError{format("dtype is '%.20s'; expected f32 or f64", name.c_str())};
  return dtype;
}

[[noreturn]] inline void refuse(int32_t buffer, const char* name) {
  throw ProblemError{format("%s does not lie within buffer %d", name, static_cast<int>(buffer))};
}

// Holds the program that is made.
class BufferChecks {
 protected:
  BufferChecks(DType dtype, int64_t arena_bytes, const Shape& inputs, const Shape& outputs, const Options& options)
      : program_(dtype, options, all_bytes(arena_bytes, inputs, outputs)) {}

  int64_t elements(int32_t buffer) const {
    const int64_t bytes = program_.bytes_of(buffer);
    return bytes < 0 ? -1 : bytes / element_size(program_.dtype());
  }

  // Whether [offset, offset + extent) lies in the buffer. Extents are computed in 128 bits: no number can overflow
  // them.
  void require_within(int32_t buffer, __int128 offset, __int128 extent, const char* name) const {
    const int64_t size = elements(buffer);
    if (size < 0 || offset < 0 || extent < 0 || offset + extent > size) refuse(buffer, name);
  }

  Rows rows(const RowsTuple& tuple, const char* name) const {
    const auto [buffer, offset, count, length, pitch] = tuple;
    if (count < 0 || length < 0 || pitch < length) refuse(buffer, name);
    const __int128 extent = count == 0 ? 0 : __int128{count - 1} * pitch + length;
    require_within(buffer, offset, extent, name);
    return {buffer, offset, count, length, pitch};
  }
  Rows rows(const RowsTuple& tuple, const char* name, const Rows& alike) const {
    const Rows found = rows(tuple, name);
    if (found.rows != alike.rows || found.length != alike.length)
      throw ProblemError{format("%s has %" PRId64 " rows of %" PRId64 "; expected %" PRId64 " of %" PRId64, name,
                                found.rows, found.length, alike.rows, alike.length)};
    return found;
  }
  static void require_dense(const Rows& found, const char* name) {
    if (!found.is_dense()) throw ProblemError{format("%s has gaps between its rows; expected none", name)};
  }
  // Dense, of so many elements.
  Rows dense(const RowsTuple& tuple, const char* name, int64_t a, int64_t b, int64_t c) const {
    const Rows found = rows(tuple, name);
    require_dense(found, name);
    if (a < 0 || b < 0 || c < 0 || __int128{a} * b * c != __int128{found.rows} * found.length)
      throw ProblemError{format("%s has another number of elements than its shape says", name)};
    return found;
  }
  static void require_runs(const Rows& x, int64_t channels, int64_t inner) {
    if (channels < 0 || inner < 0 || __int128{channels} * inner != x.length)
      throw ProblemError{
          format("a row has %" PRId64 " elements; expected %" PRId64 " times %" PRId64, x.length, channels, inner)};
  }
  int32_t values(int32_t buffer, int64_t count, const char* name) const {
    require_within(buffer, 0, count, name);
    return buffer;
  }

  ImagePart part(const PartTuple& tuple, const char* name, int64_t n, int64_t channels, int64_t plane,
                 Layout layout) const {
    const auto [buffer, offset, batch, channel] = tuple;
    const bool planes = layout == Layout::kChannelsFirst;
    const int64_t inner = planes ? plane : channels, outer = planes ? channels : plane;
    if (channel < inner || batch < 0) refuse(buffer, name);
    const __int128 image = outer == 0 ? 0 : __int128{outer - 1} * channel + inner;
    if (n > 1 && batch < image) refuse(buffer, name);
    require_within(buffer, offset, n == 0 ? 0 : __int128{n - 1} * batch + image, name);
    return {buffer, offset, batch, channel};
  }

  void require_strided(int32_t buffer, int64_t offset, const Shape& shape, const Shape& strides,
                       const char* name) const {
    __int128 low = offset, high = offset;
    for (size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] < 0) refuse(buffer, name);
      if (shape[i] == 0) return;
      const __int128 reach = __int128{shape[i] - 1} * strides[i];
      (reach < 0 ? low : high) += reach;
    }
    require_within(buffer, low, high - low + 1, name);
  }

  Program program_;

 private:
  static std::vector<int64_t> all_bytes(int64_t arena, const Shape& inputs, const Shape& outputs) {
    std::vector<int64_t> bytes = {arena};
    bytes.insert(bytes.end(), inputs.begin(), inputs.end());
    bytes.insert(bytes.end(), outputs.begin(), outputs.end());
    for (const int64_t size : bytes)
      if (size < 0) throw ProblemError{format("a buffer has %" PRId64 " bytes; expected 0 or more", size)};
    return bytes;
  }
};

}  // namespace fastconv
