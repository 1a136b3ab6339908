# SPDX-License-Identifier: Apache-2.0
"""Files of inference sessions: the same choices and bits come back, and a damaged file is one clear error."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from test_session import NETS, Everything, image, made

SEED = 73
REFUSED = (fc.ProblemError, fc.UnsupportedError)


@pytest.mark.parametrize("name", NETS)
def test_same_choices_and_bits(name, tmp_path):
    x = image(2)
    session = fc.InferenceSession(made(name), x)
    session.save(tmp_path / "net.npz")
    loaded = fc.InferenceSession.load(tmp_path / "net.npz")
    assert loaded.algorithms == session.algorithms and loaded.arena_bytes == session.arena_bytes
    for n in (2, 1, 3):
        np.testing.assert_array_equal(loaded(image(n)), session(image(n)))
    assert [p.name for p in tmp_path.iterdir()] == ["net.npz"]


def test_a_tuned_choice_comes_back(tmp_path):
    x = image()
    with fc.options(algorithm="im2col_gemm"):
        session = fc.InferenceSession(made("denoiser"), x)
    session.save(tmp_path / "net.npz")
    loaded = fc.InferenceSession.load(tmp_path / "net.npz")
    assert set(loaded.algorithms.values()) == {"im2col_gemm"}
    np.testing.assert_array_equal(loaded(x), session(x))


def test_a_choice_of_another_precision_comes_back(tmp_path):
    """The file says which algorithm it is to be: it is not judged by the precision in force where it is loaded."""
    x = image()
    with fc.options(algorithm="winograd_f4x4_3x3"):
        session = fc.InferenceSession(made("denoiser"), x)
    session.save(tmp_path / "net.npz")
    with fc.options(precision="strict"):
        loaded = fc.InferenceSession.load(tmp_path / "net.npz")
        with pytest.raises(fc.UnsupportedError, match="error factor"), fc.options(algorithm="winograd_f4x4_3x3"):
            fc.InferenceSession(made("denoiser"), x)
    assert set(loaded.algorithms.values()) == {"winograd_f4x4_3x3"}
    np.testing.assert_array_equal(loaded(x), session(x))


def test_structure_float64_and_every_step_come_back(tmp_path):
    x = image(2, 4, dtype=np.float64)
    session = fc.InferenceSession(Everything().to(np.float64), x)
    session.save(tmp_path / "net.npz")
    expected, result = session(x), fc.InferenceSession.load(tmp_path / "net.npz")(x)
    assert list(result) == list(expected)
    for name, y in result.items():
        np.testing.assert_array_equal(y, expected[name])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("session") / "net.npz"
    fc.InferenceSession(made("unet"), image()).save(path)
    return path


def rewritten(saved, path, change):
    """A copy of the file whose text went through `change`."""
    with np.load(saved) as file:
        arrays = dict(file)
    network = json.loads(arrays["network"].tobytes())
    changed = change(network)
    network = changed if type(changed) is tuple else network
    arrays["network"] = np.frombuffer(json.dumps(network).encode(), np.uint8)
    np.savez(path, **arrays)
    return path


def node(network, op):
    return next(n for n in network["nodes"] if n["op"] == op)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n: n.update(format="other"), "of another format"),
        (lambda n: n.update(version=2), "has version 2; this release reads 1"),
        (lambda n: n.update(version="1"), "its version is '1'"),
        (lambda n: n.update(extra=1), "its network has"),
        (lambda n: n.update(dtype="float16"), "its dtype is 'float16'"),
        (lambda n: n.update(outputs=[10**6]), "its outputs are"),
        (lambda n: n.update(outputs=[]), "its outputs are"),
        (lambda n: n.update(structure="dict"), "its keys are"),
        (lambda n: n.update(input_shapes=[[1, 3, 12, -12]]), "its shapes"),
        (lambda n: n.update(input_shapes=[[1, 4, 12, 12]]), r"node 0 \(conv down1.0\)"),
        (lambda n: n.update(input_shapes=[[1 << 30, 3, 1 << 30, 12]]), "its shapes"),
        (lambda n: n.update(nodes=n["nodes"][::-1]), "reads"),
        (lambda n: n.update(nodes=n["nodes"] * 3000), "too many"),
        (lambda n: n["nodes"].pop(0), "reads"),
        (lambda n: node(n, "conv").update(op="python"), "a node is 'python'"),
        (lambda n: node(n, "conv").update(name=7), "has the name 7"),
        (lambda n: node(n, "conv").update(inputs=[0, 0]), "the residual has shape"),
        (lambda n: node(n, "conv").update(outputs=[0]), r"writes \[0\]"),
        (lambda n: node(n, "conv")["words"].update(groups=True), "groups of conv is True"),
        (lambda n: node(n, "conv")["words"].update(groups=1 << 50), "groups of conv is"),
        (lambda n: node(n, "conv")["words"].update(stride=[0, 1]), "stride"),
        (lambda n: node(n, "conv")["words"].update(stride=[[[1]]]), "no list of integers"),
        (lambda n: node(n, "conv")["words"].update(pad_begin=[1 << 39, 1]), "down1.0"),
        (lambda n: node(n, "conv")["words"].update(activation="step"), "activation"),
        (lambda n: node(n, "conv")["words"].update(algorithm="magic"), "algorithm is 'magic'"),
        (lambda n: node(n, "conv")["words"].update(algorithm="depthwise"), "depthwise needs"),
        (lambda n: node(n, "conv")["words"].pop("alpha"), "conv has other words"),
        (lambda n: node(n, "conv")["arrays"].pop("w"), "conv has arrays"),
        (lambda n: node(n, "conv")["arrays"].pop("bias"), "arrays that no node uses"),
        (lambda n: node(n, "conv")["arrays"].update(w="array_99"), "array_99"),
        (lambda n: node(n, "pool")["words"].update(window=[99, 1]), "window"),
        (lambda n: node(n, "conv_transpose")["words"].update(size=[1 << 30, 1 << 30]), "conv_transpose"),
        (lambda n: node(n, "concat")["words"].update(axis=9), "axis is 9"),
        (lambda n: node(n, "resample")["words"].update(axis=0), "axis is 0"),
        (lambda n: node(n, "resample")["words"].update(axis=1), "InferenceSession|resample|w has"),
        (lambda n: (n,), "of another format"),
    ],
)
def test_a_network_that_cannot_be_is_refused(saved, tmp_path, change, words):
    with pytest.raises(REFUSED, match=words):
        fc.InferenceSession.load(rewritten(saved, tmp_path / "bad.npz", change))


def test_other_files_are_refused(saved, tmp_path):
    path = tmp_path / "bad.npz"
    for data in (b"", b"PK\x03\x04", b"no zip at all" * 10, saved.read_bytes()[:-100]):
        path.write_bytes(data)
        with pytest.raises(fc.ProblemError, match=r"bad\.npz is no session file, or damaged"):
            fc.InferenceSession.load(path)
    with np.load(saved) as file:
        np.savez_compressed(path, **file)
    with pytest.raises(fc.ProblemError, match="compressed"):
        fc.InferenceSession.load(path)
    np.savez(path, network=np.zeros(3))
    with pytest.raises(fc.ProblemError, match="it has no network"):
        fc.InferenceSession.load(path)
    with pytest.raises(FileNotFoundError):
        fc.InferenceSession.load(tmp_path / "none.npz")


def test_a_header_that_promises_more_than_there_is(saved, tmp_path):
    """The array would need terabytes: it is refused before memory is taken."""
    path = tmp_path / "bad.npz"
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            data = source.read(member)
            if member.filename == "array_0.npy":
                data = data.replace(b"(4, 3, 3, 3)", b"(9999, 9999, 9999, 9)"[:12].ljust(12), 1)
                data = data.replace(b"(9999, 9999,", b"(99999999,) ", 1)
            target.writestr(member.filename, data)
    with pytest.raises(fc.ProblemError, match="an array of shape"):
        fc.InferenceSession.load(path)


def test_a_directory_that_lies_is_refused_in_a_line(saved, tmp_path):
    """The end of a zip says where its directory is, and each entry the name and place of its part."""
    data, path = bytearray(saved.read_bytes()), tmp_path / "bad.npz"
    end, entry = data.rfind(b"PK\x05\x06"), data.find(b"PK\x01\x02")
    for at, size in ((end + 12, 4), (end + 16, 4), (entry + 28, 2), (entry + 42, 4)):
        for value in (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x90\x01\x00\x00"):
            path.write_bytes(data[:at] + value[:size] + data[at + size :])
            with pytest.raises(fc.ProblemError, match=r"bad\.npz is no session file, or damaged") as told:
                fc.InferenceSession.load(path)
            assert len(str(told.value)) < 500 and "\n" not in str(told.value)


def test_damaged_bytes(saved, tmp_path):
    """Whatever one byte becomes: the file still loads (a weight has changed), or is refused in one sentence."""
    rng, data, path = np.random.default_rng(SEED), saved.read_bytes(), tmp_path / "bad.npz"
    text = data.find(b'{"format"')
    places = [*rng.integers(0, len(data), 150), *rng.integers(text, text + 2000, 150)]
    refused = 0
    for at in places:
        path.write_bytes(data[:at] + bytes([int(rng.integers(256))]) + data[at + 1 :])
        try:
            fc.InferenceSession.load(path)
        except REFUSED as error:
            refused += 1
            assert "InferenceSession" in str(error)
    assert refused > 100  # a zip's checksums catch nearly all


def test_damaged_text(saved, tmp_path):
    """The same without the zip's checksums: numbers and letters of the network's text are exchanged."""
    with np.load(saved) as file:
        arrays = dict(file)
    rng, text, path = np.random.default_rng(SEED), arrays["network"].tobytes(), tmp_path / "bad.npz"
    for _ in range(300):
        at = int(rng.integers(len(text)))
        changed = text[:at] + bytes(rng.choice(list(b'0123456789-,[]{}":aelnt. '), 1).astype(np.uint8)) + text[at + 1 :]
        np.savez(path, **{**arrays, "network": np.frombuffer(changed, np.uint8)})
        try:
            session = fc.InferenceSession.load(path)
        except REFUSED as error:
            assert "bad.npz" in str(error) or isinstance(error, fc.UnsupportedError)
            continue
        if session._network.input_shapes == ((1, 3, 12, 12),) and session._network.dtype == "float32":
            session(image())


def test_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).resolve().parent.parent / "docs" / "sessions.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    for snippet in snippets:
        exec(compile(snippet, "sessions.md", "exec"), names)
    assert len(snippets) == 2 and "dense" in capsys.readouterr().out
