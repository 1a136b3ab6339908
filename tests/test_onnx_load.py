# SPDX-License-Identifier: Apache-2.0
"""fastconv.onnx.load: names, gradients, modes, and what changed between opsets."""

import numpy as np
import pytest

import fastconv as fc
import fastconv.onnx
from fastconv import nn
from fastconv.graph import trace_graph
from onnx_models import FLOAT, SEED, example, helper, model_of, onnx
from tolerance import assert_close, assert_exact


def run(op_type, inputs, opset, outputs=1, **attributes):
    """One node of this opset on arrays."""
    names = [f"i{i}" if a is not None else "" for i, a in enumerate(inputs)]
    node = helper.make_node(op_type, names, [f"o{i}" for i in range(outputs)], **attributes)
    given = [a for a in inputs if a is not None]
    return fastconv.onnx.Backend.run_node(node, given, opset_version=opset)


class Net(nn.Module):
    """Convolution, batch norm, a branch, dropout, a dense layer."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.branch = nn.Conv2d(4, 4, 1)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    def forward(self, x):
        y = self.features(x)
        return self.classifier(fc.ops.relu(self.branch(y)) + y)


@pytest.fixture(scope="module")
def net():
    model = Net()
    rng = np.random.default_rng(SEED)
    for _, value in (*model.named_parameters(), *model.named_buffers()):
        array = value if isinstance(value, np.ndarray) else value.data
        if array.dtype.kind == "f":
            array[...] = rng.uniform(0.2, 1.0, array.shape)
    return model.eval()


@pytest.fixture(scope="module")
def proto(net):
    return fastconv.onnx.export(net, None, example(2, 1, 8, 8))


def test_names_parameters_and_buffers(net, proto):
    model = fastconv.onnx.load(proto)
    assert not model.training and model.opset == 20
    assert model.input_names == ("input",) and model.output_names == ("output",)
    ours, theirs = dict(net.named_parameters()), dict(model.named_parameters())
    assert theirs.keys() == ours.keys()
    buffers = {name for name, _ in model.named_buffers()}
    assert buffers == {"features.1.running_mean", "features.1.running_var"}
    for name, parameter in ours.items():
        assert_exact(theirs[name].data, parameter.data, name)
    assert model.features is not None and model.get_parameter("classifier.1.weight").shape == (3, 64)
    model.load_state_dict(model.state_dict())
    assert repr(model).startswith("OnnxModel('load', opset=20, ") and "['input']" in repr(model)


def test_gradients_are_those_of_the_model(net, proto):
    x, t = example(4, 1, 8, 8), np.array([0, 2, 1, 2])
    model = fastconv.onnx.load(proto)
    for one in (net, model):
        one.zero_grad()
        given = fc.Tensor(x, requires_grad=True)
        fc.ops.cross_entropy(one(given), t).backward()
        one.seen = given.grad.data
    assert_close(model.seen, net.seen, "model")
    theirs = dict(model.named_parameters())
    for name, parameter in net.named_parameters():
        assert_close(theirs[name].grad.data, parameter.grad.data, "model", what=name)


def test_fine_tuning(proto):
    model = fastconv.onnx.load(proto).train()
    x, t = example(16, 1, 8, 8), np.arange(16) % 3
    optimizer = fc.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    mean = model.features._modules["1"].running_mean.copy()
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = fc.ops.cross_entropy(model(x), t)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert np.abs(model.features._modules["1"].running_mean - mean).max() > 0.01, "running statistics move in training"


def test_training_mode_is_that_of_the_layers(net, proto):
    """Batch norm by the batch, running statistics as PyTorch's momentum has them."""
    model, x = fastconv.onnx.load(proto).train(), example(4, 1, 8, 8)
    twin = Net().train()
    twin.load_state_dict(net.state_dict())
    assert_close(model(x).data, twin(fc.Tensor(x)).data, "model")
    for name in ("running_mean", "running_var"):
        ours, theirs = (m.get_buffer(f"features.1.{name}") for m in (model, twin))
        if name == "running_mean":  # ONNX says 0.9 in float32, of which 1 - momentum is not quite 0.1
            assert_close(ours, theirs, "statistics")


