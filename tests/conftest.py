# SPDX-License-Identifier: Apache-2.0
"""Options and hypothesis profiles of the tests."""

import os

import hypothesis
import pytest

hypothesis.settings.register_profile("default", derandomize=True, max_examples=30, deadline=None, print_blob=True)
hypothesis.settings.register_profile("long", max_examples=1000, deadline=None, print_blob=True)


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="run every problem file and long property tests (an hour)")


def pytest_configure(config):
    full = config.getoption("--full")
    hypothesis.settings.load_profile("long" if full or os.environ.get("HYPOTHESIS_PROFILE") == "long" else "default")


def pytest_report_header(config):
    from fastconv import _core

    info = _core.info()
    return [
        f"fastconv: {_core.__file__}",
        f"ISAs: {', '.join(info['isas'])}; problems: {'all' if config.getoption('--full') else 'small and sampled'}; "
        "random arrays are seeded by the text of their problem",
    ]


@pytest.fixture(scope="session")
def full(request):
    return request.config.getoption("--full")


@pytest.fixture
def one_torch_thread():
    """Threads of torch that wait for each other in tiny layers take long where others compute."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_collection_modifyitems(config, items):
    """Tests marked slow are left out without --full."""
    if not config.getoption("--full"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_generate_tests(metafunc):
    """`problem_text` runs over the problem files: the small ones, a part of the scaled layers, the layers by size."""
    if "problem_text" not in metafunc.fixturenames:
        return
    from cases import load, parse

    largest = None if metafunc.config.getoption("--full") else 4_000_000
    texts = load("small") + load("regressions") + load("scaled")[:: 1 if largest is None else 4]
    texts += load("layers") + load("more")
    metafunc.parametrize("problem_text", [t for t in texts if largest is None or parse(t).macs <= largest])


@pytest.fixture
def install(monkeypatch, tmp_path):
    """install(every) switches the self-check on until the end of the test; it saves files to tmp_path."""
    from fastconv import selfcheck

    def switch_on(every=1):
        sampler = selfcheck.Sampler(every, tmp_path)
        for native, name, function in selfcheck.replacements(sampler):
            monkeypatch.setattr(native, name, function)
        return sampler

    return switch_on
