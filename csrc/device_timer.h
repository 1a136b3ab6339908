// SPDX-License-Identifier: Apache-2.0
// The time of one run on a device, and of its phases: events between them in its stream (cuda/watch.h says where they
// go).
#pragma once

#include <chrono>
#include <utility>
#include <vector>

#include "../cuda/backend.h"

namespace fastconv {

class DeviceTimer : public DeviceWatch {
 public:
  explicit DeviceTimer(const Backend& backend) : DeviceWatch{}, backend_(backend) {}
  ~DeviceTimer();
  DeviceTimer(const DeviceTimer&) = delete;
  DeviceTimer& operator=(const DeviceTimer&) = delete;

  // Both wait for the stream, on the calling thread's device. False, and a sentence in `error`: the device failed.
  bool start(bool phases, void* stream, char* error);
  bool stop(char* error);

  double seconds() const { return seconds_; }
  const PhaseTimes* phases() const { return begin ? &times_ : nullptr; }  // null: they were not asked for

 private:
  bool wait(char* error);
  void mark(Phase phase);

  const Backend& backend_;
  void* stream_ = nullptr;
  std::vector<std::pair<Phase, void*>> marks_;  // where a phase begins; at last kCount, the end of all
  bool failed_ = false;
  std::chrono::steady_clock::time_point begun_;
  double seconds_ = 0;
  PhaseTimes times_;
};

}  // namespace fastconv
