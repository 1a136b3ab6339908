# SPDX-License-Identifier: Apache-2.0
"""An accelerated network compiled without a break, down to machine code: its answers, and that our ops are in it."""

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
