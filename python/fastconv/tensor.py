# SPDX-License-Identifier: Apache-2.0
"""Tensor: an array, whether it wants a gradient, and the node of the graph that made it.

A tensor's operators record (autograd.py); its `data` is the plain array. Tensors are compared by identity, so that
they can be keys. `__array_ufunc__ = None` makes NumPy leave `array + tensor` to us instead of taking it apart.
"""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import FLOAT32, is_float, is_half, kind_of, namespace

if TYPE_CHECKING:
    from .autograd import Node


class Tensor:
    """An array that remembers how it was computed.

    Args:
        data: a NumPy or CuPy array, kept without a copy; numbers and lists become float32 (or int64) arrays.
        requires_grad: whether `backward` is to fill `grad`; floating dtypes only.
    """

    __slots__ = ("__weakref__", "data", "grad", "node", "requires_grad", "version")
    __array_ufunc__ = None

    data: Any

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        if isinstance(data, Tensor):
            data = data.data
        elif kind_of(data) == "torch":
            raise TypeError("Tensor: data is a torch tensor; use .detach().numpy()")
        elif not hasattr(data, "dtype"):
            data = np.asarray(data)
            data = data.astype(np.float32) if data.dtype == np.float64 else data
        self.data = np.asarray(data) if isinstance(data, np.generic) else data
        if requires_grad and not is_float(self.data.dtype):
            raise TypeError(f"Tensor: only floats can require a gradient, data has dtype {self.data.dtype}")
        self.requires_grad = requires_grad
        self.grad: Tensor | None = None
        self.node: Node | None = None
        self.version = 0  # counts changes in place, see `bump_version`

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    @property
    def ndim(self) -> int:
        return int(self.data.ndim)

    @property
    def size(self) -> int:
        return int(self.data.size)

    @property
    def dtype(self) -> Any:
        return self.data.dtype

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made it."""
        return self.node is None

    @property
    def edge(self) -> "Node | Tensor | None":
        """Where a gradient of this tensor goes: its node, itself if it is a leaf that wants one, else nowhere."""
        return self.node if self.node is not None else self if self.requires_grad else None

    def astype(self, dtype: Any) -> "Tensor":
        """This tensor in another dtype ("bfloat16" too), with its place in the graph; itself if it has that one."""
        return ops.cast(self, dtype)

    def to(self, where: Any) -> "Tensor":
        """This tensor on a device ("cuda", "cuda:1", "cpu") or in another dtype, with its place in the graph."""
        return ops.to(self, where)

    def bump_version(self) -> None:
        """Say that `data` was changed in place: a graph that saved it will refuse to use it."""
        self.version += 1

    def detach(self) -> "Tensor":
        """The same array outside the graph."""
        return Tensor(self.data)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tensor":
        if self.node is not None:
            raise RuntimeError("deepcopy: the tensor was computed from others; expected a leaf: use .detach()")
        copied = type(self)(copy.deepcopy(self.data, memo), self.requires_grad)
        memo[id(self)] = copied
        copied.grad = copy.deepcopy(self.grad, memo)
        return copied

    def numpy(self) -> np.ndarray:
        """The array. A tensor that wants a gradient must be detached first, so that none is lost unseen."""
        if self.requires_grad:
            raise RuntimeError("numpy: the tensor requires a gradient; use .detach().numpy() or .data")
        return np.asarray(self.data)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        return array.astype(dtype) if copy or (dtype is not None and array.dtype != dtype) else array

    def item(self) -> Any:
        """The value of a tensor of one element, as a Python number."""
        if self.data.size != 1:
            raise ValueError(f"item: the tensor has shape {self.shape}; expected one element (or use tolist)")
        return self.data.item()

    def tolist(self) -> Any:
        """The values as Python numbers in nested lists."""
        return self.data.tolist()

    def backward(
        self, gradient: "Tensor | None" = None, retain_graph: bool | None = None, create_graph: bool = False
    ) -> None:
        """Add d(self)/d(leaf) to the `grad` of every leaf that this tensor came from. See `autograd.backward`."""
        from .autograd import backward

        backward(self, gradient, retain_graph, create_graph)

    def __repr__(self) -> str:
        body = np.array2string(np.asarray(self.data), separator=", ", prefix="Tensor(", threshold=100)
        made_by = f", made by {self.node.function.__name__}" if self.node is not None else ""
        leaf = ", requires_grad=True" if self.requires_grad and self.node is None else ""
        return f"{type(self).__name__}({body}, dtype={self.dtype}{leaf}{made_by})"

    def __len__(self) -> int:
        return len(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.data)

    # Comparisons give plain bool arrays: they have no gradient. There is no ==: tensors are dictionary keys.
    def __lt__(self, other: Any) -> Any:
        return self.data < plain(other)

    def __le__(self, other: Any) -> Any:
        return self.data <= plain(other)

    def __gt__(self, other: Any) -> Any:
        return self.data > plain(other)

    def __ge__(self, other: Any) -> Any:
        return self.data >= plain(other)

    def __add__(self, other: Any) -> "Tensor":
        return ops.add(self, other)

    def __radd__(self, other: Any) -> "Tensor":
        return ops.add(other, self)

    def __sub__(self, other: Any) -> "Tensor":
        return ops.sub(self, other)

    def __rsub__(self, other: Any) -> "Tensor":
        return ops.sub(other, self)

    def __mul__(self, other: Any) -> "Tensor":
        return ops.mul(self, other)

    def __rmul__(self, other: Any) -> "Tensor":
        return ops.mul(other, self)

    def __truediv__(self, other: Any) -> "Tensor":
        return ops.div(self, other)

    def __rtruediv__(self, other: Any) -> "Tensor":
        return ops.div(other, self)

    def __matmul__(self, other: Any) -> "Tensor":
        return ops.matmul(self, other)

    def __rmatmul__(self, other: Any) -> "Tensor":
        return ops.matmul(other, self)

    def __pow__(self, exponent: Any) -> "Tensor":
        return ops.power(self, exponent)

    def __rpow__(self, base: Any) -> "Tensor":
        return ops.power(base, self)

    def __neg__(self) -> "Tensor":
        return ops.neg(self)

    def __abs__(self) -> "Tensor":
        return ops.abs(self)

    def _refuse(self, other: Any) -> "Tensor":
        raise TypeError(
            "Tensor: operators do not change a tensor in place; write x = x + y, or change x.data and call "
            "x.bump_version()"
        )

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = __imatmul__ = _refuse

    def __setitem__(self, index: Any, value: Any) -> None:
        self._refuse(value)

    def __getitem__(self, index: Any) -> "Tensor":
        return ops.getitem(self, index)

    @property
    def T(self) -> "Tensor":  # noqa: N802  (NumPy's name)
        return ops.transpose(self)

    def reshape(self, *shape: Any) -> "Tensor":
        return ops.reshape(self, *shape)

    view = reshape

    def transpose(self, *axes: Any) -> "Tensor":
        """The axes in this order; without any, reversed."""
        return ops.transpose(self, *axes)

    permute = transpose

    def swapaxes(self, first: int, second: int) -> "Tensor":
        return ops.swapaxes(self, first, second)

    def flatten(self, start: int = 0, end: int = -1) -> "Tensor":
        return ops.flatten(self, start, end)

    def squeeze(self, axis: Any = None) -> "Tensor":
        return ops.squeeze(self, axis)

    def unsqueeze(self, axis: int) -> "Tensor":
        return ops.unsqueeze(self, axis)

    def broadcast_to(self, *shape: Any) -> "Tensor":
        return ops.broadcast_to(self, *shape)

    expand = broadcast_to

    def flip(self, axis: Any = None) -> "Tensor":
        return ops.flip(self, axis)

    def repeat(self, *repeats: Any) -> "Tensor":
        """PyTorch's: the whole tensor, so often along each axis."""
        return ops.tile(self, *repeats)

    def split(self, size: Any, axis: int = 0) -> "tuple[Tensor, ...]":
        return ops.split(self, size, axis)

    def chunk(self, chunks: int, axis: int = 0) -> "tuple[Tensor, ...]":
        return ops.chunk(self, chunks, axis)

    def sum(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        return ops.sum(self, axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        return ops.mean(self, axis, keepdims)

    def var(self, axis: Any = None, correction: float = 1, keepdims: bool = False) -> "Tensor":
        return ops.var(self, axis, correction, keepdims)

    def std(self, axis: Any = None, correction: float = 1, keepdims: bool = False) -> "Tensor":
        return ops.std(self, axis, correction, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        return ops.max(self, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> "Tensor":
        return ops.min(self, axis, keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Any:
        return ops.argmax(self, axis, keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Any:
        return ops.argmin(self, axis, keepdims)

    def clip(self, low: float | None = None, high: float | None = None) -> "Tensor":
        return ops.clip(self, low, high)

    clamp = clip

    def abs(self) -> "Tensor":
        return ops.abs(self)

    def matmul(self, other: Any) -> "Tensor":
        return ops.matmul(self, other)

    def exp(self) -> "Tensor":
        return ops.exp(self)

    def log(self) -> "Tensor":
        return ops.log(self)

    def sqrt(self) -> "Tensor":
        return ops.sqrt(self)

    def relu(self) -> "Tensor":
        return ops.relu(self)

    def sigmoid(self) -> "Tensor":
        return ops.sigmoid(self)

    def tanh(self) -> "Tensor":
        return ops.tanh(self)

    def softmax(self, axis: int = -1) -> "Tensor":
        return ops.softmax(self, axis)


def plain(value: Any) -> Any:
    """The array of a tensor; anything else as it is."""
    return value.data if isinstance(value, Tensor) else value


def as_tensor(value: Any, like: Tensor | None = None) -> Tensor:
    """`value` as a tensor; a Python number takes the dtype in which operations on `like` compute."""
    if isinstance(value, Tensor):
        return value
    if like is not None and isinstance(value, int | float):
        dtype = FLOAT32 if is_half(like.dtype) else like.dtype
        return Tensor(namespace(like.data).full((), value, dtype=dtype))
    return Tensor(value)


from . import ops  # noqa: E402  (last: the operations need Tensor)
