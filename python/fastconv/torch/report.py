# SPDX-License-Identifier: Apache-2.0
"""What `accelerate` measured and chose: an object to print, to save as JSON, and to replay elsewhere."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

FORMAT = 1  # of the JSON; raised when a reader must change
KINDS = ("convolution", "batch norm", "pool")


class ReportError(ValueError):
    """A report that cannot be read, or that was made for another model."""


@dataclasses.dataclass
class Call:
    """One layer on one input: seconds are medians of a call, or of a step (forward and backward) in training.

    Errors are the largest abs(difference) over the largest abs(value), the worst of the output and of the gradients.
    """

    shape: list[int]  # of the input
    training: bool
    stock_s: float | None = None
    ours_s: float | None = None
    error: float | None = None  # of ours against torch's layer
    error_float64: float | None = None  # of both against torch's layer in float64, where asked for
    stock_error_float64: float | None = None


@dataclasses.dataclass
class Layer:
    """A layer that could be replaced: a module once, wherever in the model it stands."""

    name: str  # the first of its names in `model.named_modules()`
    module: str  # as torch prints it: the class with its geometry
    dtype: str | None  # of its weight; pools have none, and batch norms without one
    replaced: bool
    reason: str  # why it was replaced or kept
    calls: list[Call] = dataclasses.field(default_factory=list)

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        name = self.module.partition("(")[0]
        return "pool" if "Pool" in name else "batch norm" if "Norm" in name else "convolution"


@dataclasses.dataclass
class Report:
    """How a model was accelerated.

    `str` is the summary, `table()` has a line for each layer, `to_dict()` and `save(path)` are what `load(path)` and
    `accelerate(model, report=...)` read.
    """

    policy: str
    training: bool | None = None  # whether a step or the forward pass was measured; None: nothing was
    layers: list[Layer] = dataclasses.field(default_factory=list)
    stock_s: float | None = None  # the whole model, medians
    ours_s: float | None = None
    note: str = ""  # why the whole was not measured, or why all was kept
    about: dict[str, Any] = dataclasses.field(default_factory=dict)  # versions, threads, machine
    pending: bool = False  # waits for the model's first input

    @property
    def largest_error(self) -> float | None:
        """Of the layers that were replaced; None where none was measured."""
        errors = [call.error for layer in self.layers if layer.replaced for call in layer.calls]
        return max((e for e in errors if e is not None), default=None)

    def __str__(self) -> str:
        if self.pending:
            return "waits for the model's first input"
        *most, last = self._counts()
        parts = [f"replaced {', '.join(most)} and {last}" if most else f"replaced {last}"]
        if self.stock_s is not None and self.ours_s is not None:
            what = "step" if self.training else "forward"
            parts.append(f"{what} {_milliseconds(self.stock_s)} -> {_milliseconds(self.ours_s)} ms")
        if (error := self.largest_error) is not None:
            parts.append(f"largest error {_short(error)}")
        if self.note:
            parts.append(self.note)
        return "; ".join(parts)

    def _counts(self) -> list[str]:
        texts = []
        for kind in KINDS:
            of = [x for x in self.layers if x.kind == kind]
            if of or kind == "convolution":
                texts.append(f"{sum(x.replaced for x in of)} of {len(of)} {kind}{'s' * (len(of) != 1)}")
        return texts

    def table(self) -> str:
        """A line for each layer and input: milliseconds of torch's and ours, the error, the choice and its reason."""
        rows = [["layer", "input", "torch ms", "ours ms", "error", ""]]
        for layer in self.layers:
            choice = f"{'replaced' if layer.replaced else 'kept'}: {layer.reason}"
            name = layer.name or "(the model)"
            rows += [[name, *_cells(call), choice] for call in layer.calls] or [[name, "", "", "", "", choice]]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = ["  ".join([c.ljust(w) for c, w in zip(row, widths, strict=False)] + [row[5]]) for row in rows]
        return "\n".join(line.rstrip() for line in lines)

    def to_dict(self) -> dict[str, Any]:
        """What JSON holds."""
        told = dataclasses.asdict(self)
        del told["pending"]
        return {"format": FORMAT, **told}

    @classmethod
    def from_dict(cls, told: Any) -> Report:
        """The report that `to_dict` told.

        Raises:
            ReportError: another format, or fields that are missing, of another kind, or unknown.
        """
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            found = told.get("format") if isinstance(told, dict) else type(told).__name__
            raise ReportError(f"the report has the format {found!r}; expected {FORMAT}")
        try:
            fields = {key: value for key, value in told.items() if key != "format"}
            layers = [Layer(**{**one, "calls": [Call(**c) for c in one["calls"]]}) for one in fields.pop("layers")]
            report = cls(**fields, layers=layers)
        except (TypeError, KeyError) as error:
            raise ReportError(f"the report lacks a field or has an unknown one: {error}") from error
        for layer in layers:
            if not isinstance(layer.name, str) or not isinstance(layer.replaced, bool):
                raise ReportError(f"the report's layer {layer.name!r} has replaced={layer.replaced!r}; expected a bool")
        return report

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON.

        Raises:
            ReportError: nothing was measured yet.
        """
        if self.pending:
            raise ReportError("the report waits for the model's first input: run the model once, then save it")
        Path(path).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Read what `save` wrote.

        Raises:
            ReportError: it is not such a file.
            OSError: it cannot be read.
        """
        try:
            told = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:  # JSON and UTF-8 alike
            raise ReportError(f"{path} is not a report: {error}") from error
        try:
            return cls.from_dict(told)
        except ReportError as error:
            raise ReportError(f"{path}: {error}") from None


def _cells(call: Call) -> list[str]:
    times = [_milliseconds(s) if s is not None else "-" for s in (call.stock_s, call.ours_s)]
    return ["x".join(map(str, call.shape)), *times, _short(call.error) if call.error is not None else "-"]


def _milliseconds(seconds: float) -> str:
    """Three digits: 412, 40.1, 0.083."""
    ms = 1e3 * seconds
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"


def _short(error: float) -> str:
    """2e-6 rather than 2e-06; 0 where there is none."""
    mantissa, _, exponent = f"{error:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if error > 0 else "0"
