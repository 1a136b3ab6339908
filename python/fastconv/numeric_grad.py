# SPDX-License-Identifier: Apache-2.0
"""Gradients by central differences, and the checks that compare them with the tape's."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .autograd import enable_grad, grad, no_grad
from .tensor import Tensor


def numeric_grad(f: Callable[..., Tensor], inputs: Sequence[Tensor], which: int, dy: Any, eps: float) -> np.ndarray:
    """sum(dy * df/d inputs[which]) by central differences: (f(x + eps) - f(x - eps)) / (2 eps) for each element."""
    x: Any = inputs[which].data
    result = np.zeros_like(x)
    with no_grad():
        for index in np.ndindex(x.shape):
            kept = x[index]
            values = []
            for shifted in (kept + eps, kept - eps):
                x[index] = shifted
                values.append(float(np.sum(f(*inputs).data * dy)))
            x[index] = kept
            result[index] = (values[0] - values[1]) / (2 * eps)
    return result


def gradcheck(
    f: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    seed: int = 0,
) -> bool:
    """Compare the tape's gradient of `f` with central differences, for a random gradient of its output.

    Args:
        f: from tensors to one tensor; it must give the same for the same inputs (no dropout).
        inputs: float64 tensors; those with requires_grad are checked. Their data is changed during the check and put
            back. Keep them away from kinks and ties (relu at 0, equal maxima).
        eps: the step. atol, rtol: |tape - numeric| <= atol + rtol * |numeric|.
        seed: of the random gradient.

    Returns:
        True.

    Raises:
        AssertionError: naming the input, the worst element and both values.
        TypeError: inputs that are not float64, or none that requires a gradient.
    """
    tensors = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    wanted = [i for i, t in enumerate(tensors) if t.requires_grad]
    if not wanted:
        raise TypeError("gradcheck: no input requires a gradient; expected Tensor(..., requires_grad=True)")
    for i in wanted:
        if tensors[i].dtype != np.float64:
            raise TypeError(
                f"gradcheck: input {i} has dtype {tensors[i].dtype}; expected float64, for differences to mean anything"
            )
        tensors[i].data = np.array(tensors[i].data)  # own memory, writable
    with enable_grad():
        y = f(*tensors)
        dy = np.random.default_rng(seed).standard_normal(y.shape)
        found = grad(y, [tensors[i] for i in wanted], Tensor(np.asarray(dy)), allow_unused=True)
    for i, tape in zip(wanted, found, strict=True):
        numeric = numeric_grad(f, tensors, i, dy, eps)
        exact = np.zeros_like(numeric) if tape is None else np.asarray(tape.data)
        excess = np.abs(exact - numeric) - (atol + rtol * np.abs(numeric))
        if numeric.size and not excess.max() <= 0:
            worst = np.unravel_index(int(np.nanargmax(np.where(np.isnan(excess), np.inf, excess))), numeric.shape)
            raise AssertionError(
                f"gradcheck: input {i} at {tuple(int(w) for w in worst)}: the tape gives {exact[worst]!r}, "
                f"differences {numeric[worst]!r} (seed {seed})"
            )
    return True


def gradgradcheck(
    f: Callable[..., Tensor],
    inputs: Tensor | Sequence[Tensor],
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    seed: int = 0,
) -> bool:
    """Check second derivatives: `gradcheck` of the gradient of `f`, also with respect to the output's gradient.

    Arguments, result and errors as for `gradcheck`.
    """
    tensors = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    wanted = [i for i, t in enumerate(tensors) if t.requires_grad]
    rng = np.random.default_rng(seed + 1)
    with no_grad():
        shape = f(*tensors).shape
    dy = Tensor(np.asarray(rng.standard_normal(shape)), requires_grad=True)
    weights = [Tensor(np.asarray(rng.standard_normal(tensors[i].shape))) for i in wanted]

    def gradient(*arguments: Tensor) -> Tensor:
        *xs, dy = arguments
        with enable_grad():
            y = f(*xs)
            found = grad(y, [xs[i] for i in wanted], dy, create_graph=True, allow_unused=True)
        total = (dy * 0.0).sum()
        for weight, g in zip(weights, found, strict=True):
            total = total if g is None else total + (weight * g).sum()
        return total

    return gradcheck(gradient, [*tensors, dy], eps, atol, rtol, seed)
