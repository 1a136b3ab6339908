# SPDX-License-Identifier: Apache-2.0
"""`fc.InferenceSession`: a model traced once and run without Python between its layers."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._core import ProblemError, get_threads
from ..options import current, settings
from ..tensor import plain
from .choices import choose, options_for
from .files import load_network, save_network
from .lowering import lowered
from .network import Network, Shape
from .passes import optimised
from .pieces import best_piece, cut, images_stay_apart
from .profile import Profile
from .program import Program, Weights

__all__ = ["InferenceSession"]

_PROGRAMS = 8  # batch sizes whose plans are kept


def _resized(shapes: Sequence[Shape], images: int) -> tuple[Shape, ...]:
    return tuple((images, *shape[1:]) for shape in shapes)


class InferenceSession:
    """A model for inference: folded, fused, its weights packed and its memory planned once.

    Making one traces the model in evaluation mode (`fastconv.graph`), folds batch normalisation and constant factors
    into weights, lets biases, residual sums and activations run in the kernels of the convolutions before them, writes
    parts of concatenations to their place, and plans one arena for all intermediate arrays. A call runs a list of
    native steps with the GIL released. What has no native step is called as a Function between them; `profile` shows
    it as "python".

    A batch runs in pieces side by side, each through the whole network on one thread, where that is faster
    (`session.pieces`).

    Spatial sizes are those of the example. The first axis is the batch, and may differ from call to call: each batch
    size is planned at its first call, with the algorithms that were chosen for the example's, and the last 8 plans
    are kept; only where a Function is called the batch too is the example's. Weights are copied: training the model
    later changes nothing.

    Results equal the model's up to rounding, and are the same bits for any number of threads (`fc.options(threads=...)`
    holds for calls, the other options when the session is made). Any number of threads may call one session: each call
    leases an arena of its own.

    Args:
        model: a Module, or any function of tensors, of float32 or float64.
        example: an array or tensor as the model takes it, or a tuple of them for several inputs.
        tune: seconds to spend on timing algorithms; None: the options' tuning, or the estimates, choose.

    Raises:
        ProblemError: a model that cannot be traced (see `graph.trace_graph`); a call with other shapes.
        UnsupportedError: another dtype.

    Example:
        >>> session = fc.InferenceSession(model, x)
        >>> y = session(x)
    """

    def __init__(self, model: Any, example: Any, tune: float | None = None) -> None:
        examples = example if isinstance(example, tuple) else (example,)
        self._start(optimised(lowered(model, *examples)), tune)

    def _start(self, network: Network, tune: float | None) -> None:
        choose(network, tune)
        self._network = network
        kept = settings()
        self._weights = Weights(network, lambda algorithm: options_for(kept, algorithm))
        self._options = options_for(kept, None)
        self._programs: OrderedDict[tuple[Shape, ...], Program] = OrderedDict()
        self._lock = threading.Lock()
        whole = self._program(network.input_shapes)
        self._best_piece: float | None = None  # images; None: a batch is not cut
        if images_stay_apart(network, whole.shapes):
            images = max(network.input_shapes[0][0], 1)
            self._best_piece = best_piece(self._weights.bytes, whole.activation_bytes / images)

    def __call__(self, *inputs: Any) -> Any:
        """What the model returns for these inputs, as arrays: one, or a tuple, list or dict as the model makes it."""
        arrays = self._checked(inputs)
        return self._packed(self._run(arrays))

    def _run(self, arrays: list[Any], seconds: Any = None) -> list[Any]:
        shapes = tuple(a.shape for a in arrays)
        if arrays[0].shape[:1] == (0,):  # nothing to plan: what one image gives, without the image
            one = self._program(_resized(shapes, 1))
            return [np.zeros((0, *s[1:]), one.dtype) for s in one.output_shapes]
        parts = self._parts(arrays[0].shape[0] if shapes[0] else 1)
        if seconds is not None or len(parts) == 1 == parts[0][0]:
            return self._program(shapes).run(arrays, current().threads, seconds)
        return self._run_parts(arrays, parts)

    def _parts(self, images: int) -> list[tuple[int, int]]:
        if self._best_piece is None or images == 1:
            return [(1, images)]
        return cut(images, get_threads(current().threads), self._best_piece)

    def _run_parts(self, arrays: list[Any], parts: list[tuple[int, int]]) -> list[Any]:
        programs = [self._program(_resized(self._network.input_shapes, size)) for _, size in parts]
        made = programs[0].outputs_for(len(arrays[0]))
        begin = 0
        for program, (pieces, size) in zip(programs, parts, strict=True):
            end = begin + pieces * size
            some = {v: y[begin:end] for v, y in made.items()}
            program.run_into([a[begin:end] for a in arrays], some, pieces, get_threads(current().threads))
            begin = end
        return programs[0].returned(dict(zip(self._network.inputs, arrays, strict=True)) | made)

    def _packed(self, outputs: list[Any]) -> Any:
        structure, keys = self._network.structure, self._network.keys
        if structure == "tensor":
            return outputs[0]
        if structure == "dict":
            return dict(zip(keys, outputs, strict=True))
        return outputs if structure == "list" else tuple(outputs)

    def _checked(self, inputs: Sequence[Any]) -> list[Any]:
        expected = self._network.input_shapes
        if len(inputs) != len(expected):
            raise ProblemError(f"InferenceSession: {len(inputs)} inputs came; expected {len(expected)}")
        arrays = [plain(x) for x in inputs]
        batch = arrays[0].shape[0] if getattr(arrays[0], "shape", ()) else None
        for i, (array, shape) in enumerate(zip(arrays, expected, strict=True)):
            if not isinstance(array, np.ndarray) or array.dtype != self._network.dtype:
                got = getattr(array, "dtype", type(array).__name__)
                raise TypeError(
                    f"InferenceSession: input {i} is {got}; expected a NumPy array of {self._network.dtype}: "
                    f"use .astype(numpy.{self._network.dtype})"
                )
            other = (batch, *shape[1:]) if shape[:1] == expected[0][:1] else shape
            if array.shape != other:
                raise ProblemError(
                    f"InferenceSession: input {i} has shape {array.shape}; expected {shape}, with any batch: sizes are "
                    "those of the example"
                )
        return [np.ascontiguousarray(a) for a in arrays]

    def _program(self, shapes: tuple[Shape, ...]) -> Program:
        with self._lock:
            program = self._programs.get(shapes)
            if program is None:
                called = [n.words["function"] for n in self._network.nodes if n.op == "python"]
                if called and shapes != self._network.input_shapes:
                    raise ProblemError(
                        f"InferenceSession: {called[0]} has no native step, so that the batch is fixed; expected "
                        f"inputs of shape {self._network.input_shapes}, got {shapes}"
                    )
                program = Program(self._network, shapes, self._weights, self._options)
                self._programs[shapes] = program
                if len(self._programs) > _PROGRAMS:
                    self._programs.popitem(last=False)
            self._programs.move_to_end(shapes)
            return program

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Of the example's arrays; the first axis of each is the batch."""
        return self._network.input_shapes

    @property
    def dtype(self) -> Any:
        """Of the inputs."""
        return np.dtype(self._network.dtype)

    @property
    def arena_bytes(self) -> int:
        """Of the memory in which the intermediate arrays of one call lie, for the example's batch size: of all pieces
        that run side by side. Outputs and, for each piece, the workspace of one convolution at a time come on top."""
        shapes, threads = self._network.input_shapes, get_threads(current().threads)
        sizes = ((min(threads, pieces), size) for pieces, size in self._parts(shapes[0][0] if shapes[0] else 1))
        return max(lanes * self._program(_resized(shapes, size)).arena_bytes for lanes, size in sizes)

    @property
    def packed_bytes(self) -> int:
        """Of the packed weights."""
        return self._weights.bytes

    @property
    def algorithms(self) -> dict[str, str]:
        """Layer -> the algorithm that computes it; layers without a name are called node 0, node 1, ..."""
        nodes = enumerate(self._network.nodes)
        return {n.name or f"node {i}": n.words["algorithm"] for i, n in nodes if "algorithm" in n.words}

    def profile(self, *inputs: Any, repeats: int = 10) -> Profile:
        """Time every step, of the batch as a whole.

        Args:
            inputs: as for a call.
            repeats: so many runs, after one that is not counted; each step has its median.
        """
        arrays = self._checked(inputs)
        if repeats < 1 or 0 in arrays[0].shape:
            raise ProblemError(
                f"profile: repeats is {repeats}, the input {arrays[0].shape}; expected 1 or more of each"
            )
        runs: list[Any] = []
        self._run(arrays)
        for _ in range(repeats):
            runs.append([])
            self._run(arrays, runs[-1])
        return Profile(runs, self._options, current().threads)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the session to a file, as NumPy's npz: the folded network, its weights, and the algorithms.

        Raises:
            UnsupportedError: a model with an operation that has no native step.
        """
        save_network(self._network, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> InferenceSession:
        """The session that `save` wrote: the same choices, and on the same instruction set the same bits.

        Raises:
            ProblemError: not such a file, or a damaged one; nothing of it is used then.
            UnsupportedError: a file of a later version, or an algorithm that this machine does not have.
        """
        session = cls.__new__(cls)
        network = load_network(path)
        try:
            session._start(network, None)
        except ProblemError as error:  # what the native program refuses
            raise ProblemError(f"InferenceSession.load: {os.fspath(path)} is damaged: {error}") from None
        return session
