# SPDX-License-Identifier: Apache-2.0
"""The operations on tensors: each a Function (forward next to backward) and a function that checks and applies it."""

from .activations import activation, elu, gelu, hard_swish, leaky_relu, relu, relu6, sigmoid, silu, tanh
from .arithmetic import add, div, mul, neg, power, sub
from .cast import cast
from .conv import conv
from .dense import linear, matmul
from .dropout import dropout
from .elementary import exp, log, sqrt
from .loss import cross_entropy, log_softmax, softmax
from .norm import batch_norm
from .pool import pool, scatter_positions
from .shape import broadcast_to, concat, flatten, getitem, max, mean, pad, reshape, sum, transpose
from .transposed import conv_transpose

__all__ = [
    "activation",
    "add",
    "batch_norm",
    "broadcast_to",
    "cast",
    "concat",
    "conv",
    "conv_transpose",
    "cross_entropy",
    "div",
    "dropout",
    "elu",
    "exp",
    "flatten",
    "gelu",
    "getitem",
    "hard_swish",
    "leaky_relu",
    "linear",
    "log",
    "log_softmax",
    "matmul",
    "max",
    "mean",
    "mul",
    "neg",
    "pad",
    "pool",
    "power",
    "relu",
    "relu6",
    "reshape",
    "scatter_positions",
    "sigmoid",
    "silu",
    "softmax",
    "sqrt",
    "sub",
    "sum",
    "tanh",
    "transpose",
]
