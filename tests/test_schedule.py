# SPDX-License-Identifier: Apache-2.0
"""Schedules: PyTorch's whole curves, the shapes that they are known for, and resuming to the same bits."""

import math

import numpy as np
import pytest

import fastconv as fc
from fastconv import schedule
from tolerance import assert_close

# PyTorch's schedules are stepped without its optimisers; its SequentialLR calls step(0), which it calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*scheduler:UserWarning")

STEPS = 40


def optimizer(lrs=(0.5, 0.02), cls=None, **words):
    groups = [{"params": [fc.Tensor(np.zeros(2), requires_grad=True)], "lr": lr} for lr in lrs]
    return (cls or fc.optim.SGD)(groups, lr=0.1, **words)


def curve(optimiser, made, steps=STEPS, key="lr"):
    """The rates of all groups before each step, (steps + 1, groups)."""
    rows = [[g[key] for g in optimiser.param_groups]]
    for _ in range(steps):
        made.step()
        rows.append([g[key] for g in optimiser.param_groups])
    return np.array(rows)


# name -> arguments, for both libraries
PLAIN = [
    ("StepLR", {"step_size": 7}),
    ("StepLR", {"step_size": 1, "gamma": 0.9}),
    ("MultiStepLR", {"milestones": [5, 12, 12, 30], "gamma": 0.5}),
    ("ExponentialLR", {"gamma": 0.93}),
    ("CosineAnnealingLR", {"T_max": STEPS}),
    ("CosineAnnealingLR", {"T_max": 15, "eta_min": 0.01}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.01, "end_factor": 0.7, "total_iters": 17}),
    ("LambdaLR", {"lr_lambda": lambda step: 0.95**step}),
    ("LambdaLR", {"lr_lambda": [lambda step: 1 / (1 + step), lambda step: 1 - step / 100]}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": STEPS, "cycle_momentum": False}),
    ("OneCycleLR", {"max_lr": [1.0, 0.3], "epochs": 8, "steps_per_epoch": 5, "pct_start": 0.45, "div_factor": 10}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": STEPS, "anneal_strategy": "linear", "final_div_factor": 50}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": STEPS, "three_phase": True}),
]


def pytorch(lrs=(0.5, 0.02), cls="SGD", **words):
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')
    groups = [{"params": [torch.zeros(2, requires_grad=True)], "lr": lr} for lr in lrs]
    return torch.optim.lr_scheduler, getattr(torch.optim, cls)(groups, lr=0.1, **words)


@pytest.mark.parametrize(("name", "words"), PLAIN, ids=lambda v: v if isinstance(v, str) else "")
def test_pytorchs_curve(name, words):
    """All rates of 40 steps and two groups; and the momentum, where it is cycled."""
    module, theirs = pytorch(momentum=0.9)
    mine = optimizer(momentum=0.9)
    their_schedule, my_schedule = getattr(module, name)(theirs, **words), getattr(schedule, name)(mine, **words)
    for _ in range(STEPS + 1):
        for key in ("lr", "momentum"):
            expected = np.array([g[key] for g in theirs.param_groups])
            assert_close(np.array([g[key] for g in mine.param_groups]), expected, "parity", what=f"{name} {key}")
        assert my_schedule.get_last_lr() == [g["lr"] for g in mine.param_groups]
        if my_schedule.last_epoch < STEPS:
            their_schedule.step()
            my_schedule.step()


def test_pytorchs_one_cycle_of_adams_first_beta():
    module, theirs = pytorch(cls="Adam")
    mine = optimizer(cls=fc.optim.Adam)
    words = {"max_lr": 0.1, "total_steps": 20, "base_momentum": 0.8}
    their_schedule, my_schedule = module.OneCycleLR(theirs, **words), schedule.OneCycleLR(mine, **words)
    for _ in range(19):
        their_schedule.step()
        my_schedule.step()
        expected = np.array([g["betas"] for g in theirs.param_groups])
        assert_close(np.array([g["betas"] for g in mine.param_groups]), expected, "parity")


