// SPDX-License-Identifier: Apache-2.0
// scatter_positions of a backend library against a loop over its definition: the same bits, whatever the positions are.
#include "check_pool_device.h"

namespace fastconv::check {
namespace {

template <class C>
bool scatters(const Device& device, Draw& draw, DType dtype) {
  char text[kTextCapacity] = "";
  PositionContext c{};
  c.machine = &device.attributes.machine, c.error = text, c.dtype = dtype;
  c.channels_last = static_cast<int32_t>(draw(0, 1));
  c.n = draw(1, 2), c.c = draw(1, 40);
  c.pixels = draw(0, 3) ? draw(1, 300) : c.channels_last ? draw(300, 900) : draw(300, 20000);
  if (c.pixels > 2000) c.c = 2;
  c.outputs = draw(0, 200);
  const int64_t near = draw(0, 2);  // 0: anywhere; 1: few cells; 2: beside the neighbours', as pooling has them
  std::vector<C> values(static_cast<size_t>(c.n * c.c * c.outputs));
  std::vector<int64_t> indices(values.size());
  const auto place = [&](int64_t n, int64_t channel, int64_t i, int64_t count) {
    return static_cast<size_t>(c.channels_last ? (n * count + i) * c.c + channel : (n * c.c + channel) * count + i);
  };
  for (C& value : values) value = static_cast<C>(draw.normal());
  values = rounded(device.machine, dtype, values);
  std::vector<C> wanted(static_cast<size_t>(c.n * c.c * c.pixels), C(0));
  for (int64_t n = 0; n < c.n; ++n)
    for (int64_t channel = 0; channel < c.c; ++channel)
      for (int64_t i = 0; i < c.outputs; ++i) {
        int64_t index = near == 0   ? draw(0, c.pixels - 1)
                        : near == 1 ? draw(0, std::min<int64_t>(c.pixels - 1, 3))
                                    : i * c.pixels / c.outputs + draw(0, 2);
        if (draw(0, 30) == 0) index = draw(0, 1) ? -draw(1, 3) : c.pixels + draw(0, int64_t{1} << 31) * 4;
        indices[place(n, channel, i, c.outputs)] = index;
        if (index >= 0 && index < c.pixels)
          wanted[place(n, channel, index, c.pixels)] += values[place(n, channel, i, c.outputs)];
      }
  wanted = rounded(device.machine, dtype, wanted);
  const OnDevice on_values(device, encoded(device.machine, dtype, values)), on_indices(device, bytes_of(indices));
  const OnDevice plane(device, c.n * c.c * c.pixels * element_size(dtype));
  c.values = on_values.data(), c.indices = static_cast<const int64_t*>(on_indices.data()), c.plane = plane.data();
  bool right = !device.backend->scatter_positions(&c) && !device.backend->synchronize(0, nullptr);
  if (!right) printf("%s %s\n", text, device.backend->last_error());
  const std::vector<C> got = decoded<C>(device.machine, dtype, plane.get());
  for (size_t i = 0; i < wanted.size(); ++i) right = right && same(got[i], wanted[i]);
  if (!right)
    printf("FAILED scatter_positions %s channels_last=%d n=%lld c=%lld pixels=%lld outputs=%lld\n", name_of(dtype),
           c.channels_last, static_cast<long long>(c.n), static_cast<long long>(c.c), static_cast<long long>(c.pixels),
           static_cast<long long>(c.outputs));
  return right;
}

}  // namespace

bool check_positions(const Device& device, Draw& draw) {
  const DType dtype = static_cast<DType>(draw(0, 3));
  return dtype == DType::kFloat64 ? scatters<double>(device, draw, dtype) : scatters<float>(device, draw, dtype);
}

}  // namespace fastconv::check
