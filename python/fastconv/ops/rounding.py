# SPDX-License-Identifier: Apache-2.0
"""Steps: floor, ceil, round to even, sign. On the tape, as everything that a network computes; their gradient is 0."""

from typing import Any

from ..arrays import namespace
from ..autograd import Context, Function
from ..tensor import Tensor, as_tensor


class Step(Function):
    """A function that is constant but for its jumps: "floor", "ceil", "rint" or "sign"."""

    @staticmethod
    def forward(ctx: Context, x: Any, *, kind: str) -> Any:
        return getattr(namespace(x), kind)(x)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return dy * 0.0


def floor(x: Any) -> Tensor:
    """The largest integer that is not above x."""
    return Step.apply(as_tensor(x), kind="floor")


def ceil(x: Any) -> Tensor:
    """The smallest integer that is not below x."""
    return Step.apply(as_tensor(x), kind="ceil")


def round_to_even(x: Any) -> Tensor:
    """The nearest integer; of two, the even one."""
    return Step.apply(as_tensor(x), kind="rint")


def sign(x: Any) -> Tensor:
    """-1, 0 or 1; NaN passes."""
    return Step.apply(as_tensor(x), kind="sign")
