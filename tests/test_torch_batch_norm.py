# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation of fastconv.torch beside PyTorch's own: values, gradients of two orders, running statistics, all
options, what stays torch's, compilers, and accelerate and patch."""

import contextlib
import copy
import io
import pickle
import types

import pytest

from tolerance import assert_close, assert_exact

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')

import fastconv as fc  # noqa: E402
import fastconv.torch as fct  # noqa: E402
from fastconv.torch import batch_norm, measuring, swapping  # noqa: E402
from torch_programs import QUICK, images, kinds, network  # noqa: E402

stock, ours = torch.nn.functional.batch_norm, fct.functional.batch_norm
SHAPES = {1: (4, 6), 2: (5, 6, 7), 3: (3, 6, 5, 4), 4: (2, 6, 3, 4, 5)}  # by axes beside N
OPTIONS = [
    {},
    {"momentum": None},
    {"momentum": 0.7, "eps": 1e-2},
    {"affine": False},
    {"track_running_stats": False},
    {"affine": False, "track_running_stats": False},
]


class Calls(torch.utils._python_dispatch.TorchDispatchMode):
    """Makes calls go through torch's dispatcher, and counts those of our ops."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "fastconv":
            self.names.append(func._schema.name.partition("::")[2])
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def native(monkeypatch):
    """The shapes that our kernels were called with."""
    seen = []
    forward = batch_norm._forward
    monkeypatch.setattr(batch_norm, "_forward", lambda x, *rest: seen.append(tuple(x.shape)) or forward(x, *rest))
    return seen


def pair(rank, dtype=torch.float64, **words):
    """(ours, torch's) with equal random parameters, not shared."""
    theirs = getattr(torch.nn, f"BatchNorm{rank}d")(6, **words).to(dtype)
    for p in theirs.parameters():
        torch.nn.init.uniform_(p, -1, 2)
    return getattr(fct.nn, f"BatchNorm{rank}d").from_torch(copy.deepcopy(theirs)), theirs


def answers(layer, x, steps=2):
    """Output, gradients of two orders and buffers after some steps in training."""
    for _ in range(steps):
        y = layer(x)
        leaves = [x, *layer.parameters()]
        first = torch.autograd.grad((y**3).sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum((g**2).sum() for g in first), leaves)
    return [t.detach().double().numpy() for t in (y, *first, *second, *layer.buffers())]


@pytest.mark.parametrize("words", OPTIONS, ids=str)
@pytest.mark.parametrize("axes", SHAPES)
@pytest.mark.parametrize("call", ["eager", "op"])
def test_layers_compute_what_torchs_do(native, axes, words, call):
    layer, theirs = pair(max(1, axes - 1), **words)
    assert isinstance(layer, type(theirs)) and repr(layer) == repr(theirs)
    x = torch.randn(SHAPES[axes], dtype=torch.float64, requires_grad=True)
    with Calls() if call == "op" else contextlib.nullcontext() as calls:
        found = answers(layer, x)
    assert len(native) == 2 and (call == "eager" or set(calls.names) == {"batch_norm", "batch_norm_backward"})
    for mine, other in zip(found, answers(theirs, x), strict=True):
        assert_close(mine, other, "network")
    y, expected = layer.eval()(x), theirs.eval()(x)
    assert len(native) == (2 if layer.track_running_stats else 3)  # by running statistics it is torch's
    assert_close(y.detach().numpy(), expected.detach().numpy(), "statistics")


@pytest.mark.parametrize("shape", [(16, 8, 7, 7), (4, 3, 33, 20), (300, 5), (1, 2, 5000), (2, 70, 1, 1)], ids=str)
def test_float32(native, shape):
    x = (torch.randn(shape) * 3 + 5).requires_grad_()
    w, b, dy = torch.randn(shape[1]).requires_grad_(), torch.randn(shape[1]).requires_grad_(), torch.randn(shape)
    wide = [t.detach().double().requires_grad_() for t in (x, w, b)]
    exact = stock(wide[0], None, None, *wide[1:], True)
    y = ours(x, None, None, w, b, True)
    assert native == [shape] and y.dtype is torch.float32
    assert_close(y.detach().numpy(), exact.detach().numpy(), "statistics", "float32")
    gradients = zip(torch.autograd.grad(y, (x, w, b), dy), torch.autograd.grad(exact, wide, dy.double()), strict=True)
    for mine, other in gradients:
        assert_close(mine.numpy(), other.numpy(), "parity", "float32", scale=float(dy.abs().sum() / shape[1]) ** 0.5)


def test_jacobians():
    x, w, b = torch.randn(3, 2, 2), torch.randn(2), torch.randn(2)
    for given in ((x, w, b), (x, w), (x,)):
        leaves = [t.double().requires_grad_() for t in given]

        def call(x, w=None, b=None):
            return ours(x, None, None, w, b, True, 0.1, 1e-3)

        assert torch.autograd.gradcheck(call, leaves) and torch.autograd.gradgradcheck(call, leaves)


def test_only_what_is_asked_for():
    x, w, b = torch.randn(3, 2, 4), torch.randn(2, requires_grad=True), torch.randn(2)
    y = ours(x, None, None, w, b, True)
    y.sum().backward()
    assert x.grad is None and b.grad is None and w.grad.shape == (2,)
    with torch.no_grad():
        assert ours(x, None, None, w, b, True).grad_fn is None


def test_bits_do_not_depend_on_threads(one_torch_thread):
    for shape in ((8, 64, 28, 28), (16, 7, 60, 60), (4096, 40)):
        x, dy = torch.randn(shape, requires_grad=True), torch.randn(shape)
        found = []
        for threads in (1, 2, 3, 16):
            with fc.options(threads=threads):
                y, mean, variance = batch_norm.batch_norm(x, None, None, 1e-5)
                found.append([y.detach(), mean, variance, *torch.autograd.grad(y, x, dy)])
        for other in found[1:]:
            for a, b in zip(found[0], other, strict=True):
                assert_exact(a.numpy(), b.numpy())


def test_threads_are_those_of_torch(monkeypatch, one_torch_thread):
    x, seen = torch.randn(4, 3, 5, requires_grad=True), []

    def recorded(call):
        return lambda *args: seen.append(args[-1]) or call(*args)

    core = types.SimpleNamespace(batch_norm_forward=recorded(fc._core.batch_norm_forward),
                                 batch_norm_backward=recorded(fc._core.batch_norm_backward))  # fmt: skip
    monkeypatch.setattr(batch_norm, "_core", core)
    ours(x, None, None, training=True).sum().backward()
    with fc.options(threads=3):  # who asks for a number gets it
        ours(x, None, None, training=True)
    assert seen == [1, 1, 3]


# ---- What stays torch's --------------------------------------------------------------------------------------------


def test_what_our_kernels_do_not_take(native):
    x, w = torch.randn(4, 6, 5, 5), torch.ones(6)
    strided = torch.randn(4, 6, 5, 10)[..., ::2]
    last = x.to(memory_format=torch.channels_last)
    for given in ((strided, w), (last, w), (x.half(), w.half()), (x.bfloat16(), w), (x[:0], w), (x.to("meta"), None)):
        mean, var = (torch.zeros(6, dtype=torch.float32, device=given[0].device) for _ in range(2))
        if given[0].dtype is torch.half:
            mean, var = mean.half(), var.half()
        other_mean, other_var = mean.clone(), var.clone()
        y = ours(given[0], mean, var, given[1], None, True)
        expected = stock(given[0], other_mean, other_var, given[1], None, True)
        assert y.stride() == expected.stride() and y.dtype is expected.dtype
        if not y.is_meta:
            assert_exact(y.float().numpy(), expected.float().numpy())
            assert_exact(mean.float().numpy(), other_mean.float().numpy())
    for call in (ours, stock):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            call(x[:1, :, :1, :1], None, None, training=True)
        with pytest.raises(ValueError, match="eps must be positive"):
            call(x, None, None, training=True, eps=0.0)
        with pytest.raises(RuntimeError):
            call(x, None, None, torch.ones(5), training=True)
        with pytest.raises(RuntimeError):
            call(x, None, None, w.double(), training=True)
    assert native == []
    layer = fct.nn.BatchNorm2d(6)
    with pytest.raises(ValueError, match="expected 4D input"):
        layer(x[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, of what it loads
def test_transforms_and_subclasses_are_torchs(native):
    x = torch.randn(3, 4, 2, 5)

    def f(x):
        return ours(x, None, None, None, None, True)

    assert_close(torch.func.vmap(f)(x).numpy(), torch.stack([stock(i, None, None, training=True) for i in x]).numpy(),
                 "parity")  # fmt: skip
    directions = (torch.randn(x.shape),)
    mine, other = (torch.func.jvp(g, (x,), directions)[1] for g in (f, lambda x: stock(x, None, None, training=True)))
    assert_close(mine.numpy(), other.numpy(), "parity")
    assert torch.func.grad(lambda x: f(x).pow(3).sum())(x).shape == x.shape

    class Mine(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return "mine"

    assert f(x.as_subclass(Mine)) == "mine"
    assert native == []


def test_autocast(native):
    layer, theirs = pair(2, torch.float32)
    x = torch.randn(2, 6, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype is theirs(x).dtype is torch.float32
        assert layer(x.bfloat16()).dtype is theirs(x.bfloat16()).dtype is torch.bfloat16
    assert native == [(2, 6, 5, 5)]
    assert_close(layer.running_var.numpy(), theirs.running_var.numpy(), "parity")


# ---- Ops and compilers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", [True, False])
def test_opcheck(affine):
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    w, b = (torch.randn(3, dtype=torch.float64, requires_grad=True) if affine else None for _ in range(2))
    torch.library.opcheck(torch.ops.fastconv.batch_norm, (x, w, b, 1e-3))
    y, mean, variance = torch.ops.fastconv.batch_norm(x, w, b, 1e-3)
    assert not mean.requires_grad and not variance.requires_grad
    dy = torch.randn(y.shape, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(torch.ops.fastconv.batch_norm_backward, (dy, x, w, mean, variance, 1e-3))
    strided = torch.randn(4, 3, 2, 5, dtype=torch.float64).transpose(0, 2).requires_grad_()
    torch.library.opcheck(torch.ops.fastconv.batch_norm, (strided, w, b, 1e-3))


def test_compiled_in_one_graph_and_trained():
    torch._dynamo.reset()
    layer, theirs = pair(2, torch.float32)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for size in (9, 12):  # the second one with symbolic sizes
        x = torch.randn(3, 6, size, 5, requires_grad=True)
        y, expected = compiled(x), theirs(x)
        assert_close(y.detach().numpy(), expected.detach().numpy(), "parity")
        leaves = [torch.autograd.grad((v**3).sum(), [x, *m.parameters()]) for v, m in ((y, layer), (expected, theirs))]
        for mine, other in zip(*leaves, strict=True):
            assert_close(mine.numpy(), other.numpy(), "parity")
        for mine, other in zip(layer.buffers(), theirs.buffers(), strict=True):
            assert_close(mine.float().numpy(), other.float().numpy(), "parity")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_export():
    layer, theirs = pair(2, torch.float32)
    x = torch.randn(3, 6, 4, 5)
    program = torch.export.export(layer, (x,))
    assert "fastconv.batch_norm.default" in [str(node.target) for node in program.graph.nodes]
    assert_close(program.module()(x).detach().numpy(), theirs(x).detach().numpy(), "parity")
    program = torch.export.export(layer.eval(), (x,))
    assert "fastconv" not in str(program.graph)
    with torch._subclasses.FakeTensorMode():
        assert fct.nn.BatchNorm2d(6)(torch.empty(3, 6, 4, 5)).shape == x.shape


# ---- Layers --------------------------------------------------------------------------------------------------------


def test_copies_files_and_state():
    layer, theirs = pair(2, torch.float32)
    x = torch.randn(3, 6, 4, 5)
    calls = []
    layer.register_forward_hook(lambda module, args, y: calls.append(type(module)))
    layer(x)
    assert calls == [fct.nn.BatchNorm2d] and int(layer.num_batches_tracked) == 1
    calls.clear()
    file = io.BytesIO()
    layer._forward_hooks.clear()
    torch.save(layer, file)
    file.seek(0)
    copies = copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)
    y = layer(x)
    for other in copies:
        assert type(other) is fct.nn.BatchNorm2d and other.running_mean is not layer.running_mean
        assert_exact(other(x).detach().numpy(), y.detach().numpy())
        assert int(other.num_batches_tracked) == 2
    theirs.load_state_dict(layer.state_dict())
    assert_close(theirs.eval()(x).detach().numpy(), layer.eval()(x).detach().numpy(), "parity")


def test_from_torch_shares_everything():
    theirs = torch.nn.BatchNorm2d(6)
    layer = fct.nn.BatchNorm2d.from_torch(theirs)
    layer(torch.randn(3, 6, 4, 5) + 1)
    assert layer.weight is theirs.weight and layer.running_mean is theirs.running_mean
    assert int(theirs.num_batches_tracked) == 1 and theirs.running_mean.any()
    for other in (torch.nn.SyncBatchNorm(6), torch.nn.BatchNorm1d(6), torch.nn.InstanceNorm2d(6)):
        with pytest.raises(TypeError, match=r"expected torch\.nn\.BatchNorm2d itself"):
            fct.nn.BatchNorm2d.from_torch(other)


# ---- accelerate and patch ------------------------------------------------------------------------------------------


class Odd(torch.nn.BatchNorm2d):
    """Somebody's own."""


def test_always(native):
    model = network().extend([torch.nn.BatchNorm2d(2).bfloat16(), torch.nn.SyncBatchNorm(2), Odd(2)])
    told = fct.accelerate(model, "always").fastconv_report
    assert kinds(model) == {"0": True, "1": True, "4.0": True, "4.1": True, "5": True, "6": True, "7": False}
    assert str(told) == "replaced 3 of 3 convolutions, 1 of 2 batch norms and 2 of 2 pools; not measured"
    assert told.layers[-1].reason == "bfloat16 is torch's"
    assert [type(m) for m in model[8:]] == [torch.nn.SyncBatchNorm, Odd]
    model[:7](images())
    assert native == [(2, 6, 8, 8)]


def test_measuring_moves_no_running_statistics(native):
    model = network()
    before = {k: v.tolist() for k, v in model.state_dict().items()}
    fct.accelerate(model, example=images(), reference=True, **QUICK)
    layer = model.fastconv_report.layers[1]
    assert len(native) > 1 and layer.calls[0].ours_s > 0 and "times as fast" in layer.reason
    assert 0 < layer.calls[0].error_float64 < 1e-5
    assert {k: v.tolist() for k, v in model.state_dict().items()} == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m, x: (m.eval(), x), "by running statistics it is torch's"),
        (lambda m, x: (m, x.to(memory_format=torch.channels_last)), "such an input is torch's"),
        (lambda m, x: (m.bfloat16(), x.bfloat16()), "bfloat16 is torch's"),
    ],
    ids=["eval", "channels_last", "bfloat16"],
)
def test_what_is_torchs_is_kept(native, change, reason):
    model, x = change(torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)), images())
    fct.accelerate(model, example=x, **QUICK)
    assert [layer.reason for layer in model.fastconv_report.layers] == [reason] * 2 and native == []
    assert str(model.fastconv_report) == "replaced 0 of 0 convolutions and 0 of 2 batch norms"


