# SPDX-License-Identifier: Apache-2.0
"""Files that are no models, or want something that they must not have: each is refused in one sentence."""

import os

import numpy as np
import pytest

import fastconv as fc
import fastconv.onnx
from fastconv import nn
from onnx_models import FLOAT, example, helper, model_of, numpy_helper, onnx
from tolerance import assert_exact

RELU = helper.make_node("Relu", ["x"], ["y"], name="act")
IN = {"x": (FLOAT, [1])}


def with_two_initializers():
    proto = model_of([RELU], IN)
    proto.graph.initializer.extend([numpy_helper.from_array(np.ones(1), "w")] * 2)
    return proto


# (what is wrong, model, what the error says).
WRONG = [
    ("operator", model_of([helper.make_node("Det", ["x"], ["y"], name="d")], IN), "Det node 'd': .*operator Det"),
    ("no name", model_of([helper.make_node("Det", ["x"], ["y"])], IN), r"Det node of \('y',\)"),
    ("attribute", model_of([helper.make_node("Relu", ["x"], ["y"], name="a", slope=1.0)], IN), "the attribute 'slope'"),
    ("domain", model_of([helper.make_node("Relu", ["x"], ["y"], domain="com.me")], IN), "domain 'com.me'"),
    ("opset", model_of([RELU], IN, opset=99), "opset 99; fastconv knows 1 to"),
    ("too many inputs", model_of([helper.make_node("Relu", ["x", "x"], ["y"])], IN), "2 inputs"),
    ("too few inputs", model_of([helper.make_node("Add", ["x"], ["y"])], IN), "1 inputs.*missing"),
    ("left out", model_of([helper.make_node("Add", ["x", ""], ["y"])], IN), "the input 'b' is left out"),
    ("left out of many", model_of([helper.make_node("Sum", ["x", ""], ["y"])], IN), "the input 'others' is left out"),
    ("cycle", model_of([helper.make_node("Add", ["x", "y"], ["z"], name="n"), helper.make_node("Relu", ["z"], ["y"])],
                       IN), "Add node 'n': reads 'y', but a node that comes later gives it: a cycle"),
    ("itself", model_of([helper.make_node("Add", ["x", "y"], ["y"])], IN), "a cycle"),
    ("nothing gives it", model_of([helper.make_node("Add", ["x", "q"], ["y"])], IN), "reads 'q', but nothing gives it"),
    ("twice", model_of([RELU, RELU], IN), "gives 'y', which is there already"),
    ("no output", model_of([RELU], IN, ("q",)), "no node gives the output 'q'"),
    ("outputs", model_of([RELU], IN, ()), "the graph has no outputs"),
    ("two initializers", with_two_initializers(), "has no name, or there are two"),
    ("text", model_of([RELU], {"x": (onnx.TensorProto.STRING, [1])}), "'x' has data type STRING"),
    ("subgraph", model_of([helper.make_node("Relu", ["x"], ["y"], name="a", g=helper.make_graph([], "h", [], []))], IN),
     "'g' is of the kind GRAPH"),
]  # fmt: skip


@pytest.mark.parametrize("row", WRONG, ids=[row[0].replace(" ", "_") for row in WRONG])
def test_wrong_models_are_refused(row):
    with pytest.raises((fc.ProblemError, fc.UnsupportedError), match=row[2]) as error:
        fastconv.onnx.load(row[1].SerializeToString())
    assert str(error.value).startswith("load: the bytes: ") and "\n" not in str(error.value)


def test_an_attribute_of_another_kind():
    """Refused when the node runs, and no obstacle before that."""
    nodes = [helper.make_node("Constant", [], ["c"], value=[1, 2]), helper.make_node("Add", ["x", "c"], ["y"])]
    model = fastconv.onnx.load(model_of(nodes, IN))
    with pytest.raises(
        fc.ProblemError, match=r"Constant node of \('c',\): the attribute 'value' is a tuple; expected a tensor"
    ):
        model(np.zeros(1, np.float32))


