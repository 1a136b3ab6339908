# SPDX-License-Identifier: Apache-2.0
"""The traced graph: what it holds, and that a model which it would get wrong is refused."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn, ops
from fastconv.graph import Value, trace_graph

SEED = 71


def example(*shape, dtype=np.float32):
    return np.random.default_rng(SEED).standard_normal(shape).astype(dtype)


def replay(graph, *inputs):
    """The outputs, computed call by call from what the graph holds."""
    arrays = dict(zip(graph.inputs, inputs, strict=True))

    def found(item):
        if isinstance(item, Value):
            return arrays[item] if item.data is None else item.data
        if isinstance(item, dict):
            return {key: found(v) for key, v in item.items()}
        return tuple(map(found, item)) if type(item) is tuple else item

    for call in graph.calls:
        result = call.function.apply(
            *(None if v is None else fc.Tensor(found(v)) for v in call.inputs), **found(call.static)
        )
        for value, t in zip(call.outputs, result if isinstance(result, tuple) else (result,), strict=True):
            if value is not None:
                assert (t.shape, t.dtype) == (value.shape, value.dtype)
                arrays[value] = t.data
    return graph.packed([found(v) for v in graph.outputs])


class Block(nn.Module):
    """A residual block with a shared layer, dropout, a concatenation and a constant."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        y = ops.relu(self.norm(self.conv(x)))
        y = self.drop(self.conv(y)) + x * 2.0
        return ops.concat([y, x], axis=1)


def test_names_structure_and_values():
    model = Block()
    x = example(2, 4, 6, 5)
    graph = trace_graph(model, x)
    names = [call.function.__name__ for call in graph.calls]
    assert names == ["Conv", "BatchNormInference", "Activation", "Conv", "Mul", "Add", "Concat"]
    conv, norm, _, again, mul, *_ = graph.calls
    assert [v and v.name for v in conv.inputs] == ["input", "conv.weight", "conv.bias", None]
    assert conv.inputs[1].data is model.conv.weight.data and conv.inputs[1] is again.inputs[1]
    assert [v.name for v in norm.inputs[1:]] == ["norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"]
    assert mul.inputs[1].name is None and mul.inputs[1].data == 2.0 and mul.inputs[1].dtype == np.float32
    assert graph.structure == "tensor" and graph.outputs[0].shape == (2, 8, 6, 5)
    assert graph.inputs[0].data is None and graph.outputs[0].data is None
    np.testing.assert_array_equal(replay(graph, x), model.eval()(x).data)


def test_modes_come_back():
    model = Block()
    model.norm.training = False
    trace_graph(model, example(1, 4, 3, 3))
    assert [m.training for m in model.modules()] == [True, True, False, True]


def test_only_what_the_outputs_need():
    def f(x):
        ops.exp(x)
        return ops.tanh(x)

    assert [c.function.__name__ for c in trace_graph(f, example(3)).calls] == ["Activation"]


@pytest.mark.parametrize(
    ("returned", "structure"),
    [
        (lambda a, b: (a, b), "tuple"),
        (lambda a, b: [b, a], "list"),
        (lambda a, b: {"first": a, "second": b}, "dict"),
    ],
)
def test_structures(returned, structure):
    def f(x, y):
        return returned(x * y, x + y)

    x, y = example(2, 3), example(2, 3) + 1
    graph = trace_graph(f, x, fc.Tensor(y))
    assert graph.structure == structure and [v.name for v in graph.inputs] == ["input", "input_1"]
    result, expected = replay(graph, x, y), f(fc.Tensor(x), fc.Tensor(y))
    assert type(result) is type(expected)
    if structure == "dict":
        assert list(result) == list(expected)
        result, expected = result.values(), expected.values()
    for a, b in zip(result, expected, strict=True):
        np.testing.assert_array_equal(a, b.data)


def test_one_array_for_two_inputs():
    x = example(2, 2)
    graph = trace_graph(lambda a, b: a - b * 2.0, x, x)
    np.testing.assert_array_equal(replay(graph, x, 3 * x), x - 3 * x * 2)


def test_indices_of_a_pooling_stay_in_the_graph():
    def f(x):
        y, indices = fc.max_pool2d(x, 2, return_indices=True)
        return fc.max_unpool2d(y, indices, 2)

    x = example(1, 2, 4, 6)
    graph = trace_graph(f, x)
    pooling, last, scatter = graph.calls
    assert last.inputs[0] is pooling.outputs[1] and scatter.static["indices"] is last.outputs[0]
    other = -x[:, :, ::-1].copy()
    np.testing.assert_array_equal(replay(graph, other), f(fc.Tensor(other)).data)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: ops.max(x, 1),
        lambda x: ops.min(x, (0, 2), keepdims=True),
        lambda x: ops.hard_tanh(x, -0.5, 0.25),
        lambda x: ops.softplus(x, 1.0, 0.5),
        lambda x: ops.getitem(x, np.array([1, 0])),
    ],
)
def test_operations_that_look_at_values(f):
    x = example(2, 3, 4)
    graph = trace_graph(f, np.zeros_like(x))
    np.testing.assert_array_equal(replay(graph, x), f(fc.Tensor(x)).data)


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (lambda x: fc.Tensor(x.data * 2), "output 0 of the model does not depend on its input"),
        (lambda x: x * float(x.data.max()), r"input 1 of call 0 \(Mul\) is an array or number"),
        (lambda x: x + fc.Tensor(np.sign(x.data)), r"input 1 of call 0 \(Add\)"),
        (lambda x: ops.where(x.data > 0, x, 0.0), r"condition of call 0 \(Where\)"),
        (lambda x: ops.dropout(x), r"mask of call 0 \(ScaleMask\)"),
        (lambda x: x * 2.0 if x.data.min() < 0 else x + 1.0, "other operations to other values"),
    ],
)
def test_what_leaves_the_graph_is_refused(f, words):
    with pytest.raises(fc.ProblemError, match=words):
        trace_graph(f, example(3, 4))


def test_what_a_model_may_return():
    with pytest.raises(TypeError, match="returned a tuple of ndarray; expected a tensor, or"):
        trace_graph(lambda x: (x * 2.0, x.data), example(2))
    with pytest.raises(fc.ProblemError, match="there is no example"):
        trace_graph(lambda: None)


def test_nothing_is_watched_afterwards():
    with pytest.raises(ZeroDivisionError):
        trace_graph(lambda x: 1 / 0, example(2))
    assert len(trace_graph(lambda x: x * 2.0, example(2)).calls) == 1
    x = fc.Tensor(example(2), requires_grad=True)
    (x * 2.0).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [2, 2])
