# SPDX-License-Identifier: Apache-2.0
"""What ran and where: the trace of a block of code, the machine, the caches."""

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

from . import _core, device
from .options import settings

OPTIONAL_PACKAGES = ("rich", "matplotlib", "PIL", "ml_dtypes", "safetensors", "cupy", "torch", "onnx")


class Trace:
    """The convolutions that ran inside a `with fc.trace()` block.

    Attributes:
        calls: one dictionary per call, in order: problem, algorithm, seconds, threads, workspace_bytes, tuning (the
            hash of the tuning file that chose; None: an estimate or the caller did), and with `phases=True` phases:
            seconds by phase, of all threads together or of the device; empty where the algorithm is of one piece.
            Complete after the block.
    """

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def table(self) -> str:
        """One line per distinct problem and algorithm, the costliest first."""
        totals: dict[tuple[str, str], tuple[int, float]] = {}
        for call in self.calls:
            key = str(call["problem"]), str(call["algorithm"])
            count, seconds = totals.get(key, (0, 0.0))
            totals[key] = count + 1, seconds + call["seconds"]
        rows = sorted(totals.items(), key=lambda row: -row[1][1])
        lines = [["calls", "total ms", "algorithm", "problem"]]
        lines += [[str(n), f"{1e3 * seconds:.3f}", algorithm, p] for (p, algorithm), (n, seconds) in rows]
        return align(lines, right=(0, 1))

    __str__ = table


@contextlib.contextmanager
def trace(phases: bool = False) -> Iterator[Trace]:
    """Record which algorithm computes which convolution of this process, and for how long.

    Args:
        phases: also read the clock between the phases of each call (weights, input, products, output, ...), which
            takes a few per cent of its time.

    Example:
        >>> with fc.trace() as t:
        ...     model(x)
        >>> print(t.table())
    """
    result = Trace()
    handle = _core.trace_start(phases)
    try:
        yield result
    finally:
        result.calls.extend(_core.trace_stop(handle))


class Report(dict[str, Any]):
    """A dictionary that prints as one `name: value` line per entry."""

    def __str__(self) -> str:
        return "\n".join(_lines(self, ""))

    __repr__ = __str__


def _lines(entries: Mapping[str, Any], indent: str) -> Iterator[str]:
    width = max((len(str(key)) for key in entries), default=0)
    for key, value in entries.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
            yield f"{indent}{key!s:<{width}}  {text}"


def info() -> Report:
    """The version, the machine and its instruction sets, threads, caches, algorithms, and which extras are there.

    "cuda" describes the devices, or says in a sentence what is missing; "tuning" is the hash of the tuning in effect
    and where it came from.
    """
    from . import __version__

    found = {name: "installed" if importlib.util.find_spec(name) else "missing" for name in OPTIONAL_PACKAGES}
    tuning = settings().tuning
    return Report(
        {
            **_core.info(),
            "version": __version__,
            "cuda": device.describe(),
            "tuning": "none" if tuning is None else f"{tuning.hash} ({tuning.path or 'of this process'})",
            "optional packages": found,
        }
    )


def cache_info() -> Report:
    """What is kept between calls.

    Returns:
        choices: which algorithm a problem under its options takes: entries, limit, hits, misses, bytes. workspace and
        outputs: memory for scratch and for results: held_bytes (kept, unused), used_bytes (lent now), limit_bytes.
    """
    return Report(_core.cache_info())


def clear_cache() -> None:
    """Forget the choices, count their hits anew, and give back the memory that is kept unused."""
    _core.clear_cache()


def align(rows: list[list[str]], right: tuple[int, ...] = ()) -> str:
    """Rows of cells as text with aligned columns; those in `right` are right-aligned, the last is not padded."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
