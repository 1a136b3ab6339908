# SPDX-License-Identifier: Apache-2.0
"""Keras listings of lectures on PyTorch's backend: inside of `fastconv.torch.patch()` they train to the same values."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tolerance import assert_close

PACKAGES = ("torch", "keras", "absl", "namex", "optree", "h5py", "rich")


@pytest.fixture(scope="module")
def results():
    """Of a process of its own, in which Keras reads its backend from the environment."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (pip install --no-deps keras absl-py namex optree h5py rich)")
    script = Path(__file__).parent / "keras_lectures.py"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# As the lectures print or work them out: (3*3*3+1)*64 = 1792 and 462,954 in all; ((3x3)x1)x32 + 32, ((3x3)x32)x64 + 64.
COUNTS = {
    "cifar": [1792, 0, 0, 460_832, 330],
    "deeper": [1792, 0, 36_928, 0, 0, 524_416, 1290],
    "exercise": [320, 0, 18_496],
}


@pytest.mark.parametrize("name", COUNTS)
def test_a_listing_trains_to_the_same_values(results, name):
    stock, ours = results[name]["stock"], results[name]["ours"]
    assert stock["counts"] == ours["counts"] == COUNTS[name]
    assert results[name]["calls"] > 0, "nothing of ours ran"
    assert_close(np.array(ours["loss"]), np.array(stock["loss"]), "parity", "float32", what="losses")
    assert_close(np.array(ours["y"]), np.array(stock["y"]), "model", "float32", what="answers")
