# SPDX-License-Identifier: Apache-2.0
"""Writes operations.md: what every operation computes, for which dtypes, how, and what it was tested against.

    python docs/make_operations.py            writes the page
    python docs/make_operations.py --check    compares it, exit code 1 if it is out of date

Everything is asked of the library (small calls, operation_examples.py) or read from the tests' source (evidence.py).
Nothing depends on the machine: kernels are asked about as "scalar", with one thread.
"""

import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc
from fastconv import _core, filters, nn, ops, optim, schedule, train
from fastconv.train import metrics

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from evidence import Evidence, base  # noqa: E402
from operation_examples import ALIASES, FAMILIES, INTERNAL, Example  # noqa: E402

PAGE = HERE / "operations.md"
SPACES = {"fc": fc, "fc.filters": filters, "fc.ops": ops, "fc.nn.functional": nn.functional}
ANY_LAYOUT = ("Activations", "Losses", "Products", "Tensor operations", "Filters")
# A test compares bfloat16 with float16: the one answer holds for both, with and without the package that has it.
DTYPES = {"f32": "f4", "f64": "f8", "f16, bf16": "f2"}
# Of the native functions those that are no computation of their own.
SERVICE = re.compile(r"info|trace|cache|threads|choose|algorithms|output_size|widen|narrow|last_positions")

INTRODUCTION = """# Operations

Written by `python docs/make_operations.py`; change that, not this page.

`max_pool*d` stands for `max_pool1d`, `max_pool2d` and `max_pool3d`. The columns:

- **operation**: the functions, their explicit backward functions, and the layers of `fc.nn`. Functions of `fc` answer
  an array with an array and an `fc.Tensor` with one, those of `fc.ops` always with a tensor; where PyTorch has these
  in `nn.functional`, so has `fc.nn.functional`.
- **axes**: how many spatial axes, where there are such. **layouts**: `first` is `(N, C, *size)`, `last` is
  `(N, *size, C)`.
- **dtypes**: float16 and bfloat16 are computed in float32 and rounded once (`numerics.md`).
- **gradient**: `2`, it has a gradient that has a gradient itself; `1`, one that has none; `-`, none.
- **computed by**: the functions of the native module that a call and its gradient use (`add` also adds up the
  gradients of several users); NumPy where there are none.
- **tested against**: `NumPy`, the float64 definitions of `fc.reference` (or NumPy itself); `gradcheck` and
  `gradgradcheck`, central differences; `PyTorch`, `SciPy`, `ONNX`, the packages, each where installed; `hypothesis`,
  options at random; `values`, none of these, but what the test itself says. It means that some test names the
  operation and uses that, not how much of it.
"""
ALGORITHMS = """## Algorithms of convolution

What each algorithm computes in which passes. **refuses** has its own words for what it does not, of all that was
asked about ({count} problems): float32, float64, float16, bfloat16; one to three axes; channels first and last; every
padding mode, with padding 0 and 1; filters of 1 to 5 and 7; strides and dilations 1 and 2; groups 1, 2 and as many as
channels. `all` is all of these.

**workspace** is `0` where no such problem in float32 or float64 needs any (halves add their widened copies);
**exact**: integers whose sums stay below 2^24 come out to the last bit; **error** is the `error_factor` of
`numerics.md`. Transposed convolution is `bwd_data`, causal convolution `fwd`. Which of them runs, and why:
`fc.explain`.
"""


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    columns = head.split("|")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# Convolution: the list of algorithms, asked about many small problems.


CHOICES = {
    "pass": ("fwd", "bwd_data", "bwd_filter"),
    "dtype": ("f32", "f64", "f16", "bf16"),
    "layout": ("first", "last"),
    "axes": ("1", "2", "3"),
    "mode": ("zeros", "constant", "reflect", "replicate", "circular"),
    "padding": ("0", "1"),
    "filter": ("7", "5", "4", "3", "2", "1"),
    "stride": ("1", "2"),
    "dilation": ("1", "2"),
    "groups": ("1", "2", "channels"),
}


