# SPDX-License-Identifier: Apache-2.0
"""The library of a plug-in package computes: opened by its entry point, in a process of its own."""

import os
import subprocess
import sys

import pytest

from plugin import ROOT, VERSION, installed

EMULATED = os.environ.get("FASTCONV_EMULATED_DEVICE")
FAKE = str(ROOT / "tests" / "cuda_host" / "fake")

PROGRAM = """
import sys
sys.path[:0] = {paths!r}
import cupy as cp, numpy as np, fastconv as fc
from fastconv import device
assert device.open_library() == "cuda_host" and len(device.infos()) >= 1
cp.memory.use_library({library!r})
x, w = np.ones((1, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float32)
y = fc.conv2d(cp.asarray(x), cp.asarray(w), padding=1)
assert type(y) is cp.ndarray and np.array_equal(cp.asnumpy(y), fc.conv2d(x, w, padding=1))
print("computed")
"""


@pytest.mark.skipif(not EMULATED, reason="a GPU opens the library that is installed; this is of the emulated device")
def test_a_convolution_by_a_plugin(tmp_path):
    folder = installed(tmp_path, VERSION, EMULATED)
    program = PROGRAM.format(paths=[folder, FAKE], library=f"{folder}/fastconv_cuda13/libfastconv_cuda.so")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "computed\n", done.stderr
