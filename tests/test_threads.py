# SPDX-License-Identifier: Apache-2.0
"""The thread pool under what real programs do to it: fork, many Python threads, more threads than cores."""

import os
import threading

import numpy as np
import pytest

import fastconv as fc

SEED = 7


@pytest.fixture
def problem():
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((8, 16, 48, 48), dtype=np.float32)
    w = rng.standard_normal((32, 16, 3, 3), dtype=np.float32)
    with fc.options(threads=2):
        return x, w, fc.conv2d(x, w, padding=1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_computes_with_threads_of_its_own(problem):
    x, w, expected = problem
    child = os.fork()
    if child == 0:
        try:
            with fc.options(threads=2):
                os._exit(0 if np.array_equal(fc.conv2d(x, w, padding=1), expected) else 3)
        finally:
            os._exit(4)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_many_python_threads_share_a_plan(problem):
    x, w, expected = problem
    plan = fc.plan(w, x_shape=x.shape, padding=1)
    wrong = []

    def work():
        for _ in range(10):
            if not np.array_equal(plan(x), expected):
                wrong.append(threading.get_ident())

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_plan_may_be_updated_while_others_call_it(problem):
    x, w, expected = problem
    plan = fc.plan(w, x_shape=x.shape, padding=1)
    doubled = fc.conv2d(x, 2 * w, padding=1)
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            plan.update(2 * w)
            plan.update(w)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(20):
            y = plan(x)
            assert np.array_equal(y, expected) or np.array_equal(y, doubled)
    finally:
        stop.set()
        swapper.join()
