# SPDX-License-Identifier: Apache-2.0
"""`fc.summary` of models from ONNX files: a row per node, in both styles, with the counts of the network they are."""

import numpy as np
import pytest

import fastconv as fc
from onnx_models import FLOAT, example, helper, model_of, onnx

fconnx = pytest.importorskip("fastconv.onnx")
node = helper.make_node

TABLE = """\
_________________________________________________________________
Layer (type)                 Output Shape              Param #
=================================================================
stem (Conv)                  (None, 6, 8, 7)           114
_________________________________________________________________
...ch/gate/Sigmoid (Sigmoid) (None, 6, 8, 7)           0
_________________________________________________________________
Mul_1 (Mul)                  (None, 6, 8, 7)           0
_________________________________________________________________
Shape_1 (Shape)              (4,)                      0
_________________________________________________________________
Reshape_1 (Reshape)          (None, 6, 8, 7)           0
_________________________________________________________________
pool (MaxPool)               (None, 6, 4, 3)           0
_________________________________________________________________
mean (GlobalAveragePool)     (None, 6, 1, 1)           0
_________________________________________________________________
Flatten_1 (Flatten)          (None, 6)                 0
_________________________________________________________________
MatMul_1 (MatMul)            (None, 5)                 30
=================================================================
Total params: 144
Trainable params: 144
Non-trainable params: 0
_________________________________________________________________
Multiply-adds: 6,078
Activation memory: 4,364 bytes per input"""