def test_dropout_drops_in_training_only():
    node = helper.make_node("Dropout", ["x"], ["y", "mask"])
    model = fastconv.onnx.load(model_of([node], {"x": (FLOAT, [400])}, ("y", "mask")))
    x = np.ones(400, np.float32)
    y, mask = model(x)
    assert_exact(y.data, x)
    assert mask.all() and mask.dtype == np.bool_
    y, mask = model.train()(x)
    assert 120 < mask.sum() < 280
    assert_exact(y.data, np.where(mask, 2.0, 0.0))


def test_it_is_traced_and_written_again(net, proto, tmp_path):
    model, x = fastconv.onnx.load(proto), example(2, 1, 8, 8)
    names = {v.name for call in trace_graph(model, x).calls for v in call.inputs if v is not None}
    assert {"features.0.weight", "branch.bias", "classifier.1.weight"} < names
    fastconv.onnx.export(model, tmp_path / "again.onnx", x, input_names=["images"], output_names=["scores"])
    again = fastconv.onnx.load(tmp_path / "again.onnx")
    assert again.input_names == ("images",) and again.output_names == ("scores",)
    assert_close(again(x).data, net(fc.Tensor(x)).data, "model")


def test_it_becomes_a_session(net, proto):
    x = example(3, 1, 8, 8)
    session = fc.InferenceSession(fastconv.onnx.load(proto), x)
    assert_close(np.asarray(session(x)), net(fc.Tensor(x)).data, "model")


def test_weights_through_other_nodes_are_learnt_and_others_are_not():
    nodes = [
        helper.make_node("Reshape", ["flat", "shape"], ["w"]),
        helper.make_node("Transpose", ["w"], ["wt"]),
        helper.make_node("MatMul", ["x", "wt"], ["p"]),
        helper.make_node("Div", ["p", "scale"], ["y"]),
    ]
    arrays = {"flat": example(6), "shape": np.array([3, 2]), "scale": np.float32(2)}
    model = fastconv.onnx.load(model_of(nodes, {"x": (FLOAT, [None, 2])}, arrays=arrays))
    assert [name for name, _ in model.named_parameters()] == ["flat"]
    assert {name for name, _ in model.named_buffers()} == {"shape", "scale"}
    model(example(4, 2)).backward(fc.Tensor(np.ones((4, 3), np.float32)))
    assert model.flat.grad.shape == (6,)


def test_names_that_are_taken():
    """An initializer may be called like a method, like a prefix of another, or with empty parts."""
    names = ["forward", "training", "a", "a.b", "a.b.c", "x..y", ".", "_parameters", "a_b_", "nodes"]
    nodes = [helper.make_node("Sum", ["x", *names], ["y"])]
    model = fastconv.onnx.load(model_of(nodes, {"x": (FLOAT, [1])}, arrays={n: np.ones(1, np.float32) for n in names}))
    assert model(np.zeros(1, np.float32)).item() == len(names)
    state = model.state_dict()
    assert len(state) == len(names) and "a" in state and "forward_" in state
    model.load_state_dict({name: a * 2 for name, a in state.items()})
    assert model(np.zeros(1, np.float32)).item() == 2 * len(names)


