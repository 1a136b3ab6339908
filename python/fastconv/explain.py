# SPDX-License-Identifier: Apache-2.0
"""`fc.explain`: every algorithm for one convolution, with its reason or estimate, its memory, time and error."""

import importlib
import math
from typing import Any

import numpy as np

from . import _core
from ._core import ConvProblem, ProblemError, UnsupportedError, WorkspaceError
from .arrays import kind_of
from .explaining import facts
from .geometry import activation_words, check_padding_mode, conv_geometry
from .options import current
from .primitives import problem as make_problem
from .tensor import plain

_BLANK = ("measured_s", "runs", "not_measured", "phases", "max_error", "rms_error", "max_ulp", "mean_ulp")


class Explanation:
    """What `fc.explain` found. Print it for the table.

    Attributes:
        problem: the ConvProblem.
        device: "cpu", or "cuda:0" and the like.
        chosen: the name of the algorithm that `auto` (or the current options) takes; None if none can run.
        tuning: the hash of the tuning that chose it; None: the estimates or the options did.
        runner_up: the one that would be taken without it; None if there is no other.
        rows: one dictionary per algorithm, in the order of the library's list; docs/explain.md says what is in it.
        copies: sentences about arrays that a call copies before it computes, and about layouts.
        speeds: FLOP/s and bytes/s of one core or of the device, of the committed table.
        budget: seconds granted and spent; None: nothing was measured.
    """

    def __init__(self, problem: ConvProblem, device: str, chosen: str | None, rows: list[dict[str, Any]],
                 copies: list[str], speeds: dict[str, float], budget: dict[str, float] | None,
                 tuning: str | None = None) -> None:  # fmt: skip
        self.problem, self.device, self.chosen, self.rows = problem, device, chosen, rows
        self.copies, self.speeds, self.budget, self.tuning = copies, speeds, budget, tuning
        others = [row for row in self.usable if row["name"] != chosen]
        self.runner_up: str | None = min(others, key=lambda row: row["predicted_s"])["name"] if others else None

    @property
    def usable(self) -> list[dict[str, Any]]:
        """The rows that can run, the fastest first: by measured time, where there is none by the predicted one."""
        return sorted((row for row in self.rows if row["supported"]), key=time_of)

    @property
    def refused(self) -> list[dict[str, Any]]:
        """The rows that cannot run, with their `reason`."""
        return [row for row in self.rows if not row["supported"]]

    def row(self, name: str) -> dict[str, Any]:
        """The row of one algorithm; KeyError if there is none of this name."""
        return {row["name"]: row for row in self.rows}[name]

    @property
    def margin(self) -> dict[str, float | None]:
        """The runner-up's time over that of the chosen one, predicted and measured; None where one of them is missing.

        Below 1, measured: on this machine, now, another algorithm was faster than the chosen one.
        """
        if self.chosen is None or self.runner_up is None:
            return {"predicted": None, "measured": None}
        first, second = self.row(self.chosen), self.row(self.runner_up)
        rest = [row["measured_s"] for row in self.rows if row["measured_s"] and row is not first]
        measured = min(rest) / first["measured_s"] if rest and first["measured_s"] else None
        return {"predicted": second["predicted_s"] / first["predicted_s"], "measured": measured}

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, which `json.dumps` takes."""
        p = self.problem
        return {
            "problem": str(p),
            "device": self.device,
            "macs": p.macs,
            "bytes": p.bytes,
            "chosen": self.chosen,
            "tuning": self.tuning,
            "runner_up": self.runner_up,
            "margin": self.margin,
            "copies": self.copies,
            "speeds": self.speeds,
            "budget": self.budget,
            "algorithms": self.rows,
        }

    def table(self, width: int | None = None) -> str:
        """The text that `print` shows, for a terminal of `width` columns; None: this one's, 120 where there is none."""
        text: str = importlib.import_module(".explaining.table", __package__).table(self, width)
        return text

    def to_html(self) -> str:
        """A page that needs no other file: the table, the refusals, and a picture of the roofline."""
        page: str = importlib.import_module(".explaining.page", __package__).page(self)
        return page

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__


def time_of(row: dict[str, Any]) -> float:
    """The measured seconds of a row, where there are none the predicted ones."""
    return float(row["measured_s"] or row["predicted_s"])


