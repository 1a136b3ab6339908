# SPDX-License-Identifier: Apache-2.0
"""docs/install.md: its snippets run, its table is that of the configuration; examples/numpy_*.py run."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples").glob("numpy_*.py"))


def run(*command):
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_of_the_page_runs(tmp_path):
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(snippets) >= 4
    script = tmp_path / "page.py"
    script.write_text("\n".join(snippets))
    assert run(str(script)).startswith("0.")


def test_the_commands_of_the_page_run():
    commands = [
        line.removeprefix("$ ").split()
        for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
        for line in block.splitlines()
    ]
    assert commands
    for program, *arguments in commands:
        assert program == "fastconv"
        assert "version" in run("-m", program, *arguments)


def test_every_configured_wheel_has_its_line():
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    rows = "\n".join(re.findall(r"^\|.*\|$", PAGE, re.MULTILINE))
    for build in configured["build"]:
        major, minor, threads = re.fullmatch(r"cp(\d)(\d+)(t?)-\*", build).groups()
        assert re.search(rf"\b{major}\.{minor}{threads}\b", rows), build
    names = {"x86_64": "x86-64", "aarch64": "AArch64", "arm64": "arm64", "AMD64": "x86-64"}
    for system, title in (("linux", "Linux"), ("macos", "macOS"), ("windows", "Windows")):
        for processor in configured[system]["archs"]:
            assert f"| {title} {names[processor]}" in rows


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(path):
    assert run(str(path)).count("\n") >= 3


def test_there_is_an_example():
    assert EXAMPLES
