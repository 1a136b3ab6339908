# SPDX-License-Identifier: Apache-2.0
"""fastconv.onnx.export: every layer and operation, against the model itself, read back, and by ONNX Runtime."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
import fastconv.onnx
from fastconv import nn, ops
from fastconv.onnx.converters import CONVERTERS
from tolerance import assert_close

onnx = pytest.importorskip("onnx", reason="onnx comes with fastconv[onnx]")

SEED = 91
IMAGE, ROW, CUBE = (2, 6, 9, 8), (2, 6, 12), (2, 4, 5, 6, 7)
LAST = {"layout": "channels_last"}

# (name, model, shape of x). What a layer's name says is left out.
LAYERS = [
    ("Linear", lambda: nn.Linear(8, 5), (3, 8)),
    ("Linear of images", lambda: nn.Linear(8, 5, bias=False), IMAGE),
    ("Conv1d", lambda: nn.Conv1d(6, 4, 3, padding=2, dilation=2), ROW),
    ("Conv2d", lambda: nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=((1, 0), (2, 1)), groups=2), IMAGE),
    ("Conv2d same", lambda: nn.Conv2d(6, 4, 4, stride=2, padding="same", activation="relu"), IMAGE),
    ("Conv2d reflect", lambda: nn.Conv2d(6, 4, 3, padding=2, padding_mode="reflect"), IMAGE),
    ("Conv2d replicate", lambda: nn.Conv2d(6, 4, 3, padding=2, padding_mode="replicate"), IMAGE),
    ("Conv2d circular", lambda: nn.Conv2d(6, 4, 3, padding=2, padding_mode="circular", activation="silu"), IMAGE),
    ("Conv2d last", lambda: nn.Conv2d(6, 4, 3, padding=1, activation=("leaky_relu", 0.2), **LAST), (2, 9, 8, 6)),
    ("Conv3d", lambda: nn.Conv3d(4, 3, 2, padding=1), CUBE),
    ("ConvTranspose1d", lambda: nn.ConvTranspose1d(6, 4, 3, stride=2), ROW),
    ("ConvTranspose2d", lambda: nn.ConvTranspose2d(6, 4, 4, 2, 1, output_padding=1, groups=2), IMAGE),
    ("ConvTranspose2d last", lambda: nn.ConvTranspose2d(6, 4, 3, 2, 1, **LAST), (2, 9, 8, 6)),
    ("ConvTranspose3d", lambda: nn.ConvTranspose3d(4, 3, 3, 2, activation="relu"), CUBE),
    ("CausalConv1d", lambda: nn.CausalConv1d(6, 4, 3, dilation=2), ROW),
    ("BatchNorm1d", lambda: nn.BatchNorm1d(6), (4, 6)),
    ("BatchNorm2d", lambda: nn.BatchNorm2d(6), IMAGE),
    ("BatchNorm2d last", lambda: nn.BatchNorm2d(6, **LAST), (2, 9, 8, 6)),
    ("BatchNorm2d of the batch", lambda: nn.BatchNorm2d(6, track_running_stats=False), IMAGE),
    ("BatchNorm3d", lambda: nn.BatchNorm3d(4, affine=False), CUBE),
    ("GroupNorm", lambda: nn.GroupNorm(3, 6), IMAGE),
    ("GroupNorm last", lambda: nn.GroupNorm(3, 6, **LAST), (2, 9, 8, 6)),
    ("InstanceNorm1d", lambda: nn.InstanceNorm1d(6, affine=True), ROW),
    ("InstanceNorm2d", lambda: nn.InstanceNorm2d(6), IMAGE),
    ("InstanceNorm3d", lambda: nn.InstanceNorm3d(4), CUBE),
    ("LayerNorm", lambda: nn.LayerNorm((9, 8)), IMAGE),
    ("LocalResponseNorm", lambda: nn.LocalResponseNorm(5, 1e-2), IMAGE),
    ("LocalResponseNorm even", lambda: nn.LocalResponseNorm(4, 1e-2), IMAGE),
    ("LocalResponseNorm ONNX's", lambda: nn.LocalResponseNorm(4, 1e-2, extra="after"), IMAGE),
    ("LocalResponseNorm in the plane", lambda: nn.LocalResponseNorm(3, 1e-2, region="within_channel"), IMAGE),
    ("MaxPool1d", lambda: nn.MaxPool1d(3, 2), ROW),
    ("MaxPool2d", lambda: nn.MaxPool2d(3, 2, 1), IMAGE),
    ("MaxPool2d ceil", lambda: nn.MaxPool2d(4, 3, 1, ceil_mode=True), IMAGE),
    ("MaxPool2d dilated", lambda: nn.MaxPool2d(2, 1, 1, dilation=2), IMAGE),
    ("MaxPool3d", lambda: nn.MaxPool3d(2), CUBE),
    ("MinPool1d", lambda: nn.MinPool1d(3), ROW),
    ("MinPool2d", lambda: nn.MinPool2d(3, 2, 1), IMAGE),
    ("MinPool3d", lambda: nn.MinPool3d(2), CUBE),
    ("AvgPool1d", lambda: nn.AvgPool1d(3, 2, 1), ROW),
    ("AvgPool2d", lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE),
    ("AvgPool2d ceil", lambda: nn.AvgPool2d(4, 3, 1, ceil_mode=True), IMAGE),
    ("AvgPool2d divisor", lambda: nn.AvgPool2d(3, 2, 1, divisor_override=7), IMAGE),
    ("AvgPool3d", lambda: nn.AvgPool3d(2), CUBE),
    ("LPPool1d", lambda: nn.LPPool1d(2, 3), ROW),
    ("LPPool2d", lambda: nn.LPPool2d(3, 3, 2), IMAGE),
    ("LPPool2d of 1.5", lambda: nn.LPPool2d(1.5, 3, 2, ceil_mode=True), IMAGE),
    ("LPPool3d", lambda: nn.LPPool3d(1, 2), CUBE),
    ("AdaptiveAvgPool1d", lambda: nn.AdaptiveAvgPool1d(5), ROW),
    ("AdaptiveAvgPool2d", lambda: nn.AdaptiveAvgPool2d((4, 2)), IMAGE),
    ("AdaptiveAvgPool3d", lambda: nn.AdaptiveAvgPool3d((5, 2, 1)), CUBE),
    ("AdaptiveMaxPool1d", lambda: nn.AdaptiveMaxPool1d(4), ROW),
    ("AdaptiveMaxPool2d", lambda: nn.AdaptiveMaxPool2d((4, 3)), IMAGE),
    ("AdaptiveMaxPool3d", lambda: nn.AdaptiveMaxPool3d(2), CUBE),
    *((f"Global{kind}Pool{rank}d", lambda kind=kind, rank=rank: getattr(nn, f"Global{kind}Pool{rank}d")(), shape)
      for kind in ("Avg", "Max", "Min", "LP") for rank, shape in ((1, ROW), (2, IMAGE), (3, CUBE))),
    *((f"{mode}Pad{rank}d", lambda mode=mode, rank=rank: getattr(nn, f"{mode}Pad{rank}d")(2), shape)
      for mode in ("Circular", "Reflection", "Replication", "Zero")
     for rank, shape in ((1, ROW), (2, IMAGE), (3, CUBE))),
    ("ConstantPad1d", lambda: nn.ConstantPad1d((1, 2), 0.5), ROW),
    ("ConstantPad2d", lambda: nn.ConstantPad2d((1, -1, 2, 0), 0.5), IMAGE),
    ("ConstantPad3d", lambda: nn.ConstantPad3d(1, 0.5), CUBE),
    *((name, lambda name=name: getattr(nn, name)(), IMAGE) for name in (
        "CELU", "ELU", "GELU", "SELU", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid", "LogSoftmax",
        "Mish", "PReLU", "ReLU", "ReLU6", "Sigmoid", "SiLU", "Softmax", "Softplus", "Softsign", "Tanh", "Identity",
        "Dropout", "Dropout2d", "Flatten")),
    ("Dropout1d", lambda: nn.Dropout1d(), ROW),
    ("Dropout3d", lambda: nn.Dropout3d(), CUBE),
    ("GELU tanh", lambda: nn.GELU("tanh"), IMAGE),
    ("PReLU of channels", lambda: nn.PReLU(6, 0.1), IMAGE),
    ("Softplus thresholded", lambda: nn.Softplus(2.0, 1.0), IMAGE),
    ("Softmax of channels", lambda: nn.Softmax(1), IMAGE),
    ("Maxout", lambda: nn.Maxout(3), IMAGE),
    ("MaxoutLinear", lambda: nn.MaxoutLinear(8, 3), (4, 8)),
    ("Unflatten", lambda: nn.Unflatten(1, (2, -1)), IMAGE),
    ("Unfold", lambda: nn.Unfold((3, 2), 1, 1, 2), IMAGE),
    ("Fold", lambda: nn.Fold((5, 6), (2, 3)), (2, 12, 16)),
    ("Upsample", lambda: nn.Upsample(scale_factor=2), IMAGE),
    ("Upsample uneven", lambda: nn.Upsample((13, 5), mode="nearest-exact"), IMAGE),
    ("Upsample bilinear", lambda: nn.Upsample((12, 5), mode="bilinear"), IMAGE),
    ("Upsample bicubic", lambda: nn.Upsample((12, 5), mode="bicubic"), IMAGE),
    ("Upsample linear", lambda: nn.Upsample(30, mode="linear", align_corners=True), ROW),
    ("Upsample by 1.3", lambda: nn.Upsample(scale_factor=1.3, mode="bilinear"), IMAGE),
    ("Upsample area", lambda: nn.Upsample((4, 5), mode="area"), IMAGE),
    ("Upsample last", lambda: nn.Upsample(scale_factor=2, **LAST), (2, 9, 8, 6)),
    ("UpsamplingBilinear2d", lambda: nn.UpsamplingBilinear2d((20, 5)), IMAGE),
    ("UpsamplingNearest2d", lambda: nn.UpsamplingNearest2d((20, 5)), IMAGE),
]  # fmt: skip

FUNCTIONS = [
    ("residual", lambda x: fc.conv2d(x, FILTERS, padding=1, residual=x, activation="relu"), IMAGE),
    ("arithmetic", lambda x: (x * 2.0 - 1.0) / (ops.abs(x) + 1.5) + (-x) ** 2 - 3.0, IMAGE),
    ("powers", lambda x: ops.power(ops.abs(x) + 0.5, ops.sigmoid(x)), IMAGE),
    ("extremes", lambda x: ops.maximum(x, 0.3) + ops.minimum(x, ops.mean(x, (2, 3), True)), IMAGE),
    ("elementary", lambda x: ops.expm1(ops.sin(x)) + ops.log1p(ops.exp(ops.cos(x))) + ops.erf(x), IMAGE),
    ("roots", lambda x: ops.sqrt(x * x + 1.0) + ops.rsqrt(x * x + 1.0) + ops.log(ops.abs(x) + 1.0), IMAGE),
    ("slices", lambda x: x[:, 1:5:2, ::-1, -3:], IMAGE),
    ("places", lambda x: x[:, None, 2, ..., -1], IMAGE),
    ("indices", lambda x: x[:, np.array([5, 0, 0, -1])], IMAGE),
    ("take", lambda x: ops.take_along_axis(x, np.array([[0, 2, 1, 2], [3, 3, 0, 1]]), 1), (2, 4)),
    ("where", lambda x: ops.where(np.arange(8) % 3 == 0, x, -x), IMAGE),
    ("reductions", lambda x: ops.sum(x, (1, 3)) + ops.amax(x, (1, 3)) - ops.amin(x, (1, 3)), IMAGE),
    ("variance", lambda x: ops.var(x, (2, 3)) + ops.mean(x, (2, 3)), IMAGE),
    ("running sums", lambda x: ops.cumsum(x, 2), IMAGE),
    ("products", lambda x: ops.matmul(x, ops.swapaxes(x, 2, 3)), IMAGE),
    ("joined", lambda x: ops.concat([x, ops.roll(x, 1, 1), ops.flip(x, 2)], 1), IMAGE),
    ("stacked", lambda x: ops.stack(ops.chunk(x, 2, 1), 2), IMAGE),
    ("repeated", lambda x: ops.tile(ops.broadcast_to(x[:, :1], (2, 6, 9, 8)), (1, 1, 2, 1)), IMAGE),
    ("unpooled", lambda x: fc.max_unpool2d(*fc.max_pool2d(x, 2, return_indices=True), 2), (2, 6, 8, 10)),
    ("unpooled last", lambda x: fc.max_unpool2d(*fc.max_pool2d(x, 2, return_indices=True, **LAST), 2, **LAST),
     (2, 8, 10, 6)),
    ("antialiased", lambda x: ops.interpolate(x, (4, 3), mode="bicubic", antialias=True), IMAGE),
    ("steps", lambda x: ops.rounding.floor(x * 3.0) + ops.rounding.ceil(x) * ops.rounding.sign(x)
     + ops.rounding.round_to_even(x * 4.0), IMAGE),
    ("cast", lambda x: (x.astype(np.float64) * 2.0).astype(np.float32), IMAGE),
    ("halves", lambda x: ops.relu(x.astype(np.float16) * 2.0).astype(np.float32), IMAGE),
    ("several results", lambda x: (x + 1.0, ops.relu(x), x), IMAGE),
]  # fmt: skip
FILTERS = np.random.default_rng(SEED).standard_normal((6, 6, 3, 3)).astype(np.float32) / 8
EVERY = pytest.mark.parametrize(("name", "make", "shape"), LAYERS, ids=[n.replace(" ", "_") for n, *_ in LAYERS])


def example(shape, dtype=np.float32):
    return np.random.default_rng(SEED).standard_normal(shape).astype(dtype)


def randomised(model):
    """The model in evaluation mode, with statistics that are not 0 and 1, and gammas and betas likewise."""
    rng = np.random.default_rng(SEED)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        array = getattr(value, "data", value)
        array = value if isinstance(value, np.ndarray) else value.data
        if array.dtype.kind == "f" and array.ndim == 1:
            array[...] = rng.uniform(0.5, 1.5, array.shape) if name.endswith("var") else rng.normal(size=array.shape)
    return model.eval()


def results(y):
    return [np.asarray(t.data) for t in (y if isinstance(y, tuple) else (y,))]


def check(model, x, path, tier="model", **words):
    """Exported, read back and run by ONNX Runtime, also for another batch; the ModelProto."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime comes with fastconv[parity]")
    proto = fastconv.onnx.export(model, path, x, **words)
    again = fastconv.onnx.load(path)
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for batch in (x, np.concatenate([x, x[:1] * 0.5])) if words.get("dynamic_batch", True) else (x,):
        with fc.no_grad():
            expected, ours = results(model(fc.Tensor(batch))), results(again(batch))
        theirs = session.run(None, {session.get_inputs()[0].name: batch})
        for name, got in (("read back", ours), ("ONNX Runtime", theirs)):
            for actual, wanted in zip(got, expected, strict=True):
                assert actual.dtype == wanted.dtype
                assert_close(actual, wanted, tier, what=name)
    return proto


