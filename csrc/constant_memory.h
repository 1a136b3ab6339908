// SPDX-License-Identifier: Apache-2.0
// Memory of what lives long, weights above all: 64-byte aligned, zeros at first, side by side in slabs of huge
// pages. A network's weights
// are read once per image and seldom from a near cache; with small pages every 4 KiB would cost a walk through the page
// tables too, and prefetchers stop there.
#pragma once

#include <cstdint>

namespace fastconv {

class ConstantMemory {
 public:
  explicit ConstantMemory(int64_t bytes);  // throws std::bad_alloc
  ~ConstantMemory();
  ConstantMemory(const ConstantMemory&) = delete;
  ConstantMemory& operator=(const ConstantMemory&) = delete;

  char* data() { return data_; }
  const char* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  struct Slab* slab_;
  char* data_;
  int64_t bytes_;
};

}  // namespace fastconv
