# SPDX-License-Identifier: Apache-2.0
"""Session files: an npz (a zip of NumPy arrays, not compressed) whose array "network" is JSON text.

Nothing in it is executed or unpickled, and nothing is used before all of it was checked: sizes against the length of
the file before memory is taken, words and arrays against what each operation has (`operators.OPERATORS`), shapes by
inference through the whole network. What the steps may touch is checked once more by the native program.
"""

import io
import json
import math
import os
import zipfile
from typing import Any, BinaryIO

import numpy as np

from .._core import ProblemError, UnsupportedError
from ..weights.npz import shortened
from .network import Network, Node
from .operators import OPERATORS, shapes_of

VERSION = 1
_MOST_NODES = 1 << 14
_MOST_TEXT = 1 << 26  # bytes of JSON
_LARGEST = 1 << 40
_KEYS = {"format", "version", "dtype", "inputs", "input_shapes", "outputs", "values", "structure", "keys", "nodes"}
_OWN_DTYPES = {"first": "int64", "start": "int64", "weights": "float64"}  # others are of the network's


def save_network(network: Network, path: str | os.PathLike[str]) -> None:
    """Write it; an existing file is replaced at the end."""
    arrays: dict[str, Any] = {}
    nodes = []
    for node in network.nodes:
        if node.op == "python":
            raise UnsupportedError(
                f"InferenceSession.save: {node.words['function']} has no native step; only native ones can be saved"
            )
        names = {}
        for name, array in node.arrays.items():
            names[name] = f"array_{len(arrays)}"
            arrays[names[name]] = np.ascontiguousarray(array, _OWN_DTYPES.get(name, network.dtype))
        nodes.append({"op": node.op, "inputs": node.inputs, "outputs": node.outputs, "words": node.words,
                      "arrays": names, "name": node.name})  # fmt: skip
    text = json.dumps(
        {
            "format": "fastconv session", "version": VERSION, "dtype": network.dtype, "inputs": network.inputs,
            "input_shapes": network.input_shapes, "outputs": network.outputs, "values": network.values,
            "structure": network.structure, "keys": network.keys, "nodes": nodes,
        }
    )  # fmt: skip
    arrays["network"] = np.frombuffer(text.encode(), np.uint8)
    temporary = f"{os.fspath(path)}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def load_network(path: str | os.PathLike[str]) -> Network:
    """The network of a file.

    Raises:
        ProblemError: naming the file and what is wrong with it. UnsupportedError: a later version.
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        try:
            arrays = _arrays_of(file)
            network = _network_of(arrays)
            shapes_of(network, network.input_shapes)
        except UnsupportedError:
            raise
        except (ProblemError, zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError, NotImplementedError,
                RecursionError, OverflowError, RuntimeError, OSError) as error:  # fmt: skip
            # OSError: zipfile seeks to where a damaged directory says.
            raise ProblemError(
                f"InferenceSession.load: {os.fspath(path)} is no session file, or damaged: {shortened(error)}"
            ) from None
    return network


def _arrays_of(file: BinaryIO) -> dict[str, Any]:
    """The arrays of an npz without compression. Each is read only if its bytes are there."""
    room = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1 for m in members):
            raise ProblemError("it is compressed or encrypted")
        if sum(m.file_size for m in members) > room:
            raise ProblemError("its parts are longer than the file")
        found = {}
        for member in members:
            if not member.filename.endswith(".npy") or member.filename[:-4] in found:
                raise ProblemError(f"it has an unexpected part {member.filename[:40]!r}")
            found[member.filename[:-4]] = _array_of(archive.read(member))
    return found


def _array_of(data: bytes) -> Any:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    _require(version == (1, 0), f"an array has format {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    _require(not fortran and dtype.str in ("<f4", "<f8", "<i8", "|u1"), f"an array is {dtype}, or not in C order")
    _require(len(shape) <= 8 and all(n >= 0 for n in shape), f"an array has shape {shape}")
    rest = len(data) - stream.tell()
    _require(math.prod(shape) * dtype.itemsize == rest, f"an array of shape {shape} has {rest} bytes")
    array = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def _network_of(arrays: dict[str, Any]) -> Network:
    text = arrays.pop("network", np.zeros(0))
    _require(text.dtype == np.uint8 and 0 < text.size <= _MOST_TEXT, "it has no network")
    found = json.loads(text.tobytes().decode())
    _require(isinstance(found, dict) and found.get("format") == "fastconv session", "its network is of another format")
    version = found.get("version")
    _require(type(version) is int, f"its version is {version!r}")
    if version > VERSION:
        raise UnsupportedError(f"InferenceSession.load: the file has version {version}; this release reads {VERSION}")
    _require(set(found) == _KEYS, f"its network has {sorted(map(str, found))[:20]}; expected {sorted(_KEYS)}")
    _require(found["dtype"] in ("float32", "float64"), f"its dtype is {found['dtype']!r}")
    inputs, outputs = _integers(found["inputs"]), _integers(found["outputs"])
    shapes = found["input_shapes"]
    _require(inputs == list(range(len(inputs))) and len(inputs) > 0, f"its inputs are {inputs}")
    _require(isinstance(shapes, list) and len(shapes) == len(inputs), "its inputs have no shapes")
    shapes = [_integers(shape) for shape in shapes]
    _require(all(math.prod(s) <= _LARGEST and min(s, default=1) > 0 and len(s) <= 8 for s in shapes), "its shapes")
    _require(isinstance(found["nodes"], list) and len(found["nodes"]) <= _MOST_NODES, "its nodes are too many, or none")
    known = set(inputs)
    nodes = [_node_of(entry, known, arrays, found["dtype"]) for entry in found["nodes"]]
    _require(bool(outputs) and set(outputs) <= known, f"its outputs are {outputs}")
    keys = found["keys"]
    _require(found["structure"] in ("tensor", "tuple", "list", "dict"), f"its structure is {found['structure']!r}")
    _require(isinstance(keys, list) and all(isinstance(k, str) for k in keys), f"its keys are {keys!r}")
    _require(len(keys) == (len(outputs) if found["structure"] == "dict" else 0), f"its keys are {keys!r}")
    _require(found["structure"] != "tensor" or len(outputs) == 1, f"its outputs are {outputs}")
    _require(not arrays, "it has arrays that no node uses")
    return Network(found["dtype"], nodes, tuple(inputs), tuple(map(tuple, shapes)), tuple(outputs), max(known) + 1,
                   found["structure"], tuple(keys))  # fmt: skip


def _node_of(entry: Any, known: set[int], arrays: dict[str, Any], dtype: str) -> Node:
    """A node whose inputs are known values; its output becomes one."""
    keys = {"op", "inputs", "outputs", "words", "arrays", "name"}
    _require(isinstance(entry, dict) and set(entry) == keys, "a node is incomplete")
    op, name = entry["op"], entry["name"]
    _require(isinstance(op, str) and op in OPERATORS and op != "python", f"a node is {op!r}")
    _require(isinstance(name, str) and len(name) <= 1000, f"a node has the name {name!r}")
    operator = OPERATORS[op]
    inputs, outputs = _integers(entry["inputs"]), _integers(entry["outputs"])
    _require(operator.inputs[0] <= len(inputs) <= operator.inputs[1] and set(inputs) <= known, f"{op} reads {inputs}")
    _require(len(outputs) == 1 and outputs[0] not in known and outputs[0] <= 2 * _MOST_NODES, f"{op} writes {outputs}")
    words, weighted = entry["words"], "w" in operator.arrays
    optional = {"algorithm"} if weighted else set()
    _require(isinstance(words, dict) and set(words) - optional == set(operator.words), f"{op} has other words")
    for key, value in words.items():
        words[key] = _word(op, key, value, operator.words.get(key, str))
    names, expected = entry["arrays"], set(operator.arrays)
    _require(isinstance(names, dict) and set(names) - ({"bias"} if weighted else set()) == expected, f"{op} has arrays")
    own = {}
    for key, reference in names.items():
        own[key] = arrays.pop(reference)
        wanted = _OWN_DTYPES.get(key, dtype)
        _require(own[key].dtype == wanted, f"{key} of {op} is {own[key].dtype}; expected {wanted}")
    known.add(outputs[0])
    return Node(op, tuple(inputs), tuple(outputs), words, own, name)


def _word(op: str, key: str, value: Any, kind: type) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    _require(type(value) is kind, f"{key} of {op} is {value!r}"[:200])
    if kind is int:
        _require(abs(value) <= _LARGEST, f"{key} of {op} is {value}")
    if kind is str:
        _require(len(value) <= 100, f"{key} of {op} has {len(value)} characters")
    if kind is list:
        for item in value:
            _integers(item if isinstance(item, list) else [item])
    return value


def _integers(value: Any) -> list[int]:
    """A list of integers of moderate size."""
    good = isinstance(value, list) and all(type(n) is int and abs(n) <= _LARGEST for n in value)
    _require(good, f"{str(value)[:80]} is no list of integers")
    return list(value)


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ProblemError(text)
