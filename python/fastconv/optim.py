# SPDX-License-Identifier: Apache-2.0
"""Optimisers: SGD with momentum, Adam, AdamW. PyTorch's names, formulas and defaults.

Parameters are changed in place by one native kernel each, and their version rises, so that a graph which saved the
old values refuses to use them. Frozen parameters and those without a gradient are left alone.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import _core
from ._core import ProblemError
from .arrays import is_native, namespace
from .tensor import Tensor


class Optimizer:
    """Parameter groups and one state per parameter.

    Args:
        params: tensors, or dictionaries with "params" and options of their own.
        defaults: the options of groups that say nothing else.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        entries: list[Any] = [params] if isinstance(params, Tensor) else list(params)
        if not entries:
            raise ProblemError(f"{type(self).__name__}: there are no parameters; expected at least one")
        groups: list[Any] = entries if isinstance(entries[0], dict) else [{"params": entries}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Add parameters with options of their own, as {"params": [...], "lr": 1e-4}."""
        name = type(self).__name__
        unknown = sorted(set(group) - set(self.defaults) - {"params"})
        if unknown or "params" not in group:
            known = ", ".join(self.defaults)
            raise ProblemError(f'{name}: a group has the keys {sorted(group)}; expected "params" and some of {known}')
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        present = {p for g in self.param_groups for p in g["params"]}
        for p in params:
            if not isinstance(p, Tensor) or p.node is not None:
                raise TypeError(f"{name}: a parameter is a {type(p).__name__}; expected leaf tensors")
            if p in present:
                raise ProblemError(f"{name}: a parameter of shape {p.shape} is in the groups twice")
            present.add(p)
        options = {**self.defaults, **{k: v for k, v in group.items() if k != "params"}}
        self._check(options)
        self.param_groups.append({"params": params, **options})

    def _check(self, options: dict[str, Any]) -> None:
        for key in ("lr", "weight_decay", "momentum", "eps"):
            if key in options and not options[key] >= 0:
                raise ProblemError(f"{type(self).__name__}: {key} is {options[key]}; expected at least 0")
        for i, beta in enumerate(options.get("betas", ())):
            if not 0 <= beta < 1:
                raise ProblemError(f"{type(self).__name__}: betas[{i}] is {beta}; expected at least 0 and below 1")

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """Change every parameter that requires a gradient and has one."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.requires_grad and p.grad is not None:
                    self._update(p, p.grad.data, group)
                    p.bump_version()

    def _update(self, p: Tensor, g: Any, group: dict[str, Any]) -> None:
        raise NotImplementedError

    def _zeros(self, p: Tensor) -> Any:
        return namespace(p.data).zeros(p.shape, p.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Copies of the state by parameter number, and the options of the groups."""
        numbers = {p: i for i, p in enumerate(p for g in self.param_groups for p in g["params"])}
        state = {numbers[p]: {k: _copy(v) for k, v in s.items()} for p, s in self.state.items()}
        groups = [{**g, "params": [numbers[p] for p in g["params"]]} for g in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` of an optimiser with the same groups gave.

        Raises:
            ValueError: other groups, or a state of another shape; nothing is loaded then.
        """
        name, params = type(self).__name__, [p for g in self.param_groups for p in g["params"]]
        ours, theirs = ([len(g["params"]) for g in groups] for groups in (self.param_groups, state["param_groups"]))
        if ours != theirs:
            raise ValueError(f"{name}.load_state_dict: groups of {theirs} parameters; expected {ours}")
        loaded = {params[int(i)]: {k: _copy(v) for k, v in s.items()} for i, s in state["state"].items()}
        for p, values in loaded.items():
            for key, value in values.items():
                if np.ndim(value) and value.shape != p.shape:
                    raise ValueError(f"{name}.load_state_dict: {key} has shape {value.shape}; expected {p.shape}")
        self.state = loaded
        for group, new in zip(self.param_groups, state["param_groups"], strict=True):
            group.update({k: v for k, v in new.items() if k != "params"})


class SGD(Optimizer):
    """v <- momentum v + g;  w <- w - lr v  (nesterov: w - lr (g + momentum v)), where g includes weight_decay w.

    Sutskever et al., 2013, in PyTorch's form, where the learning rate is outside of the velocity.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.0, *, weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": nesterov})

    def _check(self, options: dict[str, Any]) -> None:
        super()._check(options)
        if options["nesterov"] and options["momentum"] == 0:
            raise ProblemError("SGD: nesterov=True with momentum=0; expected a momentum")

    def _update(self, p: Tensor, g: Any, group: dict[str, Any]) -> None:
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        velocity = None
        if momentum:
            velocity = self.state.setdefault(p, {}).setdefault("velocity", self._zeros(p))
        if _in_place(p.data, g, velocity):
            g = np.ascontiguousarray(g)
            _core.sgd_step(p.data, g, velocity, lr, momentum, decay, group["nesterov"])
            return
        g = g + decay * p.data
        if velocity is not None:
            velocity *= momentum
            velocity += g
            g = g + momentum * velocity if group["nesterov"] else velocity
        p.data -= lr * g


class Adam(Optimizer):
    """m, v <- running means of g and g^2;  w <- w - lr m' / (sqrt(v') + eps), both corrected for their start at zero.

    Kingma and Ba, 2014, algorithm 1. weight_decay is added to the gradient; see AdamW.
    """

    decoupled = False

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    def _update(self, p: Tensor, g: Any, group: dict[str, Any]) -> None:
        state = self.state.get(p)
        if state is None:
            state = self.state[p] = {"step": 0, "m": self._zeros(p), "v": self._zeros(p)}
        state["step"] += 1
        step, m, v = state["step"], state["m"], state["v"]
        lr, (beta1, beta2), eps, decay = group["lr"], group["betas"], group["eps"], group["weight_decay"]
        if _in_place(p.data, g, m, v):
            g = np.ascontiguousarray(g)
            _core.adam_step(p.data, g, m, v, lr, beta1, beta2, eps, decay, self.decoupled, step)
            return
        if self.decoupled:
            p.data *= 1 - lr * decay
        else:
            g = g + decay * p.data
        m += (1 - beta1) * (g - m)
        v += (1 - beta2) * (g * g - v)
        scale = lr / (1 - beta1**step)
        p.data -= scale * m / (namespace(m).sqrt(v) / math.sqrt(1 - beta2**step) + eps)


class AdamW(Adam):
    """Adam with the weights shrunk by lr * weight_decay directly. Loshchilov and Hutter, 2017."""

    decoupled = True

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay)


def _in_place(w: Any, g: Any, *state: Any) -> bool:
    """Whether the native kernels can work on these in place."""
    arrays = [w, *(s for s in state if s is not None)]
    return is_native(*arrays, g) and all(a.flags.c_contiguous and a.flags.writeable for a in arrays)


def _copy(value: Any) -> Any:
    return value.copy() if hasattr(value, "copy") else value