def problems() -> Iterator[tuple[dict[str, str], _core.ConvProblem]]:
    """(properties in words, problem)"""
    for values in itertools.product(*CHOICES.values()):
        p = dict(zip(CHOICES, values, strict=True))
        size = " ".join(f"{axis}14" for axis in "dhw"[-int(p["axes"]) :])
        taps = " ".join(f"{axis}{p['filter']}" for axis in "trs"[-int(p["axes"]) :])
        groups = 4 if p["groups"] == "channels" else int(p["groups"])
        layout = "nhwc" if p["layout"] == "last" else "nchw"
        text = (
            f"{p['pass']} n1 c4 {size} k4 {taps} stride{p['stride']} pad{p['padding']} dil{p['dilation']} g{groups}"
            f" {layout} {p['dtype']} {p['mode']}"
        )
        yield p, _core.ConvProblem.parse(text)


def algorithm_table() -> str:
    options = _core.Options(isa="scalar", threads=1, precision=1e9)
    # (algorithm, pass) -> property -> values that it computes, in order; and why it refuses others.
    seen: dict[tuple[str, str], dict[str, dict[str, None]]] = {}
    facts: dict[str, list[str]] = {}
    count = 0
    for p, problem in problems():
        count += 1
        for row in _core.algorithms(problem, options):
            facts[row["name"]] = ["yes" if row["exact_on_integers"] else "no", f"{row['error_factor']:g}"]
            cell = seen.setdefault((row["name"], p["pass"]), {})
            if row["supported"]:
                found = p | ({"workspace": "some"} if row["workspace_bytes"] and p["dtype"] in ("f32", "f64") else {})
            else:  # without the algorithm's name and what came
                found = {"refuses": re.sub(r",? got .*", "", row["reason"].removeprefix(row["name"])).strip()}
            for key, value in found.items():
                cell.setdefault(key, {})[value] = None

    def words(cell: dict[str, dict[str, None]], key: str, otherwise: str = "") -> str:
        found = [value for value in CHOICES.get(key, cell.get(key, ())) if value in cell.get(key, ())]
        return "all" if found == list(CHOICES.get(key, "?")) else ", ".join(found) or otherwise

    rows: dict[tuple[str, ...], list[str]] = {}  # those that differ in the pass alone are one
    for (name, pass_), cell in sorted(seen.items(), key=lambda item: list(facts).index(item[0][0])):
        if "pass" in cell:
            limits = [words(cell, key) for key in CHOICES if key != "pass"]
            row = [*limits, words(cell, "workspace", "0"), *facts[name], words(cell, "refuses", "-")]
            rows.setdefault((name, *row), []).append(pass_)
    head = "algorithm|pass|dtypes|layouts|axes|padding modes|padding|filter|stride|dilation|groups"
    lines = [[f"`{name}`", ", ".join(passes), *row] for (name, *row), passes in rows.items()]
    return ALGORITHMS.format(count=count) + "\n" + table(head + "|workspace|exact|error|refuses", lines)


# Operations: one small call each.


@contextmanager
def recorded() -> Iterator[set[str]]:
    """The native functions that are called inside."""
    used: set[str] = set()
    natives = {n: f for n, f in vars(_core).items() if callable(f) and not isinstance(f, type) and n[0] != "_"}

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **words: Any) -> Any:
            used.add(name)
            return function(*arguments, **words)

        return call

    for name, function in natives.items():
        setattr(_core, name, noting(name, function))
    try:
        yield used
    finally:
        for name, function in natives.items():
            setattr(_core, name, function)


def tensors(example: Example, dtype: Any) -> list[fc.Tensor]:
    rng = np.random.default_rng(0)
    return [fc.Tensor((0.5 + 0.4 * rng.random(s)).astype(dtype), requires_grad=True) for s in example.shapes]


def result(example: Example, inputs: list[fc.Tensor]) -> Any:
    y = example.call(*inputs)
    return y[0] if isinstance(y, tuple) else y


