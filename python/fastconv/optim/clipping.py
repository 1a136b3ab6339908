# SPDX-License-Identifier: Apache-2.0
"""Gradients kept from becoming too large, between `backward` and `step`. PyTorch's torch.nn.utils functions.

Gradients are replaced, not changed in place: after `backward` one array may be the gradient of two tensors.
"""

import math
from collections.abc import Iterable
from typing import Any

from .._core import ProblemError
from ..arrays import namespace
from ..half import in_float32
from ..tensor import Tensor


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Scale all gradients by one number, so that their norm, as of one long vector, is at most `max_norm`.

    Args:
        parameters: a tensor or several; those without a gradient are passed over.
        max_norm: the largest norm that is left alone. Larger ones are scaled by max_norm / (norm + 1e-6).
        norm_type: p of the p-norm; 2, or math.inf for the largest absolute value.
        error_if_nonfinite: raise where the norm is infinite or NaN, instead of scaling by it.

    Returns:
        the norm before clipping, summed in float64.

    Raises:
        ProblemError: max_norm or norm_type out of range.
        FloatingPointError: a norm that is not finite, if asked for.
    """
    if not max_norm >= 0 or not norm_type > 0:
        raise ProblemError(
            f"clip_grad_norm_: max_norm is {max_norm}, norm_type {norm_type}; expected at least 0 and above 0"
        )
    present = _with_gradients(parameters)
    norms = [_norm(p.grad.data, norm_type) for p in present if p.grad is not None]
    if math.isinf(norm_type):
        total = max(norms, default=0.0)
    else:
        total = math.fsum(n**norm_type for n in norms) ** (1 / norm_type)
    if error_if_nonfinite and not math.isfinite(total):
        raise FloatingPointError(f"clip_grad_norm_: the norm of the gradients is {total}; expected a finite one")
    scale = max_norm / (total + 1e-6)
    if not scale >= 1:
        for p in present:
            if p.grad is not None:
                p.grad = Tensor(_scaled(p.grad.data, scale))
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Cut every element of the gradients to -clip_value .. clip_value.

    Raises:
        ProblemError: a negative clip_value.
    """
    if not clip_value >= 0:
        raise ProblemError(f"clip_grad_value_: clip_value is {clip_value}; expected at least 0")
    for p in _with_gradients(parameters):
        if p.grad is not None:
            p.grad = Tensor(_clipped(p.grad.data, clip_value))


@in_float32
def _scaled(g: Any, scale: float) -> Any:
    return g * g.dtype.type(scale)


@in_float32
def _clipped(g: Any, limit: float) -> Any:
    return g.clip(-limit, limit)


def _with_gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p for p in given if p.grad is not None]


def _norm(g: Any, p: float) -> float:
    """In NumPy's pairwise sums, which do not depend on the number of threads, as those of a BLAS may."""
    xp = namespace(g)
    if math.isinf(p):
        return float(xp.abs(g).max()) if g.size else 0.0
    powers = xp.square(g, dtype="float64") if p == 2 else xp.abs(g).astype("float64") ** p
    return float(powers.sum() ** (1 / p))
