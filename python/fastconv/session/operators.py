# SPDX-License-Identifier: Apache-2.0
"""The operations that a network may have: the shape that each gives, and which cut arrays it can read and write.

An array is cut along an axis when it is a part of a larger one there, as a slice of channels or a part of a
concatenation: then the runs behind the axis lie together, and the rows before it are a pitch apart.

`shape` refuses, in one sentence, words and inputs that the operation cannot have. It is the only thing that stands
between a session's file and its memory plan; the native program checks the rest.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .._core import ConvProblem, PoolProblem, ProblemError
from .network import Node, Shape, size_of

PADDINGS = ("zeros", "constant", "reflect", "replicate", "circular")
_LARGEST = 1 << 40  # elements of one array: more is a malformed file


class Operator(NamedTuple):
    """What is known of an operation.

    Attributes:
        inputs: how many there may be, (least, most).
        words: name -> type of each word; a list holds integers.
        arrays: names of the arrays that it must have.
        shape: (node, shapes of the inputs) -> the shape of the output.
        reads: whether it can read its input of that position cut along that axis.
        writes: whether it can write its output cut along that axis.
    """

    inputs: tuple[int, int]
    words: dict[str, type]
    arrays: tuple[str, ...]
    shape: Callable[[Node, Sequence[Shape]], Shape]
    reads: Callable[[Node, int, int], bool] = lambda node, position, axis: True
    writes: Callable[[Node, int], bool] = lambda node, axis: True


def conv_problem(node: Node, x: Shape, dtype: str) -> ConvProblem:
    """The native problem of a conv, conv_transpose or dense node for an input of shape x."""
    w, words = node.arrays["w"], node.words
    word = {"float32": "f32", "float64": "f64"}[dtype]
    bias, residual = "bias" in node.arrays, len(node.inputs) > 1
    if node.op == "dense":  # rows are images of one pixel
        return ConvProblem("fwd", x[0], w.shape[1], w.shape[0], (1,), (1,), (1,), (0,), (0,), (1,), 1, "nhwc", word,
                           "zeros", words["activation"], bias, residual)  # fmt: skip
    first = words["layout"] == "nchw"
    channels, size = (x[1], x[2:]) if first else (x[-1], x[1:-1])
    pass_, c, k, groups = "fwd", channels, w.shape[0], words["groups"]
    if node.op == "conv_transpose":
        pass_, c, size = "bwd_data", w.shape[1] * groups, tuple(words["size"])
    p = ConvProblem(pass_, x[0], c, k, size, w.shape[2:], words["stride"], words["pad_begin"], words["pad_end"],
                    words["dilation"], groups, words["layout"], word, words["padding_mode"], words["activation"], bias,
                    residual)  # fmt: skip
    if tuple(w.shape) != p.w_shape or (bias and node.arrays["bias"].shape != (c if pass_ == "bwd_data" else k,)):
        raise ProblemError(f"w has shape {w.shape}, expected {p.w_shape} and a bias for each channel that is written")
    if node.op == "conv_transpose" and tuple(x) != p.y_shape:
        raise ProblemError(f"the input has shape {x}; expected {p.y_shape}")
    return p


def pool_problem(node: Node, x: Shape) -> PoolProblem:
    """The native problem of a pool node."""
    words = {key: v for key, v in node.words.items() if key != "norm"}
    return PoolProblem(x_shape=x, **words)


def _conv(node: Node, shapes: Sequence[Shape]) -> Shape:
    x = shapes[0]
    _require(
        3 <= len(x) <= 5 and node.arrays["w"].ndim == len(x), f"the input has shape {x}, w {node.arrays['w'].shape}"
    )
    p = conv_problem(node, x, "float32")
    y: Shape = p.y_shape if node.op == "conv" else p.x_shape
    _require(len(shapes) == 1 or shapes[1] == y, f"the residual has shape {shapes[-1]}; expected {y}")
    return y


def _dense(node: Node, shapes: Sequence[Shape]) -> Shape:
    x, w = shapes[0], node.arrays["w"]
    _require(len(x) == 2 and w.ndim == 2 and w.shape[1] == x[1], f"the input has shape {x}, w {w.shape}")
    bias = node.arrays.get("bias")
    _require(bias is None or bias.shape == w.shape[:1], "expected a bias for each row of w")
    return x[0], w.shape[0]


def _pool(node: Node, shapes: Sequence[Shape]) -> Shape:
    return tuple(pool_problem(node, shapes[0]).y_shape)


def _same(node: Node, shapes: Sequence[Shape]) -> Shape:
    _require(all(s == shapes[0] for s in shapes), f"the inputs have shapes {list(shapes)}; expected equal ones")
    return shapes[0]


def _scale_shift(node: Node, shapes: Sequence[Shape]) -> Shape:
    x, axis = shapes[0], node.words["axis"]
    _require(0 < axis < len(x), f"axis is {axis} for shape {x}")
    for name in ("scale", "shift"):
        _require(node.arrays[name].shape == (x[axis],), f"{name} has shape {node.arrays[name].shape}")
    return x


def _binary(node: Node, shapes: Sequence[Shape]) -> Shape:
    _require(node.words["op"] in ("add", "sub", "mul"), f"op is {node.words['op']!r}")
    return _same(node, shapes)


def _gate(node: Node, shapes: Sequence[Shape]) -> Shape:
    x, gate = shapes
    _require(len(x) > 2 and gate == (*x[:2], *(1,) * (len(x) - 2)), f"the inputs have shapes {x} and {gate}")
    return x


def _prelu(node: Node, shapes: Sequence[Shape]) -> Shape:
    x, slopes = shapes[0], node.arrays["slopes"].shape
    _require(slopes == (1,) or (len(x) > 1 and slopes == x[1:2]), f"slopes has shape {slopes} for {x}")
    return x


def _concat(node: Node, shapes: Sequence[Shape]) -> Shape:
    axis, first = node.words["axis"], shapes[0]
    _require(0 <= axis < len(first), f"axis is {axis} for shape {first}")
    alike = all(
        s[:axis] == first[:axis] and s[axis + 1 :] == first[axis + 1 :] and len(s) == len(first) for s in shapes
    )
    _require(alike, f"the inputs have shapes {list(shapes)}; expected equal ones but for axis {axis}")
    return (*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1 :])


def _slice(node: Node, shapes: Sequence[Shape]) -> Shape:
    x, ranges = shapes[0], node.words["ranges"]
    good = len(ranges) == len(x) - 1 and all(
        isinstance(r, list | tuple) and len(r) == 3 and 0 <= r[0] <= r[1] <= n and r[2] >= 1
        for r, n in zip(ranges, x[1:], strict=False)
    )
    _require(good, f"ranges is {ranges} for shape {x}")
    return (x[0], *(len(range(*r)) for r in ranges))


def _reshape(node: Node, shapes: Sequence[Shape]) -> Shape:
    _, *rest = node.words["shape"] or [0]
    size, inner = size_of(shapes[0]), size_of(rest)
    _require(inner > 0 and size % inner == 0 and min(rest, default=1) > 0, f"{shapes[0]} as {node.words['shape']}")
    return (size // inner, *rest)


def _permute(node: Node, shapes: Sequence[Shape]) -> Shape:
    axes = node.words["axes"]
    _require(sorted(axes) == list(range(len(shapes[0]))) and len(axes) <= 8, f"axes is {axes} for shape {shapes[0]}")
    return tuple(shapes[0][a] for a in axes)


def _pad(node: Node, shapes: Sequence[Shape]) -> Shape:
    x, widths = shapes[0], node.words["widths"]
    good = len(widths) == len(x) - 1 and all(
        isinstance(w, list | tuple) and len(w) == 2 and min(w) >= 0 for w in widths
    )
    _require(good and len(x) <= 8, f"widths is {widths} for shape {x}")
    return (x[0], *(n + begin + end for n, (begin, end) in zip(x[1:], widths, strict=True)))


def _matrix(node: Node, shapes: Sequence[Shape]) -> Shape:
    _require(len(shapes[0]) == 2, f"the input has shape {shapes[0]}; expected (N, K)")
    return shapes[0]


def _response_norm(node: Node, shapes: Sequence[Shape]) -> Shape:
    _require(2 <= len(shapes[0]) <= 5, f"the input has shape {shapes[0]}")
    return shapes[0]


def _group_norm(node: Node, shapes: Sequence[Shape]) -> Shape:
    x, last = shapes[0], node.words["layout"] == "channels_last"
    _require(len(x) > 1 and min(x) > 0, f"the input has shape {x}")
    channels, groups = x[-1] if last else x[1], node.words["groups"]
    _require(groups > 0 and channels % groups == 0, f"{groups} groups of {channels} channels")
    for name in ("gamma", "beta"):
        _require(node.arrays[name].shape == (channels,), f"{name} has shape {node.arrays[name].shape}")
    return x


def _resample(node: Node, shapes: Sequence[Shape]) -> Shape:
    x, axis = shapes[0], node.words["axis"]
    _require(0 < axis < len(x), f"axis is {axis} for shape {x}")
    return (*x[:axis], len(node.arrays["first"]), *x[axis + 1 :])


def _constant(node: Node, shapes: Sequence[Shape]) -> Shape:
    return tuple(node.arrays["value"].shape)


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ProblemError(text)


def _channel_axis(node: Node) -> int:
    """Of the images that a node reads and writes; -1: the last."""
    return 1 if node.words.get("layout", "nchw") in ("nchw", "channels_first") else -1


def _reads_channels(node: Node, position: int, axis: int) -> bool:
    # A residual is read with the pitches of the result, which may be another's.
    return axis == 1 == _channel_axis(node) and position == 0


def _writes_channels(node: Node, axis: int) -> bool:
    return axis == 1 == _channel_axis(node) and len(node.inputs) == 1


def _never(node: Node, *_: Any) -> bool:
    return False


_EPILOGUE: dict[str, type] = {"activation": str, "alpha": float}
_CONV: dict[str, type] = {
    "stride": list, "pad_begin": list, "pad_end": list, "dilation": list, "groups": int, "padding_mode": str,
    "pad_value": float, "layout": str, **_EPILOGUE,
}  # fmt: skip
_POOL: dict[str, type] = {
    "kind": str, "window": list, "stride": list, "pad_begin": list, "pad_end": list, "dilation": list,
    "ceil_mode": bool, "count_include_pad": bool, "divisor": int, "output": list, "layout": str, "norm": float,
}  # fmt: skip
_WINDOWS: dict[str, type] = {
    "before": int, "after": int, "alpha": float, "beta": float, "k": float, "spatial": bool, "layout": str,
}  # fmt: skip

OPERATORS = {
    "conv": Operator((1, 2), _CONV, ("w",), _conv, _reads_channels, _writes_channels),
    "conv_transpose": Operator((1, 1), {**_CONV, "size": list}, ("w",), _conv, _reads_channels, _writes_channels),
    "dense": Operator((1, 1), _EPILOGUE, ("w",), _dense),
    "pool": Operator((1, 1), _POOL, (), _pool, _reads_channels, _writes_channels),
    "activation": Operator((1, 1), {"kind": str, "alpha": float}, (), _same),
    "scale_shift": Operator((1, 1), {"axis": int, **_EPILOGUE}, ("scale", "shift"), _scale_shift,
                            lambda node, position, axis: axis == node.words["axis"],
                            lambda node, axis: axis == node.words["axis"]),
    "binary": Operator((2, 2), {"op": str, **_EPILOGUE}, (), _binary),
    "gate": Operator((2, 2), {}, (), _gate, lambda node, position, axis: axis == 1, lambda node, axis: axis == 1),
    "prelu": Operator((1, 1), {}, ("slopes",), _prelu, _never, _never),
    "concat": Operator((1, 1 << 16), {"axis": int}, (), _concat),
    "slice": Operator((1, 1), {"ranges": list}, (), _slice),
    "reshape": Operator((1, 1), {"shape": list}, (), _reshape, writes=_never),
    "permute": Operator((1, 1), {"axes": list}, (), _permute),
    "pad": Operator((1, 1), {"widths": list, "value": float}, (), _pad),
    "softmax": Operator((1, 1), {"log": bool}, (), _matrix, _never, _never),
    "response_norm": Operator((1, 1), _WINDOWS, (), _response_norm, _never, _never),
    "group_norm": Operator((1, 1), {"groups": int, "eps": float, "layout": str}, ("gamma", "beta"), _group_norm, _never,
                           _never),
    "resample": Operator((1, 1), {"axis": int}, ("first", "start", "weights"), _resample, _never, _never),
    "constant": Operator((0, 0), {}, ("value",), _constant, writes=_never),
    "python": Operator((1, 1 << 16), {"function": str}, (), _same, _never, _never),
}  # fmt: skip


def shapes_of(network: Any, input_shapes: Sequence[Shape]) -> dict[int, Shape]:
    """The shape of every value that lies in native memory: not of what Python holds, as indices.

    Raises:
        ProblemError: naming the node whose inputs do not fit together.
    """
    shapes: dict[int, Shape] = dict(zip(network.inputs, map(tuple, input_shapes), strict=True))
    for i, node in enumerate(network.nodes):
        if node.op == "python":
            values = node.arrays["call"][0].outputs
            shapes |= {
                n: v.shape
                for n, v in zip(node.outputs, values, strict=True)
                if v is not None and v.dtype == network.dtype
            }
            continue
        try:
            shapes[node.output] = OPERATORS[node.op].shape(node, [shapes[v] for v in node.inputs])
            _require(size_of(shapes[node.output]) <= _LARGEST, f"the result would be {shapes[node.output]}")
        except ProblemError as error:
            raise ProblemError(f"InferenceSession: node {i} ({node.op} {node.name}): {error}") from None
    return shapes
