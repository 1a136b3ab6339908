// SPDX-License-Identifier: Apache-2.0
#include "device_timer.h"

#include <cstdio>

namespace fastconv {

DeviceTimer::~DeviceTimer() {
  for (const auto& mark : marks_) backend_.forget(mark.second);
}

bool DeviceTimer::wait(char* error) {
  int device = 0;
  if (!failed_ && backend_.current_device(&device) == 0 && backend_.synchronize(device, stream_) == 0) return true;
  snprintf(error, kTextCapacity, "%s", backend_.last_error());
  return false;
}

void DeviceTimer::mark(Phase phase) {
  if (failed_ || (!marks_.empty() && marks_.back().first == phase)) return;
  void* event = nullptr;
  failed_ = backend_.record(stream_, &event) != 0;
  if (event) marks_.emplace_back(phase, event);
}

bool DeviceTimer::start(bool phases, void* stream, char* error) {
  stream_ = stream;
  if (!wait(error)) return false;
  if (phases) begin = [](DeviceWatch* watch, Phase phase, void*) { static_cast<DeviceTimer*>(watch)->mark(phase); };
  begun_ = std::chrono::steady_clock::now();
  return true;
}

bool DeviceTimer::stop(char* error) {
  if (begin) mark(Phase::kCount);
  if (!wait(error)) return false;
  seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun_).count();
  for (size_t i = 0; i + 1 < marks_.size(); ++i) {
    double passed = 0;
    if (backend_.seconds_between(marks_[i].second, marks_[i + 1].second, &passed) != 0) {
      snprintf(error, kTextCapacity, "%s", backend_.last_error());
      return false;
    }
    times_.nanoseconds[static_cast<int>(marks_[i].first)] += static_cast<int64_t>(passed * 1e9);
  }
  return true;
}

}  // namespace fastconv