def test_pytorchs_sequences_and_chains():
    for make in (
        lambda m, o: m.SequentialLR(o, [m.LinearLR(o, 0.1, total_iters=5), m.CosineAnnealingLR(o, 35)], [5]),
        lambda m, o: m.SequentialLR(
            o, [m.LinearLR(o, 0.5), m.StepLR(o, 4), m.ExponentialLR(o, 0.9)], milestones=[6, 20]
        ),
        lambda m, o: m.ChainedScheduler([m.LinearLR(o, 0.1, total_iters=4), m.ExponentialLR(o, 0.9), m.StepLR(o, 9)]),
        lambda m, o: m.ChainedScheduler([m.LinearLR(o, 0.1, total_iters=4), m.CosineAnnealingLR(o, 50)]),
    ):
        module, theirs = pytorch()
        mine = optimizer()
        their_curve, my_curve = curve(theirs, make(module, theirs)), curve(mine, make(schedule, mine))
        assert_close(my_curve, their_curve, "parity")


@pytest.mark.parametrize(
    "words",
    [
        {"patience": 2},
        {"patience": 0, "cooldown": 2, "factor": 0.5},
        {"mode": "max", "patience": 1, "threshold": 0.05},
        {"threshold_mode": "abs", "threshold": 0.02, "patience": 1, "min_lr": [0.1, 0.001]},
        {"mode": "max", "threshold_mode": "abs", "patience": 1, "eps": 0.01},
    ],
    ids=str,
)
def test_pytorchs_plateaus(words):
    module, theirs = pytorch()
    mine = optimizer()
    their_schedule, my_schedule = module.ReduceLROnPlateau(theirs, **words), schedule.ReduceLROnPlateau(mine, **words)
    figures = np.random.default_rng(3).uniform(0.5, 1, 60) * np.linspace(1.0, 0.7, 60)
    figures[20] = np.nan
    changes = 0
    for figure in figures:
        before = my_schedule.get_last_lr()
        their_schedule.step(float(figure))
        my_schedule.step(figure)
        assert_close(np.array(my_schedule.get_last_lr()), np.array([g["lr"] for g in theirs.param_groups]), "parity")
        changes += before != my_schedule.get_last_lr()
    assert changes >= 2


