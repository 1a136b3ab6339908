# SPDX-License-Identifier: Apache-2.0
"""Types as a user's checker sees them: the package says that it has some, and the native module's are true."""

import os
import re
import site
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import pytest

import fastconv

HERE = Path(fastconv.__file__).parent
# Every comment is an error that has to be there: strict checking complains of one that suppresses nothing.
PROGRAM = """
import numpy as np
import fastconv as fc
from numpy.typing import NDArray


def edges(image: NDArray[np.float32]) -> NDArray[np.float32]:
    w = np.ones((2, 1, 3, 3), np.float32)
    with fc.options(threads=1), fc.trace() as t:
        y: NDArray[np.float32] = fc.conv2d(image, w, padding="same", activation=("leaky_relu", 0.1))
    print(t.table(), fc.info()["isa"], fc.__version__)
    fc.conv2d(image, w, groups="two")  # type: ignore[arg-type]
    fc.conv2d(image, w, pading=1)  # type: ignore[call-arg]
    fc.max_pool2d(image)  # type: ignore[call-arg]
    return y


p = fc.ConvProblem.parse("fwd n1 c3 h8 w8 k4 r3 s3")
shape: tuple[int, ...] = p.y_shape
name: int = str(p)  # type: ignore[assignment]
p.with_n("8")  # type: ignore[arg-type]
model = fc.nn.Sequential(fc.nn.Conv2d(3, 4, 3), fc.nn.ReLU())
fc.nn.Conv2d(3, 4)  # type: ignore[call-arg]
optimizer = fc.optim.SGD(model.parameters(), lr=0.1)
optimizer.step(0.1, 0.2, 0.3)  # type: ignore[call-arg]
loss: fc.Tensor = model(fc.Tensor(np.zeros((1, 3, 8, 8), np.float32))).sum()
loss.backward()
"""


def checked(command, tmp_path):
    environment = dict(os.environ)
    if not any(HERE.is_relative_to(folder) for folder in site.getsitepackages()):
        environment["MYPYPATH"] = str(HERE.parent)
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment
    )


def test_the_package_ships_its_types():
    assert (HERE / "py.typed").exists() and (HERE / "_core.pyi").exists()
    if any(HERE.is_relative_to(folder) for folder in site.getsitepackages()):
        listed = {str(name) for name in files("fastconv")}
        assert {"fastconv/py.typed", "fastconv/_core.pyi"} <= listed


def test_a_program_is_checked_strictly(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\n[mypy-fastconv.*]\nfollow_imports = silent\n")
    done = checked(["mypy", "--config-file", "mypy.ini", "program.py"], tmp_path)
    assert done.stdout.startswith("Success"), done.stdout + done.stderr


def test_the_stub_is_that_of_the_native_module(tmp_path):
    """mypy's own check. Type aliases are of the stub alone, and pybind11's classes have a metaclass of its own."""
    pytest.importorskip("mypy")
    done = checked(["mypy.stubtest", "fastconv._core", "--concise"], tmp_path)
    aliases = "|".join(re.findall(r"^(\w+) = ", (HERE / "_core.pyi").read_text(), re.MULTILINE))
    known = re.compile(
        rf"fastconv\._core\.(({aliases}) is not present at runtime|\w+ is inconsistent, metaclass differs)"
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    assert not [line for line in lines if not known.fullmatch(line)]
