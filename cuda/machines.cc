// SPDX-License-Identifier: Apache-2.0
// Speeds by architecture, from the vendor's data sheets: what a multiprocessor does in a second at its usual clock, and the
// bandwidth of the largest card of the kind. Estimates rank by them; no run has confirmed them yet.
#include "registry.h"

namespace fastconv::cuda {
namespace {

struct Row {
  int32_t architecture;        // and later ones, up to the next row
  double f32, f64, f16, tf32;  // GFLOP/s of one multiprocessor; f16 and tf32 of its tensor cores
  double bytes_per_second;
};
constexpr Row kRows[] = {
    {75, 220, 7, 1800, 0, 0.30e12},    {80, 180, 90, 2890, 1440, 1.5e12},  {86, 430, 7, 1700, 430, 0.8e12},
    {89, 640, 10, 2580, 640, 0.9e12},  {90, 500, 250, 7500, 3700, 4.0e12}, {100, 500, 250, 15000, 7500, 7.0e12},
    {120, 600, 10, 2400, 600, 1.6e12},
};

}  // namespace

Machine machine_of(int32_t architecture, int32_t multiprocessors, int64_t shared_bytes, int64_t l2_bytes) {
  const Row* row = &kRows[0];
  for (const Row& candidate : kRows)
    if (candidate.architecture <= architecture) row = &candidate;
  const double unit = 1e9 * multiprocessors;
  Machine m{};
  m.flops_f32 = row->f32 * unit, m.flops_f64 = row->f64 * unit;
  m.flops_f16 = row->f16 * unit, m.flops_tf32 = row->tf32 * unit;
  m.bytes_per_second = row->bytes_per_second;
  m.l1_bytes = shared_bytes, m.l2_bytes = l2_bytes;
  m.architecture = architecture, m.multiprocessors = multiprocessors;
  return m;
}

}  // namespace fastconv::cuda
