# SPDX-License-Identifier: Apache-2.0
"""The snippets of docs/pytorch.md run, and what the page lists is what there is; bench.torch_overhead measures."""

import json
import re
from pathlib import Path

import pytest

from bench import torch_overhead

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')
ft = pytest.importorskip("fastconv.torch")

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "pytorch.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:.*lru_cache:UserWarning")  # torch.compile's, of what it looks into
def test_snippets_run():
    torch.manual_seed(0)
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(snippet, "pytorch.md", "exec"), names)
    assert names["y"].shape == names["z"].shape == (4, 8, 16, 16)
    assert names["compiled"](names["x"]).shape == (4, 16, 14, 14)
    mine, there = names["net"].fastconv_report, names["deployed"].fastconv_report
    assert mine == there and len(mine.layers) == 3
    assert names["w"].grad.any() and all(p.grad is not None for p in names["model"].parameters())


def test_the_page_lists_the_ops_and_layers():
    ops = {name.partition("::")[2].partition(".")[0] for name in torch._C._dispatch_get_all_op_names() if
           name.startswith("fastconv::")}  # fmt: skip
    assert {"conv", "max_pool"} <= ops and all(f"`{name}`" in PAGE for name in ops)
    assert {name[:-2] for name in ft.nn.__all__} == {"Conv", "ConvTranspose", "MaxPool", "AvgPool", "BatchNorm"}


def test_overhead_is_measured(capsys):
    assert torch_overhead.main(["--blocks", "3", "--print"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seconds"].keys() >= {"planned", "one_shot", *found["beyond"]}
    assert all(seconds > 0 for seconds in found["seconds"].values())
