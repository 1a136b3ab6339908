// SPDX-License-Identifier: Apache-2.0
// What the checks of operations other than convolution and pooling share: slices of device memory that begin anywhere, and
// the distance that a result may have from one that was computed with more digits.
#pragma once

#include <algorithm>
#include <cstdio>
#include <limits>

#include "check_device.h"

namespace fastconv::check {

// `content` at an odd place of a larger buffer whose other bytes are set, or at an aligned one.
class Slice {
 public:
  Slice(const Device& device, Draw& draw, const Bytes& content, int64_t element)
      : start_(static_cast<size_t>(draw(0, 2) ? 0 : draw(1, 3) * element)),
        size_(content.size()),
        buffer_(device, surrounded(content)) {}
  void* data() const { return static_cast<unsigned char*>(buffer_.data()) + start_; }
  Bytes get() const {
    const Bytes all = buffer_.get();
    return Bytes(all.begin() + static_cast<int64_t>(start_), all.begin() + static_cast<int64_t>(start_ + size_));
  }
  // Whether nothing was written beside it.
  bool is_tidy() const {
    Bytes all = buffer_.get();
    std::fill_n(all.begin() + static_cast<int64_t>(start_), size_, static_cast<unsigned char>(0xFF));
    return std::all_of(all.begin(), all.end(), [](unsigned char byte) { return byte == 0xFF; });
  }
  void poison() { buffer_.put(surrounded(Bytes(size_, 0xFF))); }

 private:
  static constexpr size_t kBehind = 64;
  Bytes surrounded(const Bytes& content) const {
    Bytes all(start_ + size_ + kBehind, 0xFF);
    std::copy(content.begin(), content.end(), all.begin() + static_cast<int64_t>(start_));
    return all;
  }

  const size_t start_, size_;
  OnDevice buffer_;
};

// The distance of neighbours of `dtype` beside v, beyond what the type that is computed with has.
inline double half_unit(DType dtype, double v) {
  const double digits = dtype == DType::kFloat16 ? 0x1p-10 : dtype == DType::kBFloat16 ? 0x1p-7 : 0;
  return digits * std::fmax(std::fabs(v), dtype == DType::kFloat16 ? 0x1p-14 : 0);
}

inline double epsilon_of(DType dtype) { return dtype == DType::kFloat64 ? 0x1p-52 : 0x1p-23; }

inline bool is_near(double got, double wanted, double bound) {
  return (std::isnan(got) && std::isnan(wanted)) || got == wanted || std::fabs(got - wanted) <= bound;
}

// check_cuda_norm.cc: one drawn normalisation or softmax; prints what is wrong with it.
bool check_norm(const Device& device, Draw& draw);

}  // namespace fastconv::check
