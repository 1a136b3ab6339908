# SPDX-License-Identifier: Apache-2.0
"""With `fastconv.torch` our calls run on the threads of torch's operators, in processes of their own."""

import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or "parallel backend: OpenMP" not in torch.__config__.parallel_info(),
    reason="this torch computes without OpenMP",
)

START = """
import os, sys, threading
import numpy as np, torch
import fastconv as fc

def threads():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(2)
rng = np.random.default_rng(5)
x = rng.standard_normal((4, 16, 40, 40), dtype=np.float32)
w = rng.standard_normal((32, 16, 3, 3), dtype=np.float32)
with fc.options(threads=1):
    expected = fc.conv2d(x, w, padding=1)

def check():
    with fc.options(threads=2):
        assert np.array_equal(fc.conv2d(x, w, padding=1), expected)
"""


def run(program: str) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two threads need two cores")
    done = subprocess.run([sys.executable, "-c", START + program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_no_thread_is_started_beside_those_of_torch():
    run("""
import fastconv.torch
torch.randn(1 << 20).exp_()
before = threads()
check()
assert threads() == before, (threads(), before)
fc._core.use_openmp(0, 0)
check()
assert threads() == before + 1, (threads(), before)  # the pool's own
""")


def test_more_threads_than_cores_are_our_own_and_bits_stay():
    run("""
import fastconv.torch
for n in (1, 2, 3, 16, 2):
    with fc.options(threads=n):
        assert np.array_equal(fc.conv2d(x, w, padding=1), expected), n
""")


def test_a_forked_child_does_not_wait_for_a_team_that_is_gone():
    run("""
import fastconv.torch
check()
child = os.fork()
if child == 0:
    check()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
check()
""")


def test_a_child_of_a_parent_where_torch_alone_has_computed():
    run("""
import fastconv.torch
torch.randn(1 << 20).exp_()
child = os.fork()
if child == 0:
    check()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""")


def test_many_python_threads():
    run("""
import fastconv.torch
failed = []
def work():
    try:
        for _ in range(20):
            check()
            torch.randn(1 << 16).exp_()
    except BaseException as error:
        failed.append(error)
them = [threading.Thread(target=work) for _ in range(6)]
for thread in them: thread.start()
for thread in them: thread.join()
assert not failed, failed
""")


def test_one_address_alone_is_refused():
    run("""
try:
    fc._core.use_openmp(1, 0)
except fc.ProblemError as error:
    assert "one address is 0" in str(error)
else:
    raise AssertionError
""")
