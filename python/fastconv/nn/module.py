# SPDX-License-Identifier: Apache-2.0
"""Module and Parameter: what a network is made of, and how its values are named, saved and loaded."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import device
from .._core import ProblemError
from ..arrays import as_dtype, is_float
from ..half import convert
from ..tensor import Tensor
from .hooks import Hooks, RemovableHandle


class Parameter(Tensor):
    """A tensor that a module learns. Optimisers change its data in place and raise its version."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` did not find, and what it found no place for."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """A layer or a network: parameters, buffers and modules inside, found by the names of its attributes.

    Subclasses call `super().__init__()`, assign their parts to attributes and define `forward`.
    """

    def __init__(self) -> None:
        self._parameters: dict[str, Parameter | None] = {}
        self._buffers: dict[str, Any] = {}
        self._modules: dict[str, Module] = {}
        self._unsaved: set[str] = set()  # names of buffers that are not part of the state
        self._hooks = Hooks()
        self.training = True

    def forward(self, *inputs: Any) -> Any:
        """Compute; every subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def __call__(self, *inputs: Any, **keywords: Any) -> Any:
        return self._hooks.call(self, inputs, keywords) if self._hooks else self.forward(*inputs, **keywords)

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
            if name in self.__dict__.get("_modules", {}):
                if value is not None:
                    raise TypeError(
                        f"{type(self).__name__}: {name} is a {type(value).__name__}; expected a Module or None"
                    )
                del self._modules[name]
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
                self._unsaved.discard(name)
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
        self._check_name("register_parameter", name)
        self._register(self._parameters, name, value)

    def register_buffer(self, name: str, value: Any, persistent: bool = True) -> None:
        """An array that belongs to the module but is not learnt, as running statistics; None keeps the name.

        With persistent=False it is no part of `state_dict`.
        """
        self._check_name("register_buffer", name)
        self._register(self._buffers, name, value)
        self._unsaved.discard(name) if persistent else self._unsaved.add(name)

    def add_module(self, name: str, module: "Module") -> None:
        """Like assigning it, for names that are not identifiers."""
        if not isinstance(module, Module):
            raise TypeError(f"add_module: {name} is a {type(module).__name__}; expected a Module")
        self._check_name("add_module", name)
        self._register(self._modules, name, module)

    register_module = add_module

    def _check_name(self, caller: str, name: str) -> None:
        if not isinstance(name, str) or not name or "." in name:
            raise ProblemError(f"{caller}: the name is {name!r}; expected one that is not empty and has no dot")
        if hasattr(type(self), name):
            raise ProblemError(f"{caller}: {type(self).__name__} has an attribute {name!r}; expected another name")

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args)` before every forward; what it returns, unless None, takes the place of the args.

        prepend: before the hooks that are there. with_kwargs: call `hook(module, args, kwargs)`, which returns None or
        (args, kwargs).
        """
        return self._hooks.add("forward_pre", hook, prepend, with_kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args, output)` after every forward; its result, unless None, takes the output's place.

        prepend: before the hooks that are there. with_kwargs: call `hook(module, args, kwargs, output)`.
        """
        return self._hooks.add("forward", hook, prepend, with_kwargs)

    def register_full_backward_pre_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_output)` when the gradients of the output have come; a result takes their place."""
        return self._hooks.add("backward_pre", hook, prepend, False)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` when the gradients of the positional inputs are known.

        Both are tuples with one tensor, or None, per input and output; a tuple that the hook returns takes the place
        of grad_input. Where no input wants a gradient, the hook is called with Nones once grad_output has come.
        """
        return self._hooks.add("backward", hook, prepend, False)

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

    def _named(self, parts: str, prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix) if recurse else ((prefix, self),):
            for name, value in getattr(module, parts).items():
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) of all parameters, shared ones once; recurse=False: of this module alone."""
        return self._named("_parameters", prefix, recurse)

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Any]]:
        """(name, array) of all buffers; recurse=False: of this module alone."""
        return self._named("_buffers", prefix, recurse)

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """(name, module) of the modules directly inside, each once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, shared ones once; recurse=False: of this module alone."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def buffers(self, recurse: bool = True) -> Iterator[Any]:
        """All buffers; recurse=False: of this module alone."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    def modules(self) -> Iterator["Module"]:
        """This module and all inside."""
        return (m for _, m in self.named_modules())

    def children(self) -> Iterator["Module"]:
        """The modules directly inside, each once."""
        return (m for _, m in self.named_children())

    def get_submodule(self, target: str) -> "Module":
        """The module at a dotted path, as "features.0.conv"; "" is this one.

        Raises:
            AttributeError: naming the part of the path that is not there.
        """
        module = self
        for name in target.split(".") if target else ():
            if name not in module._modules:
                raise AttributeError(
                    f"get_submodule: {target!r}: {type(module).__name__} has no module {name!r}; "
                    f"it has {', '.join(module._modules) or 'none'}"
                )
            module = module._modules[name]
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path, as "features.0.weight"."""
        found: Parameter = self._part("get_parameter", "_parameters", target)
        return found

    def get_buffer(self, target: str) -> Any:
        """The buffer at a dotted path, as "features.1.running_mean"."""
        return self._part("get_buffer", "_buffers", target)

    def _part(self, caller: str, parts: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        value = getattr(module, parts).get(name)
        if value is None:
            raise AttributeError(
                f"{caller}: {target!r}: {type(module).__name__} has no such {parts[1:-1]} {name!r}; "
                f"it has {', '.join(getattr(module, parts)) or 'none'}"
            )
        return value

    def _state(self, saved: bool = False) -> Iterator[tuple[str, "Module", str, Any]]:
        """(key, owner, name, array or parameter) under every name, so that shared parameters appear under each.

        saved: only what `state_dict` holds.
        """
        stack: list[tuple[str, Module]] = [("", self)]
        while stack:
            prefix, module = stack.pop()
            for name, value in (*module._parameters.items(), *module._buffers.items()):
                if value is not None and not (saved and name in module._unsaved):
                    yield prefix + name, module, name, value
            stack += [(f"{prefix}{n}.", m) for n, m in reversed(module._modules.items())]

    def state_dict(self) -> dict[str, Any]:
        """Copies of all parameters and buffers as arrays, under PyTorch's keys; later training leaves them alone."""
        return {key: _array(value).copy() for key, _, _, value in self._state(saved=True)}

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy arrays into the parameters and buffers of the same names.

        Args:
            state: as `state_dict` gives; arrays keep this module's dtype.
            strict: False accepts missing and unexpected keys (never a wrong shape).

        Returns:
            (missing keys, unexpected keys).

        Raises:
            ValueError: one message with everything that does not fit; nothing is loaded then.
        """
        own = {key: (module, name, value) for key, module, name, value in self._state(saved=True)}
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
        return IncompatibleKeys(missing, unexpected)

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

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients; set_to_none=False makes those that are there zero instead."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad = None if set_to_none else parameter.grad.detach() * 0.0

    def apply(self, f: Callable[["Module"], Any]) -> "Module":
        """Call f on every module inside, then on this one."""
        for module in reversed(list(self.modules())):
            f(module)
        return self

    def to(self, where: Any) -> "Module":
        """Move parameters and buffers to a device, as `model.to("cuda")`, or convert those that are floating, as
        `model.to(numpy.float64)` or `model.to("bfloat16")`.

        Raises:
            TypeError: not a floating dtype. ImportError: bfloat16 by name, without the ml_dtypes package.
            DeviceError: the device, its driver, the CUDA library or CuPy is missing; the message says which.
        """
        if device.is_name(where):
            for _, module, name, value in list(self._state()):
                if isinstance(value, Tensor):
                    value.data = device.moved(value.data, where)
                    value.grad = None
                    value.bump_version()
                else:
                    module._buffers[name] = device.moved(value, where)
            return self
        dtype = as_dtype(where)
        if not is_float(dtype):
            raise TypeError(f"{type(self).__name__}.to: dtype is {dtype}; expected a floating one, as numpy.float32")
        for _, module, name, value in list(self._state()):
            if isinstance(value, Tensor):
                value.data = convert(value.data, dtype)
                value.grad = None
                value.bump_version()
            elif is_float(value.dtype):
                module._buffers[name] = convert(value, dtype)
        return self

    def double(self) -> "Module":
        """`to(numpy.float64)`."""
        return self.to("float64")

    def half(self) -> "Module":
        """`to(numpy.float16)`."""
        return self.to("float16")

    def bfloat16(self) -> "Module":
        """`to(ml_dtypes.bfloat16)`."""
        return self.to("bfloat16")

    def float(self) -> "Module":
        """`to(numpy.float32)`."""
        return self.to("float32")

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
