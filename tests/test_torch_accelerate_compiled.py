# SPDX-License-Identifier: Apache-2.0
"""Accelerated networks compiled: without a break, down to machine code, and one that is still to be measured."""

import shutil

import pytest

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')

import fastconv.torch as fct  # noqa: E402
from tolerance import assert_close  # noqa: E402

SEED = 82
# Deprecations inside of torch's own compiler.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def network():
    torch.manual_seed(SEED)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.ConvTranspose2d(8, 4, 2, stride=2),
        torch.nn.AvgPool2d(2),
    ).eval()


def test_inference_compiled_by_inductor():
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("there is no C++ compiler, which torch.compile needs")
    model, x = network(), torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(SEED))
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return torch._inductor.compile(graph, inputs)

    with torch.no_grad():
        expected = model(x)
        fct.accelerate(model, "always")
        compiled = torch.compile(model, fullgraph=True, backend=backend)
        assert_close(compiled(x).numpy(), expected.numpy(), "parity")
        assert_close(compiled(2 * x).numpy(), network()(2 * x).numpy(), "parity")
    assert len(graphs) == 1
    called = {str(node.target) for node in graphs[0].graph.nodes if node.op == "call_function"}
    assert sum("fastconv" in target for target in called) >= 3, called


def test_a_model_that_waits_is_measured_outside_of_the_compiler():
    model, x = network(), torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(SEED))
    fct.accelerate(model, rounds=2, min_sample_s=0.0, whole_s=0.0)
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad():
        for _ in range(2):
            assert_close(compiled(x).numpy(), network()(x).numpy(), "parity")
    assert not model.fastconv_report.pending and len(model.fastconv_report.layers) == 4
    assert all(layer.calls for layer in model.fastconv_report.layers)
