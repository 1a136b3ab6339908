# SPDX-License-Identifier: Apache-2.0
"""The functions that zoo_twins.py builds its networks of: once in NumPy, through fastconv.reference, once in PyTorch.

Both take the weights from a state dict by their keys and remember which they used. In training, batch norm uses the
statistics of the batch.
"""

import numpy as np

from fastconv import reference


class _State:
    def __init__(self, state, training=False):
        self.state, self.training, self.used = state, training, set()

    def get(self, key):
        self.used.add(key)
        return self.state[key]

    def get_if_there(self, key):
        return self.get(key) if key in self.state else None

    def norm_values(self, key):
        names = ("weight", "bias", "running_mean", "running_var")
        self.used.add(f"{key}.num_batches_tracked")
        return [self.get(f"{key}.{name}") for name in names]

    def relu(self, x):
        return self.activation("relu", x)

    def relu6(self, x):
        return self.activation("relu6", x)

    def conv_norm_relu(self, x, conv, norm, stride=1, padding=0, groups=1, eps=1e-5, then="relu"):
        return self.activation(then, self.norm(self.conv(x, conv, stride, padding, groups), norm, eps))


class InNumPy(_State):
    """Float64, without the native module."""

    def conv(self, x, key, stride=1, padding=0, groups=1):
        bias = self.get_if_there(f"{key}.bias")
        return reference.conv(x, self.get(f"{key}.weight"), bias, stride, padding, 1, groups)

    def norm(self, x, key, eps=1e-5):
        gamma, beta, mean, variance = self.norm_values(key)
        if self.training:
            return reference.batch_norm(x, gamma, beta, eps)[0]
        return reference.batch_norm_inference(x, gamma, beta, mean, variance, eps)

    def dense(self, x, key):
        return reference.dense(x, self.get(f"{key}.weight"), self.get_if_there(f"{key}.bias"))

    def activation(self, kind, x):
        return reference.activation(kind, x)

    def max_pool(self, x, size, stride, padding=0, ceil_mode=False):
        return reference.max_pool(x, size, stride, padding, ceil_mode=ceil_mode)[0]

    def avg_pool(self, x, size):
        return reference.avg_pool(x, size)

    def adaptive(self, x, size):
        return reference.adaptive_avg_pool(x, (size, size))

    def response_norm(self, x, size, alpha, beta, k):
        return reference.local_response_norm(x, size, alpha, beta, k)

    def flat(self, x):
        return x.reshape(len(x), -1)

    def concat(self, parts):
        return np.concatenate(parts, 1)

    def mean(self, x):
        return x.mean((2, 3))

    def zeros(self, like, channels):
        return np.zeros((len(like), channels, *like.shape[2:]))

    def pad(self, x, widths):
        return np.pad(x, [(0, 0), (0, 0), *widths])

    def conv_transpose(self, x, key, stride=1, padding=0, output_padding=0):
        bias = self.get_if_there(f"{key}.bias")
        return reference.conv_transpose(x, self.get(f"{key}.weight"), bias, stride, padding, output_padding)

    def leaky(self, x, slope):
        return reference.activation("leaky_relu", x, slope)

    def pixel_norm(self, x, key):
        rows = np.moveaxis(x, 1, -1)
        y = reference.layer_norm(rows, self.get(f"{key}.weight"), self.get(f"{key}.bias"), 1e-6)
        return np.moveaxis(y, -1, 1)

    def pixel_dense(self, x, key):
        return np.moveaxis(np.moveaxis(x, 1, -1) @ self.get(f"{key}.weight").T + self.get(f"{key}.bias"), -1, 1)

    def bilinear(self, x, size):
        return reference.resize(x, size, "linear")

    def repeat(self, x, factor):
        return np.repeat(np.repeat(x, factor, 2), factor, 3)

    def channels_last(self, x):
        return np.moveaxis(x, 1, -1)


class InTorch(_State):
    """In the dtype of the state, with autograd."""

    def __init__(self, state, training=False):
        import torch

        super().__init__(state, training)
        self.torch, self.f = torch, torch.nn.functional

    def conv(self, x, key, stride=1, padding=0, groups=1):
        return self.f.conv2d(
            x, self.get(f"{key}.weight"), self.get_if_there(f"{key}.bias"), stride, padding, groups=groups
        )

    def norm(self, x, key, eps=1e-5):
        gamma, beta, mean, variance = self.norm_values(key)
        return self.f.batch_norm(x, mean.clone(), variance.clone(), gamma, beta, self.training, 0.1, eps)

    def dense(self, x, key):
        return self.f.linear(x, self.get(f"{key}.weight"), self.get_if_there(f"{key}.bias"))

    def activation(self, kind, x):
        return {"sigmoid": self.torch.sigmoid, "tanh": self.torch.tanh}.get(kind, getattr(self.f, kind, None))(x)

    def max_pool(self, x, size, stride, padding=0, ceil_mode=False):
        return self.f.max_pool2d(x, size, stride, padding, ceil_mode=ceil_mode)

    def avg_pool(self, x, size):
        return self.f.avg_pool2d(x, size)

    def adaptive(self, x, size):
        return self.f.adaptive_avg_pool2d(x, size)

    def response_norm(self, x, size, alpha, beta, k):
        return self.f.local_response_norm(x, size, alpha, beta, k)

    def flat(self, x):
        return x.flatten(1)

    def concat(self, parts):
        return self.torch.cat(parts, 1)

    def mean(self, x):
        return x.mean((2, 3))

    def zeros(self, like, channels):
        return like.new_zeros(len(like), channels, *like.shape[2:])

    def pad(self, x, widths):
        (top, bottom), (left, right) = widths
        return self.f.pad(x, (left, right, top, bottom))

    def conv_transpose(self, x, key, stride=1, padding=0, output_padding=0):
        bias = self.get_if_there(f"{key}.bias")
        return self.f.conv_transpose2d(x, self.get(f"{key}.weight"), bias, stride, padding, output_padding)

    def leaky(self, x, slope):
        return self.f.leaky_relu(x, slope)

    def pixel_norm(self, x, key):
        weight, bias = self.get(f"{key}.weight"), self.get(f"{key}.bias")
        return self.f.layer_norm(x.movedim(1, -1), weight.shape, weight, bias, 1e-6).movedim(-1, 1)

    def pixel_dense(self, x, key):
        return self.f.linear(x.movedim(1, -1), self.get(f"{key}.weight"), self.get(f"{key}.bias")).movedim(-1, 1)

    def bilinear(self, x, size):
        return self.f.interpolate(x, size, mode="bilinear", align_corners=False)

    def repeat(self, x, factor):
        return x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)

    def channels_last(self, x):
        return x.movedim(1, -1)
