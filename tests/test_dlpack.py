# SPDX-License-Identifier: Apache-2.0
"""Kinds of array: NumPy's and other libraries' that give their memory by DLPack come back as what they were."""

import pickle

import numpy as np
import pytest

import fastconv as fc


class Memory:
    """Gives its memory by DLPack, and nothing else."""

    def __init__(self, array):
        self.array = np.asarray(array)

    def __dlpack__(self, **asked):
        return self.array.__dlpack__(**asked)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Undecided(Memory):
    """As the first exporters were: no word about the device, no keywords."""

    __dlpack_device__ = property()  # hasattr is False

    def __dlpack__(self):
        return self.array.__dlpack__()


class Standard(Memory):
    """An array of a library that follows the array API standard: its namespace makes more of its kind."""

    def __array_namespace__(self, api_version=None):
        return Standard

    @staticmethod
    def from_dlpack(array):
        return Standard(np.from_dlpack(array))


class Elsewhere(Memory):
    """In the memory of some other accelerator."""

    def __dlpack_device__(self):
        return 12, 0


@pytest.fixture
def rng():
    print("seed 11")
    return np.random.default_rng(11)


def arrays(rng):
    return rng.standard_normal((2, 3, 9, 8), dtype=np.float32), rng.standard_normal((4, 3, 3, 3), dtype=np.float32)


# What takes arrays and gives arrays: name -> a call with arrays of a kind.
CALLS = {
    "conv2d": lambda kind, x, w: fc.conv2d(kind(x), kind(w), kind(np.ones(4, np.float32)), padding=1),
    "conv1d": lambda kind, x, w: fc.conv1d(kind(x[..., 0]), kind(w[..., 0])),
    "conv2d by keywords": lambda kind, x, w: fc.conv2d(x=kind(x), w=kind(w), activation="relu"),
    "conv2d without a batch": lambda kind, x, w: fc.conv2d(kind(x[0]), kind(w)),
    "conv2d of a transposed": lambda kind, x, w: fc.conv2d(kind(x.transpose(0, 1, 3, 2)), kind(w)),
    "conv2d of float16": lambda kind, x, w: fc.conv2d(kind(x.astype("f2")), kind(w.astype("f2"))),
    "conv_transpose2d": lambda kind, x, w: fc.conv_transpose2d(kind(x), kind(w.transpose(1, 0, 2, 3))),
    "conv2d_backward": lambda kind, x, w: fc.conv2d_backward(kind(np.ones((2, 4, 7, 6), "f4")), kind(x), kind(w)),
    "conv2d_backward_data": lambda kind, x, w: fc.conv2d_backward_data(kind(x), kind(w.swapaxes(0, 1)), (2, 4, 11, 10)),
    "max_pool2d": lambda kind, x, w: fc.max_pool2d(kind(x), 2, return_indices=True),
    "adaptive_avg_pool2d": lambda kind, x, w: fc.adaptive_avg_pool2d(kind(x), 2),
    "global_max_pool2d": lambda kind, x, w: fc.global_max_pool2d(kind(x)),
    "im2col": lambda kind, x, w: fc.im2col(kind(x), 2),
    "local_response_norm": lambda kind, x, w: fc.local_response_norm(kind(x), 3),
    "causal_conv1d": lambda kind, x, w: fc.causal_conv1d(kind(x[..., 0]), kind(w[..., 0])),
    "correlate": lambda kind, x, w: fc.correlate(kind(x[0, 0]), kind(w[0, 0])),
    "convolve": lambda kind, x, w: fc.convolve(kind(x[0, 0]), kind(w[0, 0])),
}


def listed(results):
    return results if isinstance(results, tuple) else (results,)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", [np.asarray, Memory, Undecided, Standard])
def test_the_answer_is_of_the_kind_of_the_arrays(rng, kind, name):
    x, w = arrays(rng)
    expected = listed(CALLS[name](np.array, x, w))
    found = listed(CALLS[name](kind, x, w))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert type(one) is (Standard if kind is Standard else np.ndarray)
        values = one.array if kind is Standard else one
        assert values.dtype == other.dtype and np.array_equal(values, other)


def test_memory_is_read_and_written_in_place(rng):
    x, w = arrays(rng)
    out = Standard(np.empty((2, 4, 7, 6), np.float32))
    assert fc.conv2d(Standard(x), Standard(w), out=out) is out
    assert np.array_equal(out.array, fc.conv2d(x, w))
    seen = Memory(x)
    before = fc.conv2d(seen, Memory(w))
    x[...] *= 2  # what fastconv reads is this memory
    assert np.array_equal(fc.conv2d(seen, Memory(w)), 2 * before)


def test_what_cannot_be_read_is_refused_in_words(rng):
    x, w = arrays(rng)
    with pytest.raises(TypeError, match=r"conv2d: x has dtype int32; expected float32"):
        fc.conv2d(Memory(x.astype(np.int32)), Memory(w))
    with pytest.raises(TypeError, match=r"conv2d: w has dtype float64, the argument before it float32"):
        fc.conv2d(Memory(x), Memory(w.astype(np.float64)))
    with pytest.raises(TypeError, match=r"max_pool2d: x is a Elsewhere; expected a NumPy array"):
        fc.max_pool2d(Elsewhere(x), 2)

    class Strange(Memory):
        def __dlpack__(self, **asked):
            raise BufferError("a dtype of its own")

    with pytest.raises(TypeError, match=r"conv2d: NumPy cannot read a Strange by DLPack: a dtype of its own"):
        fc.conv2d(Strange(x), w)


def test_the_functions_are_still_themselves():
    assert pickle.loads(pickle.dumps(fc.conv2d)) is fc.conv2d
    assert fc.conv2d.__module__ == "fastconv.primitives" and fc.conv2d.__doc__.startswith("y = activation")
