# SPDX-License-Identifier: Apache-2.0
"""Schedules of the learning rate, under PyTorch's names and with its numbers.

A schedule sets the "lr" of every group of an optimiser: when it is made, and at every `step()`, which the caller calls
once per epoch or once per batch. But for ReduceLROnPlateau each is a plain function of the number of steps and of the
group's first rate (`lr_at`), not a recurrence: to resume needs one number, and gives the same bits.

>>> optimizer = fc.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
>>> schedule = fc.schedule.warmup_cosine(optimizer, warmup=5, total=90)
>>> fc.train.fit(model, loader, optimizer=optimizer, epochs=90, schedule=schedule)
"""

import bisect
import math
from collections.abc import Callable, Sequence
from typing import Any

from ._core import ProblemError
from .optim import Optimizer


class Schedule:
    """The base: what `step`, `get_last_lr` and `state_dict` mean.

    Args:
        optimizer: whose groups it sets. The first rate of a group is its "lr" when the first schedule is made.
        last_epoch: how many steps were already made, less one; -1 starts.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: optimizer is a {type(optimizer).__name__}; expected an Optimizer")
        self.optimizer = optimizer
        self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch + 1
        self._apply()

    def lr_at(self, step: int, base: float, group: int) -> float:
        """The rate after `step` steps of the group with this number, whose first rate is `base`."""
        raise NotImplementedError(f"{type(self).__name__} does not define lr_at")

    def step(self) -> None:
        """One step further: new rates in the optimiser."""
        self.last_epoch += 1
        self._apply()

    def get_last_lr(self) -> list[float]:
        """The rates that hold now, one per group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs beside the arguments of the constructor."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict` of a schedule made with the same arguments; sets the rates.

        Raises:
            ValueError: a state for another number of groups.
        """
        if len(state["base_lrs"]) != len(self.optimizer.param_groups):
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: {len(state['base_lrs'])} groups; expected "
                f"{len(self.optimizer.param_groups)}"
            )
        self.base_lrs, self.last_epoch = list(state["base_lrs"]), state["last_epoch"]
        self._apply()

    def _apply(self) -> None:
        for number, (group, base) in enumerate(zip(self.optimizer.param_groups, self.base_lrs, strict=True)):
            group["lr"] = self.lr_at(self.last_epoch, base, number)


class LambdaLR(Schedule):
    """base * lr_lambda(step); one function, or one per group."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Any, last_epoch: int = -1) -> None:
        self.lr_lambdas: list[Callable[[int], float]] = _per_group("LambdaLR", "lr_lambda", lr_lambda, optimizer)
        super().__init__(optimizer, last_epoch)

    def lr_at(self, step: int, base: float, group: int) -> float:
        return base * self.lr_lambdas[group](step)


class StepLR(Schedule):
    """base * gamma ** (step // step_size)."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size, self.gamma = _at_least("StepLR", "step_size", step_size, 1), gamma
        super().__init__(optimizer, last_epoch)

    def lr_at(self, step: int, base: float, group: int) -> float:
        return base * self.gamma ** (step // self.step_size)


class MultiStepLR(Schedule):
    """base * gamma for every milestone that is reached; one that is named twice counts twice."""

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def lr_at(self, step: int, base: float, group: int) -> float:
        return base * self.gamma ** bisect.bisect_right(self.milestones, step)


class ExponentialLR(Schedule):
    """base * gamma ** step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def lr_at(self, step: int, base: float, group: int) -> float:
        return base * self.gamma**step


class LinearLR(Schedule):
    """base times a factor that goes from start_factor to end_factor in total_iters equal steps, and stays there."""

    def __init__(self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5,
                 last_epoch: int = -1) -> None:  # fmt: skip
        name = type(self).__name__
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ProblemError(
                f"{name}: start_factor is {start_factor}, end_factor {end_factor}; expected above 0 and up to 1, 0 to 1"
            )
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = _at_least(name, "total_iters", total_iters, 1)
        super().__init__(optimizer, last_epoch)

    def lr_at(self, step: int, base: float, group: int) -> float:
        part = min(step, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * part)


class LinearWarmup(LinearLR):
    """LinearLR up to the full rate: start_factor * base at first, base after total_iters steps (Goyal et al., 2017)."""

    def __init__(
        self, optimizer: Optimizer, total_iters: int = 5, start_factor: float = 1 / 3, last_epoch: int = -1
    ) -> None:
        super().__init__(optimizer, start_factor, 1.0, total_iters, last_epoch)


