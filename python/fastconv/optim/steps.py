# SPDX-License-Identifier: Apache-2.0
"""The optimisers, with PyTorch's names, formulas and defaults: one native kernel each that changes parameters in place.

Arrays that the kernels do not take (other strides, CuPy) go through the same formula in their own namespace.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import _core
from .._core import ProblemError
from ..arrays import is_native, namespace
from ..tensor import Tensor
from .optimizer import Optimizer


class SGD(Optimizer):
    """v <- momentum v + (1 - dampening) g;  w <- w - lr v  (nesterov: w - lr (g + momentum v)).

    g includes weight_decay w. Sutskever et al., 2013, in PyTorch's form, where the learning rate is outside of the
    velocity, and the first velocity is g itself.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.0, *, weight_decay: float = 0.0,
        nesterov: bool = False, dampening: float = 0.0, lr_factor: float = 1.0, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov,
                                  "dampening": dampening, "lr_factor": lr_factor, "maximize": maximize})  # fmt: skip

    def _check(self, options: dict[str, Any]) -> None:
        super()._check(options)
        if options["nesterov"] and (options["momentum"] == 0 or options["dampening"] != 0):
            raise ProblemError(
                f"SGD: nesterov=True with momentum={options['momentum']} and dampening={options['dampening']}; "
                "expected a momentum and no dampening"
            )

    def _update(self, p: Tensor, g: Any, lr: float, group: dict[str, Any]) -> None:
        momentum, decay, dampening, velocity = group["momentum"], group["weight_decay"], group["dampening"], None
        if momentum:
            state = self.state.setdefault(p, {})
            if "velocity" not in state:
                state["velocity"], dampening = self._zeros(p), 0.0
            velocity = state["velocity"]
        if _in_place(p.data, g, velocity):
            g = np.ascontiguousarray(g)
            _core.sgd_step(p.data, g, velocity, lr, momentum, decay, group["nesterov"], dampening)
            return
        g = g + decay * p.data
        if velocity is not None:
            velocity *= momentum
            velocity += (1 - dampening) * g
            g = g + momentum * velocity if group["nesterov"] else velocity
        p.data -= lr * g


class Adam(Optimizer):
    """m, v <- running means of g and g^2;  w <- w - lr m' / (sqrt(v') + eps), both corrected for their start at zero.

    Kingma and Ba, 2014, algorithm 1. weight_decay is added to the gradient; see AdamW. amsgrad divides by the largest v
    so far (Reddi, Kale and Kumar, 2018).
    """

    decoupled = False

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0, amsgrad: bool = False, *, lr_factor: float = 1.0, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay,
                                  "amsgrad": amsgrad, "lr_factor": lr_factor, "maximize": maximize})  # fmt: skip

    def _update(self, p: Tensor, g: Any, lr: float, group: dict[str, Any]) -> None:
        state = self.state.get(p)
        if state is None:
            state = self.state[p] = {"step": 0, "m": self._zeros(p), "v": self._zeros(p)}
        state["step"] += 1
        step, m, v, highest = state["step"], state["m"], state["v"], None
        if group["amsgrad"]:
            highest = state.setdefault("highest", v.copy())
        (beta1, beta2), eps, decay = group["betas"], group["eps"], group["weight_decay"]
        if _in_place(p.data, g, m, v, highest):
            g = np.ascontiguousarray(g)
            _core.adam_step(p.data, g, m, v, lr, beta1, beta2, eps, decay, self.decoupled, step, highest)
            return
        if self.decoupled:
            p.data *= 1 - lr * decay
        else:
            g = g + decay * p.data
        m += (1 - beta1) * (g - m)
        v += (1 - beta2) * (g * g - v)
        if highest is not None:
            v = namespace(v).maximum(v, highest, out=highest)
        scale = lr / (1 - beta1**step)
        p.data -= scale * m / (namespace(m).sqrt(v) / math.sqrt(1 - beta2**step) + eps)


class AdamW(Adam):
    """Adam with the weights shrunk by lr * weight_decay directly. Loshchilov and Hutter, 2017."""

    decoupled = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.01, amsgrad: bool = False, *, lr_factor: float = 1.0, maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, lr_factor=lr_factor, maximize=maximize)


class RMSprop(Optimizer):
    """s <- alpha s + (1 - alpha) g^2;  w <- w - lr g / (sqrt(s) + eps), where g includes weight_decay w.

    Tieleman and Hinton, 2012, lecture 6.5, in PyTorch's form. centered takes the square of a running mean of g off s
    (Graves, 2013; where rounding makes the difference negative it counts as 0); momentum gathers the scaled gradients.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0.0, momentum: float = 0.0, centered: bool = False, *, lr_factor: float = 1.0,
        maximize: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay,
                                  "momentum": momentum, "centered": centered, "lr_factor": lr_factor,
                                  "maximize": maximize})  # fmt: skip

    def _check(self, options: dict[str, Any]) -> None:
        super()._check(options)
        if not 0 <= options["alpha"] <= 1:
            raise ProblemError(f"RMSprop: alpha is {options['alpha']}; expected 0 to 1")

    def _update(self, p: Tensor, g: Any, lr: float, group: dict[str, Any]) -> None:
        alpha, eps, decay, momentum = group["alpha"], group["eps"], group["weight_decay"], group["momentum"]
        state = self.state.setdefault(p, {})
        for name, wanted in (("square", True), ("mean", group["centered"]), ("velocity", momentum > 0)):
            if wanted and name not in state:
                state[name] = self._zeros(p)
        square = state["square"]
        mean = state["mean"] if group["centered"] else None
        velocity = state["velocity"] if momentum > 0 else None
        if _in_place(p.data, g, square, mean, velocity):
            g = np.ascontiguousarray(g)
            _core.rmsprop_step(p.data, g, square, mean, velocity, lr, alpha, eps, decay, momentum)
            return
        xp = namespace(p.data)
        g = g + decay * p.data
        square *= alpha
        square += (1 - alpha) * g * g
        variance = square
        if mean is not None:
            mean += (1 - alpha) * (g - mean)
            variance = xp.maximum(square - mean * mean, 0)
        scaled = g / (xp.sqrt(variance) + eps)
        if velocity is not None:
            velocity *= momentum
            velocity += scaled
            scaled = velocity
        p.data -= lr * scaled


def _in_place(w: Any, g: Any, *state: Any) -> bool:
    """Whether the native kernels can work on these in place."""
    arrays = [w, *(s for s in state if s is not None)]
    return is_native(*arrays, g) and all(a.flags.c_contiguous and a.flags.writeable for a in arrays)
