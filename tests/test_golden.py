# SPDX-License-Identifier: Apache-2.0
"""Results have the bits that this version is known by: the hashes of tests/golden, per instruction set."""

import numpy as np
import pytest

from bench import golden
from cases import isas
from fastconv import _core

VERSION = _core.info()["version"]


@pytest.mark.parametrize("isa", isas())
def test_results_have_the_bits_of_this_version(isa):
    path = golden.path_of(VERSION, isa)
    assert path.is_file(), f"version {VERSION} has no hashes for {isa}: python -m bench.golden writes them"
    compiler, expected = golden.load(path)
    if compiler != _core.info()["compiler"]:
        pytest.skip(f"the hashes are those of {compiler}; this build is by {_core.info()['compiler']}")
    changed = golden.changes(golden.hashes(isa), expected)
    assert not changed, "if this is meant, say why in CHANGELOG.md and write the hashes anew by python -m bench.golden"


def test_the_list_meets_every_algorithm_and_pass():
    rows = [key for isa in isas() for key in golden.load(golden.path_of(VERSION, isa))[1]]
    names = set(_core.info()["algorithms"])
    assert {name for name, _ in rows} == names
    assert {(name, text.split()[0]) for name, text in rows} == {
        (name, pass_) for name in names for pass_ in ("fwd", "bwd_data", "bwd_filter")
    }


def test_the_numbers_are_those_of_splitmix64():
    """The generator's first values for seed 0, as its authors' program prints them."""
    assert [hex(v) for v in golden.integers(3, 0)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]
    a = golden.array((2, 3), 1, "f32")
    assert a.dtype == np.float32 and np.abs(a).max() <= 2
    assert np.array_equal(a, golden.array((2, 3), 1, "f64"))


def test_a_change_is_told():
    before = {("direct", "p"): "1", ("gone", "p"): "2"}
    assert golden.changes({("direct", "p"): "9", ("new", "p"): "3"}, before) == [
        "other bits: direct: p",
        "not computed any more: gone: p",
        "new: new: p",
    ]