def computes_in(example: Example, dtype: Any) -> bool:
    try:
        y = result(example, tensors(example, dtype))
    except TypeError:
        return False
    return y.dtype == dtype or not isinstance(y, fc.Tensor)


def differentiable(example: Example) -> str:
    """How often: "-", "1" or "2"."""
    inputs = tensors(example, np.float64)
    y = result(example, inputs)
    if not (isinstance(y, fc.Tensor) and y.requires_grad):
        return "-"
    dy = fc.Tensor(np.ones(y.shape), requires_grad=True)
    first = fc.grad(y, inputs, dy, create_graph=True)
    if not all(g.requires_grad for g in first):
        return "1"
    total = sum((g * g).sum() for g in first)
    fc.grad(total, [*inputs, dy], allow_unused=True)
    return "2"


def native_functions(example: Example) -> list[str]:
    with recorded() as used:
        inputs = tensors(example, np.float32)
        y = result(example, inputs)
        if isinstance(y, fc.Tensor) and y.requires_grad:
            fc.grad(y, inputs, fc.Tensor(np.ones(y.shape, np.float32)))
    return sorted(name for name in used if not SERVICE.search(name))


def starred(names: Iterable[str]) -> list[str]:
    """max_pool1d, max_pool2d, max_pool3d -> max_pool*d"""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(re.sub(r"[123]d(?![a-z0-9])", "*d", name), []).append(name)
    return [n for star, members in families.items() for n in ([star] if len(members) == 3 else members)]


def public_functions() -> dict[str, list[str]]:
    """Operation -> the functions that compute it, each once: max_pool -> fc.max_pool1d, ..."""
    found: dict[str, list[str]] = {}
    seen: set[Any] = set()
    known = {operation for family in FAMILIES.values() for operation in family}
    for prefix, space in SPACES.items():
        for name in space.__all__:
            operation = ALIASES.get(base(name), base(name))
            function = getattr(space, name)
            if name in INTERNAL or (space is ops and name in ("conv", "conv_transpose")):
                continue
            if operation in known and inspect.isfunction(function) and (space is not filters or name not in KERNELS):
                if function not in seen or (name != operation and base(name) in ALIASES):
                    found.setdefault(operation, []).append(f"{prefix}.{name}")
                seen.add(function)
            elif space is ops:
                raise LookupError(f"operation_examples.py has no example of ops.{name}")
    return found


def layers_of(operation: str, example: Example) -> list[str]:
    plain = operation.replace("_", "")
    return [
        name
        for name in LAYERS
        if base(name).lower() in (plain, plain + "loss") or (example.layers and re.fullmatch(example.layers, name))
    ]


def operation_row(operation: str, example: Example, functions: list[str], family: str, tests: Evidence) -> list[str]:
    layers = layers_of(operation, example)
    ranks = sorted({m.group(1) for name in functions for m in [re.search(r"([123])d", name)] if m})
    takes_layout = any("layout" in inspect.signature(_resolve(name)).parameters for name in functions)
    dtypes = [word for word, dtype in DTYPES.items() if computes_in(example, np.dtype(dtype))]
    words = {operation, *map(base, layers), *example.words}
    cells = [code(starred(functions)) + (f"<br>layers {code(starred(layers))}" if layers else "")]
    cells += [example.axes or ", ".join(ranks) or "any"]
    layouts = "first, last" if takes_layout else "any" if family in ANY_LAYOUT else "first"
    cells += [example.layouts or layouts]
    cells += [", ".join(dtypes), differentiable(example)]
    return [*cells, code(native_functions(example)) or "NumPy", tests.of(*words)]


def _resolve(name: str) -> Any:
    value: Any = fc
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    return value


def _public(space: Any) -> list[str]:
    """What a module without a list of its own defines."""
    return [n for n, v in vars(space).items() if n[0] != "_" and getattr(v, "__module__", "") == space.__name__]


KERNELS = [name for name in filters.__all__ if name not in FAMILIES["Filters"]]
LAYERS = [name for name in nn.__all__ if isinstance(getattr(nn, name), type)]


# Optimisers, schedules, metrics and the rest: what they are, in their own first sentence.