class CosineAnnealingLR(Schedule):
    """eta_min + (base - eta_min) (1 + cos(pi step / T_max)) / 2 (Loshchilov and Hutter, 2016, without restarts).

    Beyond T_max it goes up again, as in PyTorch.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = _at_least("CosineAnnealingLR", "T_max", T_max, 1), eta_min
        super().__init__(optimizer, last_epoch)

    def lr_at(self, step: int, base: float, group: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * step / self.T_max)) / 2


class OneCycleLR(Schedule):
    """From max_lr / div_factor up to max_lr and down to the first rate / final_div_factor; momentum the other way.

    Smith and Topin, 2017. One step per batch. Args as in PyTorch:
        max_lr: the highest rate, one or one per group.
        total_steps, or epochs and steps_per_epoch: the length of the cycle; a further step is an error.
        pct_start: the part of the cycle that goes up.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: lower "momentum" (Adam: the first of "betas") from max_momentum to base_momentum and back.
        three_phase: down to the first rate symmetrically, then to the last one.
    """

    def __init__(
        self, optimizer: Optimizer, max_lr: Any, total_steps: int | None = None, epochs: int | None = None,
        steps_per_epoch: int | None = None, pct_start: float = 0.3, anneal_strategy: str = "cos",
        cycle_momentum: bool = True, base_momentum: Any = 0.85, max_momentum: Any = 0.95, div_factor: float = 25.0,
        final_div_factor: float = 1e4, three_phase: bool = False, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        name = "OneCycleLR"
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ProblemError(f"{name}: expected total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        self.total_steps = _at_least(name, "total_steps", total_steps, 1)
        if not 0 <= pct_start <= 1:
            raise ProblemError(f"{name}: pct_start is {pct_start}; expected 0 to 1")
        if anneal_strategy not in ("cos", "linear"):
            raise ProblemError(f'{name}: anneal_strategy is {anneal_strategy!r}; expected "cos" or "linear"')
        self.anneal_strategy, self.cycle_momentum = anneal_strategy, cycle_momentum
        peaks = _per_group(name, "max_lr", max_lr, optimizer)
        firsts = [peak / div_factor for peak in peaks]
        lasts = [first / final_div_factor for first in firsts]
        low = _per_group(name, "base_momentum", base_momentum, optimizer)
        high = _per_group(name, "max_momentum", max_momentum, optimizer)
        up, end = pct_start * total_steps - 1, total_steps - 1
        # Where the phases end, and per group what the rate and the momentum are at their borders.
        self._ends = [up, 2 * pct_start * total_steps - 2, end] if three_phase else [up, end]
        middle = [firsts] if three_phase else []
        self._rates = [list(c) for c in zip(firsts, peaks, *middle, lasts, strict=True)]
        self._momenta = [list(c) for c in zip(high, low, *([high] if three_phase else []), high, strict=True)]
        if cycle_momentum and any("momentum" not in g and "betas" not in g for g in optimizer.param_groups):
            raise ProblemError(f"{name}: the optimizer has neither momentum nor betas; expected cycle_momentum=False")
        for group, first in zip(optimizer.param_groups, firsts, strict=True):
            group["initial_lr"] = first
        super().__init__(optimizer, last_epoch)

    def lr_at(self, step: int, base: float, group: int) -> float:
        return self._along(step, self._rates[group])

    def _apply(self) -> None:
        if self.last_epoch > self.total_steps:
            raise ProblemError(
                f"OneCycleLR: step {self.last_epoch} of {self.total_steps}; expected no step beyond them"
            )
        super()._apply()
        if self.cycle_momentum:
            for group, corners in zip(self.optimizer.param_groups, self._momenta, strict=True):
                momentum = self._along(self.last_epoch, corners)
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum

    def _along(self, step: int, corners: list[float]) -> float:
        """On the way from corner to corner, phase by phase."""
        phase = min(bisect.bisect_left(self._ends, step), len(self._ends) - 1)
        start, end = (self._ends[phase - 1] if phase else 0), self._ends[phase]
        part = (step - start) / (end - start) if end != start else 1.0
        first, last = corners[phase], corners[phase + 1]
        if self.anneal_strategy == "linear":
            return first + (last - first) * part
        return last + (first - last) / 2 * (1 + math.cos(math.pi * part))


class SequentialLR(Schedule):
    """One schedule after the other: from milestones[i] on schedules[i + 1], which then counts from 0."""

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[Schedule], milestones: Sequence[int],
                 last_epoch: int = -1) -> None:  # fmt: skip
        self.schedulers, self.milestones = _of_one("SequentialLR", optimizer, schedulers), list(milestones)
        if len(self.milestones) != len(self.schedulers) - 1 or self.milestones != sorted(self.milestones):
            raise ProblemError(
                f"SequentialLR: milestones are {self.milestones} for {len(self.schedulers)} schedules; expected one "
                "less than these, in ascending order"
            )
        super().__init__(optimizer, last_epoch)

    def lr_at(self, step: int, base: float, group: int) -> float:
        number = bisect.bisect_right(self.milestones, step)
        start = self.milestones[number - 1] if number else 0
        return self.schedulers[number].lr_at(step - start, base, group)


class ChainedScheduler(Schedule):
    """All schedules at once: each takes the rate of the one before it for its base."""

    def __init__(
        self, schedulers: Sequence[Schedule], optimizer: Optimizer | None = None, last_epoch: int = -1
    ) -> None:
        optimizer = schedulers[0].optimizer if optimizer is None else optimizer
        self.schedulers = _of_one("ChainedScheduler", optimizer, schedulers)
        super().__init__(optimizer, last_epoch)

    def lr_at(self, step: int, base: float, group: int) -> float:
        for schedule in self.schedulers:
            base = schedule.lr_at(step, base, group)
        return base


def warmup_cosine(
    optimizer: Optimizer, warmup: int, total: int, start_factor: float = 1 / 3, eta_min: float = 0.0
) -> Schedule:
    """LinearWarmup for `warmup` steps, then CosineAnnealingLR down to eta_min in the rest of `total` steps."""
    if not 0 < warmup < total:
        raise ProblemError(f"warmup_cosine: warmup is {warmup}, total {total}; expected 0 < warmup < total")
    parts = [LinearWarmup(optimizer, warmup, start_factor), CosineAnnealingLR(optimizer, total - warmup, eta_min)]
    return SequentialLR(optimizer, parts, [warmup])


class ReduceLROnPlateau:
    """Multiply the rates by `factor` once a figure has not improved for more than `patience` steps.

    Args:
        mode: whether a "min" or a "max" of the figure is wanted.
        threshold, threshold_mode: what counts as better: "rel" by that part of the best one, "abs" by that much.
        cooldown: steps after a reduction that are not counted.
        min_lr: no rate falls below this one, or one per group.
        eps: a change of the rate below this is not made.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10, threshold: float = 1e-4,
        threshold_mode: str = "rel", cooldown: int = 0, min_lr: Any = 0.0, eps: float = 1e-8,
    ) -> None:  # fmt: skip
        name = "ReduceLROnPlateau"
        if not 0 <= factor < 1:
            raise ProblemError(f"{name}: factor is {factor}; expected at least 0 and below 1")
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ProblemError(
                f"{name}: mode is {mode!r}, threshold_mode {threshold_mode!r}; expected min or max, and rel or abs"
            )
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown, self.eps = threshold, threshold_mode, cooldown, eps
        self.min_lrs: list[float] = _per_group(name, "min_lr", min_lr, optimizer)
        self.best = math.inf if mode == "min" else -math.inf
        self.last_epoch = self.num_bad_epochs = self.cooldown_counter = 0

    def step(self, metrics: float) -> None:
        """Look at the figure of one more epoch, and lower the rates if it is time."""
        self.last_epoch += 1
        current = float(metrics)
        if self._is_better(current):
            self.best, self.num_bad_epochs = current, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                lower = max(group["lr"] * self.factor, least)
                if group["lr"] - lower > self.eps:
                    group["lr"] = lower
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _is_better(self, current: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if self.threshold_mode == "rel":
            return sign * current < sign * self.best * (1 - sign * self.threshold)
        return sign * current < sign * self.best - self.threshold

    def get_last_lr(self) -> list[float]:
        """The rates that hold now, one per group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The best figure and the counters. The rates themselves are in the optimiser's state."""
        names = ("best", "last_epoch", "num_bad_epochs", "cooldown_counter")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        for name, value in state.items():
            setattr(self, name, value)


def _per_group(caller: str, name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    count = len(optimizer.param_groups)
    values = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(values) != count:
        raise ProblemError(f"{caller}: {name} has {len(values)} entries; expected one, or {count} for as many groups")
    return values


def _at_least(caller: str, name: str, value: int, least: int) -> int:
    if value < least:
        raise ProblemError(f"{caller}: {name} is {value}; expected at least {least}")
    return value


def _of_one(caller: str, optimizer: Optimizer, schedules: Sequence[Schedule]) -> list[Schedule]:
    if not schedules:
        raise ProblemError(f"{caller}: there are no schedules; expected at least one")
    for number, schedule in enumerate(schedules):
        if not isinstance(schedule, Schedule) or isinstance(schedule, OneCycleLR):
            raise TypeError(
                f"{caller}: schedule {number} is a {type(schedule).__name__}; expected those that are a function of "
                "the step alone"
            )
        if schedule.optimizer is not optimizer:
            raise ProblemError(f"{caller}: schedule {number} is for another optimizer; expected one for all")
    return list(schedules)
