# SPDX-License-Identifier: Apache-2.0
"""Modules that hold modules or parameters, in order or by name."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from .._core import ProblemError
from ..tensor import Tensor
from .module import Module, Parameter

Self = TypeVar("Self", bound="_Numbered")


class _Numbered(Module):
    """Modules (or parameters) named "0", "1", ... in the order of a list."""

    def __init__(self, values: Iterable[Any] = ()) -> None:
        super().__init__()
        self.extend(values)

    def _accept(self, value: Any, at: int | str) -> Any:
        if not isinstance(value, Module):
            raise TypeError(f"{type(self).__name__}: {at} is a {type(value).__name__}; expected a Module")
        return value

    @property
    def _held(self) -> dict[str, Any]:
        return self._modules

    def _renumber(self, named: list[tuple[str, Any]]) -> None:
        self._held.clear()
        self._held.update((str(i), value) for i, (_, value) in enumerate(named))

    def _key(self, index: int) -> str:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"{type(self).__name__}: index is {index}; it holds {count}")
        return list(self._held)[index]

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._held.values())

    def __contains__(self, value: object) -> bool:
        return any(value is v for v in self)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return self._held[self._key(index)]

    def __setitem__(self, index: int, value: Any) -> None:
        self._held[self._key(index)] = self._accept(value, index)

    def __delitem__(self, index: int | slice) -> None:
        named = list(self._held.items())
        del named[index]
        self._renumber(named)

    def append(self: Self, value: Any) -> Self:
        """Add one at the end."""
        self._held[str(len(self))] = self._accept(value, len(self))
        return self

    def extend(self: Self, values: Iterable[Any]) -> Self:
        """Add several at the end."""
        for value in list(values):
            self.append(value)
        return self

    def insert(self: Self, index: int, value: Any) -> Self:
        """Add one before the one at `index`; those behind it change their names."""
        named = list(self._held.items())
        named.insert(index, ("0", self._accept(value, index)))
        self._renumber(named)
        return self

    def pop(self, index: int = -1) -> Any:
        """Take one out and return it."""
        value = self[index]
        del self[index]
        return value


class ModuleList(_Numbered):
    """A list of modules, for a `forward` that calls them itself."""

    def __add__(self, others: Iterable[Module]) -> "ModuleList":
        return ModuleList([*self, *others])


class Sequential(_Numbered):
    """Modules called one after the other; named "0", "1", ... or as in a dict.

    A slice is a Sequential of the same modules under the same names. After `insert`, `pop` and `del` the modules are
    numbered anew, unless they have names of their own.
    """

    def __init__(self, *modules: Any) -> None:
        Module.__init__(self)
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = list(modules[0].items())
        else:
            named = [(str(i), m) for i, m in enumerate(modules)]
        for name, module in named:
            self.add_module(name, self._accept(module, name))

    def forward(self, x: Any) -> Any:
        for module in self._modules.values():
            x = module(x)
        return x

    def _renumber(self, named: list[tuple[str, Any]]) -> None:
        self._modules.clear()
        self._modules.update((str(i) if name.isdecimal() else name, m) for i, (name, m) in enumerate(named))

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Sequential(dict(list(self._modules.items())[index]))
        return super().__getitem__(index)

    def append(self, value: Any) -> "Sequential":
        """Add a module at the end, under its position as a name."""
        self.add_module(str(len(self)), self._accept(value, len(self)))
        return self

    def __add__(self, others: Iterable[Module]) -> "Sequential":
        return Sequential(*self, *others)


class ParameterList(_Numbered):
    """A list of parameters; tensors and arrays become parameters."""

    @property
    def _held(self) -> dict[str, Any]:
        return self._parameters

    def _accept(self, value: Any, at: int | str) -> Parameter:
        return _parameter(value, type(self).__name__, at)

    def extra_repr(self) -> str:
        return ", ".join(f"({name}): {_shape_of(p)}" for name, p in self._parameters.items())


class _Named(Module):
    """Modules (or parameters) under names, with the methods of a dict."""

    def __init__(self, values: Any = ()) -> None:
        super().__init__()
        self.update(values)

    @property
    def _held(self) -> dict[str, Any]:
        return self._modules

    def _accept(self, value: Any, key: str) -> Any:
        if not isinstance(value, Module):
            raise TypeError(f"{type(self).__name__}: {key} is a {type(value).__name__}; expected a Module")
        return value

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __getitem__(self, key: str) -> Any:
        return self._held[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._check_name(type(self).__name__, key)
        self._held[key] = self._accept(value, key)

    def __delitem__(self, key: str) -> None:
        del self._held[key]

    def keys(self) -> Iterable[str]:
        """The names, in the order in which they came."""
        return self._held.keys()

    def values(self) -> Iterable[Any]:
        """What the names stand for."""
        return self._held.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """(name, value) pairs."""
        return self._held.items()

    def update(self, values: Any) -> None:
        """Add or replace, from a mapping or from pairs."""
        for key, value in values.items() if hasattr(values, "items") else values:
            self[key] = value

    def pop(self, key: str) -> Any:
        """Take one out and return it."""
        return self._held.pop(key)

    def clear(self) -> None:
        """Take all out."""
        self._held.clear()


class ModuleDict(_Named):
    """Modules under names, for a `forward` that calls them itself."""


class ParameterDict(_Named):
    """Parameters under names; tensors and arrays become parameters."""

    @property
    def _held(self) -> dict[str, Any]:
        return self._parameters

    def _accept(self, value: Any, key: str) -> Parameter:
        return _parameter(value, type(self).__name__, key)

    def extra_repr(self) -> str:
        return ", ".join(f"({name}): {_shape_of(p)}" for name, p in self._parameters.items())


def _parameter(value: Any, owner: str, at: int | str) -> Parameter:
    if isinstance(value, Parameter):
        return value
    data = value.data if isinstance(value, Tensor) else value
    if not hasattr(data, "dtype") or getattr(data.dtype, "kind", "") != "f":
        raise ProblemError(f"{owner}: {at} is a {type(value).__name__}; expected a Parameter or an array of floats")
    return Parameter(data)


def _shape_of(parameter: Any) -> str:
    return f"{parameter.dtype} {parameter.shape}"
