# SPDX-License-Identifier: Apache-2.0
"""An Explanation as one HTML page without scripts or other files, for light and dark screens."""

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from . import facts, roofline, words

if TYPE_CHECKING:
    from ..explain import Explanation

# Okabe and Ito's colours, which colour-blind readers can tell apart; by phase in the order of the bars.
_BARS = {"start": "#999999", "conversions": "#CC79A7", "weights": "#E69F00", "input": "#56B4E9", "products": "#0072B2",
         "output": "#009E73", "sums": "#D55E00", "memory": "#F0E442", "others": "#999999"}  # fmt: skip
_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #5c5c5c; --paper: #ffffff; --line: #d9d9d9; --mark: #eaf3fa;
        --blue: #0072b2; --orange: #c04f00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececec; --soft: #a8a8a8; --paper: #16181b; --line: #3a3e44; --mark: #1c2b38; --blue: #6cb8e6;
          --orange: #f0904a; }
}
* { box-sizing: border-box; }
body { margin: 2rem auto; max-width: 84rem; padding: 0 1.2rem; background: var(--paper); color: var(--ink);
       font: 14px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.25rem; margin: 0 0 .3rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
code, .problem { font-family: ui-monospace, monospace; } .problem { overflow-wrap: anywhere; }
p { margin: .25rem 0; } .soft { color: var(--soft); font-size: .9em; max-width: 60rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; font-size: .85em; } th:first-child, td:first-child { text-align: left; }
td.words, th.words { text-align: left; white-space: normal; min-width: 11rem; font-size: .9em; }
tr.chosen td { background: var(--mark); } tr.chosen td:first-child { font-weight: 700; }
.bar { display: flex; height: 14px; border-radius: 3px; overflow: hidden; background: var(--line); min-width: 14rem; }
.bar span { height: 100%; } .key span { display: inline-block; width: 11px; height: 11px; border-radius: 2px;
      margin: 0 .3rem 0 .9rem; vertical-align: -1px; }
svg { width: 100%; height: auto; max-width: 60rem; display: block; }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); } svg .tick { fill: var(--soft); font-size: 12px; }
svg .axis, svg .roofword { fill: var(--soft); } svg .grid { stroke: var(--line); stroke-width: 1; }
svg .roof { fill: none; stroke: var(--soft); stroke-width: 2.5; } svg .lead { stroke: var(--soft); stroke-width: .6; }
svg circle { stroke-width: 2; } svg .chosen { fill: var(--orange); stroke: var(--orange); }
svg .other { fill: var(--blue); stroke: var(--blue); } svg circle.guess { fill: var(--paper); }
svg .chosenword { font-weight: 700; }
ul { padding-left: 1.2rem; margin: .3rem 0; }
"""

_COLUMNS: tuple[tuple[str, Callable[[dict[str, Any], int], str]], ...] = (
    ("algorithm", lambda row, macs: row["name"]),
    ("measured", lambda row, macs: words.seconds(row["measured_s"])),
    ("predicted", lambda row, macs: words.seconds(row["predicted_s"])),
    ("GFLOP/s", lambda row, macs: words.speed(row, macs, row["measured_s"])),
    ("roofline", lambda row, macs: words.share(row["roofline_share"])),
    ("multiplied", lambda row, macs: words.count(row["multiplications"])),
    ("moved", lambda row, macs: words.size(row["bytes_moved"])),
    ("workspace", lambda row, macs: words.size(row["workspace_bytes"])),
    ("max error", lambda row, macs: words.small(row["max_error"])),
    ("rms", lambda row, macs: words.small(row["rms_error"])),
    ("max ulp", lambda row, macs: words.ulps(row["max_ulp"])),
    ("mean ulp", lambda row, macs: words.ulps(row["mean_ulp"])),
    ("same bits over", lambda row, macs: words.bits(row)),
)


def page(e: "Explanation") -> str:
    """See `Explanation.to_html`."""
    head = "".join(f"<p>{escape(line)}</p>\n" for line in words.head(e))
    body = [f"<h1>How fastconv computes this convolution</h1>\n<p class='problem'>{escape(str(e.problem))}</p>\n{head}"]
    if e.usable:
        body.append(_table(e))
        body.append(_phases(e))
        picture = roofline.svg(e)
        if picture:
            body.append(f"<h2>Roofline</h2>\n{picture}\n<p class='soft'>{escape(roofline.legend(e))}</p>")
        body.append(_conversions(e))
    if e.refused:
        reasons = "\n".join(f"<li>{escape(words.refusal(row))}</li>" for row in e.refused)
        body.append(f"<h2>Not usable</h2>\n<ul>\n{reasons}\n</ul>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(str(e.problem))} - fastconv explain</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _table(e: "Explanation") -> str:
    """The fastest first; columns that hold nothing are left out."""
    macs = e.problem.macs
    columns = [(title, cell) for title, cell in _COLUMNS if any(cell(row, macs) != "-" for row in e.usable)]
    wordy = {"same bits over"}
    titles = "".join(f"<th{_words_class(title in wordy)}>{title}</th>" for title, _ in columns)
    lines = []
    for row in e.usable:
        cells = "".join(f"<td{_words_class(title in wordy)}>{escape(cell(row, macs))}</td>" for title, cell in columns)
        lines.append(f"<tr{' class=chosen' if row['chosen'] else ''}>{cells}</tr>")
    missing = sorted({row["not_measured"] for row in e.usable if row["not_measured"]})
    notes = "".join(
        f"<p class='soft'>{escape(text)}: "
        f"{escape(', '.join(row['name'] for row in e.usable if row['not_measured'] == text))}</p>"
        for text in missing
    )
    return (
        f"<h2>Algorithms, the fastest first</h2>\n<div class='scroll'><table>\n<tr>{titles}</tr>\n"
        + "\n".join(lines)
        + f"\n</table></div>\n{notes}"
    )


def _words_class(is_words: bool) -> str:
    return " class=words" if is_words else ""


def _phases(e: "Explanation") -> str:
    used: list[str] = []
    lines = []
    for row in e.usable:
        parts = row["phases"] or row["predicted_phases"]
        total = sum(parts.values()) or 1.0
        used += [name for name in parts if name not in used]
        spans = "".join(
            f'<span style="width:{100 * part / total:.2f}%;background:{_BARS[name]}" '
            f'title="{name} {100 * part / total:.1f} %"></span>'
            for name, part in parts.items()
        )
        kind = "measured" if row["phases"] else "predicted"
        lines.append(
            f"<tr{' class=chosen' if row['chosen'] else ''}><td>{escape(row['name'])}</td>"
            f'<td><div class="bar">{spans}</div></td><td class=words>{kind}: {escape(words.phases(row))}</td></tr>'
        )
    order = [name for name in (*facts.PHASES, "others") if name in used]
    key = "".join(f'<span style="background:{_BARS[name]}"></span>{name}' for name in order)
    return (
        f"<h2>Where the time goes</h2>\n<p class='key soft'>{key}</p>\n<div class='scroll'><table>\n"
        + "\n".join(lines)
        + "\n</table></div>"
    )


def _conversions(e: "Explanation") -> str:
    lines = [f"<li>{escape(text)}</li>" for text in e.copies]
    for row in e.usable:
        if row["conversions"]:
            whats = "; ".join(f"{part['what']} ({words.seconds(part['estimate_s'])})" for part in row["conversions"])
            lines.append(f"<li><code>{escape(row['name'])}</code>: {escape(whats)}</li>")
    if not lines:
        return ""
    return (
        "<h2>Conversions inside a call</h2>\n<p class='soft'>With the seconds of one core, or of the device, that the "
        "estimate has for them.</p>\n<ul>\n" + "\n".join(lines) + "\n</ul>"
    )
