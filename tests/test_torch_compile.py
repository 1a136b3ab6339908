# SPDX-License-Identifier: Apache-2.0
"""fastconv.torch under torch.compile, torch.export, torch.jit.trace, autocast, and on fake tensors."""

import pytest

from tolerance import assert_close, assert_exact

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')
ft = pytest.importorskip("fastconv.torch")
nn = ft.nn
theirs = torch.nn.functional

# What torch says of its own inside: that jit is old, and that a cached function is looked into.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Converting a tensor to a Python:torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.*lru_cache:UserWarning"),
]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    torch.manual_seed(0)


def model():
    return torch.nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same", padding_mode="reflect"),
        torch.nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 3, groups=8, stride=2),
        nn.ConvTranspose2d(8, 4, 2, 2, output_padding=1),
        nn.AvgPool2d(2),
    )


def gradients(call, parameters, x):
    return torch.autograd.grad((call(x) ** 2).sum(), [x, *parameters])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
def test_compiled_in_one_graph_and_trained(memory_format):
    net = model()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    for size in (21, 30):  # the second one with symbolic sizes
        x = torch.randn(2, 3, size, 17).to(memory_format=memory_format).requires_grad_()
        y = compiled(x)
        assert y.stride() == net(x).stride()
        assert_close(y.detach().numpy(), net(x).detach().numpy(), "parity")
        pairs = zip(gradients(compiled, net.parameters(), x), gradients(net, net.parameters(), x), strict=True)
        for mine, eager in pairs:
            assert_close(mine.numpy(), eager.numpy(), "parity")


@pytest.mark.slow
def test_compiled_to_machine_code():
    net = model()
    compiled = torch.compile(net, fullgraph=True)
    x = torch.randn(2, 3, 21, 17, requires_grad=True)
    assert_close(compiled(x).detach().numpy(), net(x).detach().numpy(), "parity")
    for mine, eager in zip(*(gradients(f, net.parameters(), x) for f in (compiled, net)), strict=True):
        assert_close(mine.numpy(), eager.numpy(), "parity")


def test_functions_compile_too():
    def f(x, w):
        y, indices = ft.functional.max_pool2d(
            ft.functional.conv2d(x, w, stride=[2], padding="valid"), 2, None, 0, 1, True, True
        )
        return y, indices

    args = torch.randn(1, 3, 20, 20), torch.randn(4, 3, 3, 3)
    for mine, eager in zip(torch.compile(f, backend="aot_eager", fullgraph=True)(*args), f(*args), strict=True):
        assert_exact(mine.numpy(), eager.numpy())


def test_export():
    net = model().eval()
    x = torch.randn(2, 3, 21, 17)
    n, h = torch.export.Dim("n"), torch.export.Dim("h", min=13)  # smaller ones leave one row somewhere
    program = torch.export.export(net, (x,), dynamic_shapes=({0: n, 2: h},))
    calls = [str(node.target) for node in program.graph.nodes if "fastconv" in str(node.target)]
    assert calls == [f"fastconv.{name}.default" for name in ("conv", "max_pool", "conv", "conv_transpose", "avg_pool")]
    other = torch.randn(5, 3, 32, 17)
    assert_exact(program.module()(other).detach().numpy(), net(other).detach().numpy())
    assert set(program.state_dict) == set(net.state_dict())


def test_tracing_records_the_call():
    net = model().eval()
    traced = torch.jit.trace(net, torch.randn(1, 3, 21, 17))
    x = torch.randn(1, 3, 21, 17)  # a constant would stay what it was
    assert_exact(traced(x).detach().numpy(), net(x).detach().numpy())


def test_fake_and_meta_tensors():
    with torch.device("meta"):
        y = model()(torch.empty(2, 3, 21, 17))
    assert y.is_meta and y.shape == model()(torch.empty(2, 3, 21, 17)).shape
    with torch._subclasses.FakeTensorMode():
        assert model()(torch.empty(2, 3, 21, 17)).shape == y.shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype):
    ours, reference = nn.Conv2d(3, 8, 3), torch.nn.Conv2d(3, 8, 3)
    reference.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 9, 9)
    with torch.autocast("cpu", dtype):
        y, expected = ours(x), reference(x)
        through_op = torch.ops.fastconv.conv(x, ours.weight, ours.bias, [1, 1], [0, 0], [0, 0], [1, 1], 1)
        up = ft.functional.conv_transpose2d(x, ours.weight.transpose(0, 1))
        wide = ft.functional.conv2d(x.double(), ours.weight.double())
    assert y.dtype is through_op.dtype is up.dtype is dtype and wide.dtype is torch.float64
    assert_close(y.detach().float().numpy(), expected.detach().float().numpy(), "half", dtype=str(dtype)[6:])
    assert_exact(through_op.detach().float().numpy(), y.detach().float().numpy())
    for result in (y, expected):
        result.float().square().sum().backward()
    assert ours.weight.grad.dtype is torch.float32
    for a, b in zip(ours.parameters(), reference.parameters(), strict=True):
        assert_close(a.grad.numpy(), b.grad.numpy(), "half layer", dtype=str(dtype)[6:])
    with torch.no_grad(), torch.autocast("cpu", dtype):  # packed in the dtype of the block
        assert_exact(ours.eval()(x).float().numpy(), y.detach().float().numpy())
    with torch.no_grad():
        assert ours(x).dtype is torch.float32


def test_autocast_inside_compile():
    net, x = model(), torch.randn(1, 3, 21, 17)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu"):
        y, expected = compiled(x), net(x)
    assert y.dtype is torch.bfloat16
    assert_close(y.detach().float().numpy(), expected.detach().float().numpy(), "half layer", dtype="bfloat16")


def test_checkpointing_and_saved_tensor_hooks():
    net = model()
    x = torch.randn(1, 3, 21, 17, requires_grad=True)
    expected = gradients(net, net.parameters(), x)
    for mine, eager in zip(
        gradients(lambda x: torch.utils.checkpoint.checkpoint(net, x, use_reentrant=False), net.parameters(), x),
        expected,
        strict=True,
    ):
        assert_exact(mine.numpy(), eager.numpy())
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t.shape) or t.clone(), lambda t: t):
        found = gradients(net, net.parameters(), x)
    assert len(packed) > 6
    for mine, eager in zip(found, expected, strict=True):
        assert_exact(mine.numpy(), eager.numpy())


def test_a_tensor_changed_before_backward_is_an_error():
    w = torch.randn(4, 3, 3, 3, requires_grad=True)
    y = ft.functional.conv2d(torch.randn(1, 3, 5, 5, requires_grad=True), w)
    with torch.no_grad():
        w.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
