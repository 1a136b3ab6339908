// SPDX-License-Identifier: Apache-2.0
// Threads of execution that are switched by hand: a dozen instructions on x86-64 and aarch64, ucontext (50 times slower)
// elsewhere or with FASTCONV_UCONTEXT.
#pragma once

#include <cstddef>

#if !defined(FASTCONV_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define FASTCONV_UCONTEXT
#endif
#if defined(FASTCONV_UCONTEXT)
#include <ucontext.h>
#endif

namespace fastconv::cuda::host {

struct Fibre {
  void* stack_pointer = nullptr;
  void* stack = nullptr;  // its lowest byte; null: the stack of whoever switches first
  size_t stack_bytes = 0;
#if defined(FASTCONV_UCONTEXT)
  ucontext_t context;
#endif
};

// `fibre`, whose stack is set, starts with entry() when it is first switched to; entry never returns. A fibre may be
// started again whatever it was doing.
void start(Fibre* fibre, void (*entry)());
// Leaves `from`, which runs, until something switches to it again.
void switch_fibre(Fibre* from, Fibre* to);
// To be called first in an entry.
void entered();

}  // namespace fastconv::cuda::host
