# SPDX-License-Identifier: Apache-2.0
"""docs/models.md is what docs/make_models.py writes, and its snippets run."""

import importlib.util
from pathlib import Path

import pytest

import fastconv as fc

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_models", DOCS / "make_models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(maker):
    text = (DOCS / "models.md").read_text(encoding="utf-8")
    assert text == maker.page(), "run python docs/make_models.py"
    assert all(f"| `{name}` |" in text for name in fc.models.list())


def test_counts_are_short(maker):
    assert [maker.short(n) for n in (784, 9_216, 11_732_224, 1_814_073_344)] == ["784", "9.22 k", "11.7 M", "1.81 G"]
    assert maker.short(19_632_062_464) == "19.6 G" and maker.short(999_999) == "1 M"


def test_snippets_run(maker, capsys):
    fc.manual_seed(0)
    names = {}
    for snippet in maker.snippets():
        exec(compile(snippet, "models.md", "exec"), names)
    assert names["logits"].shape == (1, 10) and float(names["loss"].data) > 0
    assert "global_average_pooling2d_1" in capsys.readouterr().out
