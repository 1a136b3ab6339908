// SPDX-License-Identifier: Apache-2.0
// Tensors of the native checks that end where memory does: the page behind them cannot be touched, so that a kernel that
// reads or writes one element too many faults. Under a sanitizer they are plain memory: the one for addresses watches it on
// both sides, and the one for threads takes long to map pages.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <vector>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FASTCONV_PLAIN_MEMORY
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace fastconv {

template <class T>
class Fenced {
 public:
  explicit Fenced(size_t count) : count_(count) {
#ifdef FASTCONV_PLAIN_MEMORY
    data_ = static_cast<T*>(malloc(count * sizeof(T)));
#else
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)),
                 bytes = (count * sizeof(T) + page - 1) / page * page;
    mapped_ = bytes + page;
    start_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start_ == MAP_FAILED || mprotect(static_cast<char*>(start_) + bytes, page, PROT_NONE) != 0) abort();
    data_ = reinterpret_cast<T*>(static_cast<char*>(start_) + bytes) - count;
#endif
    std::fill_n(data_, count, T(0));
  }
  explicit Fenced(const std::vector<T>& values) : Fenced(values.size()) {
    std::copy(values.begin(), values.end(), data_);
  }
  ~Fenced() {
#ifdef FASTCONV_PLAIN_MEMORY
    free(data_);
#else
    munmap(start_, mapped_);
#endif
  }
  Fenced(const Fenced&) = delete;
  Fenced& operator=(const Fenced&) = delete;

  T* data() { return data_; }
  std::vector<T> values() const { return std::vector<T>(data_, data_ + count_); }
  size_t size() const { return count_; }

 private:
  size_t count_;
  T* data_;
#ifndef FASTCONV_PLAIN_MEMORY
  void* start_;
  size_t mapped_;
#endif
};

}  // namespace fastconv
