# SPDX-License-Identifier: Apache-2.0
"""The roofline as an SVG picture, by hand: no package, no other file. Colours are the page's (page.py)."""

import math
from html import escape
from typing import TYPE_CHECKING, Any

from . import facts, words

if TYPE_CHECKING:
    from ..explain import Explanation

_WIDTH, _HEIGHT = 860, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 34, 56  # names stand at the right
_LINE = 17  # between two labels


class _Axes:
    """Two logarithmic axes in pixels."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x_range, self.y_range = x, y

    @staticmethod
    def _place(value: float, span: tuple[float, float], begin: float, end: float) -> float:
        low, high = (math.log10(v) for v in span)
        return begin + (math.log10(value) - low) / (high - low) * (end - begin)

    def x(self, value: float) -> float:
        return self._place(value, self.x_range, _LEFT, _WIDTH - _RIGHT)

    def y(self, value: float) -> float:
        return self._place(value, self.y_range, _HEIGHT - _BOTTOM, _TOP)


def points(e: "Explanation") -> list[dict[str, Any]]:
    """name, x (FLOP per byte), y (GFLOP/s really done), chosen and measured of each usable algorithm with a time."""
    found = []
    for row in e.usable:
        time = row["measured_s"] or row["predicted_s"]
        if not (time and row["multiplications"] and row["flops_per_byte"]):
            continue
        rate = 2e-9 * row["multiplications"] / time
        found.append({"name": row["name"], "x": row["flops_per_byte"], "y": rate, "chosen": row["chosen"],
                      "measured": row["measured_s"] is not None})  # fmt: skip
    return found


def svg(e: "Explanation") -> str:
    """The picture; empty where nothing is computed."""
    shown = points(e)
    if not shown:
        return ""
    threads = max(row["threads"] for row in e.usable)
    on_device = e.device != "cpu"
    peak = 1e-9 * threads * max(facts.peak_flops(e.problem, row["name"], e.speeds, on_device) for row in e.usable)
    bandwidth = 1e-9 * threads * e.speeds["bytes_per_second"]
    ridge = peak / bandwidth
    axes = _Axes(
        _decades([p["x"] for p in shown] + [ridge], least=1.5), _decades([p["y"] for p in shown] + [peak], least=1.5)
    )
    parts = [*_grid(axes), *_roof(axes, peak, bandwidth), *_dots(axes, shown)]
    title = f"Roofline: GFLOP/s against FLOP per byte moved, {len(shown)} algorithms"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{title}</title>\n" + "\n".join(parts) + "\n</svg>"
    )


def _decades(values: list[float], least: float) -> tuple[float, float]:
    """A range around positive values, at least `least` decades wide."""
    low, high = math.log10(min(values)) - 0.25, math.log10(max(values)) + 0.25
    spare = max(0.0, least - (high - low)) / 2
    return 10 ** (low - spare), 10 ** (high + spare)


def _grid(axes: _Axes) -> list[str]:
    parts = []
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for value in _ticks(axes.x_range):
        x = axes.x(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
    for value in _ticks(axes.y_range):
        y = axes.y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text class="axis" x="{middle:.0f}" y="{_HEIGHT - 12}" text-anchor="middle">FLOP per byte moved</text>'
    )
    parts.append(
        f'<text class="axis" x="18" y="{(_TOP + bottom) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 18 {(_TOP + bottom) / 2:.0f})">GFLOP/s really done</text>'
    )
    return parts


def _ticks(span: tuple[float, float]) -> list[float]:
    """1, 2 and 5 of each decade; over more than three decades the powers of ten alone."""
    low, high = (math.log10(v) for v in span)
    steps = (1,) if high - low > 3 else (1, 2, 5)
    found = [m * 10.0**d for d in range(math.floor(low), math.ceil(high) + 1) for m in steps]
    return [v for v in found if span[0] <= v <= span[1]]


def _roof(axes: _Axes, peak: float, bandwidth: float) -> list[str]:
    """The slope of memory up to the ridge, then the flat top of arithmetic."""
    (x0, x1), y0 = axes.x_range, axes.y_range[0]
    ridge = peak / bandwidth
    start = max(x0, y0 / bandwidth)
    corners = [(start, start * bandwidth), (ridge, peak), (x1, peak)]
    line = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in corners)
    top = axes.y(peak) - 8
    return [
        f'<polyline class="roof" points="{line}"/>',
        f'<text class="roofword" x="{_WIDTH - _RIGHT - 4}" y="{top:.1f}" text-anchor="end">'
        f"arithmetic: {peak:,.0f} GFLOP/s; memory: {bandwidth:,.0f} GB/s</text>",
    ]


def _dots(axes: _Axes, shown: list[dict[str, Any]]) -> list[str]:
    """A circle for each point, filled where it was measured, and a column of names with lines to them."""
    placed = sorted(((axes.x(p["x"]), axes.y(p["y"]), p) for p in shown), key=lambda at: at[1])
    beside = _WIDTH - _RIGHT + 16
    labels = spread([y for _, y, _ in placed], _TOP + 6.0, float(_HEIGHT - _BOTTOM))
    parts = []
    for (x, y, p), label in zip(placed, labels, strict=True):
        word = f"{p['name']}: {p['y']:.3g} GFLOP/s{'' if p['measured'] else ' (predicted)'}"
        kind = "chosen" if p["chosen"] else "other"
        shape = "" if p["measured"] else " guess"
        parts.append(f'<line class="lead" x1="{x:.1f}" y1="{y:.1f}" x2="{beside - 5}" y2="{label:.1f}"/>')
        parts.append(
            f'<circle class="{kind}{shape}" cx="{x:.1f}" cy="{y:.1f}" r="6"><title>{escape(word)}</title></circle>'
        )
        parts.append(f'<text class="name {kind}word" x="{beside}" y="{label + 4:.1f}">{escape(p["name"])}</text>')
    return parts


def spread(wanted: list[float], low: float, high: float, gap: float = _LINE) -> list[float]:
    """Ascending places as near the wanted ones as leaves `gap` between two, within low and high where there is room."""
    places: list[float] = []
    for y in wanted:
        places.append(max(y, low, places[-1] + gap if places else low))
    ceiling = high
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - gap
    return places


def legend(e: "Explanation") -> str:
    """What the picture shows, in a sentence or two."""
    threads = max((row["threads"] for row in e.usable), default=1)
    whose = "of the device" if e.device != "cpu" else f"of {threads} core{'s' if threads > 1 else ''}"
    return (
        f"Speeds {whose}, from the library's table. {words.count(e.problem.macs)} multiply-adds are the problem's; a "
        "point counts those that its algorithm really does, and the bytes that it moves. Filled: measured; hollow: "
        "predicted. What is missing up to the roof the machine leaves unused; a point above it ran on a faster "
        "machine than the table's."
    )
