// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "emulation.h"

namespace fastconv::cuda::host {
namespace {

char first[kTextCapacity] = "";

}  // namespace

bool reported() { return first[0] != 0; }

void report(const void* place, const char* format, ...) {
  if (reported()) return;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(first, sizeof first, format, arguments);
  va_end(arguments);
  const auto add = [](const char* form, auto... values) {
    const size_t used = strlen(first);
    snprintf(first + used, sizeof first - used, form, values...);
  };
  if (kernel_runs())
    add(" (block %u %u %u, thread %d of %u", running.block.x, running.block.y, running.block.z, running_thread(),
        running.threads.x);
  Dl_info library;
  if (place && dladdr(place, &library)) {
    const char* name = strrchr(library.dli_fname, '/');
    add("; addr2line -e %s 0x%zx", name ? name + 1 : library.dli_fname,
        static_cast<size_t>(static_cast<const char*>(place) - static_cast<const char*>(library.dli_fbase)) - 1);
  }
  if (kernel_runs()) add(")");
}

bool take_report(char* text) {
  if (!reported()) return false;
  memcpy(text, first, sizeof first);
  first[0] = 0;
  return true;
}

}  // namespace fastconv::cuda::host
