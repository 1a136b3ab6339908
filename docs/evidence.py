# SPDX-License-Identifier: Apache-2.0
"""Which operations the tests hold against what, read from their source.

A test counts for an operation if it names it, itself or through the tables and helpers of tests/ that it uses, and for
a kind of evidence if it reaches that in the same way. So a name in a table reaches every test that runs over the table.
Names may be made: f"{kind}_pool{rank}d" is every name that ends in _pool and has one word before it.
"""

import ast
import re
from pathlib import Path

from fastconv.geometry import ACTIVATION_ALPHAS

KINDS = {
    "NumPy": r"\bfrom fastconv import reference\b|\bfc\.reference\b|\bop\.numpy\b",
    "gradcheck": r"\bgradcheck\b",
    "gradgradcheck": r"\bgradgradcheck\b",
    "PyTorch": r"importorskip\(.torch|\bimport torch\b",
    "SciPy": r"importorskip\(.scipy|\b(import|from) scipy\b",
    "ONNX": r"importorskip\(.onnx|\b(import|from) onnx",
    "hypothesis": r"\bfrom hypothesis\b",
}
# fc.conv2d, nn.Conv2d, "conv2d", f"conv{rank}d"; a bare `sum` or np.sum is somebody else's.
OWNERS = "fc|fastconv|ops|nn|F|functional|filters|optim|schedule|train|metrics|reference|_core"
NAME = re.compile(rf"""\b((?:(?:{OWNERS})\.)+|x\.)([\w{{}}]+)|["']([\w{{}}]+)""")
# Quoted, these are words for `reduction` and the like.
WORDS = {"sum", "mean", "max", "min", "conv", "edges", "mse", "box", "identity"}


def base(name: str) -> str:
    """The name without its number of axes: max_pool2d, max_pool{rank}d and max_pool2d_backward are max_pool."""
    return re.sub(r"([123]|\{\w+\})d(?![a-z])|_backward\w*|_$", "", name)


def _names(text: str) -> set[str]:
    found = set(ACTIVATION_ALPHAS) if "ACTIVATION_ALPHAS" in text else set()
    for owner, owned, quoted in NAME.findall(text):
        if owned:
            found.add(f"{owner.split('.')[-2]}.{base(owned)}")
        if (owned and owner != "x.") or (quoted and quoted not in WORDS):
            found.add(base(owned or quoted))
    return found


class Evidence:
    """What the tests of a folder hold the operations against."""

    def __init__(self, tests: Path) -> None:
        self._parts: dict[tuple[str, str], tuple[str, set[str]]] = {}
        self._modules = {path.stem for path in tests.glob("*.py")}
        self._imports: dict[tuple[str, str], tuple[str, str]] = {}
        for path in sorted(tests.glob("*.py")):
            self._read(path.stem, path.read_text(encoding="utf-8"))
        self._found: dict[str, set[str]] = {}
        self._made: dict[str, set[str]] = {}
        for module, name in self._parts:
            if module.startswith("test_") and name.startswith("test_"):
                text = "\n".join(self._parts[part][0] for part in self._reached((module, name)))
                kinds = {kind for kind, pattern in KINDS.items() if re.search(pattern, text)}
                for word in _names(text):
                    made = re.sub(r"\{\w+\}", "[a-z]+", word)
                    if made == word:
                        self._found.setdefault(word, set()).update(kinds)
                    elif re.search(r"\w{4}", re.sub(r"\{\w+\}", " ", word)) and "{" not in made:
                        self._made.setdefault(made, set()).update(kinds)

    def of(self, *words: str) -> str:
        """The evidence for an operation that the tests know by any of these words (`filters.mean`: by this alone)."""
        found = [self._found[word] for word in words if word in self._found]
        found += [kinds for made, kinds in self._made.items() if any(re.fullmatch(made, word) for word in words)]
        kinds = set().union(*found)
        return ", ".join(kind for kind in KINDS if kind in kinds) or ("values" if found else "-")

    def _read(self, module: str, text: str) -> None:
        """Top-level statements by the names they define: (source, names used)."""
        lines = text.splitlines()
        for node in ast.parse(text).body:
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            source = "\n".join(lines[first - 1 : node.end_lineno])
            used = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
            if isinstance(node, ast.Import | ast.ImportFrom):
                start = f"from {node.module} import" if isinstance(node, ast.ImportFrom) else "import"
                for alias in node.names:
                    name = alias.asname or alias.name.split(".")[0]
                    self._parts[module, name] = f"{start} {alias.name}", set()
                    if isinstance(node, ast.ImportFrom) and node.module in self._modules:
                        self._imports[module, name] = node.module, alias.name
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                self._parts[module, node.name] = source, used
            else:
                for item in ast.walk(node):
                    if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store):
                        self._parts[module, item.id] = source, used

    def _reached(self, start: tuple[str, str]) -> frozenset[tuple[str, str]]:
        reached: set[tuple[str, str]] = set()
        waiting = [start]
        while waiting:
            part = waiting.pop()
            part = self._imports.get(part, part)
            if part in self._parts and part not in reached:
                reached.add(part)
                waiting.extend((part[0], name) for name in self._parts[part][1])
        return frozenset(reached)
