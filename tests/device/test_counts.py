# SPDX-License-Identifier: Apache-2.0
"""How much the algorithms of a device multiply, by hand and by the emulated tensor cores; and where their time goes."""

import ctypes
import os

import pytest

import fastconv as fc
from fastconv import _core
from fastconv.explaining import facts, measure

EMULATED = os.environ.get("FASTCONV_EMULATED_DEVICE")


def counts(problem: str) -> dict[str, int]:
    with fc.options(precision="tf32"):
        rows = fc.algorithms(problem, "cuda")
    return {row["name"]: row["multiplications"] for row in rows if row["supported"]}


@pytest.mark.parametrize(
    ("problem", "name", "count"),
    [
        # Inside the image alone: 100 of 16 * 9 taps (tests/test_explain.py); padding that is read counts.
        ("fwd n1 c1 h4 w4 k1 r3 s3 pad1", "direct", 100),
        ("bwd_data n3 c2 h4 w4 k5 r3 s3 pad1", "direct", 3 * 2 * 5 * 100),
        ("bwd_filter n1 c1 h4 w4 k1 r3 s3 pad1", "direct", 100),
        ("fwd n1 c1 h4 w4 k1 r3 s3 pad1 reflect", "direct", 144),
        # Products are made in tiles of 32 x 128, 128 x 32 or 64 x 64 sums and slabs of 8 along the depth.
        ("fwd n2 c8 h7 w7 k3 r1 s1", "pointwise_1x1", 32 * 128 * 8),
        ("fwd n2 c8 h7 w7 k3 r1 s1 nhwc", "pointwise_1x1", 128 * 32 * 8),
        ("fwd n2 c9 h7 w7 k3 r1 s1", "pointwise_1x1", 32 * 128 * 16),
        ("bwd_data n2 c9 h7 w7 k3 r1 s1", "pointwise_1x1", 32 * 128 * 8),
        ("fwd n1 c4 h8 w8 k40 r3 s3 pad1", "im2col_gemm", 64 * 64 * 40),
        ("fwd n1 c4 h8 w8 k40 r3 s3 pad1 g2", "im2col_gemm", 2 * 32 * 128 * 24),
        # 4 tiles of outputs, 36 or, of F(2,3), 16 of 16 points.
        ("fwd n1 c8 h8 w8 k8 r3 s3 pad1", "winograd_f4x4_3x3", 36 * 32 * 128 * 8),
        ("fwd n1 c8 h8 w8 k8 r3 s3 pad1", "winograd_f2x2_3x3", 16 * 32 * 128 * 8),
        ("bwd_filter n1 c8 h8 w8 k8 r3 s3 pad1", "winograd_f4x4_3x3", 36 * 32 * 128 * 8),
        # A block has a row of a group (few are cut small), a warp 128 outputs and 4 filters, of every channel and tap;
        # of a gradient a thread has 4 x 4 weights of a tap.
        ("fwd n1 c6 h4 w4 k4 r3 s3 pad1 g2", "grouped", 2 * 4 * 128 * 4 * 3 * 9),
        ("bwd_filter n1 c6 h4 w4 k4 r3 s3 pad1 g2", "grouped", 2 * 16 * 4 * 4 * 9),
        # Threads of 4 x 4 outputs, of 2 x 4 and 4 channels, of 8 neighbours, of single ones.
        ("fwd n1 c2 h5 w5 k2 r3 s3 pad1 g2", "depthwise", 2 * 8 * 8 * 9),
        ("fwd n1 c3 h4 w4 k3 r3 s3 pad1 g3 nhwc", "depthwise", 4 * 4 * 4 * 9),
        ("fwd n1 c2 w10 k2 s4 g2", "depthwise", 2 * 8 * 4),
        ("fwd n1 c2 h9 w9 k2 r3 s3 stride3 g2", "depthwise", 2 * 9 * 9),
        ("bwd_data n1 c2 h9 w9 k2 r3 s3 stride3 g2", "depthwise", 2 * 81),  # a tap for each cell
        ("fwd n1 c8 h16 w16 k8 r11 s11 pad5 g8 nhwc", "depthwise", 8 * 256 * 121),
        ("bwd_filter n2 c2 h4 w4 k2 r3 s3 pad1 g2", "depthwise", 2 * 2 * 16 * 9),
        ("bwd_filter n1 c3 h4 w4 k3 r3 s3 pad1 g3 nhwc", "depthwise", 4 * 16 * 9),
        ("bwd_filter n1 c2 w10 k2 s4 g2", "depthwise", 2 * 7 * 4),
        # 128 threads of 8 weights for 200; of 3 channels in a block of 4 those of 3 are there.
        ("bwd_filter n1 c1 w210 k1 s200", "depthwise", 11 * 128 * 8),
        # 40 x 27 weights, 2 chunks of 32 and of 128 neighbours: implicit_gemm's tiles, of float32 three times.
        ("fwd n1 c8 h8 w8 k8 r3 s3 pad1 f16", "implicit_gemm", 32 * 128 * 96),
        ("fwd n1 c8 h8 w8 k8 r3 s3 pad1", "implicit_gemm", 3 * 32 * 128 * 80),
        ("fwd n1 c8 h8 w8 k8 r3 s3 pad1", "implicit_gemm_tf32", 32 * 128 * 80),
    ],
)
def test_multiplications_are_those_that_a_person_counts(cp, problem, name, count):
    assert counts(problem)[name] == count