def algorithms(problem: ConvProblem | str, device: str = "cpu") -> list[dict[str, Any]]:
    """Every algorithm for a problem under the current options.

    Args:
        problem: a ConvProblem or its text form.
        device: "cpu", or "cuda" or "cuda:1": those of a CUDA device.

    Returns:
        dictionaries with name, supported, reason (why not), threads, workspace_bytes, packed_bytes, bytes_moved,
        multiplications, estimate_s (of one core or of the device), estimated_work (kind of work -> seconds, whose sum
        estimate_s is), error_factor, exact_on_integers, same_bits ("one", "avx" or "all": instruction sets that give
        the same bits), takes_halves. docs/explain.md defines them.

    Raises:
        ProblemError: not a problem, no such device. DeviceError: what is missing for a CUDA device, in a sentence.
    """
    p = _parsed(problem)
    if device == "cpu":
        return _core.algorithms(p, current())
    return _core.device_algorithms(p, current(), _ordinal(device))


def explain(x: Any, w: Any = None, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
            groups: int = 1, *, padding_mode: str = "zeros", activation: Any = None, residual: Any = None,
            layout: str = "channels_first", device: str | None = None, measure: bool = False, errors: bool = False,
            budget: float = 1.0, seed: int = 0) -> Explanation:  # fmt: skip
    """Explain how a convolution is, or would be, computed.

    Args:
        x: the arguments of a call, as for `fc.conv2d` (one to three spatial axes); or a ConvProblem, or its text form
            ("fwd n1 c64 h56 w56 k64 r3 s3 stride1 pad1 dil1 g1 nchw f32", without a pass forward), alone.
        device: "cpu", "cuda" or "cuda:1"; None: where x is, the CPU for a problem.
        measure: time every usable algorithm on random data, and the phases of those that have some; implies `errors`.
        errors: compare every usable algorithm with float64 on one random image of the problem.
        budget: seconds that measuring may take in all. The fastest algorithms come first; what was not reached says so.
            A call that has begun is finished.
        seed: of the random data.

    Returns:
        an Explanation: `print` it, or take `.to_dict()` or `.to_html()`.

    Raises:
        ProblemError: arguments that do not fit together; no such device. DeviceError: what a CUDA device lacks.

    Example:
        >>> print(fc.explain(x, w, padding=1, measure=True))
    """
    copies: list[str] = []
    if isinstance(x, ConvProblem | str):
        if w is not None:
            raise ProblemError("explain: w is given besides a problem; expected the problem alone, or x and w")
        p, there = _parsed(x), "cpu"
    else:
        p = _from_call(x, w, bias, stride, padding, dilation, groups, padding_mode, activation, residual, layout)
        copies = _copies({"x": plain(x), "w": plain(w), "bias": plain(bias), "residual": plain(residual)}, layout)
        there = f"cuda:{int(plain(x).device.id)}" if kind_of(plain(x)) == "cupy" else "cpu"
    if not (budget >= 0 and math.isfinite(budget)):
        raise ProblemError(f"explain: budget is {budget}; expected seconds, 0 or more")
    where = there if device is None else device
    if where != "cpu":
        where = f"cuda:{_ordinal(where)}"
    rows = algorithms(p, where)
    speeds = _core.machine_speeds(current()) if where == "cpu" else _core.device_info(_ordinal(where))["speeds"]
    chosen = _chosen(p, where) if any(row["supported"] for row in rows) else None
    rows = [_completed(p, row, where, speeds, chosen) for row in rows]
    spent = _measured(p, rows, seed, budget, where, measure) if measure or errors else None
    for row in rows:
        if row["supported"]:
            row["roofline_share"] = row["roofline_s"] / time_of(row) if time_of(row) else None
    return Explanation(p, where, chosen, rows, copies, speeds, spent, _tuned(p, where, chosen))


def _completed(p: ConvProblem, row: dict[str, Any], device: str, speeds: dict[str, float],
               chosen: str | None) -> dict[str, Any]:  # fmt: skip
    """The row with what follows from it, and blanks for what is measured."""
    row = {**row, **dict.fromkeys(_BLANK), "chosen": row["name"] == chosen}
    if not row["supported"]:
        unknown = ("predicted_s", "predicted_phases", "roofline_s", "roofline_share", "flops_per_byte", "conversions")
        return {**row, **dict.fromkeys(unknown), "same_bits": None}
    row["predicted_s"] = row["estimate_s"] / row["threads"]
    row["predicted_phases"] = facts.predicted_phases(row)
    row.update(facts.roofline(p, row, speeds, device != "cpu"))
    row["conversions"] = facts.conversions(p, row, device != "cpu")
    row["same_bits"] = facts.same_bits(p, row, device)
    return row


