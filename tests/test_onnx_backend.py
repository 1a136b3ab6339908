# SPDX-License-Identifier: Apache-2.0
"""fastconv.onnx.Backend on the onnx package's own cases: all of its node cases, and those that PyTorch wrote.

python/fastconv/onnx/unsupported.txt says what does not run, with the reason. It must be exact.
"""

import functools
import importlib
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastconv.onnx
from fastconv.onnx.operators import OPERATORS
from tolerance import ONNX_CASE, assert_onnx_case

onnx = pytest.importorskip("onnx", reason="onnx comes with fastconv[onnx]")
helper, Backend = onnx.helper, fastconv.onnx.Backend
LIST = Path(fastconv.onnx.__file__).with_name("unsupported.txt")


def unsupported(section):
    """{name: reason} of a section of the list."""
    text = LIST.read_text(encoding="utf-8").split(f"[{section}]\n")[1].split("\n[")[0]
    found = {}
    for paragraph in text.strip().split("\n\n"):
        reason, *lines = paragraph.splitlines()
        assert reason.endswith(":") and lines and all(line.startswith("  ") for line in lines), reason
        names = " ".join(lines).split()
        assert not found.keys() & set(names) and len(set(names)) == len(names), f"{reason} names something twice"
        found.update(dict.fromkeys(names, reason[:-1]))
    return found


@functools.cache
def node_cases():
    with warnings.catch_warnings():  # building the expected values divides by zero and overflows
        warnings.simplefilter("ignore")
        return importlib.import_module("onnx.backend.test.case.node").collect_testcases(None)


def array(value):
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def failure(prepare, data_sets, tolerance):
    """None, or why the case fails."""
    try:
        prepared = prepare()
        for inputs, outputs in data_sets:
            got = prepared.run([array(v) for v in inputs])
            for actual, expected in zip(got, map(array, outputs), strict=True):
                assert_onnx_case(actual, np.asarray(expected), tolerance)
    except (AssertionError, ValueError, TypeError, NotImplementedError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def operators_of(case):
    return {node.op_type for node in case.model.graph.node}


def test_every_operator_of_the_cases_is_known_or_listed():
    seen = {op for case in node_cases() for op in operators_of(case)}
    listed = unsupported("operators")
    assert not OPERATORS.keys() & listed.keys()
    assert seen <= OPERATORS.keys() | listed.keys(), seen - OPERATORS.keys() - listed.keys()
    schemas = {schema.name for schema in onnx.defs.get_all_schemas()}
    assert OPERATORS.keys() | listed.keys() <= schemas | {"Upsample", "Scatter"}, "no such operator"


def test_node_cases_pass_or_are_listed():
    listed, run, failed = unsupported("cases"), 0, {}
    for case in node_cases():
        if operators_of(case) <= OPERATORS.keys():
            run += 1
            why = failure(functools.partial(Backend.prepare, case.model), case.data_sets, (case.rtol, case.atol))
            if why is not None:
                failed[case.name] = why
    assert run > 1000
    assert failed.keys() <= listed.keys(), {n: failed[n] for n in failed.keys() - listed.keys()}
    passing = listed.keys() & {case.name for case in node_cases()} - failed.keys()
    assert not passing, f"these pass, so they do not belong into the list: {passing}"


def test_the_issue_s_operators_have_cases_that_pass():
    """Nothing of these may sink into the list unseen."""
    needed = {
        "AveragePool", "BatchNormalization", "Col2Im", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool",
        "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization", "LogSoftmax",
        "LpPool", "MatMul", "MaxPool", "MaxUnpool", "Pad", "Resize", "Softmax",
    }  # fmt: skip
    listed = unsupported("cases")
    for case in node_cases():
        if case.model.graph.node[0].op_type in needed:
            needed.discard(case.model.graph.node[0].op_type)
            assert case.name not in listed
    assert not needed


def folder_case(folder):
    sets = []
    for data in sorted(folder.glob("test_data_set_*")):
        read = [
            [onnx.TensorProto.FromString((data / f"{kind}_{i}.pb").read_bytes())
             for i in range(len(list(data.glob(f"{kind}_*.pb"))))]
            for kind in ("input", "output")
        ]  # fmt: skip
        sets.append(read)
    return sets


@pytest.mark.parametrize("name", ["pytorch-converted", "pytorch-operator"])
def test_models_that_pytorch_wrote(name):
    folders = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data" / name).glob("test_*"))
    assert len(folders) >= 30
    failed = {}
    for folder in folders:
        model = onnx.load(folder / "model.onnx")
        why = failure(functools.partial(Backend.prepare, model), folder_case(folder), ONNX_CASE)
        if why is not None:
            failed[folder.name] = why
    assert not failed


def test_run_model_run_node_and_devices():
    x = np.array([[-1.0, 2.0]], np.float32)
    node = helper.make_node("Relu", ["x"], ["y"])
    (y,) = Backend.run_node(node, [x])
    assert isinstance(y, np.ndarray) and y.tolist() == [[0.0, 2.0]]
    (y,) = Backend.run_node(helper.make_node("Softmax", ["x"], ["y"], axis=0), [x], opset_version=11)
    assert y[0].sum() == pytest.approx(1)  # of old: everything from the axis on is one row
    info = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 2]) for n in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", info[:1], info[1:]))
    for inputs in ([x], x, {"x": x}):
        assert Backend.run_model(model, inputs)[0].tolist() == [[0.0, 2.0]]
    assert isinstance(Backend.prepare(model).model, fastconv.onnx.OnnxModel)
    assert Backend.supports_device("CPU") and not Backend.supports_device("CUDA:0")
    with pytest.raises(ValueError, match="device is 'CUDA'; expected 'CPU'"):
        Backend.prepare(model, "CUDA")
