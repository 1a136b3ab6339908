# SPDX-License-Identifier: Apache-2.0
"""The scripts for PyTorch users in examples/ run, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SAYS = {
    "pytorch_inference.py": ["replaced ", " of 2 convolutions and ", "4x32x64x64", "largest difference to torch's"],
    "pytorch_training.py": ["replaced ", " of 2 convolutions and ", "epoch 1: loss ", "epoch 2: loss "],
}


def test_all_are_here():
    assert {path.name for path in EXAMPLES.glob("pytorch_*.py")} == set(SAYS)


@pytest.mark.parametrize("name", SAYS)
def test_an_example(name):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert all(words in done.stdout for words in SAYS[name]), done.stdout
