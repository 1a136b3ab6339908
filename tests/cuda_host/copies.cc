// SPDX-License-Identifier: Apache-2.0
// copy_async: what is copied is there when its thread has waited for it and not before. Until then the target is NaN.
#include <vector>

#include "emulation.h"

namespace fastconv::cuda::host {
namespace {

struct Copy {
  void* to;
  const void* from;
  int bytes, group;
  bool valid;
};
struct Queue {
  int groups = 0;  // closed ones
  std::vector<Copy> copies;
};
Queue queues[kMostThreads];

Queue& mine() { return queues[running_thread()]; }

}  // namespace

void forget_copies(int thread) {
  queues[thread].groups = 0;
  queues[thread].copies.clear();
}

void copy_async(void* to, const void* from, int bytes, bool valid) {
  unsigned char* begin = static_cast<unsigned char*>(to);
  const void* place = __builtin_return_address(0);
  if (begin < shared_begin() || begin + bytes > shared_begin() + shared_size()) {
    report(place, "copy_async writes %d bytes outside of the shared memory", bytes);
    abandon();
  }
  if (reinterpret_cast<uintptr_t>(to) % bytes || (valid && reinterpret_cast<uintptr_t>(from) % bytes)) {
    report(place, "copy_async<%d> was given an address that is not a multiple of it", bytes);
    abandon();
  }
  if (valid && !allocated(from, bytes)) {
    report(place, "copy_async reads %d bytes that are not in an allocation of the device", bytes);
    abandon();
  }
  shadow::copy_issued(place, to, from, bytes, valid);
  memset(to, 0xff, static_cast<size_t>(bytes));  // until somebody waits
  mine().copies.push_back({to, from, bytes, mine().groups, valid});
}

void copy_async_commit() {
  ++mine().groups;
  perhaps_yield();
}

void copy_async_wait(int pending) {
  Queue& me = mine();
  size_t left = 0;
  for (const Copy& copy : me.copies) {
    if (copy.group >= me.groups - pending) {
      me.copies[left++] = copy;
      continue;
    }
    if (copy.valid)
      memcpy(copy.to, copy.from, static_cast<size_t>(copy.bytes));
    else
      memset(copy.to, 0, static_cast<size_t>(copy.bytes));
    shadow::copy_done(copy.to, copy.bytes);
  }
  me.copies.resize(left);
  perhaps_yield();
}

}  // namespace fastconv::cuda::host