TENSOR = [
    ("fwd n1 c8 h9 w9 k24 r3 s3 pad1", ("f32", "f16"), ("nchw", "nhwc")),
    ("fwd n2 c40 h7 w5 k70 r1 s1", ("f32", "bf16"), ("nchw", "nhwc")),
    ("fwd n1 c3 h20 w21 k12 r7 s7 stride2 pad3", ("f32", "f16"), ("nchw",)),  # few channels
    ("fwd n1 c64 h4 w4 k16 r3 s3 pad1", ("f32",), ("nhwc",)),  # long sums in chunks
    ("bwd_data n1 c8 h9 w8 k12 r3 s3 stride2 pad1", ("f32", "f16"), ("nchw", "nhwc")),
    ("bwd_filter n2 c8 h9 w8 k12 r3 s3 pad1", ("f32", "f16"), ("nchw", "nhwc")),
    ("bwd_filter n1 c3 h20 w21 k12 r5 s5 pad2", ("f32", "f16"), ("nchw",)),
    ("fwd n1 c12 h9 w8 k18 r3 s3 pad1 g3", ("f32", "f16"), ("nchw", "nhwc")),
    ("bwd_data n1 c12 h9 w8 k18 r3 s3 stride2 pad1 g3", ("f32", "f16"), ("nchw",)),
    ("bwd_filter n1 c12 h9 w8 k18 r3 s3 pad1 g3", ("f32", "f16"), ("nchw",)),
    ("bwd_filter n1 c8 h9 w8 k8 r3 s3 pad1 g2", ("f32",), ("nhwc",)),  # two groups side by side
]


@pytest.mark.skipif(not EMULATED, reason="the emulated tensor cores count what they are given; a device's do not")
@pytest.mark.parametrize(("text", "dtypes", "layouts"), TENSOR, ids=[t[0] for t in TENSOR])
def test_tensor_cores_multiply_what_is_counted(cp, text, dtypes, layouts):
    made = ctypes.CDLL(EMULATED).fastconv_emulated_products
    made.restype = ctypes.c_int64
    ran = set()
    for dtype in dtypes:
        for layout in layouts:
            problem = fc.ConvProblem.parse(f"{text} {layout} {dtype}")
            data = measure.Data(problem, 0, "cuda:0")
            for name, count in counts(str(problem)).items():
                if name not in facts._ON_TENSOR_CORES:
                    continue
                made()
                with fc.options(precision="tf32"):
                    data.run(measure.named(name))
                assert made() == count, (str(problem), name)
                ran.add(name)
    assert "implicit_gemm" in ran and ("groups" not in text or len(ran) > 2)