@EVERY
def test_layers(name, make, shape, tmp_path):
    check(randomised(make()), example(shape), tmp_path / "net.onnx")


@pytest.mark.parametrize(("name", "function", "shape"), FUNCTIONS, ids=[n.replace(" ", "_") for n, *_ in FUNCTIONS])
def test_functions(name, function, shape, tmp_path):
    check(function, example(shape), tmp_path / "net.onnx", dynamic_batch=name not in ("repeated", "take"))


def test_every_layer_is_tested():
    """But for containers, losses, and those of two inputs, which FUNCTIONS has."""
    exempt = {"Module", "ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "Sequential", "Parameter",
              "CausalStream", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"}  # fmt: skip
    layers = {n for n, v in vars(nn).items() if inspect.isclass(v) and not n.endswith("Loss")} - exempt
    assert not layers - {name.partition(" ")[0] for name, *_ in LAYERS}


def test_every_converter_is_used():
    from fastconv.graph import trace_graph

    applied = set()
    for _, make, shape in LAYERS:
        applied |= {c.function for c in trace_graph(make(), example(shape)).calls}
    for _, function, shape in FUNCTIONS:
        applied |= {c.function for c in trace_graph(function, example(shape)).calls}
    names = {f"{f.__module__.removeprefix('fastconv.ops.')}.{f.__name__}" for f in applied}
    assert names == CONVERTERS.keys()


# One of each kind; all of them take minutes.
QUICK = (
    "cifar_resnet20",
    "dncnn",
    "inception_naive",
    "keras_cifar_b",
    "lenet5",
    "squeezenet1_1",
    "upconv_7",
    "yolo_grid",
)


def test_networks_of_the_zoo(full, tmp_path):
    assert set(QUICK) <= set(fc.models.list())
    for name in fc.models.list() if full else QUICK:
        path = tmp_path / f"{name}.onnx"
        check(fc.models.build(name).eval(), example((1, *fc.models.input_shape(name))), path)
        path.unlink()


def test_weights_beside_the_file(tmp_path, monkeypatch):
    """What 2 GiB and more of weights need, tried on less."""
    monkeypatch.setattr("fastconv.onnx.writer._MOST_INLINE", 1000)
    model, x = fc.models.build("lenet5").eval(), example((1, 1, 32, 32))
    fastconv.onnx.export(model, tmp_path / "net.onnx", x)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    assert (tmp_path / "net.onnx").stat().st_size < 20_000 < (tmp_path / "net.onnx.data").stat().st_size
    with fc.no_grad():
        assert_close(fastconv.onnx.load(tmp_path / "net.onnx")(x).data, model(fc.Tensor(x)).data, "model")
    (tmp_path / "net.onnx.data").unlink()
    with pytest.raises(fc.ProblemError, match=r"'net\.onnx\.data' cannot be opened"):
        fastconv.onnx.load(tmp_path / "net.onnx")


def test_words_that_do_not_fit(tmp_path):
    x = example(IMAGE)
    with pytest.raises(fc.ProblemError, match="opset is 9; expected 18 to 23"):
        fastconv.onnx.export(ops.relu, None, x, opset=9)
    with pytest.raises(fc.ProblemError, match="expected one for all, or dynamic_batch=False"):
        fastconv.onnx.export(lambda x: ops.sum(x, 0), None, x)
    with pytest.raises(fc.ProblemError, match="expected at least one and at most 1"):
        fastconv.onnx.export(ops.relu, None, x, input_names=["a", "b"])
    with pytest.raises(fc.UnsupportedError, match="circular padding needs opset 19, got 18"):
        fastconv.onnx.export(nn.CircularPad2d(1), None, x, opset=18)

    class Odd(fc.Function):
        @staticmethod
        def forward(ctx, x):
            return x + 1

    with pytest.raises(fc.UnsupportedError, match="does not know how to write Odd as ONNX"):
        fastconv.onnx.export(Odd.apply, None, x)


@pytest.mark.parametrize("opset", [18, 19, 21, 22, 23])
def test_opsets(opset, tmp_path):
    layers = [
        nn.Conv2d(6, 6, 3, padding=1),
        nn.GroupNorm(2, 6),
        nn.GELU(),
        nn.GELU("tanh"),
        nn.AvgPool2d(3, 2, 1, True),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.MaxPool2d(2),
        nn.Mish(),
        nn.Flatten(),
    ]
    proto = check(randomised(nn.Sequential(*layers)), example(IMAGE), tmp_path / "net.onnx", opset=opset)
    assert proto.opset_import[0].version == opset
    assert ("Gelu" in {node.op_type for node in proto.graph.node}) == (opset >= 20)


def test_several_inputs_and_names(tmp_path):
    a, b = example(IMAGE), example(IMAGE) * 0.5
    proto = fastconv.onnx.export(lambda a, b: [a + b, a * b], tmp_path / "two.onnx", (a, b), input_names=["left"],
                                 output_names=["sum", "product"])  # fmt: skip
    assert [v.name for v in proto.graph.input] == ["left", "left_1"]
    assert [v.name for v in proto.graph.output] == ["sum", "product"]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    total, product = fastconv.onnx.load(tmp_path / "two.onnx")(a, b)
    assert np.array_equal(total.data, a + b) and np.array_equal(product.data, a * b)


def test_the_snippets_of_the_document_run(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).resolve().parent.parent / "docs" / "onnx.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    snippets, names = re.findall(r"```python\n(.*?)```", page, re.DOTALL), {}
    assert len(snippets) == 5
    for snippet in snippets:
        exec(compile(snippet, "onnx.md", "exec"), names)
    assert capsys.readouterr().out.startswith("('images',) ('scores',) 20 ")


def test_the_padding_of_pools_is_symmetric_where_that_adds_no_window(tmp_path):
    """What lies beyond the last window could be left out, but pnnx misreads a pooling padded at one end only."""
    x = np.ones((1, 2, 8, 8), np.float32)
    for layer in (nn.MaxPool2d(3, 2, padding=1), nn.AvgPool2d(3, 2, padding=1)):
        fastconv.onnx.export(layer, tmp_path / "pool.onnx", x)
        (node,) = [n for n in onnx.load(tmp_path / "pool.onnx").graph.node if n.op_type.endswith("Pool")]
        assert {a.name: list(a.ints) for a in node.attribute}["pads"] == [1, 1, 1, 1]
