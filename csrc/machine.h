// SPDX-License-Identifier: Apache-2.0
// Which instruction sets this process can run, the kernel table of each, and the committed table of speeds that
// `estimate` reads.
#pragma once

#include "algorithm.h"
#include "kernels/kernel_table.h"

namespace fastconv {

// The instruction sets that were compiled in and that this CPU and operating system can run, best first.
int usable_isa_count();
const Machine& usable_machine(int index);

// The machine for an ISA by name; null or empty: FASTCONV_ISA, else the best. Returns null and writes a sentence
// (kTextCapacity characters) that lists the known names when there is no such one or it cannot run here.
const Machine* find_machine(const char* isa, char* error);

const char* cpu_name();

template <class T>
const GemmKernelsOf<T>& gemm_kernels(const Machine& machine) {
  if constexpr (sizeof(T) == 8)
    return machine.kernels->gemm->f64;
  else
    return machine.kernels->gemm->f32;
}

}  // namespace fastconv