def sentence(value: Any) -> str:
    if isinstance(value, type) and issubclass(value, Exception):
        return f"An error; also a {value.__mro__[1].__name__}"
    text = (inspect.getdoc(value) or "").strip() + " "
    first = re.split(r"(?<=[^.,])\.\s+(?=[A-Z`\"(]|$)|:\n|\n\n", text, maxsplit=1)[0]
    return first.replace("\n", " ").replace("|", "\\|").strip(" :").removesuffix(".")


def described(prefix: str, space: Any, names: Iterable[str], tests: Evidence | None = None) -> str:
    head = "name|what it is" + ("|tested against" if tests else "")
    rows = []
    for name in names:
        row = [f"`{prefix}.{name}`", sentence(getattr(space, name))]
        # Classes have names that are found without their module, `mean` and `mse` do not.
        words = {f"{prefix.split('.')[-1]}.{base(name)}", *([name] if name.endswith(("LR", "Plateau")) else [])}
        rows.append([*row, tests.of(*words)] if tests else row)
    return table(head, rows)


def optimizer_table(tests: Evidence) -> str:
    rows = []
    for name in optim.__all__:
        kind = getattr(optim, name)
        if not isinstance(kind, type) or kind is optim.Optimizer:
            continue
        dtypes, used = [], set()
        for word, dtype in DTYPES.items():
            w = nn.Parameter(np.ones(3, dtype))
            w.grad = fc.Tensor(np.ones(3, dtype))
            with recorded() as used_now:
                kind([w], lr=0.5).step()
            used |= used_now
            dtypes += [word] if w.dtype == np.dtype(dtype) and w.data[0] != 1 else []
        native = sorted(n for n in used if not SERVICE.search(n))
        rows.append([f"`fc.optim.{name}`", ", ".join(dtypes), code(native) or "NumPy", tests.of(name)])
    return table("optimiser|dtypes|computed by|tested against", rows)


def page() -> str:
    """operations.md as it should be."""
    tests = Evidence(HERE.parent / "tests")
    functions = public_functions()
    parts = [INTRODUCTION, algorithm_table()]
    shown = set()
    for family, examples in FAMILIES.items():
        rows = [operation_row(name, example, functions[name], family, tests) for name, example in examples.items()]
        head = "operation|axes|layouts|dtypes|gradient|computed by|tested against"
        parts.append(f"## {family}\n\n{table(head, rows)}")
        shown |= {layer for name, example in examples.items() for layer in layers_of(name, example)}
        if family == "Filters":
            parts.append("Kernels by name:\n\n" + described("fc.filters", filters, KERNELS, tests))
    helpers = [n for n in optim.__all__ if not isinstance(getattr(optim, n), type) or n == "Optimizer"]
    shown_functions = {name for names in functions.values() for name in names}
    rest = [name for name in fc.__all__ if callable(getattr(fc, name)) and f"fc.{name}" not in shown_functions]
    parts += [
        "## Layers without an operation of their own\n\n"
        + described("fc.nn", nn, sorted(set(nn.__all__) - shown - _modules(nn))),
        "## Optimisers\n\n" + optimizer_table(tests) + "\n" + described("fc.optim", optim, helpers, tests),
        "## Schedules\n\n" + described("fc.schedule", schedule, _public(schedule), tests),
        "## Metrics\n\n" + described("fc.train.metrics", metrics, _metrics(), tests),
        "## Training\n\n" + described("fc.train", train, [n for n in train.__all__ if n != "metrics"]),
        "## Everything else in `fc`\n\n" + described("fc", fc, rest),
    ]
    return "\n".join(parts)


def _modules(space: Any) -> set[str]:
    return {name for name in space.__all__ if inspect.ismodule(getattr(space, name))}


def _metrics() -> list[str]:
    return [
        n for n, v in vars(metrics).items() if n[0] != "_" and getattr(v, "__module__", "").startswith("fastconv.train")
    ]


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") != text:
            print("docs/operations.md is out of date: run python docs/make_operations.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
