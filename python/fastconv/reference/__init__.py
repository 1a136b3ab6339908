# SPDX-License-Identifier: Apache-2.0
"""What fastconv's results are checked against: every operation once more, in NumPy and float64.

Nothing here calls the native module, so an answer from this package is a second opinion. The functions are written
to be read: a convolution is a loop over filter taps, a pool is a stack of shifted views. They are slow, and
public, so that users can verify with them too:

>>> import fastconv as fc
>>> y = fc.reference.conv(x, w, bias, stride=2, padding=1)

All functions compute in float64 and return float64 unless `dtype` says otherwise (`numpy.longdouble` where float64
itself is to be judged). Shapes follow the rest of the library: x is (N, C, *spatial), w is (K, C/groups, *filter).
"""

from fastconv.reference.activations import activation, activation_backward, prelu, prelu_backward
from fastconv.reference.adaptive import (
    adaptive_avg_pool,
    adaptive_avg_pool_backward,
    adaptive_max_pool,
    adaptive_window,
    max_unpool,
    max_unpool_backward,
)
from fastconv.reference.columns import col2im, im2col
from fastconv.reference.conv import conv, conv_backward_data, conv_backward_filter, conv_magnitude, output_size
from fastconv.reference.filters import convolve, correlate
from fastconv.reference.lenet import lenet5_backward, lenet5_forward, lenet5_train
from fastconv.reference.losses import class_loss, pair_loss
from fastconv.reference.norm import group_norm, group_norm_backward, instance_norm, layer_norm, layer_norm_backward
from fastconv.reference.ops import (
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    cross_entropy,
    cross_entropy_backward,
    dense,
    dense_backward,
    softmax,
)
from fastconv.reference.optim import adam_step, rmsprop_step, sgd_step
from fastconv.reference.padding import pad, pad_backward
from fastconv.reference.pool import (
    avg_pool,
    avg_pool_backward,
    lp_pool,
    lp_pool_backward,
    max_pool,
    max_pool_backward,
    min_pool,
    pool_output_size,
)
from fastconv.reference.resize import resize, resize_backward, resize_matrix
from fastconv.reference.response_norm import local_response_norm, local_response_norm_backward
from fastconv.reference.transposed import conv_transpose, conv_transpose_backward

__all__ = [
    "activation",
    "activation_backward",
    "adam_step",
    "adaptive_avg_pool",
    "adaptive_avg_pool_backward",
    "adaptive_max_pool",
    "adaptive_window",
    "avg_pool",
    "avg_pool_backward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_inference",
    "class_loss",
    "col2im",
    "conv",
    "conv_backward_data",
    "conv_backward_filter",
    "conv_magnitude",
    "conv_transpose",
    "conv_transpose_backward",
    "convolve",
    "correlate",
    "cross_entropy",
    "cross_entropy_backward",
    "dense",
    "dense_backward",
    "group_norm",
    "group_norm_backward",
    "im2col",
    "instance_norm",
    "layer_norm",
    "layer_norm_backward",
    "lenet5_backward",
    "lenet5_forward",
    "lenet5_train",
    "local_response_norm",
    "local_response_norm_backward",
    "lp_pool",
    "lp_pool_backward",
    "max_pool",
    "max_pool_backward",
    "max_unpool",
    "max_unpool_backward",
    "min_pool",
    "output_size",
    "pad",
    "pad_backward",
    "pair_loss",
    "pool_output_size",
    "prelu",
    "prelu_backward",
    "resize",
    "resize_backward",
    "resize_matrix",
    "rmsprop_step",
    "sgd_step",
    "softmax",
]
