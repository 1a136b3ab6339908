# SPDX-License-Identifier: Apache-2.0
"""The NEON kernels, cross-built and under an emulator, where the tools for that are there."""

import pytest

from bench import cross_arm


@pytest.mark.slow
def test_the_drivers_pass_under_an_emulator(full, tmp_path, monkeypatch, capfd):
    if not full:
        pytest.skip("minutes: runs with --full")
    try:
        cross_arm.tools()
    except SystemExit as missing:
        pytest.skip(str(missing))
    monkeypatch.setattr("sys.argv", ["cross_arm", "--every", "24", "--build", str(tmp_path)])
    assert cross_arm.main() == 0, capfd.readouterr().out


def test_a_part_of_the_problems_is_taken(tmp_path):
    listed = tmp_path / "listed.txt"
    listed.write_text("# a comment\nfirst\n\nsecond\nthird\n# the end\n")
    assert cross_arm.sampled(listed, 2, tmp_path / "taken.txt") == 2
    assert (tmp_path / "taken.txt").read_text() == "first\nthird\n"


def test_missing_tools_are_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match=r"aarch64-linux-gnu-g\+\+ or qemu-aarch64-static is missing"):
        cross_arm.tools()
