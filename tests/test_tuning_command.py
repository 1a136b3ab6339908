# SPDX-License-Identifier: Apache-2.0
"""`fastconv tune`, and the convolutions of ONNX models that it and `fastconv bench` read."""

import numpy as np
import pytest

import fastconv as fc
from fastconv.cli import main
from fastconv.commands.arguments import seconds, size

LAYER = "fwd n1 c4 h8 w8 k4 r3 s3 pad1"


def run(capsys, *arguments):
    code = main(["tune", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_tune_writes_shows_merges_and_compares(capsys, tmp_path):
    a, b, both = (tmp_path / name for name in ("a", "b", "both"))
    code, out, _ = run(capsys, "--budget", "2s", "--out", a, LAYER, "--passes", "fwd,bwd_filter")
    assert code == 0
    assert "3 entries" in out
    code, out, _ = run(capsys, "--budget", "2s", "--out", b, *LAYER.replace("c4", "c8").split(), "--shapes", "1")
    assert code == 0
    assert "not timed: " in out
    code, out, _ = run(capsys, "merge", a, b, "--out", both)
    assert (code, "4 entries" in out) == (0, True)
    code, out, _ = run(capsys, "show", both)
    assert (code, fc.tuning.load(both).hash in out) == (0, True)
    code, out, _ = run(capsys, "diff", a, both)
    assert code == 0
    assert out.startswith("3 the same, 1 in the new one only")


def test_wrong_usage_is_exit_code_2(capsys, tmp_path):
    for arguments, message in [
        (["fwd n1 c4"], "fields are missing"),
        (["diff", "a"], "1 files; expected 2"),
        (["merge", "a"], "--out is missing"),
    ]:
        code, _, err = run(capsys, *arguments)
        assert code == 2
        assert message in err
    (tmp_path / "empty.txt").write_text("# nothing\n")
    assert run(capsys, tmp_path / "empty.txt")[0] == 2
    assert run(capsys, "show", tmp_path / "missing")[0] == 1


def test_times_and_sizes_have_units():
    assert [seconds(text) for text in ("30", "30s", "500ms", "1.5m")] == [30, 30, 0.5, 90]
    assert [size(text) for text in ("4096", "2KiB", "1MB")] == [4096, 2048, 10**6]
    for read in (seconds, size):
        with pytest.raises(Exception, match="expected"):
            read("3 parsecs")


@pytest.fixture
def model(tmp_path):
    onnx = pytest.importorskip("onnx", reason='pip install "fastconv[onnx]"')
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (8, 4, 5, 5), "w2": (4, 8, 3, 3)}
    nodes = [
        make.make_node("Conv", ["x", "w0", "b0"], ["a"], "stem", strides=[2, 2], auto_pad="SAME_UPPER"),
        make.make_node("Relu", ["a"], ["r"]),
        make.make_node("Conv", ["r", "w1"], ["b"], "grouped", group=2, pads=[2, 1, 2, 3], dilations=[1, 1]),
        make.make_node("Conv", ["b", "w2"], ["y"]),
    ]
    graph = make.make_graph(
        nodes,
        "net",
        [make.make_tensor_value_info("x", kind, ["batch", 3, 32, 31])],
        [make.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()],
    )
    path = tmp_path / "net.onnx"
    onnx.save(make.make_model(graph), path)
    return path


def test_a_models_convolutions(model):
    from fastconv.onnx import convolutions

    assert [(str(problem), name) for problem, name in convolutions(model, batch=2)] == [
        ("fwd n2 c3 h32 w31 k8 r3 s3 stride2 pad0_1x1 dil1 g1 nchw f32 bias", "stem"),
        ("fwd n2 c8 h16 w16 k8 r5 s5 stride1 pad2x1_3 dil1 g2 nchw f32", "grouped"),
        ("fwd n2 c8 h16 w16 k4 r3 s3 stride1 pad0 dil1 g1 nchw f32", "y"),
    ]


def test_models_are_tuned_and_benchmarked(capsys, model, tmp_path):
    assert run(capsys, "--budget", "3s", "--out", tmp_path / "a", model)[0] == 0
    assert len(fc.tuning.load(tmp_path / "a")) == 6
    assert (
        main(["bench", str(model), "--rivals", "none", "--rounds", "2", "--min-sample", "0.001", "--only", "stem"]) == 0
    )
    assert "stem" in capsys.readouterr().out


def test_what_is_no_model_is_refused(model, tmp_path):
    from fastconv.onnx import convolutions

    (tmp_path / "broken.onnx").write_bytes(model.read_bytes()[:60])
    with pytest.raises(fc.ProblemError, match=r"broken\.onnx: not an ONNX model"):
        convolutions(tmp_path / "broken.onnx")
    with pytest.raises(OSError, match=r"missing\.onnx"):
        convolutions(tmp_path / "missing.onnx")
