# SPDX-License-Identifier: Apache-2.0
"""How `accelerate` compares: torch's layer and ours on the same input in turn, then the whole model both ways."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..bench import timing
from .report import Call
from .swapping import Candidate, Undisturbed, tensors, twin

# The largest error of a layer, relative to the largest value, that is taken for rounding; float16 and bfloat16 round
# every intermediate that torch stores.
ERROR_LIMITS = {"float64": 1e-10, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
WHOLE_SAMPLE = 5  # how many times longer than a layer's sample one of the whole model lasts at least
LEAST_GAIN = 1.01  # of the whole model: less may be gone with the next drift of the clock
UPDATED_BYTES = 64 << 20  # of parameters that a timed step updates as an optimiser would
LEAST_ROUNDS, MOST_ROUNDS = 3, 4  # of the whole model; the latter times `rounds`, where noise hides which is faster


@dataclass(frozen=True)
class Settings:
    """How it is measured."""

    rounds: int = 7  # samples of each side
    min_sample_s: float = 0.01  # a layer's sample lasts at least this long
    whole_s: float = 60.0  # after which no more rounds of the whole model begin, but for LEAST_ROUNDS
    error_limit: float | None = None  # None: ERROR_LIMITS of the dtype
    reference: bool = False  # compare with float64 too


@dataclass
class Compared:
    """A layer on one input: what the report says of it, and what the choice is made from."""

    call: Call
    refusal: str | None = None  # why the layer must stay torch's
    stock: list[float] = field(default_factory=list)  # seconds, one per round
    ours: list[float] = field(default_factory=list)


class Directions:
    """The gradient that comes in from behind: random numbers, the same for all dtypes.

    Drawn once and kept, since drawing them takes longer than many a layer.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.drawn: list[Any] = []

    def of(self, outputs: list[Any]) -> list[Any]:
        """One tensor for each output."""
        if [_kind(t) for t in self.drawn] != [_kind(t) for t in outputs]:
            generator = torch.Generator(outputs[0].device).manual_seed(self.seed)
            drawn = (torch.empty_like(t, dtype=torch.float64).normal_(generator=generator) for t in outputs)
            self.drawn = [d.to(t.dtype) for d, t in zip(drawn, outputs, strict=True)]
        return self.drawn


def _kind(t: Any) -> Any:
    return t.shape, t.stride(), t.dtype, t.device


def run(
    model: Callable[..., Any], args: Any, kwargs: Any, training: bool, wanted: list[Any], directions: Directions
) -> Any:
    """The answer of one call, with the gradients of `wanted` in training; nothing is accumulated anywhere.

    The gradients are those of the answer times the directions. None stands where one does not exist.
    """
    y = model(*args, **kwargs)
    if not training:
        return y, []
    outputs = [t for t in tensors(y) if t.requires_grad]
    if not outputs or not wanted:
        return y, []
    return y, torch.autograd.grad(outputs, wanted, directions.of(outputs), allow_unused=True)


class LayerObserver:
    """Measures every candidate on every input that reaches it, as a hook before its forward pass.

    There and then, so that no input needs to be kept. Layers and inputs that are alike are measured once.
    """

    def __init__(self, found: list[Candidate], training: bool, settings: Settings) -> None:
        self.of = {id(candidate.module): candidate for candidate in found}
        self.calls: dict[int, list[Compared]] = {id(c.module): [] for c in found}
        self.seen: dict[Any, Compared] = {}
        self.training, self.settings = training, settings

    def __call__(self, module: Any, args: Any, kwargs: Any) -> None:
        x = next(tensors((args, kwargs)), None)
        if x is None:
            return
        candidate = self.of[id(module)]
        trained = [module.training, *(p.requires_grad for p in module.parameters())]
        key = (candidate.text, candidate.dtype, tuple(x.shape), x.stride(), x.dtype, x.requires_grad, str(x.device),
               str(args[1:]), str([k for k in kwargs if k != "input"]), *trained)  # fmt: skip
        if key not in self.seen:
            self.seen[key] = compare(candidate, args, kwargs, self.training, self.settings)
        self.calls[id(module)].append(self.seen[key])


class Pair:
    """Torch's layer and ours on one input, with parameters of their own on the model's memory."""

    def __init__(self, candidate: Candidate, args: Any, kwargs: Any, training: bool) -> None:
        def own(value: Any) -> Any:
            is_tensor = isinstance(value, torch.Tensor)
            return value.detach().requires_grad_(training and value.requires_grad) if is_tensor else value

        self.args, self.kwargs = tuple(own(a) for a in args), {k: own(v) for k, v in kwargs.items()}
        self.training, self.x = training, next(tensors((self.args, self.kwargs)))
        self.stock = twin(candidate.module, candidate.stock)
        self.ours = candidate.ours.from_torch(self.stock)

    def timed(self, layer: Any) -> Callable[[], Any]:
        """A call of one of the two."""
        wanted = [t for t in (self.x, *layer.parameters()) if t.requires_grad]
        return _timed(layer, self.args, self.kwargs, self.training, wanted)

    def check(self, settings: Settings) -> Compared:
        """The errors of ours, and whether they rule it out."""
        call = Call(list(self.x.shape), self.training)
        expected = _flat(self.timed(self.stock)())
        try:
            actual = _flat(self.timed(self.ours)())
        except Exception as error:  # it may refuse what torch takes; torch's layer goes on
            return Compared(call, f"{type(error).__name__}: {error}")
        call.error = _difference(actual, expected)
        if settings.reference:
            exact = self.exact()
            call.error_float64, call.stock_error_float64 = _difference(actual, exact), _difference(expected, exact)
        limit = settings.error_limit or ERROR_LIMITS.get(str(expected[0].dtype).removeprefix("torch."), 0.0)
        return Compared(call, None if call.error <= limit else f"its error {call.error:.1e} is over {limit:.0e}")

    def exact(self) -> list[Any]:
        """What torch's layer gives in float64."""

        def double(value: Any) -> Any:
            is_floating = isinstance(value, torch.Tensor) and value.is_floating_point()
            return value.detach().double().requires_grad_(value.requires_grad) if is_floating else value

        with torch.autocast(self.x.device.type, enabled=False):
            layer = twin(self.stock, type(self.stock)).double()
            args, kwargs = tuple(double(a) for a in self.args), {k: double(v) for k, v in self.kwargs.items()}
            wanted = [t for t in (next(tensors((args, kwargs))), *layer.parameters()) if t.requires_grad]
            return _flat(run(layer, args, kwargs, self.training, wanted, Directions()))