def test_one_frozen_layer_is_not_the_other():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3))
    model[1].eval()
    found = swapping.candidates(model)
    observer = measuring.LayerObserver(found, True, measuring.Settings(**QUICK))
    for layer in model:
        observer(layer, (images(),), {})
    refusals = [observer.calls[id(layer)][0].refusal for layer in model]
    assert refusals == [None, "by running statistics it is torch's"]


def test_a_report_is_replayed(tmp_path):
    made = fct.accelerate(network(), "always").fastconv_report
    made.save(tmp_path / "report.json")
    other = fct.accelerate(network(), report=tmp_path / "report.json")
    assert type(other[1]) is fct.nn.BatchNorm2d and other.fastconv_report == made


def test_patch(native):
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.SyncBatchNorm(3).eval(), torch.nn.BatchNorm2d(3).eval())
    twin = copy.deepcopy(net)
    with fct.patch():
        assert torch.nn.functional.batch_norm is ours
        y = net(images())
    assert torch.nn.functional.batch_norm is stock and native == [(2, 3, 8, 8)]
    assert_close(y.detach().numpy(), twin(images()).detach().numpy(), "parity")
    for mine, other in zip(net.buffers(), twin.buffers(), strict=True):
        assert_close(mine.float().numpy(), other.float().numpy(), "parity")
