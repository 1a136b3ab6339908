# SPDX-License-Identifier: Apache-2.0
"""Hooks: functions that a module calls before and after its forward, and when gradients have come through it.

The backward hooks of a module need all of its inputs' gradients at once, while the tape visits one tensor after the
other. So each tensor that is watched gets a tap, and all taps of a set hang on one gate that was recorded before them:
backward reaches the taps first, each leaves its gradient, and the gate, last, asks the hooks and sends on their answer.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ..arrays import namespace
from ..autograd import Context, Function, is_grad_enabled
from ..tensor import Tensor

Gradients = tuple[Tensor | None, ...]
KINDS = ("forward_pre", "forward", "backward_pre", "backward")


class RemovableHandle:
    """What registering a hook gives: `remove()` takes the hook off again, as does the end of a `with` block."""

    def __init__(self, hooks: dict[int, Any], key: int) -> None:
        self._hooks, self._key = hooks, key

    def remove(self) -> None:
        """Take the hook off; a second time does nothing."""
        self._hooks.pop(self._key, None)

    def __enter__(self) -> "RemovableHandle":
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


class Hooks:
    """The hooks of one module, each kind in the order of its calls."""

    def __init__(self) -> None:
        self.of: dict[str, dict[int, tuple[Callable[..., Any], bool]]] = {kind: {} for kind in KINDS}
        self._next = 0

    def __bool__(self) -> bool:
        return any(self.of.values())

    def add(self, kind: str, hook: Callable[..., Any], prepend: bool, with_kwargs: bool) -> RemovableHandle:
        """One more hook of this kind, after the others or before them."""
        hooks, key = self.of[kind], self._next
        self._next += 1
        others = list(hooks.items()) if prepend else []
        for name, _ in others:
            del hooks[name]
        hooks[key] = hook, with_kwargs
        hooks.update(others)
        return RemovableHandle(hooks, key)

    def call(self, module: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The module's forward with its hooks around it."""
        for hook, with_kwargs in list(self.of["forward_pre"].values()):
            answer = hook(module, inputs, keywords) if with_kwargs else hook(module, inputs)
            if answer is None:
                continue
            if with_kwargs:
                if not isinstance(answer, tuple) or len(answer) != 2:
                    raise TypeError(
                        f"forward_pre_hook: it returned a {type(answer).__name__}; expected None or (args, kwargs)"
                    )
                inputs, keywords = answer
            else:
                inputs = answer if isinstance(answer, tuple) else (answer,)
        watches = is_grad_enabled() and (self.of["backward"] or self.of["backward_pre"])
        watcher = _Watcher(module, self) if watches else None
        if watcher:
            inputs = watcher.inputs(inputs)
        output = module.forward(*inputs, **keywords)
        for hook, with_kwargs in list(self.of["forward"].values()):
            words = (module, inputs, keywords, output) if with_kwargs else (module, inputs, output)
            answer = hook(*words)
            output = output if answer is None else answer
        return watcher.output(output) if watcher else output


class _Watcher:
    """One call of a module with backward hooks."""

    def __init__(self, module: Any, hooks: Hooks) -> None:
        self.module, self.hooks = module, hooks
        self.count, self.watched = 0, False
        self.grad_output: Gradients | None = None

    def inputs(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        self.count = len(inputs)
        self.watched = any(isinstance(t, Tensor) and t.requires_grad for t in inputs)
        return tuple(watch(inputs, self._answer))

    def output(self, output: Any) -> Any:
        several = isinstance(output, tuple | list)
        taps = watch(output if several else (output,), self._arrived)
        return type(output)(taps) if several else taps[0]

    def _arrived(self, gradients: Gradients) -> Gradients:
        for hook, _ in list(self.hooks.of["backward_pre"].values()):
            gradients = _replaced(hook(self.module, gradients), gradients, "full_backward_pre_hook")
        self.grad_output = gradients
        if not self.watched:
            # The data of a first layer want no gradient: there is none to replace, the hooks only look.
            self._answer((None,) * self.count)
        return gradients

    def _answer(self, gradients: Gradients) -> Gradients:
        if self.grad_output is None:
            # A second derivative that reached the inputs beside the output: not this module's gradient.
            return gradients
        for hook, _ in list(self.hooks.of["backward"].values()):
            answer = hook(self.module, gradients, self.grad_output)
            gradients = _replaced(answer, gradients, "full_backward_hook")
        self.grad_output = None
        return gradients


def _replaced(answer: Any, gradients: Gradients, name: str) -> Gradients:
    """The hook's answer as gradients: None leaves them, one tensor stands for a tuple of one."""
    if answer is None:
        return gradients
    answer = answer if isinstance(answer, tuple) else (answer,)
    if len(answer) != len(gradients):
        raise RuntimeError(f"{name}: it returned {len(answer)} gradients; expected {len(gradients)}")
    for i, (new, old) in enumerate(zip(answer, gradients, strict=True)):
        if old is None and new is not None:
            raise RuntimeError(f"{name}: it returned a gradient at {i}, where none is wanted; expected None")
    return tuple(None if new is None else new if isinstance(new, Tensor) else Tensor(new) for new in answer)


def watch(values: Sequence[Any], call: Callable[[Gradients], Gradients]) -> list[Any]:
    """The values, with taps in place of the tensors that want a gradient.

    Args:
        values: tensors and others.
        call: given the gradients that arrived (one per value, None where there is none), gives those to send on.
    """
    wanted = [i for i, v in enumerate(values) if isinstance(v, Tensor) and v.requires_grad]
    if not wanted:
        return list(values)
    arrived = _Arrived(len(values), wanted, call)
    gate = _Gate.apply(*[values[i] for i in wanted], arrived=arrived)
    tapped = list(values)
    for i in wanted:
        tapped[i] = _Tap.apply(gate, array=values[i].data, arrived=arrived, index=i)
    return tapped


class _Arrived:
    """Gradients on their way from the taps to the gate."""

    def __init__(self, count: int, wanted: list[int], call: Callable[[Gradients], Gradients]) -> None:
        self.gradients: list[Tensor | None] = [None] * count
        self.wanted, self.call = wanted, call

    def leave(self) -> Gradients:
        """The hooks' answer for the inputs of the gate; ready for another backward pass."""
        found, self.gradients = tuple(self.gradients), [None] * len(self.gradients)
        answer = self.call(found)
        return tuple(answer[i] for i in self.wanted)


class _Gate(Function):
    @staticmethod
    def forward(ctx: Context, *arrays: Any, arrived: _Arrived) -> Any:
        ctx.arrived = arrived
        return namespace(arrays[0]).zeros((), arrays[0].dtype)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Gradients:
        return ctx.arrived.leave()


class _Tap(Function):
    @staticmethod
    def forward(ctx: Context, gate: Any, *, array: Any, arrived: _Arrived, index: int) -> Any:
        ctx.zero, ctx.arrived, ctx.index = gate, arrived, index
        return array

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        ctx.arrived.gradients[ctx.index] = dy
        return Tensor(ctx.zero)
