# SPDX-License-Identifier: Apache-2.0
"""Everything but convolution in float16 and bfloat16: the tape, the operations, pooling, layers and optimisers.

What is one Function gives its float32 result rounded once, bit for bit, and so does each of its gradients. What is made
of several is compared with float32 up to a few roundings.
"""

import ml_dtypes
import numpy as np
import pytest

import fastconv as fc
from cases import HALVES, NUMPY_DTYPE, rng_for
from fastconv import half, ops
from op_table import OPS, inputs
from tolerance import assert_close, assert_exact, assert_same_bits

LABELS = np.array([0, 4, 2])

# name: (what is computed, shapes of the tensors). The first group: one Function each.
SINGLE = {
    "add": (ops.add, (3, 5), (3, 5)),
    "add with broadcasting": (ops.add, (3, 5), (5,)),
    "add a number": (lambda x: x + 0.1, (3, 5)),
    "mul": (ops.mul, (3, 5), (3, 1)),
    "mul by a number": (lambda x: 0.1 * x, (3, 5)),
    "div": (ops.div, (3, 5), (3, 5)),
    "power": (lambda x: x**3, (3, 5)),
    "exp": (ops.exp, (3, 5)),
    "sum": (lambda x: ops.sum(x, 0), (300, 5)),
    "mean": (lambda x: ops.mean(x, (0, 2)), (30, 5, 7)),
    "matmul": (ops.matmul, (2, 3, 64), (2, 64, 4)),
    "linear": (ops.linear, (3, 65), (4, 65), (4,)),
    "relu": (ops.relu, (3, 5)),
    "leaky_relu": (ops.leaky_relu, (3, 5)),
    "relu6": (ops.relu6, (3, 5)),
    "elu": (ops.elu, (3, 5)),
    "sigmoid": (ops.sigmoid, (3, 5)),
    "tanh": (ops.tanh, (3, 5)),
    "silu": (ops.silu, (3, 5)),
    "gelu": (ops.gelu, (3, 5)),
    "hard_swish": (ops.hard_swish, (3, 5)),
    "max": (lambda x: ops.max(x, 1), (3, 5)),
    "reshape": (lambda x: ops.reshape(x, 15), (3, 5)),
    "transpose": (ops.transpose, (3, 5)),
    "getitem": (lambda x: x[1:, ::2], (3, 5)),
    "getitem twice the same": (lambda x: x[[0, 1, 0, 0]], (3, 5)),
    "concat": (lambda a, b: ops.concat([a, b], 1), (3, 5), (3, 2)),
    "pad": (lambda x: ops.pad(x, ((1, 2), (0, 1)), 0.5), (3, 5)),
    "max_pool2d": (lambda x: fc.max_pool2d(x, 3, 2, 1), (2, 3, 7, 8)),
    "avg_pool2d": (lambda x: fc.avg_pool2d(x, 3, 2, 1), (2, 3, 7, 8)),
    "batch_norm": (lambda x, g, b: ops.batch_norm(x, None, None, g, b, True), (4, 3, 5, 5), (3,), (3,)),
    "conv2d": (lambda x, w, b: fc.conv2d(x, w, b, 2, 1), (2, 3, 7, 8), (4, 3, 3, 3), (4,)),
    "conv_transpose2d": (lambda x, w, b: fc.conv_transpose2d(x, w, b, 2, 1), (2, 4, 5, 6), (4, 3, 3, 3), (3,)),
}
COMPOSED = {
    "sub": (ops.sub, (3, 5), (3, 5)),
    "softmax": (ops.softmax, (3, 5)),
    "softmax over axis 0": (lambda x: ops.softmax(x, 0), (3, 5)),
    "log_softmax": (ops.log_softmax, (3, 5)),
    "cross_entropy": (lambda x: ops.cross_entropy(x, LABELS), (3, 5)),
    "cross_entropy of each": (lambda x: ops.cross_entropy(x, LABELS, reduction="none"), (3, 5)),
    "conv2d, relu": (lambda x, w: fc.conv2d(x, w, activation="relu"), (2, 3, 7, 8), (4, 3, 3, 3)),
    "conv1d, silu, residual": (
        lambda x, w, r: fc.conv1d(x, w, residual=r, activation="silu"),
        (2, 3, 7),
        (4, 3, 3),
        (2, 4, 5),
    ),
    "conv3d": (lambda x, w: fc.conv3d(x, w, layout="channels_last"), (1, 4, 5, 6, 3), (2, 3, 2, 2, 2)),
    "batch_norm, given statistics": (
        lambda x, m, v: ops.batch_norm(x, m.data, abs(v.data) + type(v.data[0])(1)),
        (4, 3, 5),
        (3,),
        (3,),
    ),
}


