# SPDX-License-Identifier: Apache-2.0
"""How many threads a session's run takes."""

import os
import subprocess
import sys

THREADS_OF_A_RUN = """
import os
import numpy as np
import fastconv as fc
from fastconv import nn

layers = [nn.Softmax(dim=1), nn.LocalResponseNorm(5), nn.PReLU(64), nn.GroupNorm(4, 64), nn.Upsample(scale_factor=2)]
x = np.ones((4, 64, 64, 64), np.float32)
fc._core.set_threads(1)
sessions = [fc.InferenceSession(layer.eval(), x) for layer in layers]
before = len(os.listdir("/proc/self/task"))
fc._core.set_threads(0)
with fc.options(threads=1):
    for layer, session in zip(layers, sessions):
        session(x)
        assert len(os.listdir("/proc/self/task")) == before, layer
for session in sessions:
    session(x)
assert len(os.listdir("/proc/self/task")) == before + 3
"""


def test_every_step_keeps_to_the_threads_of_the_call():
    environment = {**os.environ, "FASTCONV_NUM_THREADS": "4"}
    subprocess.run([sys.executable, "-c", THREADS_OF_A_RUN], check=True, env=environment)
