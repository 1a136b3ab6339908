// SPDX-License-Identifier: Apache-2.0
// Convolutions as products: a tensor's channels are one axis and its pixels, of several images, the other; weights are the
// second operand. What im2col_gemm and pointwise_1x1 share.
#pragma once

#include <algorithm>
#include <utility>

#include "conv.cuh"
#include "gemm.cuh"

namespace fastconv::cuda {

// Pieces of a forward or backward-data product have room for this much, or for one image.
constexpr int64_t kPieceBytes = int64_t{64} << 20;

// Into how many pieces the depth of a convolution's product is cut, in tiles for the device and positions of the depth. Of
// tensors n counts for nothing, so that large batches are cut too: pieces are long.
inline int64_t tensor_splits(int64_t m, int64_t n, int64_t depth, int64_t batches) {
  return gemm_splits(m, n, depth, batches, 256, 384);
}
inline int64_t filter_splits(int64_t m, int64_t n, int64_t depth, int64_t batches) {
  return gemm_splits(m, n, depth, batches, 512, 256);
}

// Pixels of images, `pixels` of each.
inline Axis pixel_axis(const Image& image, int64_t images, int64_t pixels) {
  if (images == 1 || image.batch == pixels * image.pixel) return Axis::flat(image.pixel);
  return Axis::runs(pixels, image.batch, image.pixel);
}

// The operand whose lines are the pixels of a tensor and whose depth its channels, `channels` of a group.
template <class T>
Operand<T> pixels_by_channels(const T* data, const Image& image, const Axis& pixels, int64_t channels) {
  return {data, pixels, Axis::flat(0), image.channel, channels * image.channel, image.channel == 1, false};
}

// A tensor of `channels` of each group by `pixels` as the product of weights (their lines its channels) and another
// tensor's pixels. Its pixels lie as `places` says.
template <class T>
Gemm<T> tensor_product(const Operand<T>& weights, const Operand<T>& pixels, int64_t channels, int64_t pixel_count,
                       int64_t depth, int64_t groups, const Image& image, const Axis& places, Output<T> c) {
  Gemm<T> g{};
  const bool last = image.channel == 1;
  g.depth = depth, g.batches = groups;
  g.m = last ? pixel_count : channels, g.n = last ? channels : pixel_count;
  g.a = last ? pixels : weights, g.b = last ? weights : pixels;
  c.rows = last ? places : Axis::flat(image.channel), c.columns = last ? Axis::flat(1) : places;
  c.batch = channels * image.channel, c.bias_batch = channels, c.bias_of_rows = !last;
  g.c = c;
  return g;
}

// What is put into y, or into x by backward-data, `offset` elements from its beginning.
template <class T>
Output<T> finished(const Conv<T>& c, T* to, int64_t offset) {
  Output<T> out{};
  out.data = to + offset, out.bias = c.bias, out.residual = c.residual ? c.residual + offset : nullptr;
  out.activation = c.p.activation, out.alpha = c.alpha;
  return out;
}

// Where the pixels of images lie in an operand whose depth they are.
struct PixelSteps {
  int64_t image, pixel;
};
// The depth of a product over pixels of images: the longer of the two inside where the plane is shorter than a slab, all
// of them at once where they follow each other in both operands.
template <class T>
void sum_over_pixels(Gemm<T>* g, int64_t images, int64_t pixels, PixelSteps of_a, PixelSteps of_b) {
  if (pixels < 8 && images > pixels) {
    std::swap(images, pixels);
    std::swap(of_a.image, of_a.pixel), std::swap(of_b.image, of_b.pixel);
  }
  if (of_a.image == pixels * of_a.pixel && of_b.image == pixels * of_b.pixel) pixels *= images, images = 1;
  g->depth = pixels, g->runs = images;
  g->a.step = of_a.pixel, g->a.outer = Axis::flat(of_a.image);
  g->b.step = of_b.pixel, g->b.outer = Axis::flat(of_b.image);
}

// Bytes of `splits` pieces.
inline int64_t piece_bytes(DType dtype, int64_t m, int64_t n, int64_t batches, int64_t splits) {
  const int64_t unit = 16 / computed_size(dtype);
  return splits * batches * m * round_up(n, unit) * computed_size(dtype);
}

// What memory takes longer than the products, which run meanwhile.
inline void add_memory(double bytes, const Machine& m, Estimate* e) {
  const double seconds = bytes / m.bytes_per_second - e->total();
  if (seconds > 0) e->add("memory", seconds);
}

}  // namespace fastconv::cuda