def test_what_the_native_module_says_is_one_line():
    nodes = [helper.make_node("BatchNormalization", ["x", *"wbmv"], ["y"], epsilon=[1])]
    arrays = dict.fromkeys("wbmv", np.ones(2, np.float32))
    model = fastconv.onnx.load(model_of(nodes, {"x": (FLOAT, [1, 2, 1])}, arrays=arrays))
    with pytest.raises(fc.ProblemError, match=r"BatchNormalization node .*: TypeError: ") as error:
        model(np.ones((1, 2, 1), np.float32))
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_names_that_are_no_text():
    data = model_of([RELU, helper.make_node("LeakyRelu", ["y"], ["zzzz"])], IN, ("zzzz",)).SerializeToString()
    with pytest.raises(fc.ProblemError, match="a name in it is not UTF-8"):
        fastconv.onnx.load(data.replace(b"zzzz", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(fc.UnsupportedError, match=r"'Leaky\\nelu' node of \('zzzz',\)"):
        fastconv.onnx.load(data.replace(b"LeakyRelu", b"Leaky\nelu"))


def test_declared_sizes_are_compared_with_the_bytes():
    for dims, change, match in (
        ([2, 3], {}, "16 bytes; expected 24"),
        ([2**40], {}, "declares"),
        ([2**31, 2**31, 2**31], {}, "declares"),
        ([-1], {}, "expected at most 32 of 0 or more"),
        ([1] * 40, {}, "expected at most 32"),
        ([4], {"raw_data": b"", "float_data": [1.0]}, "1 numbers in float_data; expected 4"),
        ([4], {"data_type": 17}, "FLOAT8E4M3FN"),
        ([4], {"data_type": 99}, "data type 99"),
    ):
        proto = model_of([helper.make_node("Add", ["x", "w"], ["y"])], IN, arrays={"w": np.ones(4, np.float32)})
        tensor = proto.graph.initializer[0]
        tensor.dims[:] = dims
        if "raw_data" in change:
            tensor.ClearField("raw_data")
            tensor.float_data[:] = change["float_data"]
        tensor.data_type = change.get("data_type", FLOAT)
        with pytest.raises((fc.ProblemError, fc.UnsupportedError), match=match):
            fastconv.onnx.load(proto)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32",
                                   "uint32", "int64", "uint64", "bool"])  # fmt: skip
def test_numbers_in_their_fields(dtype):
    values = np.array([0, 1, 5], dtype)
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    tensor = helper.make_tensor("w", kind, [3], values)
    assert not tensor.HasField("raw_data")
    proto = model_of([helper.make_node("Identity", ["w"], ["y"])], {})
    proto.graph.initializer.append(tensor)
    y = fastconv.onnx.load(proto)()
    assert_exact(np.asarray(y.data if isinstance(y, fc.Tensor) else y), values)


BOMBS = [
    helper.make_node("ConstantOfShape", ["huge"], ["y"]),
    helper.make_node("Expand", ["one", "huge"], ["y"]),
    helper.make_node("Tile", ["one2", "huge"], ["y"]),
    helper.make_node("Pad", ["one2", "pads"], ["y"]),
    helper.make_node("Range", ["zero", "big", "unit"], ["y"]),
    helper.make_node("OneHot", ["huge", "big", "values"], ["y"]),
    helper.make_node("Resize", ["one2", "", "", "huge"], ["y"]),
    helper.make_node("Resize", ["one2", "", "scales"], ["y"]),
    helper.make_node("Conv", ["image", "image"], ["y"], pads=[2**30] * 4),
    helper.make_node("ConvTranspose", ["image", "image"], ["y"], strides=[2**30] * 2, output_padding=[2**29] * 2),
    helper.make_node("MaxPool", ["image"], ["y"], kernel_shape=[2**20] * 2, pads=[2**20 - 1] * 4),
    helper.make_node("AveragePool", ["image"], ["y"], kernel_shape=[2**20] * 2, pads=[2**20 - 1] * 4),
    helper.make_node("MaxUnpool", ["image", "places"], ["y"], kernel_shape=[2**30] * 2),
    helper.make_node("Col2Im", ["row", "huge", "unit2"], ["y"]),
    helper.make_node("CenterCropPad", ["one2", "huge"], ["y"]),
]
BOMB_ARRAYS = {
    "huge": np.array([2**31, 2**31]), "one": np.ones(1, np.float32), "one2": np.ones((1, 1), np.float32),
    "pads": np.array([2**40, 0, 0, 2**40]), "zero": np.int64(0), "big": np.int64(2**50), "unit": np.int64(1),
    "values": np.array([0.0, 1.0], np.float32), "scales": np.array([1e9, 1e9], np.float32),
    "image": np.ones((1, 1, 1, 1), np.float32), "places": np.zeros((1, 1, 1, 1), np.int64),
    "row": np.ones((1, 1, 1), np.float32), "unit2": np.array([1, 1]),
}  # fmt: skip


@pytest.mark.parametrize("node", BOMBS, ids=[f"{n.op_type}-{i}" for i, n in enumerate(BOMBS)])
def test_a_small_file_cannot_ask_for_any_size(node):
    arrays = {name: BOMB_ARRAYS[name] for name in node.input if name}
    model = fastconv.onnx.load(model_of([node], {}, arrays=arrays))
    with pytest.raises(fc.ProblemError, match=rf"{node.op_type} node .*max_bytes=4294967296"):
        model()


