// SPDX-License-Identifier: Apache-2.0
// Few channels per group on the tensor cores: what the files of grouped_tensor and grouped_tf32 share. Groups are not
// mixed: each has products of its own, so that they multiply no zeros of other groups and an infinity stays in its group.
//   grouped_tensor_images.cu  forward and backward-data: rows are pixels, columns filters, the depth is (tap, channel)
//   grouped_tensor_filter.cu  backward-filter: rows are (tap, channel), columns filters, the depth is the pixels
// Both read their operands where they lie in the halo in shared memory, pixel by pixel, through a table of places, so
// that the depth is as dense as the channels are multiples of 4.
//
// Limits. 3x3, 4 channels and filters a group (ResNeXt-50 32x4d, 128 channels at 56 x 56), halves, an image: 1.6 MB
// once, 0.4 us of 4 TB/s, and 14.5 M multiply-adds. mma has 8 columns for 4 filters and 48 deep for 36: 38 M, of which
// 16 x 8 x 16 cost (4 / blocks of columns + 1 / 2) x 128 bytes of shared memory, 4.5 cycles of a multiprocessor for
// 2048: 450 a cycle, where single lanes do 128 at the best and half of it as a rule. 132 multiprocessors take 0.4 us: as
// long as memory. From 8 filters a group on no column is idle, from 16 on a fragment of pixels serves two blocks.
// float32 by three products has twice the bytes of shared memory and three times the mma, about 200 a cycle: of 4 and 4
// single lanes are sooner done with forward and backward-data, from 8 on the tensor cores. The estimates of both decide.
#pragma once

#include "grouped.cuh"
#include "tensor_tile.cuh"

namespace fastconv::cuda {

// `work`: see tensor_tile.cuh. One block of columns counts as two, since it waits for shared memory as long.
bool plan_tensor_images(const ConvProblem& p, TensorWork* work = nullptr);
int run_tensor_images(const ConvProblem& p, const RunContext& r, bool one_product);
bool plan_tensor_filter(const ConvProblem& p, TensorWork* work = nullptr);
int64_t tensor_filter_workspace(const ConvProblem& p);
int run_tensor_filter(const ConvProblem& p, const RunContext& r, bool one_product);

// Channels of a group are followed by those of the next both in the tensor and in the box where `of_group` is what a
// group has; then pieces may reach over groups.
inline int32_t tensor_piece(const Box& box, int64_t element, const void* data, const Image& at, int64_t group_channels,
                            int64_t all_channels, int64_t of_group) {
  return piece_of(box, element, data, at, group_channels == of_group ? all_channels : group_channels, 0, 0);
}

}  // namespace fastconv::cuda
