# SPDX-License-Identifier: Apache-2.0
"""Causal convolution in pieces: the bits of the whole, for every split, algorithm and instruction set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import isas, rng_for
from fastconv import reference
from tolerance import assert_close, assert_exact, assert_same_bits

ACTIVATIONS = (None, "relu", ("leaky_relu", 0.2), "relu6", "elu", "sigmoid", "tanh", "silu", "gelu", "hard_swish")


def names():
    return [row["name"] for row in fc.algorithms("fwd n1 c1 w9 k1 s1") if row["error_factor"] <= 1]


@st.composite
def sequences(draw):
    """(x, w, bias, the options, where x is cut): dense, grouped and depthwise, lengths from 0 on."""
    groups = draw(st.sampled_from((1, 1, 2, 5)))
    per_group = draw(st.integers(1, 4))
    c, k = groups * per_group, groups * draw(st.integers(1, 3))
    taps, dilation, length = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(0, 60))
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=8)))
    layout = draw(st.sampled_from(("channels_first", "channels_last")))
    dtype = draw(st.sampled_from((np.float32, np.float64)))
    n = draw(st.integers(0, 3))
    rng = rng_for(f"{n} {c} {k} {taps} {length}")
    x = rng.standard_normal((n, c, length) if layout == "channels_first" else (n, length, c)).astype(dtype)
    w, bias = rng.standard_normal((k, per_group, taps)).astype(dtype), rng.standard_normal(k).astype(dtype)
    if draw(st.booleans()):
        x = x[0] if n else x
    words = {"dilation": dilation, "groups": groups, "layout": layout, "activation": draw(st.sampled_from(ACTIVATIONS))}
    return x, w, draw(st.sampled_from((None, bias))), words, cuts


def in_pieces(x, w, bias, words, cuts):
    axis, state, parts = (-1 if words["layout"] == "channels_first" else -2), None, []
    for piece in np.split(x, cuts, axis):
        y, state = fc.causal_conv1d(piece, w, bias, state, **words)
        assert y.shape[axis] == piece.shape[axis]
        parts.append(y)
    return np.concatenate(parts, axis), state


@given(sequences())
def test_pieces_give_the_bits_of_the_whole(case):
    x, w, bias, words, cuts = case
    ran = 0
    for isa in isas():
        for name in (None, *names()):
            with fc.options(isa=isa):
                try:
                    y, state = fc.causal_conv1d(x, w, bias, algorithm=name, **words)
                except fc.UnsupportedError:
                    continue
                together, last = in_pieces(x, w, bias, words | {"algorithm": name}, cuts)
                assert_same_bits(together, y, f"{name} on {isa}")
                assert_same_bits(last, state, f"state: {name} on {isa}")
            ran += 1
    assert ran >= 2 * len(isas())


@given(sequences())
def test_the_definition(case):
    x, w, bias, words, _ = case
    axis = -1 if words["layout"] == "channels_first" else -2
    if x.shape[axis] == 0 or x.ndim == 2:
        return
    activation = words.pop("activation")
    kind, alpha = activation if isinstance(activation, tuple) else (activation, 1.0)
    reach = (w.shape[-1] - 1) * words["dilation"]
    expected = reference.conv(x, w, bias, padding=((reach, 0),), activation=kind, alpha=alpha, **words)
    y, _ = fc.causal_conv1d(x, w, bias, activation=activation, **words)
    scale = float(abs(expected).max(initial=1.0)) * w.shape[1] * w.shape[2]
    assert_close(y, expected, "pointwise", dtype=x.dtype, scale=scale)


def test_one_step_at_a_time_and_many_channels():
    rng = rng_for("steps")
    for groups, per_group in ((1, 70), (64, 1), (3, 40)):
        x = rng.standard_normal((2, groups * per_group, 40)).astype(np.float32)
        w = rng.standard_normal((groups * 2, per_group, 4)).astype(np.float32)
        words = {"groups": groups, "layout": "channels_first", "activation": "silu"}
        y, _ = fc.causal_conv1d(x, w, **words)
        assert_same_bits(in_pieces(x, w, None, words, range(1, 40))[0], y)
        for threads in (1, 2, 16):
            with fc.options(threads=threads):
                assert_same_bits(fc.causal_conv1d(x, w, **words)[0], y)
        assert_same_bits(fc.causal_conv1d(x[1:], w, **words)[0], y[1:], "the choice ignores the batch")


def test_the_choice_is_made_once_for_all_lengths():
    rng = rng_for("choice")
    for groups, per_group, taps in ((1, 3, 4), (8, 1, 4), (4, 8, 2), (1, 16, 1), (2, 300, 3)):
        x = rng.standard_normal((1, groups * per_group, 3000)).astype(np.float32)
        w = rng.standard_normal((groups * 4, per_group, taps)).astype(np.float32)
        with fc.trace() as t:
            for length in (1, 2, 7, 64, 3000):
                fc.causal_conv1d(x[..., :length], w, groups=groups)
        assert len({call["algorithm"] for call in t.calls}) == 1
        with fc.options(algorithm="reference"), fc.trace() as t:
            fc.causal_conv1d(x[..., :7], w, groups=groups)
        assert t.calls[0]["algorithm"] == "reference"


def test_halves():
    x, w = (rng_for(f"{s}").standard_normal(s).astype(np.float16) for s in ((1, 4, 30), (4, 1, 4)))
    words = {"groups": 4, "layout": "channels_first", "activation": "gelu"}
    y, state = fc.causal_conv1d(x, w, **words)
    assert y.dtype == state.dtype == np.float16
    assert_same_bits(in_pieces(x, w, None, words, [1, 2, 9, 9, 20])[0], y)


def test_state_is_a_copy_of_the_last_inputs():
    x, w = rng_for("x").standard_normal((2, 3, 10)), rng_for("w").standard_normal((4, 3, 3))
    y, state = fc.causal_conv1d(x, w, dilation=2)
    assert_exact(state, x[..., -4:])
    assert state.base is None and y.shape == (2, 4, 10)
    _, short = fc.causal_conv1d(x[..., :1], w, dilation=2)
    assert_exact(short, np.concatenate([np.zeros((2, 3, 3)), x[..., :1]], -1))
    empty, same = fc.causal_conv1d(x[..., :0], w, None, state, dilation=2)
    assert empty.shape == (2, 4, 0) and same is state
    assert fc.causal_conv1d(x, w[..., :1])[1].shape == (2, 3, 0)


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        ({"state": np.zeros((2, 3, 3))}, fc.ProblemError, r"state has shape \(2, 3, 3\); expected \(2, 3, 4\)"),
        ({"state": np.zeros((2, 3, 4), np.float32)}, TypeError, "state has dtype float32.*expected the same dtype"),
        ({"dilation": 0}, fc.ProblemError, "dilation is 0; expected at least 1"),
        ({"groups": 2}, fc.ProblemError, "groups=2 does not divide the 3 channels"),
        ({"w": np.zeros((4, 3))}, fc.ProblemError, r"w has shape \(4, 3\); expected \(K, C/groups, S\)"),
        ({"x": np.zeros((2, 3, 10, 1))}, fc.ProblemError, "x has 4 dimensions"),
        ({"x": [1.0]}, TypeError, "x is a list; expected a NumPy array"),
        ({"algorithm": "depthwise"}, fc.UnsupportedError, "depthwise needs one input channel per group"),
        ({"activation": "swash"}, fc.UnsupportedError, "activation 'swash' is not known"),
    ],
)
def test_refused_in_words(words, error, sentence):
    words = {"x": np.ones((2, 3, 10)), "w": np.ones((4, 3, 3)), "dilation": 2} | words
    with pytest.raises(error, match=sentence):
        fc.causal_conv1d(**words)


def test_gradients_flow_through_the_state():
    rng = rng_for("gradients")
    inputs = [fc.Tensor(rng.standard_normal(s), requires_grad=True) for s in ((2, 4, 7), (6, 2, 3), (6,), (2, 4, 4))]

    def whole(x, w, b, state):
        return fc.causal_conv1d(x, w, b, state, 2, 2, activation="tanh")[0]

    def pieces(x, w, b, state):
        y, state = fc.causal_conv1d(x[:, :, :3], w, b, state, 2, 2, activation="tanh")
        return fc.ops.concat([y, fc.causal_conv1d(x[:, :, 3:], w, b, state, 2, 2, activation="tanh")[0]], 2)

    for f in (whole, pieces):
        assert fc.gradcheck(f, inputs) and fc.gradgradcheck(f, inputs)
    assert_same_bits(pieces(*inputs).data, whole(*inputs).data)


@pytest.mark.parametrize("isa", isas())
def test_what_is_chosen_without_a_name_has_gradients(isa):
    """One algorithm is chosen for all lengths, from the forward pass; some have no gradient of the filter."""
    for channels in (1, 4, 16, 64):
        for taps in (1, 3, 9):
            x = fc.Tensor(np.ones((1, channels, 20), np.float32), requires_grad=True)
            w = fc.Tensor(np.ones((channels, channels, taps), np.float32), requires_grad=True)
            with fc.options(isa=isa):
                y, _ = fc.causal_conv1d(x, w)
                y.sum().backward()
            assert_exact(w.grad.data, np.broadcast_to(20.0 - np.arange(taps)[::-1], w.shape).astype(np.float32))


def test_layer_and_stream():
    fc.manual_seed(3)
    for layout in ("channels_first", "channels_last"):
        layer = fc.nn.CausalConv1d(4, 8, 3, dilation=2, groups=2, activation="gelu", layout=layout)
        plain = fc.nn.Conv1d(4, 8, 3, padding="causal", dilation=2, groups=2, activation="gelu", layout=layout)
        plain.load_state_dict(layer.state_dict())
        x = rng_for(layout).standard_normal((2, 4, 20) if layout == "channels_first" else (2, 20, 4)).astype(np.float32)
        axis = 2 if layout == "channels_first" else 1
        y = layer(x)
        assert_close(y.data, plain(x).data, "pointwise", scale=4.0)
        stream = layer.stream()
        for cuts in ([1, 2, 9], range(1, 20)):
            got = np.concatenate([stream(piece).data for piece in np.split(x, cuts, axis)], axis)
            assert_same_bits(got, y.data)
            assert not stream.state.requires_grad
            stream.reset()
        other, state = layer.step(x, None)
        assert_same_bits(other.data, y.data)
        assert state.shape == (2, 4, 4)
    assert repr(layer) == (
        "CausalConv1d(4, 8, kernel_size=(3,), stride=(1,), dilation=(2,), groups=2, activation=gelu, "
        "layout=channels_last)"
    )
    with pytest.raises(fc.ProblemError, match="groups=3 does not divide in_channels=4"):
        fc.nn.CausalConv1d(4, 6, 3, groups=3)