def loaded(batch="n"):
    """A network with nodes that have no name, one with a long name, and one that computes a shape."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"], "stem", group=2, pads=[1, 1, 1, 1], strides=[1, 1]),
        node("Sigmoid", ["a"], ["g"], "/encoder/layer.0/branch/gate/Sigmoid"),
        node("Mul", ["g", "g"], ["m"]),
        node("Shape", ["a"], ["shape"]),
        node("Reshape", ["m", "shape"], ["r"]),
        node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["p"], ["q"], "mean"),
        node("Flatten", ["q"], ["f"]),
        node("MatMul", ["f", "v"], ["y"]),
    ]
    arrays = {"w": example(6, 2, 3, 3), "b": example(6), "v": example(6, 5)}
    return fconnx.load(model_of(nodes, {"x": (FLOAT, [batch, 4, 8, 7])}, arrays=arrays))


def test_keras_table():
    assert str(fc.summary(loaded())) == TABLE
    assert str(fc.summary(loaded(), (4, 8, 7))) == TABLE
    assert str(fc.summary(loaded(batch=3))) == TABLE  # counts are of one input


def test_matlab_table():
    s = fc.summary(loaded(), style="matlab")
    lines = [[cell.strip() for cell in line[8:].split("  ") if cell.strip()] for line in str(s).splitlines()[2:12]]
    assert lines == [
        ["'InputLayer'", "Image Input", "8x7x4 images"],
        ["'stem'", "Grouped Convolution", "2 groups of 3 3x3x2 convolutions with stride [1 1] and padding [1 1 1 1]"],
        ["'/encoder/layer.0/branch/gate/Sigmoid'", "Sigmoid", "sigmoid"],
        ["'Mul_1'", "Mul", "Mul()"],
        ["'Shape_1'", "Shape", "Shape()"],
        ["'Reshape_1'", "Reshape", "Reshape()"],
        ["'pool'", "Max Pooling", "2x2 max pooling with stride [2 2] and padding [0 0 0 0]"],
        ["'mean'", "Global Average Pooling", "Global average pooling"],
        ["'Flatten_1'", "Flatten", "Flatten"],
        ["'MatMul_1'", "Fully Connected", "5 fully connected layer"],
    ]
    assert "Name: 'stem'" in s.layer(2) and "Weights: [3×3×2×3×2 single]" in s.layer(2)
    assert "InputSize: 6" in s.layer(10)


def test_rows():
    rows = fc.summary(loaded()).to_dict()["layers"]
    assert [row["operator"] for row in rows] == [n.op_type for n in loaded().nodes]
    assert [row["batched"] for row in rows] == [True] * 3 + [False] + [True] * 5
    assert [row["macs"] for row in rows if row["macs"]] == [6 * 56 * 18, 30]
    memory = [4 * 336, 4 * 336, 4 * 336, 0, 0, 4 * 72, 4 * 6, 0, 4 * 5]  # shapes and views take none
    assert [row["activation_bytes"] for row in rows] == memory


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v2"])
def test_the_counts_of_the_network_that_was_written(name, tmp_path):
    shape = (1, 32, 32) if name == "lenet5" else (3, 32, 32)
    model = fc.models.build(name).eval()
    fconnx.export(model, tmp_path / "model.onnx", np.zeros((1, *shape), np.float32))
    theirs, ours = fc.summary(fconnx.load(tmp_path / "model.onnx")), fc.summary(model, shape)
    assert (theirs.macs, theirs.parameters, theirs.input_shape) == (ours.macs, ours.parameters, shape)
    assert sum(row.parameters for row in theirs.rows) == theirs.parameters
    for kind in ("Conv", "Linear"):  # in the same order, with the same shapes and counts
        seen = [
            [(r.output_shape, r.parameters, r.macs) for r in s.rows if type(r.layer).__name__.startswith(kind)]
            for s in (theirs, ours)
        ]
        assert seen[0] == seen[1] and seen[0]


def test_other_operators_and_inputs():
    """Transposed and one-dimensional convolutions, Gemm, products of two activations, words as input."""
    nodes = [
        node("Gather", ["table", "words"], ["e"]),  # (n, 5, 4)
        node("Transpose", ["e"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["e", "t"], ["s"]),  # (n, 5, 5)
        node("ConvTranspose", ["s", "w"], ["u"], strides=[2]),  # (n, 3, 11)
        node("Add", ["u", "bias"], ["y"]),
    ]
    arrays = {"table": example(10, 4), "w": example(5, 3, 3), "bias": example(3, 1)}
    model = fconnx.load(model_of(nodes, {"words": (onnx.TensorProto.INT64, ["n", 5])}, arrays=arrays))
    s = fc.summary(model)
    assert [row.output_shape for row in s.rows] == [(5, 4), (4, 5), (5, 5), (3, 11), (3, 11)]
    assert [row.parameters for row in s.rows] == [40, 0, 0, 45, 3]
    assert [row.macs for row in s.rows] == [0, 0, 5 * 5 * 4, 5 * 5 * 3 * 3, 0]
    dense = model_of(
        [node("Gemm", ["x", "w", "b"], ["y"], transB=1)], {"x": (FLOAT, [1, 4])},
        arrays={"w": example(3, 4), "b": example(3)},
    )  # fmt: skip
    s = fc.summary(fconnx.load(dense))
    assert (s.macs, s.parameters, s.rows[0].layer.in_features) == (12, 15, 4)


def test_leaves_the_model_as_it_was():
    nodes = [node("BatchNormalization", ["x", "g", "b", "m", "v"], ["h"]), node("Dropout", ["h"], ["y"])]
    arrays = {"g": example(2), "b": example(2), "m": example(2), "v": np.ones(2, np.float32)}
    model = fconnx.load(model_of(nodes, {"x": (FLOAT, ["n", 2, 3, 3])}, arrays=arrays)).train()
    before, state = model.state_dict(), fc.random.get_state()
    s = fc.summary(model)
    assert [row.activation_bytes for row in s.rows] == [72, 0] and (s.parameters, s.trainable) == (4, 4)
    assert model.training and fc.random.get_state() == state
    assert all(np.array_equal(before[key], value) for key, value in model.state_dict().items())


def test_refusals():
    model = fconnx.load(model_of([node("Relu", ["x"], ["y"])], {"x": (FLOAT, ["n", 3, "h", "w"])}))
    with pytest.raises(fc.ProblemError, match=r"leaves the shape of the input 'x' open.*expected input_shape"):
        fc.summary(model)
    assert fc.summary(model, (3, 4, 5)).rows[0].output_shape == (3, 4, 5)
    with pytest.raises(fc.ProblemError, match="expected 4 axes"):
        fc.summary(model, (3, 4))
    with pytest.raises(fc.ProblemError, match="input_shape is None; expected the shape of one input"):
        fc.summary(fc.nn.ReLU())
