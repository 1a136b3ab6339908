# SPDX-License-Identifier: Apache-2.0
"""Batches that a session cuts into pieces: the same bits, all images, and no network that mixes images."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import _core, nn, ops
from fastconv.session.pieces import best_piece, cut
from tolerance import assert_close


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("best", [0.1, 1.0, 2.3, 5.7, 40.0])
def test_every_image_is_in_one_piece_and_the_threads_have_the_same_work(threads, best):
    for images in range(1, 70):
        parts = cut(images, threads, best)
        assert sum(pieces * size for pieces, size in parts) == images
        for pieces, size in parts:
            assert size >= 1
            assert pieces == 1 or pieces % threads == 0
            assert pieces == 1 or 0.5 * best <= size < max(2.0, 2 * best)


def test_where_a_batch_is_cut():
    assert cut(8, 2, 2.3) == [(4, 2)]
    assert cut(8, 2, 5.7) == [(2, 4)]
    assert cut(8, 2, 9.0) == [(1, 8)]  # two pieces of 4 would read the weights too often
    assert cut(8, 1, 0.4) == [(8, 1)]
    assert cut(7, 2, 3.0) == [(2, 3), (1, 1)]  # the threads share what is left
    assert cut(1, 2, 0.1) == [(1, 1)]
    assert best_piece(4 << 20, 1 << 20) == 2 * best_piece(1 << 20, 1 << 20)


def _model():
    fc.manual_seed(5)
    rest = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(first, rest, nn.Linear(32, 5), nn.Softmax()).eval()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_batch_has_the_bits_of_its_images_alone(threads):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((11, 3, 12, 12)).astype(np.float32)
    session = fc.InferenceSession(_model(), x[:1])
    alone = np.concatenate([session(x[i : i + 1]) for i in range(len(x))])
    with fc.options(threads=threads):
        for best in (0.2, 2.0, 3.0):
            session._best_piece = best
            for n in (1, 2, 3, 5, 8, 11):
                parts = session._parts(n)
                assert n < 2 * threads * max(1, best) or any(pieces > 1 for pieces, _ in parts)
                assert np.array_equal(session(x[:n]), alone[:n]), (n, parts)


def test_two_inputs_and_outputs_one_of_which_is_an_input():
    conv = nn.Conv2d(2, 2, 1)
    x = np.random.default_rng(3).standard_normal((6, 2, 5, 5)).astype(np.float32)
    session = fc.InferenceSession(lambda a, b: {"a": a, "sum": conv(a) + b, "again": conv(b)}, (x, -x))
    session._best_piece = 1.0
    with fc.options(threads=2):
        assert session._parts(6) == [(6, 1)]
        found = session(x, -x)
    assert found["a"] is not x and np.array_equal(found["a"], x)
    whole = fc.InferenceSession(lambda a, b: conv(a) + b, (x, -x))
    whole._best_piece = None
    assert np.array_equal(found["sum"], whole(x, -x))
    assert found["again"].shape == x.shape and not np.array_equal(found["again"], found["sum"])


def test_pieces_need_less_memory_than_the_whole():
    x = np.ones((16, 3, 12, 12), np.float32)
    session = fc.InferenceSession(_model(), x)
    with fc.options(threads=2):
        session._best_piece = None
        whole = session.arena_bytes
        session._best_piece = 2.0
        assert session._parts(16) == [(8, 2)]
        assert session.arena_bytes <= whole / 3


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: ops.concat([x, x], axis=0),
        lambda x: x.transpose(1, 0, 2, 3),
        lambda x: x.reshape(-1, 2, 6, 6),
        ops.sin,
    ],
)
def test_what_mixes_images_is_not_cut(mix):
    conv = nn.Conv2d(4, 4, 3, padding=1)
    x = np.random.default_rng(4).standard_normal((4, 4, 6, 6)).astype(np.float32)
    session = fc.InferenceSession(lambda x: mix(conv(x)), x)
    assert session._best_piece is None
    assert_close(session(x), mix(conv(fc.Tensor(x))).data, "parity")


def test_the_native_program_refuses_other_sizes():
    x = np.ones((4, 3, 12, 12), np.float32)
    session = fc.InferenceSession(_model(), x)
    program = session._program(((2, 3, 12, 12),))
    arena = _core.Arena("f32", program.arena_bytes)
    made = list(program.outputs_for(4).values())
    program.native.run_pieces([x], made, [arena], 2)
    for inputs, outputs, arenas, pieces, words in [
        ([x[:3]], made, [arena], 2, "array 0"),
        ([x], [made[0][:2]], [arena], 2, "array 1"),
        ([x], made, [arena], 0, "expected a piece"),
        ([x], made, [], 2, "expected a piece"),
        ([x], made, [_core.Arena("f32", 64)], 2, "larger arena"),
        ([x, x], made, [arena], 2, "2 inputs"),
    ]:
        with pytest.raises(fc.ProblemError, match=words):
            program.native.run_pieces(inputs, outputs, arenas, pieces)
