// SPDX-License-Identifier: Apache-2.0
#include "fibre.h"

#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(FASTCONV_UCONTEXT)
// Saves what a call preserves on the stack, puts the stack pointer to *save and continues at `load`.
extern "C" __attribute__((visibility("hidden"))) void fastconv_switch_stack(void** save, void* load);
#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.hidden fastconv_switch_stack
.globl fastconv_switch_stack
.type fastconv_switch_stack, @function
fastconv_switch_stack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size fastconv_switch_stack, .-fastconv_switch_stack
)");
#else
asm(R"(
.text
.p2align 4
.hidden fastconv_switch_stack
.globl fastconv_switch_stack
.type fastconv_switch_stack, %function
fastconv_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size fastconv_switch_stack, .-fastconv_switch_stack
)");
#endif
#endif

namespace fastconv::cuda::host {
namespace {

// The address sanitizer is told of each switch, and learns the first stack at the first one.
#if defined(__SANITIZE_ADDRESS__)
Fibre* left = nullptr;
void leaving(Fibre* from, Fibre* to) {
  left = from;
  __sanitizer_start_switch_fiber(nullptr, to->stack, to->stack_bytes);
}
void arrived() {
  const void* stack;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
  if (!left->stack) left->stack = const_cast<void*>(stack), left->stack_bytes = bytes;
}
#else
void leaving(Fibre*, Fibre*) {}
void arrived() {}
#endif

}  // namespace

void entered() { arrived(); }

#if defined(FASTCONV_UCONTEXT)

void start(Fibre* fibre, void (*entry)()) {
  getcontext(&fibre->context);
  fibre->context.uc_stack.ss_sp = fibre->stack, fibre->context.uc_stack.ss_size = fibre->stack_bytes;
  fibre->context.uc_link = nullptr;
  makecontext(&fibre->context, entry, 0);
}
void switch_fibre(Fibre* from, Fibre* to) {
  leaving(from, to);
  swapcontext(&from->context, &to->context);
  arrived();
}

#else

void start(Fibre* fibre, void (*entry)()) {
  const uintptr_t top = (reinterpret_cast<uintptr_t>(fibre->stack) + fibre->stack_bytes) & ~uintptr_t{15};
#if defined(__x86_64__)
  // Six registers, the address that `ret` goes to and the return address of the entry: none.
  constexpr int kWords = 8, kEntry = 6;
#else
  constexpr int kWords = 20, kEntry = 11;
#endif
  uintptr_t* words = reinterpret_cast<uintptr_t*>(top) - kWords;
  for (int i = 0; i < kWords; ++i) words[i] = 0;
  words[kEntry] = reinterpret_cast<uintptr_t>(entry);
  fibre->stack_pointer = words;
}
void switch_fibre(Fibre* from, Fibre* to) {
  leaving(from, to);
  fastconv_switch_stack(&from->stack_pointer, to->stack_pointer);
  arrived();
}

#endif

}  // namespace fastconv::cuda::host