def tensors(name, shapes, dtype):
    """Halves, and the same numbers in float32."""
    rng = rng_for(name)
    halves = [rng.standard_normal(shape).astype(NUMPY_DTYPE[dtype]) for shape in shapes]
    return [[fc.Tensor(a, requires_grad=True) for a in arrays] for arrays in (halves, map(half.widen, halves))]


def both(name, case, dtype):
    """[(what, half result, float32 result)] of the value and of each gradient."""
    function, *shapes = case
    halves, singles = tensors(name, shapes, dtype)
    y, expected = function(*halves), function(*singles)
    assert y.dtype == NUMPY_DTYPE[dtype] and expected.dtype == np.float32
    dy = np.asarray(rng_for("dy").standard_normal(y.shape)).astype(y.dtype)
    y.backward(fc.Tensor(dy))
    expected.backward(fc.Tensor(half.widen(dy)))
    pairs = [("value", y, expected)]
    for i, (h, s) in enumerate(zip(halves, singles, strict=True)):
        assert (h.grad is None) == (s.grad is None)
        if h.grad is not None:
            assert h.grad.dtype == y.dtype and h.grad.shape == h.shape
            pairs.append((f"gradient {i}", h.grad, s.grad))
    return pairs


@pytest.mark.parametrize("dtype", HALVES)
def test_one_function_rounds_once(dtype):
    for name, case in SINGLE.items():
        for what, got, expected in both(name, case, dtype):
            rounded = half.narrow(expected.data, got.dtype)
            if what != "value" and name == "exp":
                # Its gradient is computed from y, which was rounded.
                assert_close(got.data.astype(np.float32), expected.data, "half", got.dtype, what=f"{what} of {name}")
            else:
                assert_same_bits(got.data + got.dtype.type(0), rounded + got.dtype.type(0), f"{what} of {name}")


@pytest.mark.parametrize("dtype", HALVES)
def test_several_functions_stay_close_to_float32(dtype):
    for name, case in COMPOSED.items():
        for what, got, expected in both(name, case, dtype):
            assert_close(got.data.astype(np.float32), expected.data, "half", got.dtype, what=f"{what} of {name}")


@pytest.mark.parametrize("dtype", HALVES)
def test_second_derivatives(dtype):
    """With create_graph the casts are part of the graph."""
    for name in ("sigmoid", "silu", "mul", "conv2d", "batch_norm", "linear"):
        function, *shapes = SINGLE[name]
        found = []
        for xs in tensors(name, shapes, dtype):
            y = function(*xs)
            weight = fc.Tensor(half.convert(rng_for("w").standard_normal(y.shape), y.dtype))
            (g,) = fc.grad((y * weight).sum(), xs[0], create_graph=True)
            wanted = xs[1 if name in ("linear", "conv2d", "mul") else 0]
            found.append(fc.grad((g * g).sum(), wanted)[0])
        got, expected = found
        assert got.dtype == NUMPY_DTYPE[dtype]
        assert_close(got.data.astype(np.float32), expected.data, "half model", got.dtype, what=name)


@pytest.mark.parametrize("dtype", HALVES)
def test_sums_and_means_are_float32s(dtype):
    """Ones beyond the half's range of integers; a mean whose sum would overflow float16."""
    ones = fc.Tensor(np.ones(5000, NUMPY_DTYPE[dtype]))
    assert ones.sum().item() == float(NUMPY_DTYPE[dtype](5000))
    large = fc.Tensor(np.full((300, 4), 1000, NUMPY_DTYPE[dtype]), requires_grad=True)
    mean = large.mean(0)
    assert_exact(mean.data, np.full(4, 1000.0))
    mean.backward(fc.Tensor(np.ones(4, NUMPY_DTYPE[dtype])))
    assert_exact(large.grad.data, np.full((300, 4), 1 / 300).astype(NUMPY_DTYPE[dtype]))


