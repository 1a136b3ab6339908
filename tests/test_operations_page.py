# SPDX-License-Identifier: Apache-2.0
"""docs/operations.md is what docs/make_operations.py writes, and names everything."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_operations", DOCS / "make_operations.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def text():
    return (DOCS / "operations.md").read_text(encoding="utf-8")


def test_the_page_is_up_to_date(maker, text):
    page = maker.page()
    for number, (found, expected) in enumerate(zip(text.splitlines(), page.splitlines(), strict=False), 1):
        assert found == expected, f"line {number} of docs/operations.md: run python docs/make_operations.py"
    assert text == page


def test_the_page_does_not_depend_on_settings(maker, text):
    with fc.options(algorithm="reference", threads=2, precision="strict", max_workspace=1 << 20):
        assert maker.algorithm_table() in text


def test_everything_public_is_on_the_page(text):
    named = set(re.findall(r"`([\w.*]+)`", text))
    named |= {name.replace("*d", f"{rank}d") for name in named for rank in (1, 2, 3)}
    functions = [f"fc.{name}" for name in fc.__all__ if callable(getattr(fc, name))]
    layers = [name for name in fc.nn.__all__ if isinstance(getattr(fc.nn, name), type)]
    missing = [name for name in functions if name not in named]
    missing += [name for name in layers if not named & {name, f"fc.nn.{name}"}]
    assert not missing
    assert len(functions) > 90 and len(layers) > 100


def test_what_holds_for_float16_holds_for_bfloat16(maker):
    """The page takes the one for both, so that it is the same without the package."""
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed").bfloat16)
    examples = [item for family in maker.FAMILIES.values() for item in family.items()]
    for name, example in examples:
        assert maker.computes_in(example, bfloat16) == maker.computes_in(example, np.dtype(np.float16)), name
    assert len(examples) > 100


def test_evidence_is_found_through_tables_and_not_through_strangers(maker, tmp_path):
    """A test that runs over a table counts for its entries; np.sum and another module's helper do not."""
    (tmp_path / "table.py").write_text(
        'import numpy as np\nCASES = [("relu", np.sum), (f"{kind}_pool{rank}d", None)]\n'
    )
    (tmp_path / "test_a.py").write_text(
        "import pytest\nfrom table import CASES\nfrom hypothesis import given\n"
        'torch = pytest.importorskip("torch")\n'
        "def test_parity():\n    for case in CASES:\n        torch.relu(case)\n"
        "def test_other():\n    fc.conv2d(given)\n"
        "def test_plain():\n    fc.nn.Linear(2, 3)\n"
    )
    evidence = maker.Evidence(tmp_path)
    assert evidence.of("relu") == evidence.of("max_pool") == "PyTorch"
    assert evidence.of("conv") == "hypothesis" and evidence.of("Linear") == "values"
    assert evidence.of("sum") == evidence.of("ops.sum") == evidence.of("global_max_pool") == "-"
