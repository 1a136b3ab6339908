# SPDX-License-Identifier: Apache-2.0
"""Every operation on tensors, one line each: what test_op_table.py and test_parity_ops.py run over.

Op(name, ours, numpy, torch, shapes): three functions of the same arrays (torch's gets the module first; None: PyTorch
has no such thing), and for each case the shapes of its inputs. `values` says what the inputs are: "normal", away from
0 so that no difference steps over a kink; "positive", 0.5 and more; "unit", 0.1 to 0.9; "distinct", no two equal.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cases import NUMPY_DTYPE, rng_for
from fastconv import ops, reference
from fastconv.geometry import ACTIVATION_ALPHAS


class Op(NamedTuple):
    name: str
    ours: Callable
    numpy: Callable
    torch: Callable | None
    shapes: list[tuple[tuple[int, ...], ...]]
    values: str = "normal"
    tier: str = "pointwise"


ONE = [((3, 4),), ((2, 3, 4),), ((5,),), ((),), ((0, 3),), ((1, 1),)]
TWO = [((3, 4), (3, 4)), ((3, 4), (4,)), ((2, 1, 4), (3, 1)), ((), (2, 3)), ((0, 3), (1, 3)), ((1,), (1,))]
AXES = [((3, 4),), ((2, 3, 4),), ((40, 3, 5),)]
PICK = np.array([[0, 2, 1, 2], [1, 1, 0, 2]])
ROWS = np.array([1, 0, 0, -1])
MASK = np.array([[True, False, True, True], [False, True, False, True], [True, True, False, False]])
TORCH_ACTIVATIONS = {
    "hard_swish": lambda f, x: f.hardswish(x),
    "gelu_tanh": lambda f, x: f.gelu(x, approximate="tanh"),
    "hard_sigmoid": lambda f, x: f.hardsigmoid(x),
    "log_sigmoid": lambda f, x: f.logsigmoid(x),
    "leaky_relu": lambda f, x: f.leaky_relu(x, 0.3),
    "elu": lambda f, x: f.elu(x, 0.3),
    "celu": lambda f, x: f.celu(x, 0.3),
    "softplus": lambda f, x: f.softplus(x, 0.3, 1e9),
}


def _activation(kind):
    return Op(
        kind,
        lambda x: ops.activation(x, kind, 0.3),
        lambda x: reference.activation(kind, x, 0.3),
        lambda t, x: TORCH_ACTIVATIONS.get(kind, lambda f, x: getattr(f, kind)(x))(t.nn.functional, x),
        ONE,
    )


def _axis(name, ours, numpy, torch, values="normal", tier="statistics"):
    """A reduction over an axis, several, all, with and without keeping them."""
    words = [{"axis": 1}, {"axis": 0, "keepdims": True}, {"axis": (0, -1)}, {"axis": None}]
    return [
        Op(
            f"{name}{word}",
            lambda x, word=word: ours(x, **word),
            lambda x, word=word: numpy(x, **word),
            torch and (lambda t, x, word=word: torch(t, x, word["axis"], word.get("keepdims", False))),
            AXES,
            values,
            tier,
        )
        for word in words
    ]


def _every(x, axis):
    return tuple(range(x.ndim)) if axis is None else axis


def _first(extreme):
    """torch.max along an axis gives the gradient to one of equal elements, as ours; for several axes there is amax."""
    return lambda t, x, axis, keep: (
        getattr(t, extreme)(x) if axis is None else getattr(t, extreme)(x, axis, keep).values
        if isinstance(axis, int) else getattr(t, f"a{extreme}")(x, axis, keep)
    )  # fmt: skip


ARITHMETIC = [
    Op("add", ops.add, np.add, lambda t, a, b: a + b, TWO),
    Op("sub", ops.sub, np.subtract, lambda t, a, b: a - b, TWO),
    Op("mul", ops.mul, np.multiply, lambda t, a, b: a * b, TWO),
    Op("div", ops.div, np.divide, lambda t, a, b: a / b, TWO),
    Op("power", ops.power, np.power, lambda t, a, b: a**b, TWO, "positive"),
    Op("maximum", ops.maximum, np.maximum, lambda t, a, b: t.maximum(a, b), TWO, "distinct"),
    Op("minimum", ops.minimum, np.minimum, lambda t, a, b: t.minimum(a, b), TWO, "distinct"),
    Op("where", lambda a, b: ops.where(MASK, a, b), lambda a, b: np.where(MASK, a, b),
       lambda t, a, b: t.where(t.tensor(MASK), a, b), [((3, 4), (3, 4)), ((4,), (3, 1)), ((), (3, 4))]),
    Op("neg", ops.neg, np.negative, lambda t, a: -a, ONE),
    Op("abs", ops.abs, np.abs, lambda t, a: a.abs(), ONE),
    Op("square", lambda a: a**2, np.square, lambda t, a: a**2, ONE),
    Op("to the -1.5", lambda a: a**-1.5, lambda a: a**-1.5, lambda t, a: a**-1.5, ONE, "positive"),
    Op("to the 0", lambda a: a**0 * a, lambda a: a, lambda t, a: a**0 * a, ONE),
    Op("2 to the", lambda a: 2.0**a, lambda a: 2.0**a, lambda t, a: 2.0**a, ONE),
    Op("numbers", lambda a: 2 - 3 * (1 / a) + a / 4, lambda a: 2 - 3 / a + a / 4, lambda t, a: 2 - 3 / a + a / 4, ONE,
       "positive"),
    Op("clip", lambda a: ops.clip(a, -0.7, 0.9), lambda a: np.clip(a, -0.7, 0.9), lambda t, a: a.clamp(-0.7, 0.9), ONE),
    Op("clip below", lambda a: a.clip(0.2), lambda a: np.maximum(a, 0.2), lambda t, a: a.clamp(0.2), ONE),
    Op("exp", ops.exp, np.exp, lambda t, a: a.exp(), ONE),
    Op("erf", ops.erf, np.vectorize(math.erf, otypes=[np.float64]), lambda t, a: a.erf(), ONE),
    Op("expm1", ops.expm1, np.expm1, lambda t, a: a.expm1(), ONE),
    Op("log", ops.log, np.log, lambda t, a: a.log(), ONE, "positive"),
    Op("log1p", ops.log1p, np.log1p, lambda t, a: a.log1p(), ONE, "positive"),
    Op("sqrt", ops.sqrt, np.sqrt, lambda t, a: a.sqrt(), ONE, "positive"),
    Op("rsqrt", ops.rsqrt, lambda a: 1 / np.sqrt(a), lambda t, a: a.rsqrt(), ONE, "positive"),
    Op("sin", ops.sin, np.sin, lambda t, a: a.sin(), ONE),
    Op("cos", ops.cos, np.cos, lambda t, a: a.cos(), ONE),
    Op("hard_tanh", ops.hard_tanh, lambda a: np.clip(a, -1, 1), lambda t, a: t.nn.functional.hardtanh(a), ONE),
    Op("prelu", ops.prelu, reference.prelu, lambda t, x, w: t.nn.functional.prelu(x, w),
       [((3, 4), (4,)), ((2, 3, 4), (1,)), ((2, 3, 4, 2), (3,)), ((5,), (1,)), ((0, 3), (3,))]),
]  # fmt: skip
REDUCTIONS = [
    *_axis("sum", ops.sum, np.sum, lambda t, x, a, k: t.sum(x, _every(x, a), k)),
    *_axis("mean", ops.mean, np.mean, lambda t, x, a, k: t.mean(x, _every(x, a), k)),
    *_axis("max", ops.max, np.max, _first("max"), "distinct"),
    *_axis("min", ops.min, np.min, _first("min"), "distinct"),
    *_axis("amax", ops.amax, np.max, lambda t, x, a, k: t.amax(x, _every(x, a), k), "distinct"),
    *_axis("amin", ops.amin, np.min, lambda t, x, a, k: t.amin(x, _every(x, a), k), "distinct"),
    *_axis("var", ops.var, lambda x, **w: np.var(x, ddof=1, **w), lambda t, x, a, k: t.var(x, _every(x, a), keepdim=k)),
    *_axis("std", lambda x, **w: ops.std(x, correction=0, **w), np.std,
           lambda t, x, a, k: t.std(x, _every(x, a), correction=0, keepdim=k)),
    *_axis("logsumexp", lambda x, **w: ops.logsumexp(x * 9.0, **w), lambda x, **w: np.log(np.sum(np.exp(x * 9), **w)),
           lambda t, x, a, k: t.logsumexp(x * 9, _every(x, a), k)),
    Op("cumsum", lambda x: ops.cumsum(x, -2), lambda x: np.cumsum(x, -2), lambda t, x: x.cumsum(-2), AXES),
    Op("softmax", lambda x: ops.softmax(x, 1), lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True),
       lambda t, x: x.softmax(1), [*AXES, ((0, 3),), ((2, 9, 33),)]),
    Op("log_softmax", lambda x: ops.log_softmax(x, 0), lambda x: x - np.log(np.exp(x).sum(0, keepdims=True)),
       lambda t, x: x.log_softmax(0), [*AXES, ((3, 0),)], tier="statistics"),
    Op("maxout", lambda x: ops.maxout(x, 2, -1), lambda x: np.maximum(x[..., ::2], x[..., 1::2]), None,
       [((3, 4),), ((2, 1, 6),), ((0, 4),)], "distinct"),
]  # fmt: skip
SHAPES = [
    Op("reshape", lambda x: x.reshape(4, -1), lambda x: x.reshape(4, -1), lambda t, x: x.reshape(4, -1), [((2, 6),)]),
    Op("view", lambda x: x.view((6, 2)), lambda x: x.reshape(6, 2), lambda t, x: x.reshape(6, 2), [((3, 4),)]),
    Op("T", lambda x: x.T, np.transpose, lambda t, x: x.permute(tuple(reversed(range(x.ndim)))), ONE),
    Op("permute", lambda x: x.permute(2, 0, 1), lambda x: x.transpose(2, 0, 1), lambda t, x: x.permute(2, 0, 1),
       [((2, 3, 4),), ((0, 1, 2),)]),
    Op("swapaxes", lambda x: x.swapaxes(0, -1), lambda x: x.swapaxes(0, -1), lambda t, x: x.swapaxes(0, -1), AXES),
    Op("flatten", lambda x: x.flatten(1), lambda x: x.reshape(len(x), -1), lambda t, x: x.flatten(1), AXES),
    Op("flatten a number", lambda x: x.flatten(), np.ravel, lambda t, x: x.flatten(), ONE),
    Op("squeeze", lambda x: x.squeeze(1), lambda x: x.squeeze(1), lambda t, x: x.squeeze(1), [((3, 1, 2),)]),
    Op("squeeze all", lambda x: x.squeeze(), np.squeeze, lambda t, x: x.squeeze(), [((3, 1, 1),), ((2, 3),)]),
    Op("unsqueeze", lambda x: x.unsqueeze(-1), lambda x: x[..., None], lambda t, x: x.unsqueeze(-1), ONE),
    Op("expand", lambda x: x.expand(2, -1, 4), lambda x: np.broadcast_to(x, (2, 3, 4)), lambda t, x: x.expand(2, -1, 4),
       [((3, 1),), ((1, 3, 4),)]),
    Op("repeat", lambda x: x.repeat(2, 1, 3), lambda x: np.tile(x, (2, 1, 3)), lambda t, x: x.repeat(2, 1, 3),
       [((3, 2),), ((2, 1, 2),), ((0, 1),)]),
    Op("flip", lambda x: x.flip(0), lambda x: x[::-1], lambda t, x: x.flip(0), AXES),
    Op("roll", lambda x: ops.roll(x, 5, 1), lambda x: np.roll(x, 5, 1), lambda t, x: x.roll(5, 1), AXES),
    Op("slice", lambda x: x[1:, ::2], lambda x: x[1:, ::2], lambda t, x: x[1:, ::2], AXES),
    Op("new axis", lambda x: x[None, ..., 1], lambda x: x[None, ..., 1], lambda t, x: x[None, ..., 1], AXES),
    Op("index twice", lambda x: x[ROWS], lambda x: x[ROWS], lambda t, x: x[t.tensor(ROWS)], AXES),
    Op("mask", lambda x: x[MASK], lambda x: x[MASK], lambda t, x: x[t.tensor(MASK)], [((3, 4),), ((3, 4, 2),)]),
    Op("index_select", lambda x: ops.index_select(x, 1, ROWS), lambda x: x[:, ROWS],
       lambda t, x: x.index_select(1, t.tensor(ROWS % 4)), [((3, 4),), ((2, 4, 2),)]),
    Op("gather", lambda x: ops.gather(x, 0, PICK), lambda x: np.take_along_axis(x[:, :4], PICK, 0),
       lambda t, x: x.gather(0, t.tensor(PICK)), [((3, 4),), ((3, 5),)]),
    Op("take_along_axis", lambda x: ops.take_along_axis(x, PICK - 3, 1), lambda x: np.take_along_axis(x, PICK, 1),
       lambda t, x: x.gather(1, t.tensor(PICK)), [((2, 3),)]),
    Op("concat", lambda a, b: ops.concat([a, b, a], -1), lambda a, b: np.concatenate([a, b, a], -1),
       lambda t, a, b: t.cat([a, b, a], -1), [((2, 3), (2, 1)), ((4,), (2,)), ((0, 2), (0, 1)), ((2, 0), (2, 3))]),
    Op("stack", lambda a, b: ops.stack([a, b], -1), lambda a, b: np.stack([a, b], -1),
       lambda t, a, b: t.stack([a, b], -1), [((2, 3), (2, 3)), ((), ()), ((0, 2), (0, 2))]),
    Op("split", lambda x: ops.concat(x.split(2, 1)[::-1], 1), lambda x: np.concatenate(np.split(x, [2], 1)[::-1], 1),
       lambda t, x: t.cat(x.split(2, 1)[::-1], 1), [((2, 3),), ((2, 4, 2),)]),
    Op("chunk", lambda x: ops.concat(x.chunk(3)[1:]), lambda x: x[2:], lambda t, x: t.cat(x.chunk(3)[1:]), [((5, 2),)]),
    Op("pad", lambda x: ops.pad(x, [(1, 2), (0, 1)], 0.5), lambda x: np.pad(x, [(1, 2), (0, 1)], constant_values=0.5),
       lambda t, x: t.nn.functional.pad(x, (0, 1, 1, 2), value=0.5), [((2, 3),), ((0, 2),)]),
    Op("astype", lambda x: x.astype(np.float64) * 2.0, lambda x: x * 2, lambda t, x: x.double() * 2, ONE),
    Op("to", lambda x: x.to("cpu") * 2.0, lambda x: x * 2, lambda t, x: x.to("cpu") * 2, ONE),
]  # fmt: skip
PRODUCTS = [
    Op("matmul", ops.matmul, np.matmul, lambda t, a, b: a @ b, [
        ((3, 4), (4, 2)), ((2, 3, 4), (4, 2)), ((3, 4), (2, 4, 2)), ((2, 1, 3, 4), (5, 4, 2)), ((3, 4), (4,)),
        ((2, 3, 4), (4,)), ((4,), (4, 2)), ((4,), (2, 4, 3)), ((4,), (4,)), ((0, 4), (4, 2)), ((3, 0), (0, 2)),
        ((2, 0, 4), (4, 2)), ((1, 1), (1, 1)), ((17, 33), (33, 9))], tier="statistics"),
    Op("A B^T", lambda a, b: a @ b.T, lambda a, b: a @ b.T, lambda t, a, b: a @ b.T, [((3, 4), (2, 4))],
       tier="statistics"),
    Op("A^T B", lambda a, b: a.T @ b, lambda a, b: a.T @ b, lambda t, a, b: a.T @ b, [((4, 3), (4, 2))],
       tier="statistics"),
    Op("linear", ops.linear, lambda x, w, b: x @ w.T + b, lambda t, x, w, b: t.nn.functional.linear(x, w, b),
       [((3, 4), (2, 4), (2,)), ((2, 3, 4), (5, 4), (5,)), ((4,), (2, 4), (2,)), ((0, 4), (2, 4), (2,))],
       tier="statistics"),
]  # fmt: skip
OPS = [
    *ARITHMETIC,
    *(_activation(kind) for kind in ACTIVATION_ALPHAS if kind != "none"),
    *REDUCTIONS,
    *SHAPES,
    *PRODUCTS,
]


def inputs(op, case, dtype):
    """The arrays of one case, seeded by its name."""
    rng = rng_for(f"{op.name} {op.shapes[case]}")
    arrays = []
    for shape in op.shapes[case]:
        values = rng.standard_normal(shape)
        if op.values == "normal":
            values = values + np.copysign(0.05, values)
        elif op.values == "positive":
            values = np.abs(values) + 0.5
        elif op.values == "unit":
            values = 0.1 + 0.8 * rng.random(shape)
        else:
            values = rng.permutation(values.size).reshape(shape) * 0.11 + 0.03 * len(arrays) - 0.4
        arrays.append(np.asarray(values, NUMPY_DTYPE[dtype]))
    return arrays
