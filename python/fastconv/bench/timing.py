# SPDX-License-Identifier: Apache-2.0
"""Statistics of paired timings: interleaved rounds, medians, ratios with a bootstrap interval, geometric means.

A round times every rival once, in a new random order. Whatever slows the machine for a while slows all rivals of that
round alike, so that ratios are taken within a round and only then summarised. Medians, because disturbances only ever
add time, and because a minimum would reward the luckiest clock frequency.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
COVERAGE = 0.95


class Estimate(NamedTuple):
    """A value with the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def interleave(
    samplers: Mapping[str, Callable[[], float]], rounds: int, rng: np.random.Generator
) -> dict[str, list[float]]:
    """One sample of every rival per round, in an order drawn anew for each round.

    Args:
        samplers: name -> a function that takes one sample and returns it.
        rounds: how many samples each one gives.

    Returns:
        name -> samples; the i-th samples of all names belong together.
    """
    names = list(samplers)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for i in rng.permutation(len(names)):
            samples[names[i]].append(samplers[names[i]]())
    return samples


def time_calls(call: Callable[[], Any], repeats: int, settle: float, between: Callable[[], Any] | None = None) -> float:
    """Mean seconds of one call over `repeats` calls, after warming up.

    Args:
        call: what is timed.
        repeats: calls in the sample.
        settle: seconds of untimed calls before (at least one call): data returns to the caches, threads of whoever
            ran before go to sleep.
        between: called untimed before each timed call, for instance to empty the caches. Calls are then timed one by
            one, which adds the clock's own cost of some 50 ns to each.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + settle
        call()
        while time.perf_counter() < end:
            call()
        total = 0
        if between is None:
            start = time.perf_counter_ns()
            for _ in range(repeats):
                call()
            total = time.perf_counter_ns() - start
        else:
            for _ in range(repeats):
                between()
                start = time.perf_counter_ns()
                call()
                total += time.perf_counter_ns() - start
    finally:
        if collecting:
            gc.enable()
    return total * 1e-9 / repeats


def repeats_for(seconds: float, min_sample: float) -> int:
    """How many calls of `seconds` each make a sample of at least `min_sample` seconds."""
    return max(1, math.ceil(min_sample / max(seconds, 1e-9)))


def median(samples: Sequence[float]) -> float:
    return float(np.median(np.asarray(samples)))


def spread(samples: Sequence[float]) -> float:
    """Half the distance between the quartiles, relative to the median."""
    low, mid, high = np.percentile(np.asarray(samples), [25, 50, 75])
    return float((high - low) / (2 * mid))


def _resampled(values: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """RESAMPLES medians of `values` drawn with replacement."""
    draws = rng.integers(0, len(values), size=(RESAMPLES, len(values)))
    return np.median(values[draws], axis=1)


def _interval(resampled: npt.NDArray[np.float64]) -> tuple[float, float]:
    tail = 50 * (1 - COVERAGE)
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return float(low), float(high)


def paired_ratio(theirs: Sequence[float], ours: Sequence[float], seed: int = 0) -> Estimate:
    """How many times faster `ours` is: the median over rounds of theirs / ours; above 1, ours is faster.

    Args:
        theirs, ours: seconds; the i-th of both were taken in one round.

    Raises:
        ValueError: different numbers of samples, or none.
    """
    return geometric_mean_ratio([(theirs, ours)], seed)


def geometric_mean_ratio(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int = 0) -> Estimate:
    """The geometric mean over layers of each layer's `paired_ratio`; rounds are resampled within each layer.

    The interval says how well these layers were measured, not how other layers would do.
    """
    if not pairs:
        raise ValueError("a geometric mean needs at least one pair of samples, none came")
    rng = np.random.default_rng(seed)
    value, resampled = 0.0, np.zeros(RESAMPLES)
    for theirs, ours in pairs:
        if not theirs or len(theirs) != len(ours):
            raise ValueError(f"paired samples number {len(theirs)} and {len(ours)}; expected as many, at least one")
        logs = np.log(np.asarray(theirs) / np.asarray(ours))
        value += float(np.median(logs))
        resampled += _resampled(logs, rng)
    low, high = _interval(resampled)
    return Estimate(*(math.exp(v / len(pairs)) for v in (value, low, high)))


def unpaired_ratio(theirs: Sequence[float], ours: Sequence[float], seed: int = 0) -> Estimate:
    """Median of theirs / median of ours, for samples of two different runs: wider than a paired interval."""
    rng = np.random.default_rng(seed)
    a, b = np.asarray(theirs, dtype=np.float64), np.asarray(ours, dtype=np.float64)
    low, high = _interval(_resampled(a, rng) / _resampled(b, rng))
    return Estimate(float(np.median(a) / np.median(b)), low, high)


def geometric_mean(values: Sequence[float]) -> float:
    """exp(mean(log)).

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("a geometric mean needs at least one value, none came")
    return math.exp(sum(map(math.log, values)) / len(values))
