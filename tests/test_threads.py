# SPDX-License-Identifier: Apache-2.0
"""The thread pool under what real programs do to it: fork, many Python threads, more threads than cores."""

import os
import signal
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


def test_many_python_threads_and_many_plans(problem):
    """Each thread with options of its own, over plans that all share and calls that choose anew."""
    x, w, _ = problem
    names = ("direct", "im2col_gemm", "implicit_gemm", "winograd_f2x2_3x3")
    plans = {name: fc.plan(w, x_shape=x.shape, padding=1, algorithm=name) for name in names}
    expected = {name: plan(x) for name, plan in plans.items()}
    wrong, started = [], threading.Barrier(8)

    def work(number):
        started.wait()
        with fc.options(threads=1 + number % 3):
            for turn in range(8):
                name = names[(number + turn) % len(names)]
                n = 1 + (number + turn) % len(x)
                results = (plans[name](x[:n]), fc.conv2d(x[:n], w, padding=1, algorithm=name))
                if not all(np.array_equal(y, expected[name][:n]) for y in results):
                    wrong.append((number, name))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_in_the_middle_of_other_threads_calls():
    """Whatever lock another thread held at that moment, the child computes and ends."""
    print(f"seed {SEED}")
    rng = np.random.default_rng(SEED)
    x, w = rng.standard_normal((2, 8, 12, 12), dtype=np.float32), rng.standard_normal((8, 8, 3, 3), dtype=np.float32)
    expected = fc.conv2d(x, w, padding=1)
    stop = threading.Event()

    def work(number):
        size = 0
        while not stop.is_set():
            size = size % 500 + 1  # chooses anew, takes and returns blocks
            fc.conv2d(x[:, :, : 3 + size % 9, : 3 + size % 7], w, padding=1, activation=("leaky_relu", 0.1))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # ends a child that waits for ever
                try:
                    os._exit(0 if np.array_equal(fc.conv2d(x, w, padding=1), expected) else 3)
                finally:
                    os._exit(4)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


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


def test_the_filter_gradient_of_one_channel_is_cut_for_threads():
    def sums(problem):
        return next(a for a in fc.algorithms(problem) if a["name"] == "implicit_gemm")["estimated_work"]["sums"]

    # As many parts as with eight channels, which have eight times the sums.
    one, eight = (sums(f"bwd_filter n64 c{c} h28 w28 k32 r5 s5 stride1 pad2 dil1 g1 nchw f32") for c in (1, 8))
    assert 8 * one == pytest.approx(eight)
