# SPDX-License-Identifier: Apache-2.0
"""Architectures of pytorchcv with all their layers ours: outputs and gradients of a training step."""

import pytest

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')

import torch_programs  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("one_torch_thread"),
    pytest.mark.filterwarnings("ignore:.*saved_variables:DeprecationWarning"),  # of pytorchcv's own code
]


def check(name):
    torch_programs.skip_without("pytorchcv")
    torch_programs.assert_same_network(*torch_programs.pytorchcv(name))


def test_there_are_as_many_as_promised():
    modules = [module for module, _ in (torch_programs.FAST | torch_programs.SLOW).values()]
    assert len(set(modules)) == len(modules) >= 20


@pytest.mark.parametrize("name", torch_programs.FAST)
def test_an_architecture(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", torch_programs.SLOW)
def test_another_architecture(name):
    check(name)