def test_counts_grow_with_the_problem_and_none_is_negative(cp):
    for pass_ in ("fwd", "bwd_data", "bwd_filter"):
        for rest in ("c8 h14 w14 k16 r3 s3 pad1", "c8 h14 w14 k16 r3 s3 pad1 g4", "c8 h14 w14 k8 r3 s3 pad1 g8"):
            inside = counts(f"{pass_} n1 {rest}")["direct"]
            assert counts(f"{pass_} n0 {rest}") == dict.fromkeys(counts(f"{pass_} n0 {rest}"), 0)
            two = counts(f"{pass_} n2 {rest}")
            for name, count in counts(f"{pass_} n1 {rest}").items():
                assert count >= (0 if "winograd" in name else inside), (pass_, rest, name)
                assert count <= two[name] <= 2 * count, (pass_, rest, name)
    # Nothing of a count is kept in 32 bits.
    assert counts("fwd n100 c512 h64 w64 k512 r3 s3 pad1")["im2col_gemm"] >= 100 * 512 * 512 * 4096 * 9


PHASES = {
    "fwd n1 c8 h8 w8 k8 r3 s3 pad1": {
        "winograd_f4x4_3x3": {"weights", "input", "products", "output"},
        "implicit_gemm": {"weights", "products"},
        "im2col_gemm": {"input", "products"},
        "direct": {"products"},
    },
    "bwd_data n1 c8 h8 w8 k8 r3 s3 pad1 nhwc": {"im2col_gemm": {"weights", "products", "output"}},
    "bwd_data n1 c8 h8 w8 k8 r1 s1 stride2": {"pointwise_1x1": {"products", "output"}},
    "bwd_filter n1 c8 h8 w8 k8 r3 s3 pad1 g2": {
        "grouped": {"products", "sums"},
        "grouped_tensor": {"products", "sums"},
        "implicit_gemm": {"products", "sums"},
    },
    "bwd_filter n1 c4 h8 w8 k4 r3 s3 pad1 g4": {"depthwise": {"products", "sums"}},
}


@pytest.mark.parametrize("problem", PHASES)
def test_every_algorithm_of_a_device_tells_its_phases(cp, problem):
    data = measure.Data(fc.ConvProblem.parse(problem), 0, "cuda:0")
    names = [row["name"] for row in fc.algorithms(problem, "cuda") if row["supported"]]
    assert set(PHASES[problem]) <= set(names)
    for name in names:
        with fc.trace(phases=True) as t, fc.trace() as plain:
            data.run(measure.named(name))
        (call,) = t.calls
        assert call["algorithm"] == name and "phases" not in plain.calls[0]
        assert "products" in call["phases"] and all(value > 0 for value in call["phases"].values())
        assert sum(call["phases"].values()) <= call["seconds"]
        assert call["phases"].keys() >= PHASES[problem].get(name, set()), name


def test_transforms_and_columns_are_conversions(cp):
    problem = "fwd n1 c8 h8 w8 k8 r3 s3 pad1"
    e = fc.explain(problem, device="cuda")
    phases = {name: [part["phase"] for part in e.row(name)["conversions"]] for name in PHASES[problem]}
    assert phases == {
        "winograd_f4x4_3x3": ["weights", "input", "output"],
        "implicit_gemm": ["weights"],
        "im2col_gemm": ["input"],
        "direct": [],
    }


def test_the_roofline_is_that_of_the_arithmetic(cp):
    e = fc.explain("fwd n1 c16 h8 w8 k16 r3 s3 pad1", device="cuda")
    speeds = _core.device_info(0)["speeds"]
    for name, speed in (("implicit_gemm", "flops_tf32"), ("im2col_gemm", "flops_f32")):
        row = e.row(name)
        least = max(2 * row["multiplications"] / speeds[speed], row["bytes_moved"] / speeds["bytes_per_second"])
        assert row["roofline_s"] == pytest.approx(least)