X = np.array([[3.0, -1.0, 2.0], [0.5, 4.0, -2.0]], np.float32)
# (operator, opset, inputs, attributes, expected): what changed between versions.
VERSIONS = [
    ("Clip", 6, [X], {"min": 0.0, "max": 2.5}, np.clip(X, 0, 2.5)),
    ("Clip", 13, [X, None, np.float32(1)], {}, np.minimum(X, 1)),
    ("Softmax", 11, [X.reshape(1, 2, 3)], {"axis": 1}, (np.exp(X) / np.exp(X).sum()).reshape(1, 2, 3)),
    ("Softmax", 13, [X], {}, np.exp(X) / np.exp(X).sum(1, keepdims=True)),
    ("Squeeze", 11, [X[None]], {"axes": [0]}, X),
    ("Squeeze", 13, [X[None, None], np.array([-3])], {}, X[None]),
    ("Unsqueeze", 11, [X], {"axes": [0, 3]}, X[None, ..., None]),
    ("ReduceMean", 11, [X], {"axes": [1], "keepdims": 0}, X.mean(1)),
    ("ReduceMean", 18, [X, np.array([0])], {}, X.mean(0, keepdims=True)),
    ("ReduceSum", 13, [X], {"noop_with_empty_axes": 1}, X),
    ("Slice", 9, [X], {"starts": [0, 1], "ends": [1, 99]}, X[:1, 1:]),
    ("Slice", 13, [X, np.array([-1]), np.array([-99]), np.array([1]), np.array([-2])], {}, X[:, ::-2]),
    ("Pad", 2, [X], {"pads": [0, 1, 0, 2], "value": 7.0}, np.pad(X, ((0, 0), (1, 2)), constant_values=7)),
    ("Pad", 18, [X, np.array([1, -1]), None, np.array([1])], {}, np.pad(X, ((0, 0), (1, 0)))[:, :-1]),
    ("Clip", 13, [X, np.float32(0)], {}, np.maximum(X, 0)),
    ("Clip", 13, [X, np.float32(0), np.float32(6)], {}, np.clip(X, 0, 6)),
    ("Clip", 13, [X, np.float32(2), np.float32(1)], {}, np.ones_like(X)),
    ("Dropout", 6, [X], {"ratio": 0.3, "is_test": 1}, X),
    ("Split", 11, [X], {"axis": 1, "split": [3]}, X),
    ("Upsample", 7, [X[None, None]], {"scales": [1.0, 1.0, 2.0, 2.0]}, X.repeat(2, 0).repeat(2, 1)[None, None]),
    ("Upsample", 9, [X[None, None], np.array([1, 1, 1, 2], np.float32)], {}, X.repeat(2, 1)[None, None]),
    ("Resize", 10, [X[None, None], np.array([1, 1, 2, 1], np.float32)], {}, X.repeat(2, 0)[None, None]),
    ("Reshape", 1, [X], {"shape": [0, -1, 1]}, X[..., None]),
    ("TopK", 1, [X], {"k": 1}, X.max(1, keepdims=True)),
    ("Add", 6, [X, np.array([1.0, 2.0], np.float32)], {"axis": 0, "broadcast": 1}, X + np.array([[1], [2]])),
    ("PRelu", 6, [X[None], np.array([1.0, 2.0], np.float32)], {}, np.where(X > 0, X, X * [[1], [2]])[None]),
    ("PRelu", 16, [X, np.array([1, 2, 3], np.float32)], {}, np.where(X > 0, X, X * [1, 2, 3])),
    ("Cast", 1, [X], {"to": "INT32"}, X.astype(np.int32)),
    ("Gemm", 6, [X, X.T, np.ones(1, np.float32)], {"broadcast": 1, "alpha": 2.0}, 2 * X @ X.T + 1),
]


@pytest.mark.parametrize("row", VERSIONS, ids=[f"{row[0]}-{row[1]}-{i}" for i, row in enumerate(VERSIONS)])
def test_versions_of_operators(row):
    op_type, opset, inputs, attributes, expected = row
    got = run(op_type, inputs, opset, 2 if op_type == "TopK" else 1, **attributes)[0]
    assert got.dtype == (np.int32 if op_type == "Cast" else np.float32)
    assert_close(got, expected.astype(got.dtype), "pointwise", np.float32)


def test_padding_as_wide_as_the_window():
    """A window that sees nothing but padding: PyTorch wrote ceil_mode so for opset 8."""
    (y,) = run("MaxPool", [X[None]], 8, kernel_shape=[2], strides=[2], pads=[0, 3])
    assert_exact(y, np.array([[[3.0, 2.0, -np.inf], [4.0, -2.0, -np.inf]]], np.float32))


