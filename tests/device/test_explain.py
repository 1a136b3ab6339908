# SPDX-License-Identifier: Apache-2.0
"""fc.explain and fc.algorithms for a device."""

import json

import pytest

import fastconv as fc
from fastconv import _core

PROBLEM = "fwd n1 c8 h8 w8 k8 r3 s3 pad1"


def test_a_problem_is_explained_for_a_device(cp):
    e = fc.explain(PROBLEM, device="cuda")
    names = _core.device_info(0)["algorithms"]
    assert e.device == "cuda:0" and [row["name"] for row in e.rows] == names
    assert [row["name"] for row in fc.algorithms(PROBLEM, "cuda:0")] == names
    assert e.chosen == _core.device_choose(e.problem, _core.Options(), 0)
    for row in e.rows:
        assert row["supported"] != bool(row["reason"])
        if row["supported"]:
            assert row["bytes_moved"] == e.problem.bytes + 2 * row["workspace_bytes"]
            assert row["same_bits"]["batch"] and row["predicted_s"] == row["estimate_s"] > 0
    # Of 8 x 8 outputs 4 corners have 4 taps inside, 24 border pixels 6.
    assert e.row("direct")["multiplications"] == 64 * (4 * 4 + 24 * 6 + 36 * 9)
    with pytest.raises(fc.ProblemError, match="device is 'cuda:7'; expected cpu, cuda or cuda:0 to 0"):
        fc.explain(PROBLEM, device="cuda:7")


def test_arrays_say_where(cp, rng):
    x, w = (cp.asarray(rng.standard_normal(shape).astype("float32")) for shape in ((2, 4, 6, 6), (4, 4, 3, 3)))
    assert fc.explain(x, w).device == "cuda:0" and fc.explain(x, w, device="cpu").device == "cpu"
    assert fc.explain(cp.asnumpy(x), cp.asnumpy(w)).device == "cpu"
    (sentence,) = fc.explain(x[:, :, ::-1], w).copies
    assert sentence.startswith("x is copied")


@pytest.mark.parametrize("pass_", ["fwd", "bwd_data", "bwd_filter"])
def test_times_and_errors_on_a_device(cp, pass_):
    p = fc.ConvProblem.parse("fwd n1 c4 h6 w6 k4 r3 s3 pad1").with_pass(pass_)
    e = fc.explain(p, device="cuda", measure=True, budget=30.0)
    for row in e.usable:
        assert row["measured_s"] > 0 and row["runs"] >= 1
        assert row["phases"]["products"] > 0 and row["phases"]["others"] >= 0
        assert 0 <= row["rms_error"] <= row["max_error"] < 1e-5
    assert e.usable[0]["measured_s"] == min(row["measured_s"] for row in e.usable)
    json.dumps(e.to_dict(), allow_nan=False)
    assert "of the device" in e.to_html() and e.table(80)


def test_without_workspace_a_device_has_an_algorithm_too(cp):
    for text in (
        PROBLEM,
        PROBLEM.replace("fwd", "bwd_data") + " reflect",
        PROBLEM.replace("fwd", "bwd_filter") + " f16",
    ):
        with fc.options(max_workspace=0):
            e = fc.explain(text, device="cuda")
        assert e.chosen and all(row["workspace_bytes"] == 0 for row in e.usable)
