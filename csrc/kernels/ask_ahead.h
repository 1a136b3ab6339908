// SPDX-License-Identifier: Apache-2.0
// Included inside the anonymous namespace of a kernel file.

#pragma once

// Lines that are needed soon, rows of VECTORS vectors, one line in a step: all at once they would hold up what this
// tile loads, and few of them are under way at a time. The rows lie pages apart, so that no prefetcher sees them
// coming. WRITES: of the tile that is written next, into the first level of cache; else to be read later, into the
// second.
template <class T, int VECTORS, bool WRITES = true>
class AskAhead {
 public:
  AskAhead(const T* at, int64_t pitch) : at_(at), skip_(pitch - VECTORS * Vec<T>::lanes) {}
  __attribute__((always_inline)) void operator()() {
    __builtin_prefetch(at_, WRITES, WRITES ? 3 : 2);
    at_ += Vec<T>::lanes;
    if (++vector_ == VECTORS) vector_ = 0, at_ += skip_;
  }

 private:
  const T* at_;
  int64_t skip_;
  int vector_ = 0;
};
