# SPDX-License-Identifier: Apache-2.0
"""Times on the GPU: PyTorch and ours by turns on one stream, between CUDA events, with nothing of before in L2."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any

from bench.gpu_calls import Call, Case, Place, Tensor, case_of
from bench.gpu_classes import Class, Problem

ROUNDS, LEAST_ROUNDS = 15, 5
ROW_SECONDS = 0.2  # of full timing; slow problems get fewer rounds
SHORT_ROUNDS = 3  # of an algorithm that was not chosen
UNLIKELY = 60.0  # an algorithm is not tried when it is predicted to take this many times the least
AHEAD_SECONDS = 200e-6  # what is queued before a sample lasts so long, so that the host has queued the sample by then
# Largest error relative to the largest result, over which a result is wrong.
LIMITS = {"f32": 1e-4, "tf32": 1e-2, "f16": 1e-2, "bf16": 4e-2}


class BrokenDeviceError(Exception):
    """A kernel ended the device's context: nothing more runs in this process."""

    def __init__(self, row: dict[str, Any], why: str) -> None:
        super().__init__(why)
        self.row = row


class Clock:
    """Samples between events."""

    def __init__(self, torch: Any, l2_bytes: int) -> None:
        self.torch = torch
        self.flushed = torch.empty(max(2 * l2_bytes, 8 << 20), dtype=torch.uint8, device="cuda")
        self.writes = 1
        self.flushed.zero_()
        once = self._between(self.flushed.zero_)
        self.writes = max(1, min(64, math.ceil(AHEAD_SECONDS / max(once, 1e-6))))

    def _between(self, call: Callable[[], Any]) -> float:
        start, end = self._start(call)
        self.torch.cuda.synchronize()
        return 1e-3 * float(start.elapsed_time(end))

    def _start(self, call: Callable[[], Any]) -> tuple[Any, Any]:
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(self.writes):
            self.flushed.zero_()
        start.record()
        call()
        end.record()
        return start, end

    def once(self, call: Call) -> float:
        """Seconds of one call."""
        return self._between(call)

    def samples(self, calls: dict[str, Call], rounds: int) -> dict[str, list[float]]:
        """Name -> seconds, one a round; all names in turn, the first one next time last."""
        events: dict[str, list[tuple[Any, Any]]] = {name: [] for name in calls}
        names = list(calls)
        for _ in range(rounds):
            for name in names:
                events[name].append(self._start(calls[name]))
            names = [*names[1:], names[0]]
            self.torch.cuda.synchronize()
        return {name: [1e-3 * float(a.elapsed_time(b)) for a, b in pairs] for name, pairs in events.items()}


@contextlib.contextmanager
def numerics(torch: Any, mode: str, search: bool = True) -> Iterator[None]:
    """PyTorch with TF32 where the mode allows it and nowhere else, and cuDNN's search for the fastest algorithm."""
    backends = ((torch.backends.cudnn, "allow_tf32"), (torch.backends.cuda.matmul, "allow_tf32"))
    before = [getattr(where, name) for where, name in backends]
    searching = torch.backends.cudnn.benchmark
    try:
        for where, name in backends:
            setattr(where, name, mode == "tf32")
        torch.backends.cudnn.benchmark = search
        yield
    finally:
        for (where, name), value in zip(backends, before, strict=True):
            setattr(where, name, value)
        torch.backends.cudnn.benchmark = searching


def error_of(torch: Any, part: Tensor, whole: Tensor, reference: Tensor) -> float:
    """The largest error of a result's part relative to the largest reference; infinite if anything is not finite."""
    if not bool(torch.isfinite(whole).all()):
        return math.inf
    scale = float(reference.abs().max())
    return float((part.double() - reference).abs().max()) / scale if scale > 0 else math.inf


