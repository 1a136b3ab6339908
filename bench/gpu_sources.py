# SPDX-License-Identifier: Apache-2.0
"""Which files the kernels of an algorithm are made of, and one number over them: what was verified on a GPU is verified
as long as that number stays.

The files of an algorithm are those in cuda/ whose names begin as its name does (winograd_f2x2_3x3 has winograd.cu and
winograd_*.cu, where none begins with more of it), what they include from this repository, and for every header the .cu
file of its name, which has its functions. Of their text comments and white space do not count, so that a better comment
costs nothing. The estimate of an algorithm is in its files: a new price makes it "changed" too.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CUDA = "cuda"
ALGORITHMS = (  # as in cuda/registry.cc
    "depthwise",
    "direct",
    "grouped",
    "grouped_tensor",
    "grouped_tf32",
    "im2col_gemm",
    "implicit_gemm",
    "implicit_gemm_tf32",
    "pointwise_1x1",
    "winograd_f2x2_3x3",
    "winograd_f4x4_3x3",
)
POOL = "pool"  # all of pooling counts as one: check_cuda_pool tests it as one
OPS = "ops"  # and so do pointwise operations, normalisation and softmax, by check_cuda_ops
OPS_STEMS = ("norm", "pointwise", "softmax")
ALWAYS = ("csrc/algorithm.h", "csrc/problem.h")
# A comment, or a text in which a comment's signs mean nothing.
_WORDS = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\s+', re.DOTALL)
_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
_REGISTERED = re.compile(r"&k(\w+)")


def algorithms(root: Path = ROOT) -> list[str]:
    """The names of the algorithms, "pool" and "ops", sorted.

    Raises:
        LookupError: the registry has others.
    """
    registry = (root / CUDA / "registry.cc").read_text(encoding="utf-8")
    registered = sorted(name.lower() for name in _REGISTERED.findall(registry))
    if registered != sorted(name.replace("_", "") for name in ALGORITHMS):
        raise LookupError(f"cuda/registry.cc has {', '.join(registered)}; bench/gpu_sources.py {', '.join(ALGORITHMS)}")
    return sorted([*ALGORITHMS, OPS, POOL])


def files_of(algorithm: str, root: Path = ROOT) -> list[str]:
    """Paths relative to the repository, sorted.

    Raises:
        LookupError: no file in cuda/ begins with the algorithm's name.
    """
    stem, own = algorithm, _of_ops(root) if algorithm == OPS else _of_stem(algorithm, root)
    while not own:
        stem, rest, _ = stem.rpartition("_")
        if not rest:
            raise LookupError(f"cuda/ has no file for the algorithm {algorithm}")
        own = _of_stem(stem, root)
    return closure([*(str(p.relative_to(root)) for p in own), *ALWAYS], root)


def _of_stem(stem: str, root: Path) -> list[Path]:
    return [p for p in (root / CUDA).glob("*.cu") if p.stem == stem or p.stem.startswith(f"{stem}_")]


def _of_ops(root: Path) -> list[Path]:
    algorithms = {path for name in ALGORITHMS for path in _of_stem(name, root)}
    return [path for stem in OPS_STEMS for path in _of_stem(stem, root) if path not in algorithms]


def closure(files: list[str], root: Path) -> list[str]:
    """`files` with all that they include from the repository, and the .cu file beside each header of cuda/."""
    found: set[str] = set()
    waiting = list(files)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        path = root / name
        beside = path.with_suffix(".cu")
        if path.parent.name == CUDA and path.suffix in (".cuh", ".h") and beside.is_file():
            waiting.append(str(beside.relative_to(root)))
        for included in _INCLUDE.findall(path.read_text(encoding="utf-8")):
            target = (path.parent / included).resolve()
            if target.is_file() and target.is_relative_to(root):  # device_host.h is the emulation's, and elsewhere
                waiting.append(str(target.relative_to(root)))
    return sorted(found)


def without_comments(text: str) -> str:
    """The text with every run of comments and white space as one space."""
    kept = _WORDS.sub(lambda m: m[0] if m[0].startswith('"') else " ", text)
    return re.sub(r" +", " ", kept).strip()


def digest(algorithm: str, root: Path = ROOT) -> str:
    """The sha256 over names and texts of the algorithm's files."""
    total = hashlib.sha256()
    for name in files_of(algorithm, root):
        text = without_comments((root / name).read_text(encoding="utf-8"))
        total.update(f"{name}\n{len(text)}\n{text}\n".encode())
    return total.hexdigest()


def digests(root: Path = ROOT) -> dict[str, str]:
    """Algorithm -> its sha256."""
    return {name: digest(name, root) for name in algorithms(root)}