def _measured(p: ConvProblem, rows: list[dict[str, Any]], seed: int, seconds: float, device: str,
              measure: bool) -> dict[str, float]:  # fmt: skip
    from .explaining import measure as measuring

    budget = measuring.Budget(seconds)
    if measure:
        measuring.add_times(p, rows, seed, budget.part(0.75), device)  # the rest is for the errors
    measuring.add_errors(p, rows, seed, budget, device)
    return {"granted_s": seconds, "spent_s": budget.spent}


def _chosen(p: ConvProblem, device: str) -> str | None:
    """None: the one that the options ask for cannot run."""
    try:
        if device == "cpu":
            return _core.choose(p, current())
        return _core.device_choose(p, current(), _ordinal(device))
    except (UnsupportedError, WorkspaceError):
        return None


def _tuned(p: ConvProblem, device: str, chosen: str | None) -> str | None:
    """The hash of the tuning that chose it."""
    options = current()
    if options.tuning is None or options.algorithm is not None:
        return None
    on_cpu = device == "cpu"
    label = str(options.isa) if on_cpu else f"sm_{_core.device_info(_ordinal(device))['architecture']}"
    judged = p.with_n(1) if options.batch_invariant and p.pass_ != "bwd_filter" and p.n > 1 else p
    return options.tuning.hash if chosen in options.tuning.ranking(judged, label, False) else None


def _ordinal(device: str) -> int:
    """The number of a CUDA device, whose library is open afterwards."""
    places = importlib.import_module(".device", __package__)
    if not places.is_name(device) or device == "cpu":
        raise ProblemError(f"explain: device is {device!r}; expected cpu, cuda or cuda:1")
    return int(places.numbered(device, "explain"))


def _parsed(problem: ConvProblem | str) -> ConvProblem:
    """Of a text that begins with a size, as "n1", the forward pass."""
    if not isinstance(problem, str):
        return problem
    sized = problem.strip().partition(" ")[0][-1:].isdecimal()
    return ConvProblem.parse(f"fwd {problem}" if sized else problem)


def _from_call(x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int, padding_mode: str,
               activation: Any, residual: Any, layout: str) -> ConvProblem:  # fmt: skip
    if w is None:
        raise ProblemError("explain: w is missing; expected explain(x, w, ...), explain(problem) or explain(text)")
    x, w = plain(x), plain(w)
    rank = len(w.shape) - 2
    if rank not in (1, 2, 3):
        raise ProblemError(f"explain: w has shape {w.shape}; expected (K, C/groups, *filter)")
    check_padding_mode(padding_mode, "explain")
    g = conv_geometry("explain", rank, x.shape, w.shape, stride, padding, dilation, groups, layout)
    kind, _ = activation_words(activation, "explain")
    return make_problem("fwd", g, layout, x.dtype, padding_mode, kind, bias is not None, residual is not None)


def _copies(arrays: dict[str, Any], layout: str) -> list[str]:
    """What a call copies because of its strides, and what it reads in the other layout where it lies."""
    sentences = []
    for name, array in arrays.items():
        if array is None or array.size == 0:
            continue
        shape, strides = tuple(array.shape), tuple(array.strides)
        if name == "x":
            shape, strides = _batched(shape, strides, len(arrays["w"].shape), array.itemsize)
            found = _core.device_pitches(shape, strides, array.itemsize, layout)
            aligned = not isinstance(array, np.ndarray) or array.flags.aligned
            if found is not None and aligned:
                if found[0] != layout:
                    sentences.append(f"x lies in memory {found[0].replace('_', ' ')}, and is read so without a copy")
                continue
        elif array.flags.c_contiguous:
            continue
        sentences.append(f"{name} is copied before each call ({array.nbytes:,} bytes): its strides are {strides}")
    return sentences


def _batched(shape: tuple[int, ...], strides: tuple[int, ...], rank: int,
             itemsize: int) -> tuple[tuple[int, ...], tuple[int, ...]]:  # fmt: skip
    """With a batch axis of 1 where there is none."""
    if len(shape) == rank:
        return shape, strides
    return (1, *shape), (itemsize * math.prod(shape), *strides)
