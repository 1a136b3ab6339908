# SPDX-License-Identifier: Apache-2.0
"""Weights in files: what is saved comes back, damaged files give one error that names them."""

import importlib.util
import io
import json
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

import fastconv as fc
from tolerance import assert_same_bits

DTYPES = [
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
]


def state():
    """Arrays of every dtype and of awkward shapes."""
    rng = np.random.default_rng(5)
    arrays = {f"of.{name}": rng.integers(0, 2, (3, 5)).astype(name) for name in DTYPES}
    arrays["of.bfloat16"] = rng.standard_normal((2, 3)).astype(ml_dtypes.bfloat16)
    arrays["scalar"] = np.array(7, np.int64)
    arrays["empty"] = np.zeros((0, 4), np.float32)
    arrays["transposed"] = rng.standard_normal((4, 6)).T
    arrays["a name, with $ and é"] = np.arange(3, dtype=np.uint8)
    return arrays


def assert_same_state(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_same_bits(actual[name], np.asarray(value), name)


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
def test_what_is_saved_comes_back(tmp_path, ending):
    path = tmp_path / f"some{ending}"
    fc.weights.save(path, state())
    assert fc.weights.format_of(path) == ending[1:]
    assert_same_state(fc.weights.load(path), state())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
def test_a_model_comes_back_and_an_empty_state_too(tmp_path, ending):
    path = tmp_path / f"some{ending}"
    fc.manual_seed(1)
    model, other = fc.models.lenet5(), fc.models.lenet5()
    fc.weights.save(path, dict(model.named_parameters()))
    other.load_state_dict(fc.weights.load(path))
    assert_same_state(other.state_dict(), model.state_dict())
    fc.weights.save(path, {})  # over what is mapped: the file is replaced, not changed
    assert fc.weights.load(path) == {}


def test_tensors_of_pytorch_are_saved_like_ours(tmp_path):
    torch = pytest.importorskip("torch")
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    fc.weights.save(tmp_path / "a.npz", {"ours": fc.Tensor(value), "theirs": torch.tensor(value, requires_grad=True)})
    assert_same_state(fc.weights.load(tmp_path / "a.npz"), {"ours": value, "theirs": value})


def test_a_checkpoint_gives_its_model(tmp_path):
    path = tmp_path / "checkpoint.npz"
    model = fc.models.lenet5().bfloat16().state_dict()
    fc.train.save_checkpoint(path, fc.train.Checkpoint(model=model, metadata={"model": "lenet5"}))
    assert_same_state(fc.weights.load(path), model)


def test_safetensors_are_views_and_aligned(tmp_path):
    path = tmp_path / "a.safetensors"
    fc.weights.save(path, state(), metadata={"net": "none"})
    loaded = fc.weights.load(path)
    assert all(array.flags.aligned for array in loaded.values())
    assert not any(array.flags.writeable or array.flags.owndata for array in loaded.values() if array.size)
    assert fc.weights.safetensors.metadata(path) == {"net": "none"}


def test_an_unaligned_array_is_copied(tmp_path):
    header = {"a": entry("U8", [1], [0, 1]), "b": entry("F64", [2], [1, 17])}
    path = written(tmp_path, header, b"\x05" + np.array([1.5, -2]).tobytes())
    b = fc.weights.load(path)["b"]
    assert b.flags.aligned and b.tolist() == [1.5, -2]


def test_the_package_safetensors_agrees(tmp_path):
    theirs = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "a.safetensors"
    arrays = {name: np.ascontiguousarray(value) for name, value in state().items()}
    del arrays["of.bfloat16"]  # which its module for NumPy does not know
    fc.weights.save(path, arrays)
    assert_same_state(theirs.load(path.read_bytes()), arrays)
    theirs.save_file(arrays, path)
    assert_same_state(fc.weights.load(path), arrays)


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_pytorch(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    path = tmp_path / "net.pth"
    tensors = {"w": torch.arange(6.0).reshape(2, 3).T, "half": torch.tensor([1.5, -3]).bfloat16(), "n": torch.tensor(3)}
    expected = {"w": np.arange(6, dtype=np.float32).reshape(2, 3).T, "n": np.array(3)}
    expected["half"] = np.array([1.5, -3], ml_dtypes.bfloat16)
    for saved in (tensors, {"epoch": 3, "state_dict": tensors}):
        torch.save(saved, path, _use_new_zipfile_serialization=zipped)
        assert fc.weights.format_of(path) == "torch"
        assert_same_state(fc.weights.load(path), expected)


def test_code_in_a_file_of_pytorch_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "net.pth"
    for saved, words in [
        ({"w": np.array([1.0])}, "weights_only=True"),
        ({"w": 3}, "'w' is a int; expected a tensor"),
        ({3: torch.zeros(1)}, "a name is 3; expected text"),
        ([torch.zeros(1)], "holds a list; expected a dictionary of tensors"),
        ({}, "holds an empty dictionary"),
    ]:
        torch.save(saved, path)
        with pytest.raises(ValueError, match=words) as caught:
            fc.weights.load(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_without_pytorch_its_files_name_it(tmp_path, monkeypatch):
    path = tmp_path / "net.pth"
    path.write_bytes(b"\x80\x02}.")
    monkeypatch.setitem(importlib.import_module("sys").modules, "torch", None)
    with pytest.raises(ImportError, match=r"net\.pth: a file of PyTorch, .*pip install torch"):
        fc.weights.load(path)


# What save refuses


@pytest.mark.parametrize(
    ("name", "value", "kind", "words"),
    [
        ("a.pth", np.zeros(1), ValueError, r"ends in '\.pth'; expected one of \.safetensors, \.npz"),
        ("a.npz", np.array([None]), TypeError, "'w' has dtype object; expected numbers"),
        ("a.npz", np.array(["text"]), TypeError, "'w' has dtype <U4; expected numbers"),
        ("a.safetensors", np.zeros(1, complex), TypeError, "'w' has dtype complex128; safetensors knows bool, uint8"),
    ],
)
def test_save_refuses(tmp_path, name, value, kind, words):
    with pytest.raises(kind, match=words):
        fc.weights.save(tmp_path / name, {"w": value})
    assert list(tmp_path.iterdir()) == []


def test_save_refuses_names_and_metadata(tmp_path):
    with pytest.raises(TypeError, match="a name is 3; expected text"):
        fc.weights.save(tmp_path / "a.npz", {3: np.zeros(1)})
    with pytest.raises(ValueError, match="__metadata__"):
        fc.weights.save(tmp_path / "a.safetensors", {"__metadata__": np.zeros(1)})
    with pytest.raises(ValueError, match="no place for metadata"):
        fc.weights.save(tmp_path / "a.npz", {}, metadata={"a": "b"})
    with pytest.raises(FileNotFoundError):
        fc.weights.save(tmp_path / "nowhere" / "a.npz", {})


# What load refuses, in its words


def entry(dtype, shape, offsets):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def written(folder, header, data=b"", length=None):
    """A safetensors file with this header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        ({"a": entry("F32", [2], [0, 8])}, bytes(7), "take 8 bytes; after the header there are 7"),
        ({"a": entry("F32", [2], [0, 8])}, bytes(9), "take 8 bytes; after the header there are 9"),
        ({"a": entry("F32", [2], [0, 4])}, bytes(4), r"'a' has 4 bytes; F32 of shape \[2\] takes 8"),
        ({"a": entry("F32", [2], [4, 12])}, bytes(12), "'a' leaves 4 bytes after the header"),
        ({"a": entry("U8", [4], [0, 4]), "b": entry("U8", [4], [2, 6])}, bytes(6), "'b' overlaps 'a'"),
        ({"a": entry("U8", [4], [0, 4]), "b": entry("U8", [4], [0, 4])}, bytes(4), "'b' overlaps 'a'"),
        ({"a": entry("F31", [1], [0, 4])}, bytes(4), "dtype 'F31'; expected one of BOOL"),
        ({"a": entry(["F32"], [1], [0, 4])}, bytes(4), "expected one of BOOL"),
        ({"a": entry("U8", [-1, -4], [0, 4])}, bytes(4), r"shape \[-1, -4\]"),
        ({"a": entry("U8", [2**62, 2**62], [0, 4])}, bytes(4), "has 4 bytes; U8"),
        ({"a": entry("U8", [True, 4], [0, 4])}, bytes(4), r"shape \[True, 4\]"),
        ({"a": entry("U8", [1] * 33, [0, 1])}, bytes(1), "at most 32"),
        ({"a": entry("U8", [4], [4, 0])}, bytes(4), r"offsets \[4, 0\]"),
        ({"a": entry("U8", [4], [0, 4, 8])}, bytes(4), r"offsets \[0, 4, 8\]"),
        ({"a": entry("U8", [4], [0.0, 4])}, bytes(4), "offsets"),
        ({"a": [1]}, b"", "'a' is not described by"),
        ({"a": {"dtype": "U8", "shape": []}}, b"", "'a' is not described by"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__ is not a dictionary of text"),
        (b'{"a":1,"a":2}', b"", "'a' occurs twice"),
        (b"{" + b'"a":{' * 100_000, b"", "nested too deeply|cannot be read"),
        (b'{"\xff"}', b"", "cannot be read"),
        (b"{} trailing", b"", "cannot be read"),
        (b'{"a":{"dtype":"U8","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,1]}}', b"", "cannot be read"),
    ],
)
def test_wrong_safetensors(tmp_path, header, data, words):
    path = written(tmp_path, header, data)
    with pytest.raises(ValueError, match=words) as caught:
        fc.weights.load(path)
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value)) < 500


@pytest.mark.parametrize("length", [0, 1, 100, 2**40, 2**64 - 1])
def test_a_header_longer_than_its_file(tmp_path, length):
    path = written(tmp_path, b"{}" + b" " * 20, length=length)
    with pytest.raises(ValueError, match=r"bad\.safetensors: the safetensors header"):
        fc.weights.load(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x93NUMPY", r"a bare \.npy array"),
        (b"hello, world", "begins with 68 65 6c"),
        (b"PK\x03\x04 and no more", "zip archive cannot be opened"),
    ],
)
def test_other_files(tmp_path, data, words):
    path = tmp_path / "weights"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=words) as caught:
        fc.weights.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(FileNotFoundError):
        fc.weights.load(tmp_path / "missing")


def archive(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def npy(array, **words):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **words)
    return file.getvalue()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a.npy": npy(np.array([print]), allow_pickle=True)}, "never pickled objects"),
        ({"a.npy": npy(np.array(["text"]))}, "expected numbers"),
        ({"a.npy": npy(np.zeros(2, [("x", "f4")]))}, "expected numbers"),
        ({"a.npy": npy(np.zeros(9), version=(2, 0))[:-1]}, "has 71 bytes"),
        ({"a.npy": npy(np.zeros(9)) + b"more"}, "has 76 bytes"),
        ({"a.npy": npy(np.zeros(9)).replace(b"(9,)", b"(-9,)")}, "at most 32 integers|has 72 bytes"),
        ({"a.npy": npy(np.zeros(9), version=(3, 0))}, "version"),
        ({"a.npy": b"nothing"}, "not an .npz archive"),
        ({"read.me": b"text"}, r"'read\.me' is no \.npy array"),
    ],
)
def test_wrong_npz(tmp_path, members, words):
    path = archive(tmp_path / "bad.npz", members)
    with pytest.raises(ValueError, match=words) as caught:
        fc.weights.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_bomb_is_refused_before_its_memory_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(fc.weights.npz, "_ALWAYS", 2**20)
    path = archive(tmp_path / "bomb.npz", {"a.npy": npy(np.zeros(2**24, np.uint8))}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"more than the limit of \d+; max_bytes raises it"):
            fc.weights.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert fc.weights.load(path, max_bytes=2**25)["a"].shape == (2**24,)
    path = archive(tmp_path / "bomb.npz", {"checkpoint.json.npy": npy(np.zeros(2**24, np.uint8))}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"bomb\.npz: not a checkpoint of fastconv train \(its arrays take"):
        fc.weights.metadata(path)


# Mutated files


def mutated(data, rng):
    """`data` cut short, with bytes changed, inserted, removed, repeated or exchanged; mostly near the front."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, len(data) if rng.random() < 0.4 else min(len(data), 400)))
        kind = rng.integers(0, 6)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            data[at:at] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == 2:
            del data[at : at + int(rng.integers(1, 9))]
        elif kind == 3:
            data[at : at + 8] = data[at + 8 : at + 16]
        else:
            data[at] = int(rng.choice([0, 255, 128, 34, 44, 48, 57, 91, 123, data[at] ^ 1 << int(rng.integers(0, 8))]))
        data = data or bytearray(b"\0")
    return bytes(data)


def originals(tmp_path):
    small = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2), "n": np.array(3)}
    fc.weights.save(tmp_path / "a.safetensors", small, metadata={"net": "small"})
    fc.weights.save(tmp_path / "b.npz", small)
    np.savez_compressed(tmp_path / "c.npz", **small)
    fc.train.save_checkpoint(tmp_path / "d.npz", fc.train.Checkpoint(model=small))
    counts = {"a.safetensors": 600, "b.npz": 250, "c.npz": 250, "d.npz": 100}
    if importlib.util.find_spec("torch"):
        torch = importlib.import_module("torch")
        tensors = {name: torch.from_numpy(value) for name, value in small.items()}
        torch.save(tensors, tmp_path / "e.pth")
        torch.save(tensors, tmp_path / "f.pth", _use_new_zipfile_serialization=False)
        counts |= {"e.pth": 60, "f.pth": 60}
    return counts


def test_mutated_files_load_or_give_one_error_that_names_them(tmp_path, full):
    for number, (name, count) in enumerate(originals(tmp_path).items()):
        count *= 10 if full else 1
        original, path = (tmp_path / name).read_bytes(), tmp_path / f"mutated-{name}"
        refused = 0
        for seed in range(count):
            path.write_bytes(mutated(original, np.random.default_rng((2026, number, seed))))
            try:
                loaded = fc.weights.load(path)
            except ValueError as error:
                refused += 1
                assert str(error).startswith(f"{path}: "), (name, seed)
                assert len(str(error)) < 1000, (name, seed)
            else:
                assert all(isinstance(array, np.ndarray) and array.nbytes < 2**20 for array in loaded.values())
        assert refused > count // 3, f"{name}: {refused} of {count} refused; the mutations are too tame"
