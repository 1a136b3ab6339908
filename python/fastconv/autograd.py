# SPDX-License-Identifier: Apache-2.0
"""The tape. Every operation is a Function; applying one to tensors that want gradients makes a Node.

Nodes are numbered as they are made, so the order of creation is already a topological order: backward takes the
reachable nodes by descending number from a heap, and no recursion is needed. When a node's turn comes, all its
consumers (which have larger numbers) have run, so its gradient is complete.

A Function's backward is written in tensor operations. With create_graph=True they record, which gives gradients of
gradients; otherwise nothing records, and they are plain calls of native kernels.
"""

import contextlib
import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

from .arrays import FLOAT32, is_float, is_half, kernels, namespace
from .half import narrow, widen
from .tensor import Tensor

_recording: ContextVar[bool] = ContextVar("fastconv_recording", default=True)
_numbers = itertools.count()
# Who is told of every call of a Function instead of its just running: see graph.py.
_observer: ContextVar[Callable[..., Any] | None] = ContextVar("fastconv_observer", default=None)


def is_grad_enabled() -> bool:
    """Whether operations record here."""
    return _recording.get()


@contextlib.contextmanager
def set_grad_enabled(enabled: bool) -> Iterator[None]:
    """Record or not inside a `with` block (or a decorated function)."""
    token = _recording.set(enabled)
    try:
        yield
    finally:
        _recording.reset(token)


def no_grad() -> Any:
    """Nothing records inside `with fc.no_grad():`; also a decorator, `@fc.no_grad()`."""
    return set_grad_enabled(False)


def enable_grad() -> Any:
    """The opposite of `no_grad`, for use inside it."""
    return set_grad_enabled(True)


@contextlib.contextmanager
def observed(observer: Callable[..., Any] | None) -> Iterator[None]:
    """Inside, `Function.apply` is `observer(function, inputs, static)`; None: it computes, as ever."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


class Context:
    """What a forward leaves for its backward: attributes of its choice, and tensors by `save`."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def __init__(self, inputs: Sequence[Tensor | None]) -> None:
        recording = _recording.get()
        self.needs_input_grad = tuple(recording and t is not None and t.requires_grad for t in inputs)
        self._inputs: tuple[int, ...] = ()
        self._output = False
        self.in_float32 = False  # inputs were halves, and widened, as `saved` ones will be
        self.on_halves = False  # a device's kernels took them as they were, and will in a backward that does not record

    def save(self, *inputs: int, output: bool = False) -> None:
        """Keep the inputs at these positions, and the output, for `saved`."""
        self._inputs, self._output = inputs, output

    def fix(self, inputs: Sequence[Tensor | None], y: Any, node: "Node") -> None:
        """Turn positions into (array, edge, version). The output is kept as an array and its node: no cycle of
        tensors, so memory is freed as soon as the last reference goes."""
        kept = [inputs[i] for i in self._inputs]
        self._entries = [None if t is None else (t.data, t.edge, t.version) for t in kept]
        if self._output:
            self._entries.append((y, node, 0))

    @property
    def saved(self) -> tuple[Any, ...]:
        """The saved tensors, in their places in the graph."""
        tensors = [None if entry is None else _restore(*entry) for entry in self._entries]
        if self.in_float32:
            return tuple(t.astype(FLOAT32) if t is not None and is_half(t.dtype) else t for t in tensors)
        return tuple(tensors)


def _restore(data: Any, edge: "Node | Tensor | None", version: int) -> Tensor:
    if isinstance(edge, Tensor):
        if edge.version != version:
            raise RuntimeError(
                "backward: a tensor that the graph saved was changed in place since (by an optimiser step or "
                "load_state_dict); run the forward pass again before backward"
            )
        return edge
    tensor = Tensor(data)
    tensor.node, tensor.requires_grad = edge, edge is not None
    return tensor


class Node:
    """One recorded operation: its Function, what it saved, and where its inputs' gradients go."""

    __slots__ = ("ctx", "dtype", "function", "number", "parents", "shape")

    def __init__(self, function: type["Function"], ctx: Context, inputs: Sequence[Tensor | None], y: Tensor) -> None:
        self.function = function
        self.ctx: Context | None = ctx  # None once freed
        self.parents = [
            t.edge if t is not None and n else None for t, n in zip(inputs, ctx.needs_input_grad, strict=True)
        ]
        self.number, self.shape, self.dtype = next(_numbers), y.shape, y.dtype
        ctx.fix(inputs, y.data, self)

    def run(self, dy: Tensor, retain: bool) -> Iterator[tuple["Node | Tensor", Tensor]]:
        """(where to, gradient) for each input that wants one."""
        ctx = self.ctx
        if ctx is None:
            raise RuntimeError(
                f"backward: the graph was freed by an earlier backward (at {self.function.__name__}); pass "
                "retain_graph=True to the earlier one to use it twice"
            )
        halves = ctx.in_float32
        ctx.in_float32 = halves and (not ctx.on_halves or is_grad_enabled())
        gradients = self.function.backward(ctx, dy.astype(FLOAT32) if ctx.in_float32 else dy)
        ctx.in_float32 = halves
        if not retain:
            self.ctx = None
        if not isinstance(gradients, tuple):
            gradients = (gradients,)
        for edge, gradient in zip(self.parents, gradients, strict=True):
            if edge is not None and gradient is not None:
                yield edge, gradient.astype(edge.dtype) if halves else gradient