def spelled_gelu(order):
    """x (1 + erf(x / sqrt 2)) / 2 in one of the ways that writers have."""
    nodes = [
        helper.make_node("Div", ["x", "root"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["a"]),
    ]
    factors = {"x half": [("x", "half", "h"), ("h", "a", "y")], "a x": [("x", "a", "h"), ("h", "half", "y")],
               "a half": [("half", "a", "h"), ("h", "x", "y")]}[order]  # fmt: skip
    return nodes + [helper.make_node("Mul", [a, b], [y]) for a, b, y in factors]


GELU_ARRAYS = {"root": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)}


@pytest.mark.parametrize("order", ["x half", "a x", "a half"])
def test_a_gelu_that_is_spelled_out(order):
    model = fastconv.onnx.load(model_of(spelled_gelu(order), {"x": (FLOAT, [2, 3])}, arrays=GELU_ARRAYS))
    assert [node.op_type for node in model.nodes] == ["Gelu"]
    assert_close(model(X).data, fc.ops.gelu(X).data, "pointwise")


def test_a_silu_that_is_spelled_out():
    nodes = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["s", "x"], ["y"], name="last")]
    model = fastconv.onnx.load(model_of(nodes, {"x": (FLOAT, [2, 3])}))
    assert [(node.op_type, node.name) for node in model.nodes] == [("Swish", "last")]
    assert_exact(model(X).data, fc.ops.silu(X).data)


def test_what_only_looks_like_one():
    """Other numbers, another x, or a value in between that somebody reads: the nodes stay as they are."""
    plain = spelled_gelu("x half")
    other_x = [*plain[:3], helper.make_node("Mul", ["z", "half"], ["h"]), plain[4]]
    gate = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["s", "x"], ["y"])]
    two = {"x": (FLOAT, [2, 3]), "z": (FLOAT, [2, 3])}
    for nodes, outputs, arrays in (
        (plain, ("y",), GELU_ARRAYS | {"half": np.float32(0.6)}),
        (plain, ("y",), GELU_ARRAYS | {"one": np.float32(2)}),
        (plain, ("y",), GELU_ARRAYS | {"root": np.float32(2)}),
        (plain, ("y", "e"), GELU_ARRAYS),
        (plain, ("y", "h"), GELU_ARRAYS),
        (other_x, ("y",), GELU_ARRAYS),
        (gate, ("y", "s"), {}),
        ([gate[0], helper.make_node("Mul", ["s", "z"], ["y"])], ("y",), {}),
    ):
        model = fastconv.onnx.load(model_of(nodes, two, outputs, arrays))
        assert len(model.nodes) == len(nodes)
        model(X, X)


def test_integers_divide_towards_zero():
    a, b = np.array([7, -7, 7, -7, 6], np.int64), np.array([2, 2, -2, -2, -3], np.int64)
    assert run("Div", [a, b], 14)[0].tolist() == [3, -3, -3, 3, -2]
    assert run("Mod", [a, b], 13)[0].tolist() == [1, 1, -1, -1, 0]
    assert run("Mod", [a, b], 13, fmod=1)[0].tolist() == [1, -1, 1, -1, 0]


def test_gradients_of_what_is_only_here():
    """The operators that are made of several operations, against differences."""
    graphs = [
        ("ReduceProd", {"axes": [1], "keepdims": 0}, 11),
        ("LpNormalization", {"axis": 1}, 11),
        ("HardSigmoid", {}, 11),
        ("ReduceL2", {"axes": [0]}, 11),
        ("Shrink", {"lambd": 0.7, "bias": 0.1}, 11),
        ("ThresholdedRelu", {"alpha": 0.3}, 11),
    ]
    for op_type, attributes, opset in graphs:
        node = helper.make_node(op_type, ["x"], ["y"], **attributes)
        model = fastconv.onnx.load(model_of([node], {"x": (onnx.TensorProto.DOUBLE, [2, 3])}, opset=opset))
        assert fc.gradcheck(model, (fc.Tensor(X.astype(np.float64), requires_grad=True),))


