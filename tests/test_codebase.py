# SPDX-License-Identifier: Apache-2.0
"""Rules of the source itself: files stay short, the core knows no Python, the stub says what the module offers."""

import ast
import inspect
import re
import subprocess
from pathlib import Path

import pytest

import fastconv
from fastconv import _core

ROOT = Path(__file__).resolve().parent.parent
HAND_WRITTEN = {".py", ".pyi", ".cc", ".h", ".cu", ".cuh", ".cmake", ".sh", ".toml", ".txt", ".md"}
# Stubs, tables and data may be longer.
LONG = {"python/fastconv/_core.pyi", "CHANGELOG.md"}
MOST_LINES = 400


def sources():
    """The files that git tracks, or would: relative path -> text. Binary and data files are left out."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if listed.returncode == 0:
        names = listed.stdout.splitlines()
    else:
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if not set(p.parts) & {".venv", "build", ".git"}]
    files = [name for name in names if Path(name).suffix in HAND_WRITTEN and (ROOT / name).is_file()]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in files}


SOURCES = sources()


def test_there_are_sources_to_check():
    assert {"csrc/problem.h", "python/fastconv/__init__.py", "tests/tolerance.py"} <= SOURCES.keys()


def test_files_are_read_in_one_sitting():
    data = ("tests/problems/", "tests/golden/", "bench/results/", "cuda/gates.txt")
    lines = {name: len(text.splitlines()) for name, text in SOURCES.items() if not name.startswith(data)}
    long = {name: count for name, count in lines.items() if count > MOST_LINES and name not in LONG}
    assert not long, f"split these files: {long}"


def test_every_source_names_its_licence():
    code = {".py", ".pyi", ".cc", ".h", ".cu", ".cuh"}
    missing = [
        name
        for name, text in SOURCES.items()
        if Path(name).suffix in code
        and name != "python/fastconv/_core.pyi"
        and "SPDX-License-Identifier: Apache-2.0" not in "".join(text.splitlines(keepends=True)[:3])
    ]
    assert not missing


def test_the_core_does_not_know_python():
    pattern = re.compile(r'#\s*include\s*[<"](pybind11|Python\.h|numpy)')
    guilty = [
        name
        for name, text in SOURCES.items()
        if name.startswith(("csrc/", "cuda/", "tests/native/"))
        and not name.startswith("csrc/bindings/")
        and pattern.search(text)
    ]
    assert not guilty


def test_only_the_cuda_folder_knows_cuda():
    pattern = re.compile(r"#\s*if.*__CUDA|#\s*include\s*<cuda")
    assert not [n for n, text in SOURCES.items() if n.startswith("csrc/") and pattern.search(text)]


def test_kernels_use_no_standard_templates():
    """What a kernel file instantiates could be linked into code for machines without that instruction set."""
    # Headers that hold macros, plain types and C functions only.
    harmless = {"cstdint", "cstddef", "cstring", "immintrin.h", "arm_neon.h"}
    for name, text in SOURCES.items():
        if name.startswith("csrc/kernels/"):
            assert not re.search(r"\bstd::(?!u?int\d|size_t)", text), name
            included = set(re.findall(r"#\s*include\s*<([^>]+)>", text))
            assert included <= harmless, f"{name}: {included - harmless}"


def test_nothing_is_left_for_later():
    unfinished = re.compile("TO" + "DO|FIX" + "ME|XX" + "X")
    assert not [name for name, text in SOURCES.items() if unfinished.search(text)]


def test_nothing_names_a_place_on_somebodys_machine():
    """Absolute paths of a home, a work folder or a temporary folder do not belong into the source."""
    place = re.compile(r"""(?<![\w./*$}-])/(work|home|root|tmp|Users|opt|mnt)/\w""")
    found = {name: place.search(text).group() for name, text in SOURCES.items() if place.search(text)}
    assert not found


def stub_declarations():
    """(functions: name -> argument names, classes: name -> members) of _core.pyi."""
    tree = ast.parse(SOURCES["python/fastconv/_core.pyi"])
    functions = {node.name: [a.arg for a in node.args.args] for node in tree.body if isinstance(node, ast.FunctionDef)}
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    return functions, classes


def test_stub_has_the_names_of_the_module():
    functions, classes = stub_declarations()
    public = {name for name in dir(_core) if not name.startswith("_")}
    assert public == functions.keys() | classes.keys()
    for name, node in classes.items():
        members = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
        actual = {member for member in vars(getattr(_core, name)) if not member.startswith("_")}
        assert actual == {member for member in members if not member.startswith("_")}, name
        for special in ("__call__", "__hash__", "__eq__"):
            assert special not in members or hasattr(getattr(_core, name), special), (name, special)


def documented_arguments(function):
    """The argument names in the first line of a native docstring, `name(a: int, b: str = 'x') -> r`."""
    signature = (function.__doc__ or "no docstring").splitlines()[0]
    inside = re.search(r"\((.*)\)\s*->", signature)
    assert inside, f"no signature in {signature!r}"
    # Commas inside of brackets separate type parameters, not arguments.
    flat, nested = inside.group(1), 1
    while nested:
        flat, nested = re.subn(r"\[[^\[\]]*\]", "", flat)
    names = [part.split(":")[0].split("=")[0].strip() for part in flat.split(",")]
    return [name for name in names if name and name not in ("*", "/")]


def test_stub_has_the_arguments_of_the_module():
    functions, classes = stub_declarations()
    for name, arguments in functions.items():
        assert documented_arguments(getattr(_core, name)) == arguments, name
    for name, node in classes.items():
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name in ("__init__", "parse", "with_n", "update", "__call__"):
                expected = [a.arg for a in item.args.args]
                assert documented_arguments(getattr(getattr(_core, name), item.name)) == expected, (name, item.name)


def test_public_names_exist_and_are_documented():
    for name in fastconv.__all__:
        value = getattr(fastconv, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert inspect.getdoc(value), f"fastconv.{name} has no docstring"


def test_the_installed_package_is_the_one_tested():
    """pytest runs from the root: the source tree must not shadow what was installed."""
    assert Path(_core.__file__).suffix in (".so", ".pyd", ".dylib")
    assert not (ROOT / "python" / "fastconv" / Path(_core.__file__).name).exists()


POOLINGS = ["avg_pool", "max_pool", "min_pool", "lp_pool", "adaptive_avg_pool", "adaptive_max_pool", "max_unpool"]


@pytest.mark.parametrize("kind", ["conv", *POOLINGS])
def test_every_rank_has_its_function(kind):
    for rank in (1, 2, 3):
        assert callable(getattr(fastconv, f"{kind}{rank}d"))
        assert callable(getattr(fastconv, f"{kind}{rank}d_backward"))


def test_the_example_of_the_readme_runs(capsys):
    example = re.search(r"```python\n(.*?)```", SOURCES["README.md"], re.DOTALL).group(1)
    exec(compile(example, "README.md", "exec"), {})
    assert "im2col_gemm" in capsys.readouterr().out
