# SPDX-License-Identifier: Apache-2.0
"""Writes gpu.md, what was verified and measured on a GPU, and cuda/verified.h, which the library reads.

    python docs/make_gpu.py            writes both
    python docs/make_gpu.py --check    compares them, exit code 1 if one is out of date

All is taken from the newest result of bench.gpu_report in bench/results and from the sources as they are now. An
algorithm is verified while the sum over its sources is the one with which it passed.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from bench import gpu_sources, gpu_summary  # noqa: E402

PAGE = ROOT / "docs" / "gpu.md"
HEADER = ROOT / "cuda" / "verified.h"
RESULTS = ROOT / "bench" / "results"

TITLE = """# On a GPU

Written by `python docs/make_gpu.py`; change that, not this page.
"""
NOTHING = """**Nothing here has been verified on a GPU.** The kernels compile for GPUs without warnings, spills or stack
([registers of every kernel](../cuda/gates.txt)), and no GPU has run them. No speed of theirs has been measured.
"""
EMULATION = """## What runs without a GPU

CI builds the same kernel sources with the C++ compiler against an emulated device
([tests/cuda_host](../tests/cuda_host/README.md)) and checks them there: every algorithm in all passes, layouts and
dtypes against float64, with outputs that start as NaN. In one of its builds every load and store is looked at.

- It shows wrong results and indices, accesses beside an allocation, reads of what nobody wrote, races between threads
  of a block, and barriers that some threads miss.
- It does not show whether the operands of PTX instructions are in the right order, descriptors are encoded rightly, or
  tensor cores round as assumed; nothing of the memory model, fences, and blocks that run at the same time; nor
  coalescing, bank conflicts and speed. A fragment's layout that kernel and emulation misread alike would pass.
"""
HOW = """## How to verify and measure

On a machine with an NVIDIA GPU, CMake, and PyTorch with CUDA (`bench/README.md` has the method):

    FASTCONV_CUDA=on pip install -c constraints.txt .
    python -m bench.gpu_report      # about 8 minutes; --resume FILE goes on with a result
    python docs/make_gpu.py

Commit the new file in `bench/results/`, this page and `cuda/verified.h` together. The automatic choice takes verified
algorithms before others; `_core.device_info(0)["verified"]` names them.
"""
CLASSES = """## Speed

PyTorch's time over ours: same layout and dtype, cuDNN with its search on, geometric mean of a class's rows. Above 1
ours is faster. Empty: not run. *met* also needs every row run, and ours right. *of a copy*: of the
bandwidth of a device-to-device copy of the same bytes, without gradients of filters and with filters up to 7;
depthwise is to reach 85 %. *choice lost*: how much longer the chosen algorithm takes than the best, on average.
"""
ALGORITHMS = """## Algorithms

Verified: every run of `check_cuda` (`pool`: `check_cuda_pool`, `ops`: `check_cuda_ops`) was right on that GPU, and
nothing that the algorithm is compiled from has changed since, comments aside (`bench/gpu_sources.py`). The last column
begins the sum over what ran.
"""


def results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The results of bench.gpu_report, the newest last."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return sorted((r for r in found if r.get("kind") == "gpu"), key=lambda r: r["date"])


def status(name: str, digest: str, result: dict[str, Any] | None) -> str:
    """What is known of an algorithm whose sources now have this sum."""
    entry = result and result.get("parity", {}).get(name)
    if not result or not entry:
        return "never ran on a GPU"
    where = f"{result['gpu']['name']}, {result['date'][:10]}"
    if entry["passed"]:
        known = f"verified on {where}"
    elif entry["failures"] or "ended" in entry:
        known = f"wrong on {where}: " + (entry.get("ended") or f"{entry['failures']} failures in {entry['runs']} runs")
    else:
        return f"computes nothing on {where}"
    return known if result["sources"].get(name) == digest else f"changed since it was {known}"


def verified(digests: dict[str, str], result: dict[str, Any] | None) -> list[str]:
    """The names that stand in verified.h, sorted."""
    return [name for name, digest in sorted(digests.items()) if status(name, digest, result).startswith("verified")]


def header(names: list[str]) -> str:
    """cuda/verified.h."""
    entries = "".join(f'"{name}", ' for name in names)
    return f"""// SPDX-License-Identifier: Apache-2.0
// Written by docs/make_gpu.py; docs/gpu.md says on which GPU. The automatic choice takes these before others.
#pragma once

#include <cstdint>

namespace fastconv::cuda {{

// clang-format off
inline constexpr const char* kVerifiedNames[] = {{{entries}nullptr}};  // the last one is there lest there be none
// clang-format on
inline constexpr int32_t kVerifiedNameCount = {len(names)};

}}  // namespace fastconv::cuda
"""


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(head)
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def about(result: dict[str, Any]) -> str:
    """Where, when and with what it was measured."""
    gpu, build = result["gpu"], result.get("build", {})
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result["versions"].items()))
    lines = [
        f"Measured on {gpu['name']} (compute capability {gpu['architecture'] / 10}, {gpu['multiprocessors']} "
        f"multiprocessors), {result['date'][:10]}, commit {result['commit']}, seed {result['seed']}.",
        f"The library was {build.get('library', 'unknown')}; {versions}.",
    ]
    if "timing" in result:
        lines.append(f"Timing {result['timing']}.")
    return "\n".join(lines) + "\n"


def sanitizer(result: dict[str, Any]) -> str:
    rows = []
    for tool, entry in result.get("sanitizer", {}).items():
        if isinstance(entry, str):
            rows.append([f"compute-sanitizer: {tool}", entry])
        elif "did not run" in entry:
            rows.append([tool, f"did not run: {entry['did not run']}"])
        else:
            rows.append([tool, "clean" if entry["clean"] else f"status {entry['status']}: {entry['tail'][-1]}"])
    return "Under compute-sanitizer, on a sample:\n\n" + table(["check", "result"], rows) if rows else ""


def page(digests: dict[str, str], result: dict[str, Any] | None) -> str:
    """gpu.md."""
    names = verified(digests, result)
    parts = [TITLE]
    if not names:
        parts.append(NOTHING if result is None else "**No algorithm is verified as it is now.**\n")
    else:
        parts.append(f"{len(names)} of {len(digests)} are verified as they are now.\n")
    if result is not None:
        parts.append(about(result))
    rows = []
    for name, digest in digests.items():
        entry = (result or {}).get("parity", {}).get(name, {})
        # Of what ran, not of what is there: the page changes when a status does, not with every edit of a kernel.
        ran = f"`{result['sources'][name][:12]}`" if result and entry else ""
        rows.append([f"`{name}`", status(name, digest, result), str(entry.get("runs", "")), ran])
    parts += [ALGORITHMS, table(["algorithm", "on a GPU", "runs", "sources"], rows)]
    if result is not None and (told := sanitizer(result)):
        parts.append(told)
    classes = (result or {}).get("classes", {})
    shown = {"summary": gpu_summary.summary(classes), "bandwidth": gpu_summary.bandwidth(classes)}
    parts += [CLASSES, table(*gpu_summary.lines(shown)), EMULATION, HOW]
    return "\n".join(parts)


def main() -> int:
    found, digests = results(), gpu_sources.digests()
    newest = found[-1] if found else None
    written = {PAGE: page(digests, newest), HEADER: header(verified(digests, newest))}
    if "--check" in sys.argv[1:]:
        old = [path for path, text in written.items() if path.read_text(encoding="utf-8") != text]
        for path in old:
            print(f"{path.relative_to(ROOT)} is out of date: run python docs/make_gpu.py", file=sys.stderr)
        return bool(old)
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