def compare(candidate: Candidate, args: Any, kwargs: Any, training: bool, settings: Settings) -> Compared:
    """One layer on one input: errors first, and times where they allow it."""
    pair = Pair(candidate, args, kwargs, training)
    refusal = candidate.refusal(pair.x)
    compared = Compared(Call(list(pair.x.shape), training), refusal) if refusal else pair.check(settings)
    if compared.refusal is None:
        sides = {"stock": _sampler(pair.timed(pair.stock), settings), "ours": _sampler(pair.timed(pair.ours), settings)}
        samples = timing.interleave(sides, settings.rounds, np.random.default_rng(0))
        compared.stock, compared.ours = samples["stock"], samples["ours"]
        compared.call.stock_s, compared.call.ours_s = (timing.median(samples[side]) for side in sides)
    return compared


def gain(compared: list[Compared]) -> timing.Estimate:
    """How many times faster ours is over all calls of a layer in one pass of the model."""
    stock, ours = ([sum(of) for of in zip(*rounds, strict=True)]
                   for rounds in ([c.stock for c in compared], [c.ours for c in compared]))  # fmt: skip
    return timing.paired_ratio(stock, ours)


def whole(
    model: Any, args: Any, kwargs: Any, training: bool, chosen: list[Candidate], settings: Settings
) -> tuple[float, float, timing.Estimate]:
    """The model with torch's layers and with `chosen` as ours: the medians of both, and how many times faster it is."""

    def sampler(ours: bool) -> Callable[[], float]:
        def sample() -> float:
            for candidate in chosen:
                candidate.use(ours)
            return timing.time_calls(call, repeats, 0.0)

        return sample

    wanted = [p for p in model.parameters() if p.requires_grad]
    gradients = _timed(model.forward, args, kwargs, training, wanted)
    call = _updating(gradients, wanted) if training else gradients
    sides = {"stock": sampler(False), "ours": sampler(True)}
    stock: list[float] = []
    ours: list[float] = []
    rng = np.random.default_rng(0)
    repeats = 1
    with Undisturbed(model):
        repeats = timing.repeats_for(sampler(True)(), WHOLE_SAMPLE * settings.min_sample_s)
        end = time.perf_counter() + settings.whole_s
        while True:
            samples = timing.interleave(sides, 1, rng)
            stock += samples["stock"]
            ours += samples["ours"]
            late = time.perf_counter() > end
            if len(stock) >= (LEAST_ROUNDS if late else settings.rounds):
                ratio = timing.paired_ratio(stock, ours)
                if late or len(stock) >= MOST_ROUNDS * settings.rounds or not ratio.low <= LEAST_GAIN <= ratio.high:
                    return timing.median(stock), timing.median(ours), ratio


def _sampler(call: Callable[[], Any], settings: Settings) -> Callable[[], float]:
    once = timing.time_calls(call, 1, 0.0)
    repeats = timing.repeats_for(once, settings.min_sample_s)
    return lambda: timing.time_calls(call, repeats, 0.0)


def _timed(model: Callable[..., Any], args: Any, kwargs: Any, training: bool, wanted: list[Any]) -> Callable[[], Any]:
    """One call, ended by waiting for the GPU that holds its tensors."""
    devices = [t.device for t in tensors((args, kwargs)) if t.device.type == "cuda"]
    directions = Directions()

    def call() -> Any:
        answer = run(model, args, kwargs, training, wanted, directions)
        if devices:
            torch.cuda.synchronize(devices[0])
        return answer

    return call


def _updating(gradients: Callable[[], Any], wanted: list[Any]) -> Callable[[], Any]:
    """A step with what an optimiser with momentum does to memory, on copies: the caches are not left to the layers."""
    size, copies = 0, {}
    for i, p in enumerate(wanted):
        if (larger := size + p.numel() * p.element_size()) <= UPDATED_BYTES:
            size, copies[i] = larger, p.detach().clone()
    momenta = {i: torch.zeros_like(p) for i, p in copies.items()}

    def step() -> None:
        _, found = gradients()
        with torch.no_grad():
            for i, parameter in copies.items():
                if i < len(found) and found[i] is not None:
                    parameter.add_(momenta[i].mul_(0.9).add_(found[i]), alpha=0.0)

    return step


def _flat(answer: Any) -> list[Any]:
    return [t.detach() for t in tensors(answer)]


def _difference(actual: list[Any], expected: list[Any]) -> float:
    """The largest abs(difference) relative to the largest abs(value) of its tensor; infinite where shapes differ."""
    worst = 0.0
    if len(actual) != len(expected):
        return math.inf
    for ours, theirs in zip(actual, expected, strict=True):
        if ours.shape != theirs.shape:
            return math.inf
        if not theirs.numel():
            continue
        scale = float(theirs.abs().max())
        difference = float((ours.double() - theirs.double()).abs().max())
        if difference:
            worst = max(worst, difference / scale if scale > 0 and math.isfinite(difference) else math.inf)
    return worst
