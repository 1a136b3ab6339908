# SPDX-License-Identifier: Apache-2.0
"""The CUDA library in a package of its own: found by its entry point, checked for its version, opened from there.

The package here is that of packaging/cuda13, with another library in it: what nvcc makes needs a GPU to open.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastconv as fc
from fastconv import _core
from plugin import PACKAGE, ROOT, VERSION, installed


def opening(folder):
    """What `open_library` says in a process that imports from `folder` too."""
    program = (
        "import sys, fastconv as fc, fastconv.device as device\n"
        f"sys.path.insert(0, {folder!r})\n"
        "try:\n    print(device.open_library())\n"
        "except fc.DeviceError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def _no_library_beside_the_module():
    beside = Path(_core.__file__).with_name("libfastconv_cuda.so")
    if beside.exists():
        pytest.skip(f"{beside} goes before any plug-in")


def test_its_library_is_opened(tmp_path):
    """Ours is a library without the function that gives the table: the message is of the one that opens it."""
    said = opening(installed(tmp_path, VERSION, _core.__file__))
    assert str(tmp_path / "fastconv_cuda13" / "libfastconv_cuda.so") in said
    assert "another version of fastconv; expected ABI number" in said


def test_another_version_is_refused_in_words(tmp_path):
    said = opening(installed(tmp_path, "0.0.7", _core.__file__))
    assert f"fastconv-cuda13 is 0.0.7, fastconv {VERSION}; expected fastconv-cuda13=={VERSION}" in said


def test_without_one_the_message_says_what_to_install(tmp_path):
    said = opening(str(tmp_path))
    assert "fastconv has no CUDA library; install the wheel fastconv-cuda13" in said
    assert fc.info()["cuda"] in said


def test_its_version_and_compiler_are_those_of_the_project():
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (PACKAGE / "pyproject.toml").read_text()
    plugin = tomllib.loads(text)
    assert plugin["project"]["version"] == ours["version"] == VERSION
    assert plugin["project"]["dependencies"] == [f"fastconv=={VERSION}"]
    assert plugin["project"]["requires-python"] == ours["requires-python"]
    compiler = re.findall(r"^nvidia\S+$", (ROOT / "cuda" / "nvcc.txt").read_text(), re.MULTILINE)
    assert [r for r in plugin["build-system"]["requires"] if r.startswith("nvidia")] == compiler