def test_sizes_that_grow_from_node_to_node():
    """Doubled again and again, and outer sums and products: each is refused before it is made."""
    double = [helper.make_node("Concat", [f"v{i}", f"v{i}"], [f"v{i + 1}"], axis=0) for i in range(40)]
    model = fastconv.onnx.load(model_of(double, {"v0": (FLOAT, [1])}, ("v40",)), max_bytes=2**16)
    with pytest.raises(fc.ProblemError, match="max_bytes=65536"):
        model(np.ones(1, np.float32))
    for op_type in ("Add", "Mul", "Equal", "Max", "MatMul"):
        node = helper.make_node(op_type, ["a", "b"], ["y"])
        shapes = {"a": (FLOAT, [1000, 1]), "b": (FLOAT, [1, 1000])}
        model = fastconv.onnx.load(model_of([node], shapes), max_bytes=2**16)
        with pytest.raises(fc.ProblemError, match="max_bytes=65536"):
            model(example(1000, 1), example(1, 1000))
    with pytest.raises(fc.ProblemError, match="'w' declares 4000 bytes; expected at most max_bytes=100"):
        arrays = {"w": np.ones(1000, np.float32)}
        fastconv.onnx.load(model_of([helper.make_node("Identity", ["w"], ["y"])], {}, arrays=arrays), max_bytes=100)


def test_every_truncation_is_one_error():
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))
    data = fastconv.onnx.export(model, None, example(1, 1, 8, 8)).SerializeToString()
    x, failed = example(1, 1, 8, 8), 0
    for length in (*range(0, 400, 7), *range(400, len(data), 97)):
        try:
            fastconv.onnx.load(data[:length])(x)
        except (fc.ProblemError, fc.UnsupportedError, TypeError) as error:
            failed += 1
            assert "\n" not in str(error)
    assert failed > 50


def test_what_is_no_model(tmp_path):
    with pytest.raises(fc.ProblemError, match="the bytes: not an ONNX model"):
        fastconv.onnx.load(b"no model at all")
    with pytest.raises(fc.ProblemError, match="not an ONNX model, there is no graph"):
        fastconv.onnx.load(b"")
    with pytest.raises(TypeError, match=r"expected a path, bytes or an onnx\.ModelProto"):
        fastconv.onnx.load(42)
    with pytest.raises(OSError, match=r"none\.onnx"):
        fastconv.onnx.load(tmp_path / "none.onnx")


def with_external(location, offset=None, length=None):
    """A model whose only weight lies in a file; the location is written as it is."""
    proto = model_of([helper.make_node("Add", ["x", "w"], ["y"])], IN, arrays={"w": np.arange(4, dtype=np.float32)})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return proto.SerializeToString()


@pytest.fixture
def folder(tmp_path):
    """A model's folder, and secrets beside it."""
    inside = tmp_path / "model"
    (inside / "deep").mkdir(parents=True)
    numbers = np.arange(8, dtype=np.float32)
    numbers.tofile(inside / "w.bin")
    numbers.tofile(inside / "deep" / "w.bin")
    numbers.tofile(tmp_path / "secret.bin")
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "near.bin").symlink_to("w.bin")
    (inside / "up").symlink_to(tmp_path)
    os.mkfifo(inside / "pipe.bin")
    return inside


def test_external_data(folder):
    path, x = folder / "m.onnx", np.zeros(1, np.float32)
    for location, words, expected in (
        ("w.bin", {}, [0, 1, 2, 3]),
        ("deep/w.bin", {"offset": 8, "length": 16}, [2, 3, 4, 5]),
        ("./w.bin", {"offset": 16}, [4, 5, 6, 7]),
    ):
        data = with_external(location, **words)
        path.write_bytes(data)
        assert fastconv.onnx.load(path)(x).tolist() == expected
        assert fastconv.onnx.load(data, folder=folder)(x).tolist() == expected
    with pytest.raises(fc.ProblemError, match="expected a model that was loaded from a path"):
        fastconv.onnx.load(with_external("w.bin"))


@pytest.mark.parametrize(("location", "words", "match"), [
    ("../secret.bin", {}, "expected a file in the model's own folder"),
    ("deep/../../secret.bin", {}, "expected a file in the model's own folder"),
    ("..\\secret.bin", {}, "expected a file in the model's own folder"),
    ("/etc/passwd", {}, "expected a file in the model's own folder"),
    ("", {}, "expected a file in the model's own folder"),
    ("w.bin\0", {}, "expected a file in the model's own folder"),
    ("link.bin", {}, "symbolic link"),
    ("near.bin", {}, "symbolic link"),
    ("up/secret.bin", {}, "symbolic link"),
    ("pipe.bin", {}, "no plain file"),
    ("deep", {}, "no plain file"),
    ("none.bin", {}, "cannot be opened"),
    ("w.bin", {"offset": 20}, "takes bytes 20 to 36"),
    ("w.bin", {"offset": -4}, "takes bytes -4"),
    ("w.bin", {"offset": "first"}, "not a number"),
    ("w.bin", {"length": 12}, "12 bytes of external data; expected 16"),
])  # fmt: skip
def test_external_data_that_is_refused(folder, location, words, match):
    path = folder / "m.onnx"
    path.write_bytes(with_external(location, **words))
    with pytest.raises(fc.ProblemError, match=match) as error:
        fastconv.onnx.load(path)
    assert "the initializer 'w'" in str(error.value)
