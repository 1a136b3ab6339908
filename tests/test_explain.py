# SPDX-License-Identifier: Apache-2.0
"""fc.explain and fc.algorithms: counts by hand, phases, budgets, refusals, the table, the page, docs/explain.md."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from bench.golden import call_of
from cases import load
from fastconv import cli
from fastconv.explaining import facts, measure, roofline

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "explain.md").read_text(encoding="utf-8")
PROBLEM = "fwd n2 c16 h20 w18 k24 r3 s3 pad1"


def row_of(problem: str, name: str) -> dict:
    return next(row for row in fc.algorithms(problem) if row["name"] == name)


@pytest.mark.parametrize(
    ("problem", "name", "count"),
    [
        # 4 x 4 outputs of a 3 x 3 filter: by matrix product 16 * 9; inside the image the corners have 4 taps, the 8
        # other border pixels 6 and the inner 4 have 9: 16 + 48 + 36 = 100. By rows: 2 rows of 2 taps and 2 of 3, each
        # tap of 4 * 3.
        ("fwd n1 c1 h4 w4 k1 r3 s3 pad1", "im2col_gemm", 144),
        ("fwd n1 c1 h4 w4 k1 r3 s3 pad1", "implicit_gemm", 144),
        ("fwd n1 c1 h4 w4 k1 r3 s3 pad1", "reference", 100),
        ("fwd n1 c1 h4 w4 k1 r3 s3 pad1", "direct", 2 * 2 * 12 + 2 * 3 * 12),
        ("fwd n1 c1 h4 w4 k1 r3 s3 pad1", "depthwise", 120),
        ("fwd n1 c2 h4 w4 k2 r3 s3 pad1 g2 nhwc", "depthwise", 2 * 100),
        ("fwd n1 c1 h4 w4 k1 r3 s3 pad1 reflect", "reference", 144),
        ("bwd_filter n3 c2 h4 w4 k5 r3 s3 pad1", "im2col_gemm", 3 * 2 * 5 * 144),
        ("bwd_data n3 c2 h4 w4 k5 r3 s3 pad1", "im2col_gemm", 3 * 2 * 5 * 144),
        # A tile of F(2,3) has 4 x 4 points for 2 x 2 outputs, of F(4,3) 6 x 6 for 4 x 4; 5 x 5 outputs take 9 and 4.
        ("fwd n2 c3 h5 w5 k7 r3 s3 pad1", "winograd_f2x2_3x3", 2 * 3 * 7 * 9 * 16),
        ("fwd n2 c3 h5 w5 k7 r3 s3 pad1", "winograd_f4x4_3x3", 2 * 3 * 7 * 4 * 36),
        ("bwd_data n2 c3 h5 w5 k7 r3 s3 pad1", "winograd_f4x4_3x3", 2 * 3 * 7 * 4 * 36),
        ("bwd_filter n2 c3 h5 w5 k7 r3 s3 pad1", "winograd_f4x4_3x3", 2 * 3 * 7 * 4 * 36),
        ("fwd n1 c4 h8 w8 k4 r3 s3 pad1 g2", "winograd_f4x4_3x3", 4 * 2 * 4 * 36),
        ("fwd n1 c2 d3 h4 w4 k2 t3 r3 s3 pad1", "winograd_f4x4_3x3", 2 * 2 * 36 * 3 * 3),  # 3 depths of 3 taps each
        ("fwd n1 c1 w9 k1 s3 pad1", "winograd_f4_3", 3 * 6),
        # Each of the 3 pixels of dy by each tap, those that fall on padding too; padding that shows cells is gathered.
        ("bwd_data n1 c1 w5 k1 s3 stride2 pad1", "im2col_gemm", 3 * 3),
        ("fwd n2 c8 h7 w7 k3 r1 s1 stride2", "pointwise_1x1", 2 * 8 * 3 * 16),
        ("bwd_data n2 c8 h7 w7 k3 r1 s1 stride2", "pointwise_1x1", 2 * 8 * 3 * 16),
        ("fwd n1 c6 h4 w4 k4 r3 s3 pad1 g2", "grouped", 3 * 4 * 144),
    ],
)
def test_multiplications_are_those_that_a_person_counts(problem, name, count):
    assert row_of(problem, name)["multiplications"] == count


def test_every_row_of_every_problem_adds_up():
    for text in load("small")[::5]:
        p = fc.ConvProblem.parse(text)
        for pass_ in ("fwd", "bwd_data", "bwd_filter"):
            q = p.with_pass(pass_)
            inside = None
            for row in fc.algorithms(q):
                if not row["supported"]:
                    assert row["reason"] and row["multiplications"] is None
                    continue
                phases = facts.predicted_phases(row)
                assert sum(phases.values()) == pytest.approx(row["estimate_s"])
                assert row["bytes_moved"] >= q.bytes and row["multiplications"] >= 0
                if row["name"] == "reference":
                    inside = row["multiplications"]
                for kind in row["estimated_work"]:
                    assert facts.phase_of(row["name"], kind) in facts.PHASES
            # The reference leaves out what lies outside. Others leave out no term that it has, but by a transform, or
            # where they add the gradients of padding that shows cells before they multiply.
            if pass_ == "bwd_data" and q.padding_mode not in ("zeros", "constant"):
                continue
            for row in fc.algorithms(q):
                if row["supported"] and not row["name"].startswith("winograd"):
                    assert row["multiplications"] >= inside, (str(q), row["name"])


def test_which_instruction_sets_share_bits_is_true():
    isas = [isa for isa in fc.info()["isas"] if isa != "neon"]
    seen = set()
    for text in (
        "fwd n2 c17 h13 w11 k19 r3 s3 pad1", "bwd_data n2 c17 h13 w11 k19 r3 s3 pad1",
        "bwd_filter n2 c17 h13 w11 k19 r3 s3 pad1", "fwd n1 c9 h12 w12 k8 r3 s3 stride2 pad1",
        "fwd n1 c9 w40 k8 s3 pad1", "fwd n1 c70 h6 w6 k8 r3 s3 pad1",
    ):  # fmt: skip
        p = fc.ConvProblem.parse(text)
        data = measure.Data(p, 0)
        for row in fc.algorithms(p):
            if not row["supported"] or row["same_bits"] == "one":
                continue
            same = [isa for isa in isas if row["same_bits"] == "all" or isa.startswith("avx")]
            results = [data.run(fc._core.Options(row["name"], 1e9, isa=isa)).tobytes() for isa in same]
            assert len(set(results)) <= 1, (text, row["name"], same)
            seen.add(row["name"])
    assert {"reference", "winograd_f2x2_3x3", "winograd_f4x4_3x3"} <= seen


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("pass_", ["fwd", "bwd_data", "bwd_filter"])
def test_every_algorithm_but_the_reference_tells_its_phases(pass_, layout):
    for rest in ("c16 h12 w12 k16 r3 s3 pad1", "c16 h12 w12 k16 r1 s1", "c16 h12 w12 k16 r3 s3 stride2 pad1",
                 "c8 h12 w12 k8 r5 s5 pad2 g8", "c16 h12 w12 k16 r3 s3 pad1 g4"):  # fmt: skip
        call = call_of(fc.ConvProblem.parse(f"{pass_} n2 {rest} {layout} f32"))
        for row in fc.algorithms(call.problem):
            if not row["supported"] or row["name"] == "reference":
                continue
            with fc.trace(phases=True) as t:
                call.run(measure.named(row["name"]))
            [told] = t.calls
            assert told["phases"].get("products", 0) > 0, (row["name"], rest)
            assert sum(told["phases"].values()) <= told["seconds"] * told["threads"], (row["name"], rest)


def test_measured_phases_are_those_of_the_method():
    with fc.options(threads=1):
        e = fc.explain(PROBLEM, measure=True, budget=3.0)
    expected = {
        "winograd_f4x4_3x3": {"weights", "input", "products", "output"},
        "im2col_gemm": {"weights", "input", "products"},
    }
    for name, phases in expected.items():
        row = e.row(name)
        assert phases <= row["phases"].keys() and all(v >= 0 for v in row["phases"].values())
        assert row["phases"]["others"] < 0.5 * sum(row["phases"].values())
    assert e.row("reference")["phases"] is None
    with fc.trace(phases=True) as t, fc.trace() as plain:
        fc.conv2d(np.ones((1, 4, 9, 9), np.float32), np.ones((8, 4, 3, 3), np.float32), algorithm="im2col_gemm")
    assert t.calls[0]["phases"].keys() >= {"weights", "input", "products"} and "phases" not in plain.calls[0]
    assert t.calls[0]["threads"] >= 1 and t.calls[0]["workspace_bytes"] > 0


def test_a_budget_is_kept_and_what_it_left_out_says_so():
    large = "fwd n8 c64 h56 w56 k64 r3 s3 pad1"
    none = fc.explain(large, measure=True, budget=0.0)
    assert all(row["not_measured"] == measure.SPENT for row in none.usable)
    assert none.budget["spent_s"] < 0.5 and none.chosen == fc.explain(large).chosen
    some = fc.explain(large, measure=True, budget=1.0)
    assert some.row("reference")["not_measured"] == measure.SPENT  # seconds a call
    assert measure.SPENT in some.table(120) and some.usable[-1]["name"] == "reference"
    with pytest.raises(fc.ProblemError, match="budget is -1"):
        fc.explain(large, measure=True, budget=-1)


def test_winner_margin_and_order():
    e = fc.explain(PROBLEM, measure=True, budget=1.0)
    first, second = e.row(e.chosen), e.row(e.runner_up)
    assert first["predicted_s"] == min(row["predicted_s"] for row in e.usable)
    assert e.margin["predicted"] == pytest.approx(second["predicted_s"] / first["predicted_s"])
    rest = [row["measured_s"] for row in e.usable if row["measured_s"] and row is not first]
    assert e.margin["measured"] == pytest.approx(min(rest) / first["measured_s"])
    times = [row["measured_s"] or row["predicted_s"] for row in e.usable]
    assert times == sorted(times)
    for row in e.usable:
        assert row["roofline_share"] == pytest.approx(row["roofline_s"] / (row["measured_s"] or row["predicted_s"]))
    json.dumps(e.to_dict(), allow_nan=False)
    with fc.options(algorithm="direct"):
        alone = fc.explain(PROBLEM)
    assert alone.chosen == "direct"


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16"])
def test_errors_in_units_in_the_last_place(dtype):
    e = fc.explain(f"{PROBLEM} {dtype}", errors=True)
    for row in e.usable:
        assert 0 <= row["rms_error"] <= row["max_error"] and 0 <= row["mean_ulp"] <= row["max_ulp"]
        assert row["measured_s"] is None
    exact = np.array([1.0, -2.0, 0.0])
    got = exact.astype(np.float32) + np.array([2.0**-23, 2.0**-21, 0], np.float32)
    found = measure.errors(got, exact, "f32")
    assert (found["max_ulp"], found["mean_ulp"]) == (2.0, 1.0)
    assert found["max_error"] == 2.0**-22
    assert measure.errors(np.float16([2.0**-24]), np.zeros(1), "f16")["max_ulp"] == 1.0  # subnormal


def test_copies_and_layouts_are_said():
    x, w = np.ones((2, 8, 8, 4), np.float32), np.ones((4, 4, 3, 3), np.float32)
    assert fc.explain(x.transpose(0, 3, 1, 2), w).copies == [
        "x lies in memory channels last, and is read so without a copy"
    ]
    (sentence,) = fc.explain(np.ones((2, 4, 8, 8), np.float32)[:, :, ::-1], w).copies
    assert sentence.startswith("x is copied before each call (2,048 bytes)")
    (sentence,) = fc.explain(np.ones((4, 8, 8), np.float32), w.transpose(1, 0, 2, 3)).copies
    assert sentence.startswith("w is copied")
    assert fc.explain(np.ones((2, 6, 8, 8), np.float32)[:, 1:5], w).copies == []
    halves = fc.explain("fwd n1 c8 h9 w9 k8 r3 s3 pad1 nhwc f16")
    assert any("float32 copies" in part["what"] for part in halves.row("direct")["conversions"])
    assert any("pixels of channels" in part["what"] for part in halves.row("im2col_gemm")["conversions"])


@pytest.mark.parametrize("width", [60, 80, 120, 160, 240])
def test_the_table_fits_and_shows_more_where_there_is_room(width):
    e = fc.explain(PROBLEM, measure=True, budget=0.5)
    text = e.table(width)
    assert all(len(line) <= width for line in text.splitlines())
    assert f"*  {e.chosen}" in text and e.table(240).count("\n") <= text.count("\n")
    for row in e.refused:
        assert row["reason"].split()[0] in text
    if width == 240:
        assert "max ulp" in text and "same bits over" in text


def test_columns_of_the_terminal_are_obeyed(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    narrow = str(fc.explain(PROBLEM))
    monkeypatch.setenv("COLUMNS", "160")
    assert max(map(len, narrow.splitlines())) <= 80 and "same bits over" in str(fc.explain(PROBLEM))


class Page(HTMLParser):
    """The text of a page, and what it would load."""

    def __init__(self):
        super().__init__()
        self.tags, self.loads, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "data")]

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_stands_alone_and_shows_every_algorithm():
    e = fc.explain(PROBLEM, measure=True, budget=1.0)
    html = e.to_html()
    page = Page()
    page.feed(html)
    assert page.loads == [] and "script" not in page.tags and "@import" not in html and "url(" not in html
    text = " ".join(page.words)
    assert all(row["name"] in text for row in e.rows) and all(row["reason"] in text for row in e.refused)
    assert "prefers-color-scheme: dark" in html
    svg = html[html.index("<svg") : html.index("</svg>")]
    circles = re.findall(r'<circle class="(chosen|other)( guess)?" cx="([\d.]+)" cy="([\d.]+)"', svg)
    assert len(circles) == len(e.usable) == len(roofline.points(e))
    assert sum(kind == "chosen" for kind, *_ in circles) == 1
    assert all(0 < float(x) < 860 and 0 < float(y) < 440 for *_, x, y in circles)
    order = [html.index(f"<td>{row['name']}</td>") for row in e.usable]
    assert order == sorted(order)


def test_a_page_of_nothing_to_compute():
    empty = fc.explain("fwd n0 c3 h8 w8 k4 r3 s3")
    assert "<svg" not in empty.to_html() and str(empty)
    with fc.options(algorithm="depthwise"):
        refused = fc.explain("fwd n1 c3 h8 w8 k4 r3 s3", measure=True)
    assert refused.chosen is None and refused.runner_up and "asked for cannot run" in str(refused)
    assert "depthwise needs one input channel" in refused.to_html()


def test_places_of_labels():
    assert roofline.spread([5, 6, 7], 0, 100, 10) == [5, 15, 25]
    assert roofline.spread([95, 96, 97], 0, 100, 10) == [80, 90, 100]


def test_a_device_that_is_not_there_says_what_is_missing():
    from fastconv import device

    if device.opening._opened is not None:
        pytest.skip("the library of a device is open")
    for call in (lambda: fc.explain(PROBLEM, device="cuda"), lambda: fc.algorithms(PROBLEM, "cuda:1")):
        with pytest.raises(fc.DeviceError) as caught:
            call()
        assert str(caught.value) == fc.info()["cuda"]
    with pytest.raises(fc.ProblemError, match="device is 'tpu'"):
        fc.explain(PROBLEM, device="tpu")


def test_zero_workspace_always_has_an_algorithm():
    for dtype in ("f32", "f64", "f16"):
        for text in (
            "fwd n1 c3 h6 w5 k4 r3 s3 pad1 bias",
            "bwd_data n1 c3 h6 w5 k4 r3 s3 pad1 reflect",
            "bwd_filter n2 c3 w9 k4 s3",
        ):
            with fc.options(max_workspace=0):
                e = fc.explain(f"{text} {dtype}", errors=True)
            assert e.chosen and all(row["workspace_bytes"] == 0 for row in e.usable)
            assert e.row(e.chosen)["max_error"] < (1e-2 if dtype == "f16" else 1e-5)


def test_precision_of_a_call_of_a_gradient_and_of_a_layer():
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((4, 32, 28, 28), np.float32), rng.standard_normal((32, 32, 3, 3), np.float32)
    with fc.trace() as t:
        fc.conv2d(x, w, padding=1)
        y = fc.conv2d(x, w, padding=1, precision="strict")
        fc.conv2d_backward(y, x, w, padding=1, precision="strict")
        fc.conv_transpose2d(x, w, padding=1, precision=1)
        layer = fc.nn.Conv2d(32, 32, 3, padding=1, precision="strict")
        fc.ops.sum(layer(fc.Tensor(x, requires_grad=True))).backward()
        named = fc.nn.ConvTranspose2d(32, 32, 3, padding=1, algorithm="im2col_gemm")
        named(x)
    ran = [call["algorithm"] for call in t.calls]
    assert ran[0].startswith("winograd") and not any(name.startswith("winograd") for name in ran[1:])
    assert ran[-1] == "im2col_gemm" and "algorithm=im2col_gemm" in repr(named) and "precision=strict" in repr(layer)
    assert fc.plan(w, x_shape=x.shape, padding=1).algorithm.startswith("winograd")
    assert not fc.plan(w, x_shape=x.shape, padding=1, precision="strict").algorithm.startswith("winograd")
    with pytest.raises(fc.ProblemError, match="precision is 'exact'"):
        fc.conv2d(x, w, precision="exact")
    with pytest.raises(fc.ProblemError, match="no_such"):
        fc.nn.Conv1d(1, 1, 3, algorithm="no_such")


def test_the_documentation_runs(capsys):
    names: dict = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(snippet, "explain.md", "exec"), names)
    assert "is chosen" in capsys.readouterr().out
    for key in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE):
        assert all(name in names["row"] for name in re.findall(r"`(\w+)`", key)), key


def test_a_text_without_a_pass_is_of_the_forward_pass(capsys):
    text = "n1 c4 h8 w8 k4 r3 s3 pad1"
    assert fc.explain(text).problem == fc.explain(f" fwd {text}").problem == fc.ConvProblem.parse(f"fwd {text}")
    assert [row["name"] for row in fc.algorithms(text)] == [row["name"] for row in fc.algorithms(f"fwd {text}")]
    assert cli.main(["explain", *text.split()]) == 0
    assert capsys.readouterr().out.startswith(f"{fc.ConvProblem.parse(f'fwd {text}')}\n")
    for wrong in ("forward n1 c4 h8 w8 k4 r3 s3", ""):
        with pytest.raises(fc.ProblemError):
            fc.explain(wrong)
