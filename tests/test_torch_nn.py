# SPDX-License-Identifier: Apache-2.0
"""fastconv.torch.nn: torch's layers in all but the computation; packed weights are never stale and never leak."""

import copy
import gc
import io
import pickle
import weakref

import pytest

from tolerance import assert_close, assert_exact

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')
ft = pytest.importorskip("fastconv.torch")
packed = pytest.importorskip("fastconv.torch.packed")
nn = ft.nn

SIZES = (9, 8, 7)
# class without its rank, arguments; padding "same" of an even filter is lopsided
LAYERS = [
    ("Conv", (4, 6, 3), {"stride": 2, "padding": 1, "groups": 2}),
    ("Conv", (4, 6, 2), {"padding": "same", "padding_mode": "replicate", "bias": False}),
    ("Conv", (4, 6, 3), {"padding": 1, "padding_mode": "reflect"}),
    ("Conv", (4, 6, 3), {"padding": 2, "padding_mode": "circular"}),
    ("ConvTranspose", (4, 6, 3), {"stride": 2, "padding": 1}),
    ("MaxPool", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}),
    ("MaxPool", (2,), {"return_indices": True}),
    ("AvgPool", (3,), {"stride": 2, "padding": 1, "count_include_pad": False}),
]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def pair(name, rank, args, words):
    theirs = getattr(torch.nn, f"{name}{rank}d")(*args, **words).double()
    return getattr(nn, f"{name}{rank}d").from_torch(theirs), theirs


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("name", "args", "words"), LAYERS, ids=str)
def test_layers_compute_what_torchs_do(name, args, words, rank):
    ours, theirs = pair(name, rank, args, words)
    assert isinstance(ours, type(theirs)) and repr(ours) == repr(theirs)
    x = torch.randn(2, 4, *SIZES[:rank], dtype=torch.float64, requires_grad=True)
    for mode in (True, False):
        y, expected = ours.train(mode)(x), theirs.train(mode)(x)
        if words.get("return_indices"):
            assert_exact(y[1].numpy(), expected[1].numpy())
            y, expected = y[0], expected[0]
        assert_close(y.detach().numpy(), expected.detach().numpy(), "parity")
        leaves = [x, *ours.parameters()]
        for mine, other in zip(*(torch.autograd.grad((v**2).sum(), leaves) for v in (y, expected)), strict=True):
            assert_close(mine.numpy(), other.numpy(), "parity")
    with torch.no_grad():  # packed weights
        y = ours(x)
        assert_close((y[0] if isinstance(y, tuple) else y).numpy(), expected.detach().numpy(), "parity")
        single = ours(x[0])
        assert_exact(
            (single[0] if isinstance(y, tuple) else single).numpy(), (y[0] if isinstance(y, tuple) else y)[0].numpy()
        )


def test_output_size_of_a_transposed_convolution():
    ours, theirs = pair("ConvTranspose", 2, (4, 6, 3), {"stride": 2})
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    assert_close(ours(x, [12, 11]).detach().numpy(), theirs(x, [12, 11]).detach().numpy(), "parity")


def test_from_torch_shares_everything():
    theirs = torch.nn.Conv2d(3, 4, 3).eval()
    calls = []
    handle = theirs.register_forward_hook(lambda module, args, y: calls.append(type(module)))
    ours = nn.Conv2d.from_torch(theirs)
    assert ours.weight is theirs.weight and ours.bias is theirs.bias and not ours.training
    ours(torch.randn(1, 3, 5, 5))
    assert calls == [nn.Conv2d]
    handle.remove()
    ours(torch.randn(1, 3, 5, 5))
    assert calls == [nn.Conv2d]
    assert nn.Conv2d.from_torch(ours) is not ours  # ours may be given too

    class Doubled(torch.nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    for module in (Doubled(3, 4, 3), torch.nn.Conv1d(3, 4, 3), torch.nn.ReLU()):
        with pytest.raises(
            TypeError, match=rf"module is a .*{type(module).__name__}; expected torch\.nn\.Conv2d itself"
        ):
            nn.Conv2d.from_torch(module)


def test_copies_files_and_state():
    ours = torch.nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ConvTranspose2d(4, 2, 2)).eval()
    x = torch.randn(1, 3, 9, 9)
    with torch.no_grad():
        y = ours(x)
        twin = copy.deepcopy(ours)
        assert twin[0].weight is not ours[0].weight
        assert_exact(twin(x).numpy(), y.numpy())
        assert_exact(pickle.loads(pickle.dumps(ours))(x).numpy(), y.numpy())
        file = io.BytesIO()
        torch.save(ours, file)
        file.seek(0)
        assert_exact(torch.load(file, weights_only=False)(x).numpy(), y.numpy())
        theirs = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.MaxPool2d(2), torch.nn.ConvTranspose2d(4, 2, 2))
        assert list(theirs.state_dict()) == list(ours.state_dict())
        theirs.load_state_dict(ours.state_dict())
        assert_close(theirs(x).numpy(), y.numpy(), "parity")


def test_weights_that_are_computed():
    x = torch.randn(1, 3, 5, 5)
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3).eval())
    with torch.no_grad():
        before = layer(x)
        layer.parametrizations.weight.original0.mul_(2)
        bias = layer.bias.reshape(-1, 1, 1)
        assert_close((layer(x) - bias).numpy(), (2 * (before - bias)).numpy(), "parity")


def step_of(kind):
    def change(layer):
        optimizer = kind(layer.parameters())
        layer.weight.grad, layer.bias.grad = torch.ones_like(layer.weight), torch.ones_like(layer.bias)
        optimizer.step()

    return change


def swap_data(layer):
    layer.weight.data = layer.weight.data + 1


