# SPDX-License-Identifier: Apache-2.0
"""Two results side by side, for a pull request: `python -m bench.compare OLD.json NEW.json`.

`new / old` is the speed of the new run over that of the old one. The two runs did not alternate, so that the interval
is wider than within a run, and a machine that was slower that day shows in every row: `relative` is the same divided by
the change of the baseline rival (PyTorch) on the same layer, where both runs have it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from fastconv.bench import report, summary, timing

Key = tuple[str, int]
BASELINES = (report.BASELINE, "torch_train")


def by_key(result: dict[str, Any]) -> dict[Key, summary.Row]:
    return {(row["problem"], row["threads"]): row for row in result["rows"]}


def change(old: summary.Row, new: summary.Row, name: str) -> timing.Estimate | None:
    """Speed of the new run over the old one."""
    a, b = summary.seconds_of(old, name), summary.seconds_of(new, name)
    return timing.unpaired_ratio(a, b) if a and b else None


def drift(old: summary.Row, new: summary.Row) -> float | None:
    """The same for a rival that did not change: what the machine did."""
    for name in BASELINES:
        if estimate := change(old, new, name):
            return estimate.value
    return None


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What makes the two hard to compare."""
    found = []
    for section, names in (("machine", ("cpu", "cores", "system")), ("settings", tuple(new["settings"]))):
        for name in names:
            a, b = old[section].get(name), new[section].get(name)
            if a != b and name != "rounds":
                found.append(f"{name} differs: {a} / {b}")
    versions = sorted(old["versions"].keys() & new["versions"].keys())
    found += [
        f"{name} differs: {old['versions'][name]} / {new['versions'][name]}"
        for name in versions
        if old["versions"][name] != new["versions"][name]
    ]
    return found


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m bench.compare", description="compare two results of one benchmark")
    p.add_argument("old", type=Path)
    p.add_argument("new", type=Path)
    p.add_argument("--peer", help="whose speed (default: each of fastconv's that both have)")
    p.add_argument("--fail-below", type=float, metavar="R", help="exit code 1 if a whole interval lies below R")
    arguments = p.parse_args()
    old, new = report.load(arguments.old), report.load(arguments.new)
    if old["kind"] != new["kind"] or "rows" not in new:
        p.error(f"the files hold {old['kind']} and {new['kind']}; expected two of layers or two of train")
    print(f"old: commit {old['commit']}, {old['date']}\nnew: commit {new['commit']}, {new['date']}")
    print("\n".join(f"note: {line}" for line in differences(old, new)))
    before, after = by_key(old), by_key(new)
    common = [key for key in after if key in before]
    names = [arguments.peer] if arguments.peer else ["fastconv_plan", "fastconv", "fastconv_train"]
    slower = False
    for name in names:
        body, values, relatives = [], [], []
        for key in common:
            estimate, machine = change(before[key], after[key], name), drift(before[key], after[key])
            if estimate is None:
                continue
            values.append(estimate.value)
            relative = estimate.value / machine if machine else None
            relatives += [relative] if relative else []
            low = arguments.fail_below is not None and estimate.high < arguments.fail_below
            slower |= low
            a, b = (entry["peers"][name] for entry in (before[key], after[key]))
            body.append(
                [
                    f"{after[key].get('pass', '')} {after[key]['layer']}".strip(),
                    str(key[1]),
                    f"{1e3 * a['median_s']:.3f}",
                    f"{1e3 * b['median_s']:.3f}",
                    str(estimate) + (" slower" if low else ""),
                    f"{relative:.2f}" if relative else "-",
                ]
            )
        if not body:
            continue
        header = ["layer", "threads", "old ms", "new ms", "new / old [95 %]", "relative"]
        report.print_table(f"\n{name}", header, body)
        mean = f"{timing.geometric_mean(relatives):.3f}" if relatives else "-"
        print(f"geometric mean of {len(values)}: {timing.geometric_mean(values):.3f}, relative {mean}")
    missing = len(before.keys() ^ after.keys())
    if missing:
        print(f"{missing} rows are in one file only")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
