# SPDX-License-Identifier: Apache-2.0
"""threadpoolctl lists our pool beside the others and limits it: nested, restored, whichever is imported first."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import threadpoolctl

import fastconv as fc


def ours():
    return [entry for entry in threadpoolctl.threadpool_info() if entry["user_api"] == "fastconv"]


@pytest.fixture
def threads_of():
    """The number of threads of a convolution that is worth sharing, under the options given."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4, 32, 56, 56), dtype=np.float32)
    w = rng.standard_normal((32, 32, 3, 3), dtype=np.float32)
    expected = fc.conv2d(x, w)

    def run(**options):
        with fc.options(**options), fc.trace() as t:
            assert np.array_equal(fc.conv2d(x, w), expected)
        return t.calls[0]["threads"]

    return run


@pytest.fixture(autouse=True)
def _as_before():
    before = fc.info()["threads"]
    yield
    assert fc.info()["threads"] == before
    assert fc._core.get_threads(199) == 199  # no limit is left


def test_the_pool_is_listed_once():
    (entry,) = ours()
    assert entry["filepath"] == fc._core.__file__
    assert entry["num_threads"] == fc.info()["threads"]
    assert entry["version"] == fc.info()["version"]
    with fc.options(threads=7):
        assert ours()[0]["num_threads"] == 7


def test_limits_nest_and_restore(threads_of):
    free = fc.info()["threads"]
    with threadpoolctl.threadpool_limits(5):
        assert threads_of() == 5
        with threadpoolctl.threadpool_limits({"fastconv": 1}):
            assert threads_of() == 1 == ours()[0]["num_threads"]
            with threadpoolctl.threadpool_limits(3, user_api="fastconv"):
                assert threads_of() == 3
            with threadpoolctl.threadpool_limits(6, user_api="blas"):
                assert threads_of() == 1
        assert threads_of() == 5 == ours()[0]["num_threads"]
    assert threads_of() == free


def test_a_limit_holds_whatever_the_options_say(threads_of):
    with fc.options(threads=8), threadpoolctl.threadpool_limits(2):
        assert threads_of(threads=4) == 2
        assert threads_of(threads=1) == 1
    assert threads_of(threads=4) == 4


def test_a_limit_inside_of_options_is_lifted_at_its_end(threads_of):
    with fc.options(threads=4):
        for most in (1, 2, 3):
            with threadpoolctl.threadpool_limits(most):
                assert threads_of() == most
        assert threads_of() == 4
    fc.set_options(threads=4)
    try:
        with threadpoolctl.threadpool_limits(2):
            assert threads_of() == 2
        assert threads_of() == 4
    finally:
        fc.set_options(threads=0)


def test_a_plan_obeys_a_limit_that_came_later():
    x, w = np.ones((4, 32, 56, 56), np.float32), np.ones((32, 32, 3, 3), np.float32)
    with fc.options(threads=4):
        plan = fc.plan(w, x_shape=x.shape)
    used = []
    for most in (6, 1):
        with threadpoolctl.threadpool_limits(most), fc.trace() as t:
            plan(x)
        used.append(t.calls[0]["threads"])
    assert used == [4, 1]


def test_a_limit_is_of_the_process(threads_of):
    found = []
    with threadpoolctl.threadpool_limits(1):
        other = threading.Thread(target=lambda: found.append(threads_of(threads=4)))
        other.start()
        other.join()
    assert found == [1]


SHOW = "print([e['num_threads'] for e in threadpoolctl.threadpool_info() if e['user_api'] == 'fastconv'])\n"
LIMIT = "with threadpoolctl.threadpool_limits(1):\n    " + SHOW


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("import fastconv, threadpoolctl\n" + SHOW + LIMIT, "[3]\n[1]\n"),
        ("import threadpoolctl\nthreadpoolctl.threadpool_info()\nimport fastconv\n" + SHOW + LIMIT, "[3]\n[1]\n"),
        # Asked for without being imported, and imported again.
        ("import fastconv, importlib.util\nprint(importlib.util.find_spec('threadpoolctl').name)\n"
         "import threadpoolctl, importlib\nimportlib.reload(threadpoolctl)\n" + SHOW, "threadpoolctl\n[3]\n"),
        ("import fastconv, inspect, threadpoolctl\nprint('def' in inspect.getsource(threadpoolctl))\n", "True\n"),
        # Absent, blocked, or of a version that takes no controllers.
        ("import sys, fastconv\nsys.path = []\ntry:\n    import threadpoolctl\n"
         "except ImportError as e:\n    print(e.name)", "threadpoolctl\n"),
        ("import sys\nsys.modules['threadpoolctl'] = None\nimport fastconv\nprint('fine')", "fine\n"),
        ("import sys, types\nsys.modules['threadpoolctl'] = types.ModuleType('threadpoolctl')\nimport fastconv\n"
         "print('fine')", "fine\n"),
        ("import sys, fastconv\nprint('threadpoolctl' in sys.modules)", "False\n"),
    ],
)  # fmt: skip
def test_whichever_is_imported_first(program, printed, monkeypatch):
    monkeypatch.setenv("FASTCONV_NUM_THREADS", "3")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == printed, done.stderr