@pytest.mark.parametrize("dtype", HALVES)
def test_tensors(dtype):
    values = np.arange(6, dtype=NUMPY_DTYPE[dtype]).reshape(2, 3)
    x = fc.Tensor(values, requires_grad=True)
    assert x.astype(values.dtype) is x and "dtype=" + values.dtype.name in repr(x)
    y = x.astype(np.float32)
    assert y.dtype == np.float32
    (y * 0.25).sum().backward()
    assert x.grad.dtype == values.dtype
    assert_exact(x.grad.data, np.full((2, 3), 0.25))
    assert x.astype(np.int64).dtype == np.int64 and not x.astype(np.int64).requires_grad
    assert x.astype("bfloat16").dtype == ml_dtypes.bfloat16
    assert fc.Tensor(np.ones(2), requires_grad=True).astype(values.dtype).dtype == values.dtype
    for operate in (ops.add, ops.mul, ops.div):
        with pytest.raises(TypeError, match="the operands have dtypes"):
            operate(x, fc.Tensor(np.ones((2, 3), np.float32)))
    with pytest.raises(TypeError, match="w has dtype float32"):
        ops.linear(x, fc.Tensor(np.ones((2, 3), np.float32)))
    with pytest.raises(TypeError, match="data type 'half16' not understood"):
        x.astype("half16")


@pytest.mark.parametrize("dtype", HALVES)
def test_pooling_of_arrays(dtype):
    """Maxima are exact, means rounded once; indices as in float32; views, one image, an empty batch."""
    x = rng_for(dtype).standard_normal((2, 3, 9, 8)).astype(NUMPY_DTYPE[dtype])
    for view in (x, x[0], x[:0], x[:, ::-1, ::2], np.moveaxis(x, 1, -1)):
        wide = np.ascontiguousarray(view).astype(np.float32)
        y, at = fc.max_pool2d(view, 2, 1, return_indices=True)
        expected, places = fc.max_pool2d(wide, 2, 1, return_indices=True)
        assert y.dtype == x.dtype and at.dtype == np.int64
        assert_exact(y, expected)
        assert_exact(at, places)
        dx = fc.max_pool2d_backward(y, at, view.shape)
        assert_exact(dx, fc.max_pool2d_backward(expected, places, view.shape).astype(x.dtype))
        mean, plain = fc.avg_pool2d(view, 3, 2, 1), fc.avg_pool2d(wide, 3, 2, 1)
        assert mean.dtype == x.dtype
        assert_exact(mean, plain.astype(x.dtype))
        assert_exact(
            fc.avg_pool2d_backward(mean, view.shape, 3, 2, 1),
            fc.avg_pool2d_backward(mean.astype(np.float32), view.shape, 3, 2, 1).astype(x.dtype),
        )


@pytest.mark.parametrize("dtype", HALVES)
def test_the_bias_gradient_of_arrays(dtype):
    for layout in ("channels_first", "channels_last"):
        x, w = np.ones((2, 6, 6, 6), NUMPY_DTYPE[dtype]), np.ones((4, 6, 3, 3), NUMPY_DTYPE[dtype])
        dy = fc.conv2d(x, w, padding=1, layout=layout)
        _, _, db = fc.conv2d_backward(dy, x, w, padding=1, layout=layout)
        expected = dy.astype(np.float64).sum((0, 2, 3) if layout == "channels_first" else (0, 1, 2))
        assert_exact(db, expected.astype(np.float32).astype(dy.dtype))


