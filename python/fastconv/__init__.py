# SPDX-License-Identifier: Apache-2.0
"""fastconv: convolution at native speed on NumPy arrays, with layers and gradients.

    import fastconv as fc
    y = fc.conv2d(x, w, bias, padding="same", activation="relu")

Importing it loads numpy and the native module; `fc.nn`, `fc.optim`, `fc.data` and the like are loaded at first use.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# First: the tape and the operations need Tensor, whose operators need them in turn.
from .tensor import Tensor  # isort: skip

from . import thread_limits as _thread_limits
from ._core import ConvProblem, DeviceError, ProblemError, UnsupportedError, WorkspaceError
from .adaptive_pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool1d_backward,
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    adaptive_avg_pool3d,
    adaptive_avg_pool3d_backward,
    adaptive_max_pool1d,
    adaptive_max_pool1d_backward,
    adaptive_max_pool2d,
    adaptive_max_pool2d_backward,
    adaptive_max_pool3d,
    adaptive_max_pool3d_backward,
    global_avg_pool1d,
    global_avg_pool2d,
    global_avg_pool3d,
    global_lp_pool1d,
    global_lp_pool2d,
    global_lp_pool3d,
    global_max_pool1d,
    global_max_pool2d,
    global_max_pool3d,
    global_min_pool1d,
    global_min_pool2d,
    global_min_pool3d,
)
from .autograd import Function, enable_grad, grad, is_grad_enabled, no_grad, set_grad_enabled
from .causal import causal_conv1d
from .columns import col2im, im2col
from .explain import Explanation, algorithms, explain
from .gradients import (
    conv1d_backward,
    conv1d_backward_data,
    conv1d_backward_filter,
    conv2d_backward,
    conv2d_backward_data,
    conv2d_backward_filter,
    conv3d_backward,
    conv3d_backward_data,
    conv3d_backward_filter,
)
from .lp_pooling import (
    lp_pool1d,
    lp_pool1d_backward,
    lp_pool2d,
    lp_pool2d_backward,
    lp_pool3d,
    lp_pool3d_backward,
)
from .options import options, set_options
from .pooling import (
    avg_pool1d,
    avg_pool1d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    avg_pool3d,
    avg_pool3d_backward,
    max_pool1d,
    max_pool1d_backward,
    max_pool2d,
    max_pool2d_backward,
    max_pool3d,
    max_pool3d_backward,
    min_pool1d,
    min_pool1d_backward,
    min_pool2d,
    min_pool2d_backward,
    min_pool3d,
    min_pool3d_backward,
)
from .primitives import conv1d, conv2d, conv3d, plan
from .random import manual_seed
from .response import local_response_norm, local_response_norm_backward
from .trace import Trace, cache_info, clear_cache, info, trace
from .transposed import conv_transpose1d, conv_transpose2d, conv_transpose3d
from .unpooling import (
    max_unpool1d,
    max_unpool1d_backward,
    max_unpool2d,
    max_unpool2d_backward,
    max_unpool3d,
    max_unpool3d_backward,
)

_thread_limits.install()

if os.environ.get("FASTCONV_CHECK"):  # else nothing stands between a call and the native module
    from pathlib import Path

    from . import selfcheck

    selfcheck.install(
        selfcheck.every_of(os.environ["FASTCONV_CHECK"]), Path(os.environ.get("FASTCONV_CHECK_DIR") or ".")
    )

# Loaded at first use, so that `import fastconv` stays light.
_MODULES = (
    "data",
    "filters",
    "models",
    "nn",
    "optim",
    "ops",
    "plot",
    "random",
    "reference",
    "schedule",
    "train",
    "tuning",
    "weights",
)
_FUNCTIONS = {
    "InferenceSession": "session",
    "convolve": "filters",
    "correlate": "filters",
    "gradcheck": "numeric_grad",
    "gradgradcheck": "numeric_grad",
    "summary": "summarizing",
    "tune": "tuning.measure",
}


if TYPE_CHECKING:  # what `__getattr__` gives
    from . import data, filters, models, nn, optim, plot, random, reference, schedule, train, weights
    from . import ops as ops
    from . import tuning as tuning
    from .filters import convolve, correlate
    from .numeric_grad import gradcheck, gradgradcheck
    from .session import InferenceSession
    from .summarizing import summary
    from .tuning.measure import tune as tune


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # slow to load, and rarely wanted

        globals()[name] = version("fastconv")
        return globals()[name]
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in _FUNCTIONS:
        value = getattr(importlib.import_module(f".{_FUNCTIONS[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})


__all__ = [
    "ConvProblem",
    "DeviceError",
    "Explanation",
    "Function",
    "InferenceSession",
    "ProblemError",
    "Tensor",
    "Trace",
    "UnsupportedError",
    "WorkspaceError",
    "__version__",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool1d_backward",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool3d",
    "adaptive_avg_pool3d_backward",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_backward",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_backward",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_backward",
    "algorithms",
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool3d",
    "avg_pool3d_backward",
    "cache_info",
    "causal_conv1d",
    "clear_cache",
    "col2im",
    "conv1d",
    "conv1d_backward",
    "conv1d_backward_data",
    "conv1d_backward_filter",
    "conv2d",
    "conv2d_backward",
    "conv2d_backward_data",
    "conv2d_backward_filter",
    "conv3d",
    "conv3d_backward",
    "conv3d_backward_data",
    "conv3d_backward_filter",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convolve",
    "correlate",
    "data",
    "enable_grad",
    "explain",
    "filters",
    "global_avg_pool1d",
    "global_avg_pool2d",
    "global_avg_pool3d",
    "global_lp_pool1d",
    "global_lp_pool2d",
    "global_lp_pool3d",
    "global_max_pool1d",
    "global_max_pool2d",
    "global_max_pool3d",
    "global_min_pool1d",
    "global_min_pool2d",
    "global_min_pool3d",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "im2col",
    "info",
    "is_grad_enabled",
    "local_response_norm",
    "local_response_norm_backward",
    "lp_pool1d",
    "lp_pool1d_backward",
    "lp_pool2d",
    "lp_pool2d_backward",
    "lp_pool3d",
    "lp_pool3d_backward",
    "manual_seed",
    "max_pool1d",
    "max_pool1d_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool3d",
    "max_pool3d_backward",
    "max_unpool1d",
    "max_unpool1d_backward",
    "max_unpool2d",
    "max_unpool2d_backward",
    "max_unpool3d",
    "max_unpool3d_backward",
    "min_pool1d",
    "min_pool1d_backward",
    "min_pool2d",
    "min_pool2d_backward",
    "min_pool3d",
    "min_pool3d_backward",
    "models",
    "nn",
    "no_grad",
    "optim",
    "options",
    "plan",
    "plot",
    "random",
    "reference",
    "schedule",
    "set_grad_enabled",
    "set_options",
    "summary",
    "trace",
    "train",
    "weights",
]