def swap_parameter(layer):
    layer.weight = torch.nn.Parameter(layer.weight.detach() + 1)


def load(layer, **words):
    layer.load_state_dict({name: t + 1 for name, t in layer.state_dict().items()}, **words)


def cut_filters(layer):
    layer.weight.data, layer.bias.data = layer.weight.data[:8], layer.bias.data[:8]


def write_through_data(layer):
    layer.weight.data.mul_(0.5)


def write_bias_through_numpy(layer):
    layer.bias.detach().numpy()[:] += 1


CHANGES = {
    "sgd": step_of(lambda p: torch.optim.SGD(p, 0.1)),
    "adam": step_of(lambda p: torch.optim.Adam(p, 0.1)),
    "fused": step_of(lambda p: torch.optim.Adam(p, 0.1, fused=True)),
    "foreach": step_of(lambda p: torch.optim.SGD(p, 0.1, foreach=True)),
    "data": swap_data,
    "parameter": swap_parameter,
    "cut": cut_filters,
    "load_state_dict": load,
    "assign": lambda layer: load(layer, assign=True),
    "write through data": write_through_data,
    "numpy": write_bias_through_numpy,
    "bias": lambda layer: layer.bias.data.zero_(),
    "no bias": lambda layer: layer.register_parameter("bias", None),
    "double and back": lambda layer: layer.double().float(),
    "inference mode": lambda layer: layer.load_state_dict({n: t.clone() + 1 for n, t in layer.state_dict().items()}),
}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])
@pytest.mark.parametrize("change", CHANGES)
def test_weights_are_never_stale(change, memory_format):
    layer = nn.Conv2d(8, 16, 3).to(memory_format=memory_format).eval()
    reference = torch.nn.Conv2d(8, 16, 3)
    x = torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        before = layer(x)
    with torch.inference_mode(change == "inference mode"):
        CHANGES[change](layer)
        y = layer(x)
    with torch.no_grad():
        assert not torch.equal(layer(x), before) or change == "double and back"
        reference.weight, reference.bias = layer.weight, layer.bias
        assert_close(layer(x).numpy(), reference(x).numpy(), "parity")
        assert_close(y.detach().numpy(), reference(x).numpy(), "parity")


def test_weights_are_packed_once():
    layer = nn.Conv2d(8, 16, 3)
    x = torch.randn(1, 8, 9, 9)
    entries = len(packed._packed)
    with torch.no_grad():
        layer(x)  # in training mode the first call packs nothing
    assert packed.packed_bytes() == 0 or not packed._packed[id(layer.weight)].plans
    layer.eval()(x.requires_grad_())  # nor does one that records
    assert not packed._packed[id(layer.weight)].plans
    with torch.no_grad():
        layer(x)
        (plan,) = packed._packed[id(layer.weight)].plans.values()
        layer(x.detach())
        layer(torch.randn(3, 8, 9, 9))  # any batch
        assert list(packed._packed[id(layer.weight)].plans.values()) == [plan]
        layer(torch.randn(1, 8, 12, 9))
        assert len(packed._packed[id(layer.weight)].plans) == 2
        for size in range(9, 30):
            layer(torch.randn(1, 8, size, size))
        assert len(packed._packed[id(layer.weight)].plans) <= packed._MOST_PLANS
    layer.train()
    assert id(layer.weight) not in packed._packed
    assert len(packed._packed) == entries


def test_a_single_element_and_refresh():
    """What is said to be the one thing that needs it: one element, behind autograd's back."""
    layer = nn.Conv2d(8, 16, 3).eval()
    x = torch.ones(1, 8, 9, 9)
    with torch.no_grad():
        before = layer(x)
        layer.weight.detach().numpy().reshape(-1)[1] += 100
        layer.refresh()
        assert not torch.equal(layer(x), before)


def test_nothing_leaks():
    layer = nn.Conv2d(8, 16, 3).eval()
    x = torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        layer(x)
        number, weight = id(layer.weight), weakref.ref(layer.weight)
        layer.weight = torch.nn.Parameter(layer.weight + 1)
    gc.collect()
    assert weight() is None and number not in packed._packed
    with torch.no_grad():
        layer(x)
    number = id(layer.weight)
    layer.to("meta")
    assert number not in packed._packed
    del layer
    gc.collect()
    assert all(entry.w._tensor() is not None for entry in packed._packed.values())


def test_functions_pack_a_parameter_that_comes_again():
    w, x = torch.nn.Parameter(torch.randn(16, 8, 3, 3)), torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        first = ft.functional.conv2d(x, w)
        assert not packed._packed[id(w)].plans
        second = ft.functional.conv2d(x, w)
        assert len(packed._packed[id(w)].plans) == 1
        third = ft.functional.conv2d(x, w)
    assert_close(second.numpy(), first.numpy(), "parity")
    assert_exact(third.numpy(), second.numpy())


def test_a_network_learns_as_with_torchs_layers():
    def train(layers):
        torch.manual_seed(1)
        net = torch.nn.Sequential(
            layers.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), layers.MaxPool2d(2), layers.Conv2d(8, 8, 3, groups=8),
            layers.AvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(8 * 2 * 2, 4),
        ).double()  # fmt: skip
        optimizer = torch.optim.Adam(net.parameters(), 0.01)
        x, labels = torch.randn(16, 1, 13, 13, dtype=torch.float64), torch.arange(16) % 4
        losses = []
        for _ in range(8):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x), labels)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                losses.append(torch.nn.functional.cross_entropy(net.eval()(x), labels).item())
            net.train()
        return torch.tensor(losses)

    mine, other = train(nn), train(torch.nn)
    assert mine[-1] < 0.9 * mine[0]
    assert_close(mine.numpy(), other.numpy(), "model")