class Function:
    """An operation. `forward(ctx, *arrays, **static)` takes and returns plain arrays; `backward(ctx, dy)` takes and
    returns tensors, one (or None) per input of forward. Only the first of several results has a gradient.

    float16 and bfloat16: both see float32 arrays and tensors instead, and their (first) result is rounded once. A
    Function that only moves elements, or rounds once by itself, says `takes_half` and sees what came. One whose kernels
    on a device round once by themselves says `device_takes_half` and sees what came there: in forward, and in a
    backward that does not record unless forward sets `ctx.on_halves` to False.
    """

    takes_half: ClassVar[bool] = False
    device_takes_half: ClassVar[bool] = False
    forward: ClassVar[Any]
    backward: ClassVar[Any]

    @classmethod
    def apply(cls, *inputs: Tensor | None, **static: Any) -> Any:
        """Compute, and record when an input wants a gradient. Inputs are tensors or None."""
        if (observer := _observer.get()) is not None:
            return observer(cls, inputs, static)
        ctx = Context(inputs)
        arrays = [None if t is None else t.data for t in inputs]
        half = None if cls.takes_half else next((a.dtype for a in arrays if a is not None and is_half(a.dtype)), None)
        ctx.in_float32 = half is not None
        if half is not None and cls.device_takes_half:
            ctx.on_halves = kernels(*(a for a in arrays if a is not None)) is not None
        result = cls.forward(ctx, *(arrays if half is None or ctx.on_halves else map(widen, arrays)), **static)
        several = isinstance(result, tuple)
        first = result[0] if several else result
        rounded = half is None or first.dtype == half or not is_float(first.dtype)
        y = Tensor(first if rounded else narrow(first, half))
        if any(ctx.needs_input_grad):
            y.node, y.requires_grad = Node(cls, ctx, inputs, y), True
        return (y, *(None if r is None else Tensor(r) for r in result[1:])) if several else y


def _run(roots: Sequence[tuple[Tensor, Tensor]], keep: set[Any], retain: bool, create_graph: bool) -> dict[Any, Tensor]:
    """Send the roots' gradients down the graph; the gradients that arrived at leaves and at the nodes in `keep`."""
    arrived: dict[Any, Tensor] = {}
    heap: list[tuple[int, Node]] = []

    def arrive(edge: "Node | Tensor", gradient: Tensor) -> None:
        if gradient.shape != edge.shape:
            raise RuntimeError(f"backward: a gradient of shape {gradient.shape} for a tensor of shape {edge.shape}")
        if edge in arrived:
            arrived[edge] = arrived[edge] + gradient
            return
        arrived[edge] = gradient
        if isinstance(edge, Node):
            heapq.heappush(heap, (-edge.number, edge))

    with set_grad_enabled(create_graph):
        for output, gradient in roots:
            if output.edge is None:
                raise RuntimeError(
                    "backward: the tensor does not require a gradient and was not made from one that does"
                )
            arrive(output.edge, gradient)
        while heap:
            _, node = heapq.heappop(heap)
            dy = arrived[node] if node in keep else arrived.pop(node)
            for edge, gradient in node.run(dy, retain):
                arrive(edge, gradient)
    return arrived


def _seed(output: Tensor, gradient: Any) -> Tensor:
    if gradient is None:
        if output.size != 1:
            raise RuntimeError(
                f"backward: the tensor has shape {output.shape}; pass its gradient, or reduce it to one number"
            )
        return Tensor(namespace(output.data).ones(output.shape, output.dtype))
    gradient = gradient if isinstance(gradient, Tensor) else Tensor(gradient)
    if gradient.shape != output.shape or gradient.dtype != output.dtype:
        raise RuntimeError(
            f"backward: the gradient is {gradient.dtype} {gradient.shape}; expected {output.dtype} {output.shape}"
        )
    return gradient


def backward(
    output: Tensor, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False
) -> None:
    """Add d(output)/d(leaf) times `gradient` to the `grad` of every leaf that wants one.

    Args:
        output: the end of the graph; of one element unless `gradient` is given.
        gradient: of the shape of output; None means 1.
        retain_graph: keep what the graph saved, to go through it again; None means create_graph.
        create_graph: record the backward pass too, for gradients of gradients.

    Raises:
        RuntimeError: nothing to differentiate; a graph that was freed; a saved tensor that was changed in place.
    """
    retain = create_graph if retain_graph is None else retain_graph
    for edge, g in _run([(output, _seed(output, gradient))], set(), retain, create_graph).items():
        if isinstance(edge, Tensor):
            with set_grad_enabled(create_graph):
                edge.grad = g if edge.grad is None else edge.grad + g


def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None,
         create_graph: bool = False, allow_unused: bool = False) -> tuple[Tensor | None, ...]:  # fmt: skip
    """d(outputs)/d(inputs) as a tuple, one per input; no tensor's `grad` is touched.

    Args:
        outputs, inputs: a tensor or a sequence of them; inputs may lie anywhere in the graph.
        grad_outputs: one gradient per output; None means 1.
        retain_graph, create_graph: as for `backward`.
        allow_unused: give None for an input that outputs do not depend on, instead of raising.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    seeds = [None] * len(outputs) if grad_outputs is None else grad_outputs
    seeds = [seeds] if isinstance(seeds, Tensor) else list(seeds)
    roots = [(output, _seed(output, seed)) for output, seed in zip(outputs, seeds, strict=True)]
    retain = create_graph if retain_graph is None else retain_graph
    arrived = _run(roots, {t.edge for t in inputs}, retain, create_graph)
    found = tuple(arrived.get(t.edge) for t in inputs)
    if not allow_unused and None in found:
        raise RuntimeError(
            f"grad: inputs[{found.index(None)}] has no part in outputs; pass allow_unused=True to get None"
        )
    return found