def test_inputs_are_checked(proto):
    model = fastconv.onnx.load(proto)
    with pytest.raises(fc.ProblemError, match=r"2 inputs came; expected \['input'\]"):
        model(example(1, 1, 8, 8), example(1))
    with pytest.raises(fc.ProblemError, match=r"'input' has shape \(1, 8, 8\); expected 4 axes"):
        model(example(1, 8, 8))
    with pytest.raises(TypeError, match="dtype float64; expected float32"):
        model(example(1, 1, 8, 8, dtype=np.float64))
    torch = pytest.importorskip("torch", reason="PyTorch comes with fastconv[parity]")
    with pytest.raises(TypeError, match=r"'input' is a torch tensor; expected an array: use \.detach\(\)"):
        model(torch.zeros(1, 1, 8, 8))
    with pytest.raises(fc.ProblemError, match=r"Conv node 'Conv': .*\(K, 2, R, S\)"):
        model(example(1, 2, 8, 8))


def test_the_names_of_the_package():
    assert set(fastconv.onnx.__all__) <= {*dir(fastconv.onnx), "Backend"}
    with pytest.raises(AttributeError, match="no attribute 'Frontend'"):
        _ = fastconv.onnx.Frontend


def test_scattered_gradients():
    """Both data and updates have theirs, where one is put into the other or added to it."""
    places = np.array([[2, 0], [1, 2]])
    for op_type, indices, words in (
        ("ScatterElements", places, {"axis": 1}),
        ("ScatterElements", places[:1] * 0 + 1, {"axis": 1, "reduction": "add"}),
        ("ScatterND", np.array([[0, 1], [1, 2]]), {}),
        ("ScatterND", np.array([[1, 1], [1, 1]]), {"reduction": "add"}),
    ):
        shape = indices.shape if op_type == "ScatterElements" else (2,)
        double = onnx.TensorProto.DOUBLE
        node = helper.make_node(op_type, ["x", "i", "u"], ["y"], **words)
        proto = model_of([node], {"x": (double, [2, 3]), "u": (double, shape)}, arrays={"i": indices})
        given = X.astype(np.float64), example(*shape, dtype=np.float64)
        assert fc.gradcheck(fastconv.onnx.load(proto), tuple(fc.Tensor(a, requires_grad=True) for a in given))
        expected = given[0].copy()
        where = (np.arange(len(indices))[:, None], indices) if op_type == "ScatterElements" else tuple(indices.T)
        np.add.at(expected, where, given[1]) if words.get("reduction") else expected.__setitem__(where, given[1])
        assert_close(fastconv.onnx.load(proto)(*given).data, expected, "pointwise")


def test_a_quantised_convolution():
    """QuantizeLinear, QLinearConv, DequantizeLinear: as near to the convolution of floats as eight bits allow."""
    x, w = example(1, 3, 8, 8), example(4, 3, 3, 3) / 5
    steps = np.abs(w).max((1, 2, 3)) / 127
    arrays = {
        "xs": np.float32(0.03), "xz": np.uint8(120), "ws": steps, "wz": np.zeros(4, np.int8),
        "w": np.rint(w / steps[:, None, None, None]).astype(np.int8), "ys": np.float32(0.04), "yz": np.uint8(130),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        helper.make_node("QLinearConv", ["q", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["p"], pads=[1, 1, 1, 1]),
        helper.make_node("DequantizeLinear", ["p", "ys", "yz"], ["y"]),
    ]
    y = fastconv.onnx.load(model_of(nodes, {"x": (FLOAT, [1, 3, 8, 8])}, arrays=arrays))(x).data
    exact = fc.conv2d(x, w, padding=1)
    assert np.abs(exact).max() > 2.5 and np.abs(y - exact).max() < 3 * 0.04
