# SPDX-License-Identifier: Apache-2.0
"""What the optimisers share: groups of parameters with options of their own, and the state that a checkpoint keeps.

The state of a float16 or bfloat16 parameter is float32, and so is the arithmetic of a step: only the parameter is
rounded, once. (PyTorch keeps the state in the parameter's dtype.)
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import ProblemError
from ..arrays import namespace
from ..half import widen, widened
from ..tensor import Tensor

if TYPE_CHECKING:
    from ..nn import Module


class Optimizer:
    """Parameter groups and one state per parameter.

    Args:
        params: tensors, or dictionaries with "params" and options of their own; see `param_groups`.
        defaults: the options of groups that say nothing else. Two are common to all optimisers: `lr_factor` multiplies
            the learning rate of its group and stays when a schedule sets that (MATLAB's WeightLearnRateFactor and
            BiasLearnRateFactor); `maximize` climbs instead of descending.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        self.defaults = {"lr_factor": 1.0, "maximize": False, **defaults}
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
        for key in ("lr", "lr_factor", "weight_decay", "momentum", "eps"):
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
        """Change every parameter that requires a gradient and has one; frozen ones keep their bits and their state."""
        for group in self.param_groups:
            lr = group["lr"] * group["lr_factor"]
            for p in group["params"]:
                if p.requires_grad and p.grad is not None:
                    g = widen(p.grad.data)
                    with widened(p):
                        self._update(p, -g if group["maximize"] else g, lr, group)
                    p.bump_version()

    def _update(self, p: Tensor, g: Any, lr: float, group: dict[str, Any]) -> None:
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


def param_groups(model: "Module", rules: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The parameters of a model in groups, for layers and biases with options of their own.

    Args:
        model: the module whose parameters they are.
        rules: name -> options. A name is that of a parameter or of a module, as in `named_parameters` and
            `named_modules`; the longest one that fits a parameter decides, alone. "bias" (or "weight") stands for every
            parameter of that last name for which no other rule does.

    Returns:
        groups for an optimiser: first the parameters that no rule names, then one per rule that has any.

    Raises:
        ProblemError: a name that no parameter has.

    Example, MATLAB's transfer learning, where a new last layer learns ten times as fast:
        >>> groups = fc.optim.param_groups(model, {"fc": {"lr_factor": 10}, "bias": {"weight_decay": 0.0}})
        >>> optimizer = fc.optim.SGD(groups, lr=3e-4, momentum=0.9, weight_decay=1e-4)
    """
    chosen: dict[str | None, list[Tensor]] = {None: [], **{name: [] for name in rules}}
    for name, parameter in model.named_parameters():
        inside = [rule for rule in rules if name == rule or name.startswith(f"{rule}.")]
        last = name.rpartition(".")[2]
        chosen[max(inside, key=len) if inside else last if last in rules else None].append(parameter)
    idle = [name for name in rules if not chosen[name]]
    if idle:
        known = ", ".join(name for name, _ in model.named_parameters())
        raise ProblemError(f"param_groups: {', '.join(idle)} stands for no parameter; the parameters are {known}")
    return [{"params": found, **(rules[name] if name else {})} for name, found in chosen.items() if found]


def _copy(value: Any) -> Any:
    return value.copy() if hasattr(value, "copy") else value