def test_shapes_by_hand():
    """What the curves are known for, without PyTorch."""
    o = optimizer([1.0])
    np.testing.assert_allclose(curve(o, schedule.StepLR(o, 3), 7)[:, 0], [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    o = optimizer([1.0])
    rates = curve(o, schedule.MultiStepLR(o, [2, 4], 0.5), 5)[:, 0]
    np.testing.assert_allclose(rates, [1, 1, 0.5, 0.5, 0.25, 0.25])
    o = optimizer([1.0])
    rates = curve(o, schedule.LinearWarmup(o, 4, 0.2), 6)[:, 0]
    np.testing.assert_allclose(rates, [0.2, 0.4, 0.6, 0.8, 1, 1, 1])
    o = optimizer([2.0])
    rates = curve(o, schedule.warmup_cosine(o, 5, 25, start_factor=0.2, eta_min=0.5), 25)[:, 0]
    np.testing.assert_allclose(rates[[0, 5, 15, 25]], [0.4, 2.0, 1.25, 0.5])
    assert (np.diff(rates[:6]) > 0).all() and (np.diff(rates[5:]) < 0).all()
    o = optimizer([7.0], momentum=0.9)
    made = schedule.OneCycleLR(o, 1.0, 11, pct_start=5 / 11)
    rates = curve(o, made, 10)[:, 0]
    np.testing.assert_allclose(rates[[0, 4, 10]], [0.04, 1.0, 0.04e-4])
    np.testing.assert_allclose(o.param_groups[0]["momentum"], 0.95)


@pytest.mark.parametrize(("name", "words"), PLAIN, ids=lambda v: v if isinstance(v, str) else "")
def test_resumed_schedules_have_the_same_bits(name, words):
    straight = optimizer(momentum=0.9)
    expected = curve(straight, getattr(schedule, name)(straight, **words), STEPS - 1)
    first = optimizer(momentum=0.9)
    made = getattr(schedule, name)(first, **words)
    curve(first, made, 13)
    saved = made.state_dict(), first.state_dict()
    for schedule_first in (True, False):
        second = optimizer([9.0, 9.0], momentum=0.9)
        again = getattr(schedule, name)(second, **words)
        for part, state in ((again, saved[0]), (second, saved[1]))[:: 1 if schedule_first else -1]:
            part.load_state_dict(state)
        np.testing.assert_array_equal(curve(second, again, STEPS - 14), expected[13:])


def test_a_resumed_plateau_goes_on():
    figures = [1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95]
    for cut in range(1, 6):
        o = optimizer([1.0])
        made = schedule.ReduceLROnPlateau(o, patience=1)
        for figure in figures[:cut]:
            made.step(figure)
        o2 = optimizer([3.0])
        again = schedule.ReduceLROnPlateau(o2, patience=1)
        again.load_state_dict(made.state_dict())
        o2.load_state_dict(o.state_dict())
        for figure in figures[cut:]:
            made.step(figure)
            again.step(figure)
            assert made.get_last_lr() == again.get_last_lr()
    assert math.isclose(made.get_last_lr()[0], 0.01)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: schedule.StepLR(o, 0), fc.ProblemError, "StepLR: step_size is 0; expected at least 1"),
        (lambda o: schedule.StepLR(None, 1), TypeError, "StepLR: optimizer is a NoneType; expected an Optimizer"),
        (lambda o: schedule.LambdaLR(o, [abs]), fc.ProblemError, "lr_lambda has 1 entries; expected one, or 2"),
        (lambda o: schedule.LinearLR(o, 0), fc.ProblemError, "LinearLR: start_factor is 0"),
        (lambda o: schedule.OneCycleLR(o, 1.0, epochs=3), fc.ProblemError, "expected total_steps, or epochs and"),
        (lambda o: schedule.OneCycleLR(o, 1.0, 5, pct_start=2), fc.ProblemError, "pct_start is 2; expected 0 to 1"),
        (lambda o: schedule.OneCycleLR(o, 1.0, 5, anneal_strategy="exp"), fc.ProblemError, "anneal_strategy is 'exp'"),
        (
            lambda o: curve(o, schedule.OneCycleLR(o, 1.0, 5), 6),
            fc.ProblemError,
            "step 6 of 5; expected no step beyond",
        ),
        (lambda o: schedule.ReduceLROnPlateau(o, factor=1.0), fc.ProblemError, "factor is 1.0; expected at least 0"),
        (lambda o: schedule.ReduceLROnPlateau(o, mode="low"), fc.ProblemError, "mode is 'low'"),
        (lambda o: schedule.SequentialLR(o, [schedule.StepLR(o, 1)], [3]), fc.ProblemError, "for 1 schedules"),
        (
            lambda o: schedule.ChainedScheduler([schedule.StepLR(o, 1)], optimizer()),
            fc.ProblemError,
            "for another optim",
        ),
        (lambda o: schedule.ChainedScheduler([schedule.ReduceLROnPlateau(o)]), TypeError, "schedule 0 is a ReduceLROn"),
        (lambda o: schedule.SequentialLR(o, [], []), fc.ProblemError, "there are no schedules"),
        (lambda o: schedule.warmup_cosine(o, 5, 5), fc.ProblemError, "warmup is 5, total 5; expected"),
        (lambda o: schedule.StepLR(o, 1).load_state_dict({"base_lrs": [1.0]}), ValueError, "1 groups; expected 2"),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make(optimizer(momentum=0.9))


def test_one_cycle_needs_something_to_cycle():
    with pytest.raises(fc.ProblemError, match="neither momentum nor betas; expected cycle_momentum=False"):
        o = optimizer()
        del o.param_groups[0]["momentum"]
        schedule.OneCycleLR(o, 1.0, 5)
