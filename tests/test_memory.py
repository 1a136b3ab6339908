# SPDX-License-Identifier: Apache-2.0
"""Memory: what is kept stays bounded over thousands of shapes, and where there is none the error is clean.

tests/native/check_alloc.cc lets every single allocation of the core fail. Here a process of its own runs into a limit.
"""

import os
import subprocess
import sys

import pytest

import fastconv as fc

linux = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
SHAPES, FULL_SHAPES = 16_000, 200_000


def python(code, *arguments):
    """The lines that a fresh process printed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


MANY_SHAPES = """
import random, sys
import numpy as np, fastconv as fc

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

seed, count = map(int, sys.argv[1:])
rng = random.Random(seed)
data = np.random.default_rng(seed).standard_normal(1 << 16, dtype=np.float32)
array = lambda *shape: data[: int(np.prod(shape))].reshape(shape)
for i in range(count):
    f, stride, n = rng.choice((1, 3, 5)), rng.choice((1, 2)), rng.randint(1, 4)
    c, k, h, w = rng.randint(1, 8), rng.randint(1, 8), rng.randint(5, 20), rng.randint(5, 20)
    x, weights = array(n, c, h, w), array(k, c, f, f)
    y = fc.conv2d(x, weights, stride=stride, padding=f // 2)
    if i % 4 == 0:
        fc.conv2d_backward(y, x, weights, stride=stride, padding=f // 2)
    if i % 16 == 0:
        fc.plan(weights, x_shape=x.shape, stride=stride, padding=f // 2)(x)
    if i == count // 3 * 2:  # caches are full and the heap has found its size
        before = resident()
print(before, resident(), fc.cache_info()["choices"]["entries"], fc.cache_info()["choices"]["limit"])
"""


@linux
def test_memory_is_flat_over_thousands_of_shapes(full):
    seed = 17
    print(f"seed {seed}")
    before, after, entries, limit = map(int, python(MANY_SHAPES, seed, FULL_SHAPES if full else SHAPES))
    assert after - before < 2 << 20, f"grew from {before >> 10} to {after >> 10} KiB in the last third"
    assert entries == limit, "the cache of choices is full, and no fuller"


NO_MEMORY = """
import resource
import numpy as np, fastconv as fc

x, w = np.ones((1, 64, 64, 64), np.float32), np.ones((64, 64, 3, 3), np.float32)
wide = np.ones((1, 1, 256, 256), np.float32)
many, few = np.ones((8192, 1, 1, 1), np.float32), np.ones((16, 1, 1, 1), np.float32)
deep = np.ones((1, 512, 96, 96), np.float32)
dw = np.ones((8, 512, 9, 9), np.float32)
expected, small = fc.conv2d(x, w, padding=1), fc.conv2d(wide, few)
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
soft, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (size + (48 << 20), hard))
calls = (
    lambda: fc.conv2d(wide, many),  # 2 GiB of results
    lambda: fc.conv2d_backward_data(fc.conv2d(wide, few), few, wide.shape, algorithm="nothing") and None,
    lambda: fc.plan(np.broadcast_to(np.float32(1), (1 << 14, 1 << 14, 1, 1)), x_shape=(1, 1 << 14, 4, 4)),  # 1 GiB
    lambda: fc.conv2d_backward(np.broadcast_to(np.float32(1), (1, 8192, 256, 256)), wide, many),
)
failed = 0
for _ in range(3):
    for number, call in enumerate(calls):
        try:
            call()
        except MemoryError as error:
            failed += 1
        except fc.ProblemError:
            assert number == 1
        assert np.array_equal(fc.conv2d(x, w, padding=1), expected)
        assert np.array_equal(fc.conv2d(wide, few), small)
resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
used = {name: cache["used_bytes"] for name, cache in fc.cache_info().items() if "used_bytes" in cache}
print(failed, used["workspace"], fc.conv2d(wide, many[:512]).shape[1])
"""


@linux
def test_without_memory_there_is_a_memory_error_and_the_next_call_works():
    failed, workspace, channels = map(int, python(NO_MEMORY))
    assert failed == 9, "three kinds of calls, three times"
    assert workspace == 0, "every lease was given back"
    assert channels == 512


def test_a_limit_of_workspace_is_a_memory_error_too():
    import numpy as np

    with fc.options(algorithm="im2col_gemm", max_workspace=0), pytest.raises(MemoryError, match="max_workspace is 0"):
        fc.conv2d(np.ones((1, 8, 9, 9), np.float32), np.ones((8, 8, 3, 3), np.float32))
