# SPDX-License-Identifier: Apache-2.0
"""fastconv.torch.accelerate: what is chosen, what stays as it was, and that a report brings it back.

Choices are tested with layers that cost made-up seconds on a made-up clock, so that no real one can flicker.
"""

import copy
import pickle
import re

import pytest

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')

import fastconv.torch as fct  # noqa: E402
from fastconv.torch import measuring, swapping  # noqa: E402
from tolerance import assert_close  # noqa: E402
from torch_programs import QUICK, images, kinds, network  # noqa: E402

SEED = 81
pytestmark = pytest.mark.usefixtures("one_torch_thread")
OURS = fct.nn.Conv2d


class Clock:
    """Seconds that pass only in convolutions: `stock` in torch's, `ours` in ours; and ours may be wrong, or refuse."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, 0
        self.stock = self.ours = lambda layer: 1.0
        self.wrong, self.refuses = 0.0, False
        clock, stock_forward = self, torch.nn.Conv2d._conv_forward

        def stock(layer, *args):
            clock.now += clock.stock(layer)
            return stock_forward(layer, *args)

        class Fake(torch.nn.Conv2d):
            def _conv_forward(self, *args):
                if clock.refuses:
                    raise NotImplementedError("ours has no such thing")
                clock.now += clock.ours(self)
                return stock_forward(self, *args) * (1 + clock.wrong)

        def from_torch(layer):
            made = Fake.__new__(Fake)
            made.__dict__.update(layer.__dict__)
            return made

        def time_calls(call, repeats, settle):
            before, clock.calls = clock.now, clock.calls + 1
            call()
            return clock.now - before

        Fake.from_torch = staticmethod(from_torch)
        self.kind = Fake
        monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", stock)
        monkeypatch.setattr(swapping, "classes", lambda: {torch.nn.Conv2d: Fake})
        monkeypatch.setattr(measuring.timing, "time_calls", time_calls)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


# ---- What is chosen ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_the_faster_of_each_layer(clock, training):
    clock.stock = lambda layer: 3.0
    clock.ours = lambda layer: 1.0 if layer.kernel_size == (3, 3) else 4.0
    model = fct.accelerate(network().train(training), example=images())
    report = model.fastconv_report
    assert kinds(model) == {"0": True, "4.1": False}
    assert [(x.name, x.replaced) for x in report.layers] == [("0", True), ("4.1", False)]
    assert report.training is training and report.layers[0].calls[0].training is training
    assert (report.layers[0].calls[0].stock_s, report.layers[0].calls[0].ours_s) == (3.0, 1.0)
    assert (report.stock_s, report.ours_s) == (6.0, 4.0)
    what = "step" if training else "forward"
    assert str(report) == f"replaced 1 of 2 convolutions; {what} 6000 -> 4000 ms; largest error 0"
    assert "kept: 0.75 [0.75, 0.75] times as fast" in report.table()
    assert "2x3x8x8" in report.table()


def test_a_whole_that_is_slower_stays_torchs(clock):
    model = network()
    clock.stock = lambda layer: 3.0
    clock.ours = lambda layer: 1.0 if not alive(layer) else 7.0

    def alive(layer):
        return any(layer is m for m in model.modules())

    fct.accelerate(model, example=images())
    report = model.fastconv_report
    assert not any(kinds(model).values()) and not any(layer.replaced for layer in report.layers)
    assert str(report).startswith("replaced 0 of 2 convolutions; step 6000 -> 14000 ms; torch's layers stay")


def test_what_may_be_noise_counts_for_torch(clock):
    seconds = iter([3.0, 1.0, 3.0, 1.0, 1.0, 3.0, 3.0, 1.0] * 100)
    clock.stock, clock.ours = lambda layer: 2.0, lambda layer: next(seconds)
    model = fct.accelerate(network(), example=images())
    assert not any(kinds(model).values())


@pytest.mark.parametrize("ours, taken", [(1.99, False), (1.95, True)])
def test_a_whole_that_gains_next_to_nothing_stays_torchs(clock, ours, taken):
    clock.stock, clock.ours = lambda layer: 2.0, lambda layer: ours
    model = fct.accelerate(network(), example=images())
    assert set(kinds(model).values()) == {taken}


def test_a_wrong_layer_is_kept(clock):
    clock.ours, clock.wrong = lambda layer: 0.5, 1e-3
    model = fct.accelerate(network(), example=images())
    assert not any(kinds(model).values())
    assert re.fullmatch(r"its error \d\.\de-0\d is over 1e-04", model.fastconv_report.layers[0].reason)
    assert str(model.fastconv_report) == "replaced 0 of 2 convolutions"
    fct.accelerate(model, example=images(), error_limit=1e-2)
    assert all(kinds(model).values())
    assert model.fastconv_report.largest_error > 5e-4


def test_a_layer_that_refuses_is_kept(clock):
    clock.refuses = True
    model = fct.accelerate(network(), example=images())
    assert not any(kinds(model).values())
    assert model.fastconv_report.layers[0].reason == "NotImplementedError: ours has no such thing"


def test_alike_layers_are_measured_once_and_all_calls_of_one_count(clock):
    shared = torch.nn.Conv2d(3, 3, 3, padding=1)
    twice = torch.nn.Sequential(shared, torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.AvgPool2d(2), shared)
    clock.stock = lambda layer: 1.0
    clock.ours = lambda layer: 0.5
    with torch.no_grad():
        fct.accelerate(twice.eval(), example=images(), **QUICK)
    report = twice.fastconv_report
    assert [x.name for x in report.layers] == ["0", "1"]
    assert [call.shape for call in report.layers[0].calls] == [[2, 3, 8, 8], [2, 3, 4, 4]]
    assert twice[0] is twice[3] and type(twice[0]) is clock.kind
    # Two kinds of call were measured: of each side a call for the size of a sample, and two samples.
    assert clock.calls == 2 * 2 * (1 + 2) + 1 + 2 * 3


def test_layers_that_the_input_does_not_reach_are_kept(clock):
    model = network()
    model.add_module("aside", torch.nn.Conv2d(3, 3, 1))
    model.forward = lambda x: model[0](x)
    clock.ours = lambda layer: 0.5
    fct.accelerate(model, example=images())
    assert kinds(model) == {"0": True, "4.1": False, "aside": False}
    assert model.fastconv_report.layers[2].reason == "the input did not reach it"


def test_float64_as_the_judge():
    model = fct.accelerate(network(), example=images(), reference=True, **QUICK)
    for layer in model.fastconv_report.layers:
        for call in layer.calls:
            assert 0 <= call.error_float64 < 1e-5 and 0 <= call.stock_error_float64 < 1e-5
    assert model.fastconv_report.layers[0].calls[0].stock_error_float64 > 0


# ---- What stays as it was ------------------------------------------------------------------------------------------


def test_measuring_leaves_no_trace():
    """Buffers, gradients and random numbers are those of a model that was called once."""
    plain, measured = network(), network()
    fct.accelerate(measured, **QUICK)
    before = measured.fastconv_report
    assert before.pending and str(before) == "waits for the model's first input"
    assert measured._forward_pre_hooks
    for model in (plain, measured):
        torch.manual_seed(SEED)
        model.out = model(images())
    assert not measured._forward_pre_hooks and not measured._forward_pre_hooks_with_kwargs
    assert measured.fastconv_report is before and not before.pending
    assert_close(measured.out.detach().numpy(), plain.out.detach().numpy(), "parity")
    assert int(measured[1].num_batches_tracked) == 1
    assert_close(measured[1].running_var.numpy(), plain[1].running_var.numpy(), "parity")
    assert all(p.grad is None for p in measured.parameters())
    assert torch.equal(images(), images())  # the seed holds, so that equal masks say something


@pytest.mark.parametrize("limit", [0, 8, measuring.UPDATED_BYTES])
def test_a_timed_step_updates_copies_of_parameters(monkeypatch, limit):
    """As many as the limit says; a parameter may have no gradient, and its own version is not counted up."""
    monkeypatch.setattr(measuring, "UPDATED_BYTES", limit)
    parameters = [torch.ones(n, requires_grad=True) for n in (3, 2)]
    calls = []

    def gradients():
        calls.append(1)
        return None, (torch.full((3,), 2.0), None)

    step = measuring._updating(gradients, parameters)
    step()
    step()
    assert len(calls) == 2
    assert all(torch.equal(p, torch.ones_like(p)) and p._version == 0 and p.grad is None for p in parameters)


def test_always_keeps_all_but_the_class():
    model, calls = network(), []
    first, state = model[0], copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first.register_forward_hook(lambda module, args, y: calls.append(type(module)))
    stock = network()
    assert fct.accelerate(model, "always") is model
    assert model[0] is first and type(first) is OURS and isinstance(first, torch.nn.Conv2d)
    assert all(kinds(model).values()) and len(kinds(model)) == 6
    expected = "replaced 3 of 3 convolutions, 1 of 1 batch norm and 2 of 2 pools; not measured"
    assert str(model.fastconv_report) == expected
    assert {k: v.tolist() for k, v in model.state_dict().items()} == {k: v.tolist() for k, v in state.items()}
    theirs = torch.optim.SGD(stock.parameters(), lr=0.1)
    for net, steps in ((model, optimizer), (stock, theirs)):
        torch.manual_seed(SEED)
        net(images()).square().sum().backward()
        steps.step()
    assert calls == [OURS]
    for name, p in model.named_parameters():
        assert_close(p.detach().numpy(), stock.get_parameter(name).detach().numpy(), "parity", what=name)


def test_back_again():
    model = fct.accelerate(network().eval(), "always")
    with torch.no_grad():
        expected = model(images())
        fct.accelerate(model, report=fct.Report("auto", layers=[stay(x) for x in model.fastconv_report.layers]))
        assert not any(kinds(model).values())
        assert_close(model(images()).numpy(), expected.numpy(), "parity")


def stay(layer):
    layer.replaced = False
    return layer


def test_other_peoples_layers_are_left_alone():
    class Odd(torch.nn.Conv2d):
        def forward(self, x):
            return super().forward(x) + 1

    model = torch.nn.Sequential(Odd(3, 3, 1), torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 3, 1))
    model[1].forward = lambda x: x
    torch.nn.utils.parametrizations.weight_norm(model[2])
    fct.accelerate(model, "always")
    assert type(model[0]) is Odd and type(model[1]) is torch.nn.Conv2d and not isinstance(model[2], OURS)
    assert model.fastconv_report.layers == []
    assert str(model.fastconv_report) == "replaced 0 of 0 convolutions; not measured"


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weight_norm_by_a_hook():
    layer, stock = (torch.nn.utils.weight_norm(network()[0]) for _ in range(2))
    fct.accelerate(torch.nn.Sequential(layer), example=images(), **QUICK)
    fct.accelerate(torch.nn.Sequential(layer), "always")
    for one in (layer, stock):
        one(images()).sum().backward()
    assert type(layer) is OURS
    assert_close(layer.weight_g.grad.numpy(), stock.weight_g.grad.numpy(), "parity")


@pytest.mark.parametrize("pending", [False, True])
def test_copies_and_pickles(pending):
    model = network().eval()
    fct.accelerate(model, "auto" if pending else "always", **QUICK)
    with torch.no_grad():
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert other.fastconv_report is not model.fastconv_report
            assert other.fastconv_report.pending is pending
            y = other(images())
            assert not other.fastconv_report.pending
            assert model.fastconv_report.pending is pending, "the copy's measurement is its own"
            assert_close(y.numpy(), network().eval()(images()).numpy(), "parity")


def test_a_layer_by_itself():
    layer = torch.nn.Conv2d(3, 4, 3)
    assert fct.accelerate(layer, "always") is layer and type(layer) is OURS
    fct.accelerate(layer, **QUICK)
    layer(images())
    assert layer.fastconv_report.layers[0].name == "" and layer.fastconv_report.layers[0].calls[0].ours_s > 0
    assert "(the model)" in layer.fastconv_report.table()


def test_inside_of_dataparallel():
    model = network().eval()
    wrapped = fct.accelerate(torch.nn.DataParallel(model), **QUICK)
    assert isinstance(wrapped, torch.nn.DataParallel) and wrapped.fastconv_report is model.fastconv_report
    with torch.inference_mode():
        wrapped(images())
    assert not wrapped.fastconv_report.pending and len(wrapped.fastconv_report.layers) == 6
    assert wrapped.fastconv_report.layers[0].name == "0"


def test_arguments_by_name():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)

        def forward(self, *, image, scale=1):
            return {"maps": [self.conv(input=image) * scale]}

    model = fct.accelerate(Net(), example={"image": images(), "scale": 2}, **QUICK)
    assert model.fastconv_report.stock_s is not None or not model.fastconv_report.layers[0].replaced
    assert model.fastconv_report.layers[0].calls[0].shape == [2, 3, 8, 8]


def test_an_input_that_the_model_refuses_is_not_the_first():
    model = fct.accelerate(network(), **QUICK)
    with pytest.raises(RuntimeError, match="expected"):
        model(images(c=5))
    assert model.fastconv_report.pending and model._forward_pre_hooks
    model(images())
    assert not model.fastconv_report.pending and not model._forward_pre_hooks


def test_a_new_call_forgets_the_old_one():
    model = fct.accelerate(fct.accelerate(network(), **QUICK), **QUICK)
    assert len(model._forward_pre_hooks) == 1
    fct.accelerate(model, "always")
    assert not model._forward_pre_hooks
    fct.accelerate(model, example=images(), **QUICK)
    assert {x.name: x.replaced for x in model.fastconv_report.layers} == kinds(model)


@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")
def test_what_is_said_about_wrong_arguments():
    with pytest.raises(TypeError, match=r"accelerate: model is a int; expected a torch\.nn\.Module"):
        fct.accelerate(3)
    with pytest.raises(ValueError, match="policy is 'never'; expected one of 'auto', 'always'"):
        fct.accelerate(network(), "never")
    compiled = torch.compile(network())
    with pytest.raises(ValueError, match=r"the model is compiled; expected example=\.\.\. or report=\.\.\."):
        fct.accelerate(compiled)
    fct.accelerate(compiled, "always")
    assert type(compiled._orig_mod[0]) is OURS