def network(dtype):
    fc.manual_seed(3)
    layers = [fc.nn.Conv2d(1, 4, 3, padding=1), fc.nn.BatchNorm2d(4), fc.nn.ReLU(), fc.nn.MaxPool2d(2)]
    layers += [fc.nn.Conv2d(4, 8, 3), fc.nn.SiLU(), fc.nn.AvgPool2d(2), fc.nn.Flatten(), fc.nn.Linear(32, 3)]
    return fc.nn.Sequential(*layers).to(dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_training(dtype, optimizer):
    """A small network learns in a half as in float32; the optimiser's state is float32."""
    x, labels = rng_for("train").standard_normal((12, 1, 12, 12)), np.arange(12) % 3
    losses = {}
    for kind in (np.dtype(np.float32), np.dtype(NUMPY_DTYPE[dtype])):
        model = network(kind)
        words = {"lr": 0.1, "momentum": 0.9} if optimizer == "SGD" else {"lr": 0.02}
        steps = getattr(fc.optim, optimizer)(model.parameters(), **words)
        loss_of = fc.nn.CrossEntropyLoss()
        found = []
        for _ in range(12):
            steps.zero_grad()
            loss = loss_of(model(fc.Tensor(x.astype(kind))), labels)
            loss.backward()
            steps.step()
            found.append(loss.item())
        assert all(p.dtype == kind and p.grad.dtype == kind for p in model.parameters())
        assert all(v.dtype == np.float32 for s in steps.state.values() for v in s.values() if np.ndim(v))
        losses[kind.name] = found
    single, found = losses.pop("float32"), next(iter(losses.values()))
    assert abs(found[0] - single[0]) < 0.02 and abs(found[-1] - single[-1]) < 0.1 and found[-1] < 0.5 * found[0]


@pytest.mark.parametrize("dtype", HALVES)
def test_a_step_rounds_the_parameter_once(dtype):
    w, g = (rng_for(name).standard_normal(50).astype(NUMPY_DTYPE[dtype]) for name in ("w", "g"))
    p = fc.nn.Parameter(w.copy())
    single = fc.nn.Parameter(w.astype(np.float32))
    for steps in (fc.optim.SGD, fc.optim.Adam):
        p.data[...], single.data[...] = w, w.astype(np.float32)
        kept, version = p.data, p.version
        for parameter, gradient in ((p, g), (single, g.astype(np.float32))):
            parameter.grad = fc.Tensor(gradient)
            steps([parameter], lr=0.1, weight_decay=0.01).step()
        assert p.data is kept and p.version == version + 1
        assert_exact(p.data, single.data.astype(w.dtype))


def test_modules_change_their_dtype():
    model = network(np.float32)
    for change, dtype in (("half", np.float16), ("bfloat16", ml_dtypes.bfloat16), ("double", np.float64),
                          ("float", np.float32)):  # fmt: skip
        assert getattr(model, change)() is model
        assert {np.dtype(p.dtype) for p in model.parameters()} == {np.dtype(dtype)}
        assert model[1].running_mean.dtype == dtype and model[1].num_batches_tracked.dtype == np.int64
    assert model.to("bf16")[0].weight.dtype == ml_dtypes.bfloat16
    with pytest.raises(TypeError, match=r"Sequential.to: dtype is int64; expected a floating one"):
        model.to(np.int64)
    assert fc.nn.Conv2d(1, 2, 3, dtype=ml_dtypes.bfloat16).weight.dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize("dtype", HALVES)
def test_batch_norm_keeps_statistics(dtype):
    """Statistics of the batch are float32's; running ones have the module's dtype, rounded once a step."""
    x = (rng_for("bn").standard_normal((8, 3, 6, 6)) * 3 + 5).astype(NUMPY_DTYPE[dtype])
    layers = [fc.nn.BatchNorm2d(3).to(kind) for kind in (x.dtype, np.float32)]
    for layer, values in zip(layers, (x, x.astype(np.float32)), strict=True):
        layer(fc.Tensor(values))
    for name in ("running_mean", "running_var"):
        got, expected = (getattr(layer, name) for layer in layers)
        assert got.dtype == x.dtype
        assert_close(got.astype(np.float32), expected, "half", x.dtype, what=name)


def test_in_float32_leaves_alone_what_is_no_half():
    seen = []

    @half.in_float32
    def record(*args, **keywords):
        seen.append([getattr(a, "dtype", None) for a in (*args, *keywords.values())])
        return args[0], np.arange(3), "text"

    h, s = np.ones(2, np.float16), np.ones(2, np.float32)
    first, indices, text = record(h, 3, "same", key=h)
    assert first.dtype == np.float16 and indices.dtype == np.int64 and text == "text"
    assert record(s, s)[0] is s and record(h, s)[0] is h and record(h, h.astype(ml_dtypes.bfloat16))[0] is h
    single, halves, bf16 = (np.dtype(d) for d in (np.float32, np.float16, ml_dtypes.bfloat16))
    assert seen == [[single, None, None, single], [single, single], [halves, single], [halves, bf16]]


@pytest.mark.parametrize("dtype", HALVES)
def test_checkpoints_keep_the_bits(dtype, tmp_path):
    model = network(NUMPY_DTYPE[dtype])
    steps = fc.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(fc.Tensor(np.ones((2, 1, 12, 12), NUMPY_DTYPE[dtype]))).sum().backward()
    steps.step()
    fc.train.save_checkpoint(tmp_path / "run.npz", fc.train.Checkpoint(model.state_dict(), steps.state_dict()))
    loaded = fc.train.load_checkpoint(tmp_path / "run.npz")
    for name, value in model.state_dict().items():
        assert_same_bits(loaded.model[name], value, name)
    again = network(NUMPY_DTYPE[dtype])
    again.load_state_dict(loaded.model)
    assert_same_bits(again[0].weight.data, model[0].weight.data)
    fc.optim.SGD(again.parameters(), lr=0.1, momentum=0.9).load_state_dict(loaded.optimizer)


@pytest.mark.parametrize("dtype", HALVES)
def test_filters_compute_arrays_in_float32(dtype):
    """As documented there: a half image gives float32; a tensor stays what it is."""
    image = rng_for("image").standard_normal((9, 8)).astype(NUMPY_DTYPE[dtype])
    kernel = rng_for("kernel").standard_normal((3, 3)).astype(NUMPY_DTYPE[dtype])
    expected = fc.correlate(image.astype(np.float32), kernel.astype(np.float32))
    assert_same_bits(fc.correlate(image, kernel), expected)
    recorded = fc.correlate(fc.Tensor(image, requires_grad=True), kernel)
    assert recorded.dtype == image.dtype
    assert_close(recorded.data.astype(np.float32), expected, "half", image.dtype)


def test_half_tensors_take_no_native_shortcut():
    """Natively only float32 and float64 are computed by what is no convolution: a half there is an error, not noise."""
    from fastconv import _core

    for array in (np.ones((2, 2), np.float16), np.ones((2, 2), ml_dtypes.bfloat16)):
        for call in (lambda a: _core.add(a, a), _core.softmax_forward, lambda a: _core.activation_forward("relu", a)):
            with pytest.raises(TypeError, match="expected float32 or float64"):
                call(array)


@pytest.mark.parametrize("dtype", HALVES)
def test_clipping_gradients(dtype):
    g = (rng_for("clip").standard_normal(40) * 3).astype(NUMPY_DTYPE[dtype])
    p, single = (fc.nn.Parameter(np.zeros(40, kind)) for kind in (g.dtype, np.float32))
    for clip, limit in ((fc.optim.clip_grad_norm_, 2.0), (fc.optim.clip_grad_value_, 1.5)):
        p.grad, single.grad = fc.Tensor(g), fc.Tensor(g.astype(np.float32))
        assert clip(p, limit) == clip(single, limit)
        assert p.grad.dtype == g.dtype
        assert_exact(p.grad.data, single.grad.data.astype(g.dtype))


@pytest.mark.parametrize("dtype", HALVES)
def test_every_operation_of_the_table(dtype):
    """Value and gradients of everything in op_table.py, on the same numbers in the half and in float32."""
    count = 0
    for op in OPS:
        for case, shapes in enumerate(op.shapes):
            halves = [a.astype(NUMPY_DTYPE[dtype]) for a in inputs(op, case, "f32")]
            found = []
            for arrays in (halves, [half.widen(a) for a in halves]):
                xs = [fc.Tensor(a, requires_grad=True) for a in arrays]
                y = op.ours(*xs)
                dy = half.convert(np.asarray(rng_for(op.name).standard_normal(y.shape)).astype(np.float32), y.dtype)
                y.backward(fc.Tensor(half.convert(half.convert(dy, NUMPY_DTYPE[dtype]), y.dtype)))
                found.append([("value", y), *((f"gradient {i}", x.grad) for i, x in enumerate(xs))])
            for (what, got), (_, expected) in zip(*found, strict=True):
                assert (got is None) == (expected is None), f"{op.name} {shapes}: {what}"
                if got is None:
                    continue
                kept = got.dtype == (np.float64 if op.name == "astype" and what == "value" else NUMPY_DTYPE[dtype])
                assert kept, f"{op.name} {shapes}: {what} is {got.dtype}"
                scale = max((float(np.abs(half.widen(a)).max(initial=0)) for a in halves), default=0.0)
                assert_close(
                    np.asarray(got.data).astype(np.float32),
                    np.asarray(expected.data).astype(np.float32),
                    "half",
                    NUMPY_DTYPE[dtype],
                    scale,
                    f"{op.name} {shapes}: {what}",
                )
                count += 1
    assert count > 1000
