# SPDX-License-Identifier: Apache-2.0
"""One small call of every operation, by family: what make_operations.py measures to write operations.md.

An operation is a public name without its number of axes: `max_pool` is max_pool1d, max_pool2d and max_pool3d.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastconv as fc
from fastconv import ops
from fastconv.nn import functional

Shape = tuple[int, ...]


class Example(NamedTuple):
    call: Callable[..., Any]  # of tensors of these shapes, with values from 0.5 to 0.9
    shapes: tuple[Shape, ...]
    axes: str = ""  # where the names do not say it
    layers: str = ""  # layers whose names differ, a regular expression
    words: tuple[str, ...] = ()  # other names under which tests speak of it
    layouts: str = ""  # where an argument `layout` does not say it


IMAGE = (1, 4, 6, 6)
LABELS = np.array([0, 2])
INDICES = np.array([[0, 1, 1]])
POSITIONS = np.array([[[[0, 2], [12, 14]]] * 4])


def _unary(*names: str) -> dict[str, Example]:
    return {name: Example(getattr(ops, name), ((2, 3),)) for name in names}


def _binary(*names: str) -> dict[str, Example]:
    return {name: Example(getattr(ops, name), ((2, 3), (2, 3))) for name in names}


def _image(call: Callable[..., Any], *more: Shape, axes: str = "", layers: str = "", words: Any = ()) -> Example:
    return Example(call, (IMAGE, *more), axes, layers, words)


FAMILIES: dict[str, dict[str, Example]] = {
    "Convolution": {
        "conv": _image(lambda x, w, b: fc.conv2d(x, w, b), (4, 4, 3, 3), (4,), words=("conv_forward",)),
        "conv_transpose": _image(lambda x, w, b: fc.conv_transpose2d(x, w, b), (4, 4, 3, 3), (4,)),
        "causal_conv": Example(lambda x, w, b: fc.causal_conv1d(x, w, b)[0], ((1, 4, 6), (4, 4, 3), (4,))),
        "im2col": _image(lambda x: fc.im2col(x, 3), axes="1, 2, 3", layers="Unfold", words=("unfold",)),
        "col2im": Example(lambda x: fc.col2im(x, 6, 3), ((1, 36, 16),), "1, 2, 3", "Fold", ("fold",)),
    },
    "Filters": {
        "correlate": Example(fc.filters.correlate, ((6, 6), (3, 3)), "any"),
        "convolve": Example(fc.filters.convolve, ((6, 6), (3, 3)), "any"),
        "gaussian_filter": Example(lambda x: fc.filters.gaussian_filter(x, 1.0), ((6, 6),), "any"),
    },
    "Pooling": {
        "max_pool": _image(lambda x: fc.max_pool2d(x, 2)),
        "min_pool": _image(lambda x: fc.min_pool2d(x, 2)),
        "avg_pool": _image(lambda x: fc.avg_pool2d(x, 2)),
        "lp_pool": _image(lambda x: fc.lp_pool2d(x, 2, 2)),
        "adaptive_max_pool": _image(lambda x: fc.adaptive_max_pool2d(x, 2)),
        "adaptive_avg_pool": _image(lambda x: fc.adaptive_avg_pool2d(x, 2)),
        "global_max_pool": _image(fc.global_max_pool2d),
        "global_min_pool": _image(fc.global_min_pool2d),
        "global_avg_pool": _image(fc.global_avg_pool2d),
        "global_lp_pool": _image(fc.global_lp_pool2d),
        "max_unpool": Example(lambda x: fc.max_unpool2d(x, POSITIONS, 2), ((1, 4, 2, 2),)),
    },
    "Normalisation": {
        "batch_norm": _image(lambda x, w, b: ops.batch_norm(x, None, None, w, b, True), (4,), (4,), axes="0, 1, 2, 3"),
        "group_norm": _image(lambda x, w, b: ops.group_norm(x, 2, w, b), (4,), (4,), axes="any"),
        "instance_norm": _image(lambda x, w, b: ops.instance_norm(x, None, None, w, b), (4,), (4,), axes="1, 2, 3"),
        "layer_norm": Example(
            lambda x, w, b: ops.layer_norm(x, (6,), w, b), (IMAGE, (6,), (6,)), "any", layouts="the last axes"
        ),
        "local_response_norm": _image(lambda x: fc.local_response_norm(x, 3), axes="any"),
    },
    "Activations": {
        **_unary("relu", "leaky_relu", "relu6", "elu", "selu", "celu", "sigmoid", "hard_sigmoid", "log_sigmoid"),
        **_unary("tanh", "hard_tanh", "silu", "hard_swish", "mish", "gelu", "softplus", "softsign"),
        "prelu": Example(ops.prelu, ((2, 3), (3,))),
        "maxout": Example(lambda x: ops.maxout(x, 2), ((2, 4),), layers="Maxout(Linear)?"),
        **_unary("softmax", "log_softmax"),
        "activation": Example(lambda x: ops.activation(x, "elu", 0.5), ((2, 3),)),
    },
    "Losses": {
        "cross_entropy": Example(lambda x: ops.cross_entropy(x, LABELS), ((2, 3),)),
        "nll_loss": Example(lambda x: ops.nll_loss(x, LABELS), ((2, 3),)),
        **_binary("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div"),
        "binary_cross_entropy": Example(ops.binary_cross_entropy, ((2, 3), (2, 3)), layers="BCELoss"),
        "binary_cross_entropy_with_logits": Example(
            ops.binary_cross_entropy_with_logits, ((2, 3), (2, 3)), layers="BCEWithLogitsLoss"
        ),
    },
    "Padding and resizing": {
        "pad": _image(lambda x: functional.pad(x, (1, 1), "reflect"), axes="any", layers=r"\w+Pad[123]d"),
        "interpolate": _image(lambda x: ops.interpolate(x, 9, mode="bilinear"), axes="1, 2, 3", layers="Upsampl.*"),
    },
    "Products": {
        "linear": Example(ops.linear, ((2, 3), (4, 3), (4,))),
        "matmul": Example(ops.matmul, ((2, 3), (3, 4))),
    },
    "Dropout": {"dropout": _image(lambda x: ops.dropout(x, 0.5, True), axes="any")},
    "Tensor operations": {
        **_binary("add", "sub", "mul", "div", "power", "maximum", "minimum"),
        "where": Example(lambda a, b: ops.where(np.array([[True], [False]]), a, b), ((2, 3), (2, 3))),
        **_unary("neg", "abs", "erf", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "sin", "cos"),
        "clip": Example(lambda x: ops.clip(x, 0.7, 0.9), ((2, 3),)),
        "cast": Example(lambda x: ops.cast(x, x.dtype), ((2, 3),), words=("astype",)),
        "to": Example(lambda x: ops.to(x, "cpu"), ((2, 3),), words=("ops.to(",)),
        **_unary("sum", "mean", "var", "std", "max", "min", "amax", "amin"),
        "argmax": Example(ops.argmax, ((2, 3),), words=("x.argmax",)),
        "argmin": Example(ops.argmin, ((2, 3),), words=("x.argmin",)),
        "logsumexp": Example(lambda x: ops.logsumexp(x, 1), ((2, 3),)),
        "cumsum": Example(lambda x: ops.cumsum(x, 1), ((2, 3),)),
        "reshape": Example(lambda x: ops.reshape(x, 3, 2), ((2, 3),)),
        "flatten": Example(lambda x: ops.flatten(x), ((2, 3),), layers="Flatten|Unflatten"),
        "transpose": Example(lambda x: ops.transpose(x), ((2, 3),), words=("permute",)),
        "swapaxes": Example(lambda x: ops.swapaxes(x, 0, 1), ((2, 3),)),
        "squeeze": Example(lambda x: ops.squeeze(x), ((2, 1),)),
        "unsqueeze": Example(lambda x: ops.unsqueeze(x, 0), ((2, 3),)),
        "broadcast_to": Example(lambda x: ops.broadcast_to(x, (2, 3)), ((1, 3),), words=("expand",)),
        "tile": Example(lambda x: ops.tile(x, 2, 1), ((2, 3),), words=("repeat",)),
        "flip": Example(lambda x: ops.flip(x, 0), ((2, 3),)),
        "roll": Example(lambda x: ops.roll(x, 1, 0), ((2, 3),)),
        "getitem": Example(lambda x: ops.getitem(x, 0), ((2, 3),), words=("slice",)),
        "gather": Example(lambda x: ops.gather(x, 0, INDICES), ((2, 3),)),
        "take_along_axis": Example(lambda x: ops.take_along_axis(x, INDICES, 0), ((2, 3),)),
        "index_select": Example(lambda x: ops.index_select(x, 0, LABELS[:1]), ((2, 3),)),
        "concat": Example(lambda a, b: ops.concat([a, b]), ((2, 3), (2, 3))),
        "stack": Example(lambda a, b: ops.stack([a, b]), ((2, 3), (2, 3))),
        "split": Example(lambda x: ops.split(x, 1)[0], ((2, 3),)),
        "chunk": Example(lambda x: ops.chunk(x, 2)[0], ((2, 3),)),
    },
}
# The inside of other functions: no operation to call.
INTERNAL = {"pool", "scatter_positions"}
# Other names of the same function.
ALIASES = {
    "hardsigmoid": "hard_sigmoid",
    "hardswish": "hard_swish",
    "hardtanh": "hard_tanh",
    "logsigmoid": "log_sigmoid",
    "fold": "col2im",
    "unfold": "im2col",
}
