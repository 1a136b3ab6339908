# SPDX-License-Identifier: Apache-2.0
"""Module and Parameter: what a network is made of, and how its values are named, saved and loaded."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..tensor import Tensor


class Parameter(Tensor):
    """A tensor that a module learns. Optimisers change its data in place and raise its version."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)


class Module:
    """A layer or a network: parameters, buffers and modules inside, found by the names of its attributes.

    Subclasses call `super().__init__()`, assign their parts to attributes and define `forward`.
    """

    def __init__(self) -> None:
        self._parameters: dict[str, Parameter | None] = {}
        self._buffers: dict[str, Any] = {}
        self._modules: dict[str, Module] = {}
        self.training = True

    def forward(self, *inputs: Any) -> Any:
        """Compute; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        return self.forward(*inputs, **keywords)

    def __setattr__(self, name: str, value: Any) -> None:
        if "_parameters" not in self.__dict__ and isinstance(value, Parameter | Module):
            raise RuntimeError(f"{type(self).__name__}: call super().__init__() before assigning {name}")
        if isinstance(value, Parameter):
            self._register(self._parameters, name, value)
        elif isinstance(value, Module):
            self._register(self._modules, name, value)
        elif name in self.__dict__.get("_parameters", {}):
            if value is not None:
                raise TypeError(
                    f"{type(self).__name__}: {name} is a {type(value).__name__}; expected a Parameter or None"
                )
            self._parameters[name] = None
        elif name in self.__dict__.get("_buffers", {}):
            self._buffers[name] = value
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        for parts in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__.get(parts, {}):
                return self.__dict__[parts][name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for parts in (self._parameters, self._buffers, self._modules):
            if name in parts:
                del parts[name]
                return
        super().__delattr__(name)

    def _register(self, parts: dict[str, Any], name: str, value: Any) -> None:
        for others in (self._parameters, self._buffers, self._modules):
            if others is not parts:
                others.pop(name, None)
        self.__dict__.pop(name, None)
        parts[name] = value

    def register_parameter(self, name: str, value: Parameter | None) -> None:
        """Like assigning it; None keeps the name for a parameter that this module does without."""
        self._register(self._parameters, name, value)

    def register_buffer(self, name: str, value: Any) -> None:
        """An array that belongs to the state but is not learnt, as running statistics; None keeps the name."""
        self._register(self._buffers, name, value)

    def add_module(self, name: str, module: "Module") -> None:
        """Like assigning it, for names that are not identifiers."""
        self._register(self._modules, name, module)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """(name, module) of this module and all inside, each once."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            name, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield name, module
            stack += [(f"{name}.{n}" if name else n, m) for n, m in reversed(module._modules.items())]

    def _named(self, parts: str) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in getattr(module, parts).items():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{prefix}.{name}" if prefix else name, value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) of all parameters, shared ones once."""
        return self._named("_parameters")

    def named_buffers(self) -> Iterator[tuple[str, Any]]:
        """(name, array) of all buffers."""
        return self._named("_buffers")

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """(name, module) of the modules directly inside."""
        return iter(self._modules.items())

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, shared ones once."""
        return (p for _, p in self.named_parameters())

    def buffers(self) -> Iterator[Any]:
        """All buffers."""
        return (b for _, b in self.named_buffers())

    def modules(self) -> Iterator["Module"]:
        """This module and all inside."""
        return (m for _, m in self.named_modules())

    def children(self) -> Iterator["Module"]:
        """The modules directly inside."""
        return iter(self._modules.values())

    def _state(self) -> Iterator[tuple[str, "Module", str, Any]]:
        """(key, owner, name, array or parameter) under every name, so that shared parameters appear under each."""
        stack: list[tuple[str, Module]] = [("", self)]
        while stack:
            prefix, module = stack.pop()
            for name, value in (*module._parameters.items(), *module._buffers.items()):
                if value is not None:
                    yield prefix + name, module, name, value
            stack += [(f"{prefix}{n}.", m) for n, m in reversed(module._modules.items())]

    def state_dict(self) -> dict[str, Any]:
        """Copies of all parameters and buffers as arrays, under PyTorch's keys; later training leaves them alone."""
        return {key: _array(value).copy() for key, _, _, value in self._state()}

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copy arrays into the parameters and buffers of the same names.

        Args:
            state: as `state_dict` gives; arrays keep this module's dtype.
            strict: False accepts missing and unexpected keys (never a wrong shape).

        Returns:
            (missing keys, unexpected keys).

        Raises:
            ValueError: one message with everything that does not fit; nothing is loaded then.
        """
        own = {key: (module, name, value) for key, module, name, value in self._state()}
        missing = [key for key in own if key not in state]
        unexpected = [key for key in state if key not in own]
        wrong = [
            f"{key} has shape {np.shape(_array(state[key]))}, expected {_array(value).shape}"
            for key, (_, _, value) in own.items()
            if key in state and np.shape(_array(state[key])) != _array(value).shape
        ]
        problems = [f"wrong shape: {'; '.join(wrong)}"] if wrong else []
        if strict:
            problems += [f"missing: {', '.join(missing)}"] if missing else []
            problems += [f"unexpected: {', '.join(unexpected)}"] if unexpected else []
        if problems:
            raise ValueError(
                f"load_state_dict: {type(self).__name__} does not fit the state\n  " + "\n  ".join(problems)
            )
        for key, (_, _, value) in own.items():
            if key in state:
                _array(value)[...] = _array(state[key])
                if isinstance(value, Tensor):
                    value.bump_version()
        return missing, unexpected

    def train(self, mode: bool = True) -> "Module":
        """Training mode for this module and all inside: dropout drops, batch norm uses the batch."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> "Module":
        """Inference mode; the opposite of `train()`."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> "Module":
        """Freeze (False) or unfreeze all parameters inside."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters():
            parameter.grad = None

    def apply(self, f: Callable[["Module"], Any]) -> "Module":
        """Call f on every module inside, then on this one."""
        for module in reversed(list(self.modules())):
            f(module)
        return self

    def to(self, dtype: Any) -> "Module":
        """Convert all floating parameters and buffers, as `model.to(numpy.float64)`."""
        for _, module, name, value in list(self._state()):
            if isinstance(value, Tensor):
                value.data = value.data.astype(dtype)
                value.grad = None
                value.bump_version()
            elif value.dtype.kind == "f":
                module._buffers[name] = value.astype(dtype)
        return self

    def extra_repr(self) -> str:
        """What `repr` shows between the brackets; layers define it."""
        return ""

    def __repr__(self) -> str:
        name = type(self).__name__
        if not self._modules:
            return f"{name}({self.extra_repr()})"
        lines = [f"({n}): {m!r}".replace("\n", "\n  ") for n, m in self._modules.items()]
        return f"{name}(\n  " + "\n  ".join(lines) + "\n)"


def _array(value: Any) -> Any:
    return value.data if isinstance(value, Tensor) else value if hasattr(value, "dtype") else np.asarray(value)