class Rows:
    """Measures problems, one row each."""

    def __init__(self, torch: Any, l2_bytes: int, excluded: set[str]) -> None:
        """`excluded`: algorithms that parity found wrong; they are not run."""
        self.torch, self.excluded = torch, excluded
        self.place, self.clock = Place(torch), Clock(torch, l2_bytes)

    def measure(self, c: Class, problem: Problem) -> dict[str, Any]:
        """The row of a problem.

        Raises:
            BrokenDeviceError: with the row as far as it got.
        """
        row: dict[str, Any] = {
            "problem": problem.text,
            "pass": problem.pass_,
            "mode": problem.mode,
            "layout": problem.layout,
        }
        with numerics(self.torch, problem.mode):
            case = self._alive(row, "case", lambda: case_of(self.place, c, problem))
            if case is None:
                return row
            with numerics(self.torch, problem.mode, search=False):
                reference = self._alive(row, "case", case.reference)
            if reference is None:
                return row
            limit, calls = LIMITS[problem.mode], {}
            if (error := self._alive(row, "torch", lambda: self._error(case, case.theirs, reference))) is not None:
                row["torch"] = self._told(error, limit)
                if "wrong" not in row["torch"]:
                    calls["torch"] = case.theirs
            if ours := self._alive(row, "ours", lambda: self._algorithms(case, reference, limit, row)):
                calls["ours"] = ours
            if c.copies:
                source, target = (self.place.bytes(case.bytes // 2) for _ in range(2))
                calls["copy"] = lambda: target.copy_(source)
                row["bytes"] = case.bytes
            self._alive(row, "ours", lambda: self._time(calls, row))
        return row

    def _alive(self, row: dict[str, Any], who: str, work: Callable[[], Any]) -> Any:
        """What `work` gives; where it fails, what was said is in the row, and the device is asked whether it lives."""
        try:
            found = work()
            self.torch.cuda.synchronize()
            return found
        except (RuntimeError, ValueError, MemoryError) as failure:  # DeviceError is a RuntimeError
            said = str(failure).strip().splitlines()[:1] or [type(failure).__name__]
            row[who] = {**row.get(who, {}), "failed": said[0]}
            if "out of memory" in said[0].lower():
                self.torch.cuda.empty_cache()
        try:
            self.torch.zeros(1, device="cuda")
            self.torch.cuda.synchronize()
        except RuntimeError:
            raise BrokenDeviceError(row, row[who]["failed"]) from None
        return None

    def _error(self, case: Case, call: Call, reference: Tensor) -> float:
        result = call()
        return error_of(self.torch, case.part(result), result, reference)

    @staticmethod
    def _told(error: float, limit: float) -> dict[str, Any]:
        told: dict[str, Any] = {"error": error if math.isfinite(error) else None}
        if not error <= limit:
            told["wrong"] = f"error {error:.1e} is over {limit:.0e}"
        return told

    def _algorithms(self, case: Case, reference: Tensor, limit: float, row: dict[str, Any]) -> Call | None:
        """Every algorithm checked and timed shortly; the call of the chosen one, if its result is right."""
        estimates = {name: s for name, s in case.candidates().items() if name not in self.excluded}
        if not estimates:
            row["ours"] = {"failed": "every algorithm was wrong in the parity stage"}
            return None
        chosen = case.choice()
        if chosen not in estimates:
            chosen = min(estimates, key=lambda name: estimates[name])
        row |= {"chosen": chosen, "estimates": estimates, "algorithms": {}, "errors": {}}
        least = min(estimates.values())
        found: Call | None = None
        for name, estimate in estimates.items():
            if estimate > UNLIKELY * least and name != chosen:
                continue
            row["running"] = name  # what it was if the device breaks
            call = case.ours(name)
            case.out.fill_(math.nan)
            told = self._told(self._error(case, call, reference), limit)
            row["errors"][name] = told["error"]
            if "wrong" in told:
                row.setdefault("wrong", []).append(name)
            else:
                times = self.clock.samples({name: call}, SHORT_ROUNDS)
                row["algorithms"][name] = statistics.median(times[name])
            if name == chosen:
                row["ours"] = told
                found = call if "wrong" not in told else None
        del row["running"]
        return found

    def _time(self, calls: dict[str, Call], row: dict[str, Any]) -> None:
        for call in calls.values():
            call()
        length = sum(self.clock.once(call) + AHEAD_SECONDS for call in calls.values())
        rounds = max(LEAST_ROUNDS, min(ROUNDS, int(ROW_SECONDS / length)))
        for name, seconds in self.clock.samples(calls, rounds).items():
            spread = statistics.quantiles(seconds, n=4)
            median = statistics.median(seconds)
            row.setdefault(name, {})
            row[name] |= {"median_s": median, "spread": (spread[2] - spread[0]) / (2 * median), "seconds": seconds}
