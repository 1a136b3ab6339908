# SPDX-License-Identifier: Apache-2.0
"""Convolution under the tape: what runs in one kernel, and first and second derivatives of combined options."""

import itertools

import numpy as np
import pytest

import fastconv as fc
from cases import rng_for
from fastconv import reference
from tolerance import assert_close, assert_same_bits

CONV = {1: fc.conv1d, 2: fc.conv2d, 3: fc.conv3d}
FUSED = ("relu", ("leaky_relu", 0.2), "relu6", ("elu", 0.7), "sigmoid", "tanh")
SEPARATE = ("silu", "gelu", "hard_swish", ("elu", -0.5))
OPTIONS = {
    "stride": (1, 2),
    "dilation": (1, 2),
    "groups": (1, 2),
    "padding": ("valid", "same", "same_lower", "full", "causal", 1, "pairs"),
    "padding_mode": ("zeros", "constant", "reflect", "replicate", "circular"),
    "layout": ("channels_first", "channels_last"),
    "bias": (False, True),
    "residual": (False, True),
    "activation": (None, *FUSED, *SEPARATE),
    "batched": (True, False),
}


def leaf(*shape, seed=""):
    return fc.Tensor(rng_for(f"{seed} {shape}").standard_normal(shape), requires_grad=True)


def combinations(rank, count):
    """`count` valid draws in which every value of every option comes up about equally often."""
    rng = rng_for(f"combinations {rank}")
    bags = {name: [] for name in OPTIONS}

    def draw(name):
        if not bags[name]:
            bags[name] = list(rng.permutation(len(OPTIONS[name])))
        return OPTIONS[name][bags[name].pop()]

    for _ in range(count):
        words = {name: draw(name) for name in OPTIONS}
        if words["padding"] == "pairs" or (words["padding"] == "causal" and rank > 1):
            words["padding"] = ((1, 0), (0, 1), (1, 1))[:rank]
        yield words


def tensors(rank, words):
    """x, w, and the bias and residual if there are some; the axes are as short as the padding allows."""
    # Reflecting needs more cells than padding, and the padding of "full" with dilation 2 is 2.
    size = (3,) if rank == 1 else (3, 4) if rank == 2 else (3, 1, 3)
    filter = (2,) if rank == 1 else (2, 1) if rank == 2 else (2, 1, 1)
    groups = words["groups"]
    if words["padding"] not in ("valid", "same", "same_lower", "full", "causal") and words["padding_mode"] == "reflect":
        size = tuple(max(n, 2) for n in size)
    c, k = groups, 2
    x = (c, *size) if words["layout"] == "channels_first" else (*size, c)
    x = (2, *x) if words["batched"] else x
    inputs = {"x": leaf(*x), "w": leaf(k, c // groups, *filter)}
    if words["bias"]:
        inputs["bias"] = leaf(k)
    geometry = {name: words[name] for name in ("stride", "dilation", "groups", "padding", "padding_mode", "layout")}
    geometry |= {"pad_value": 0.7, "activation": words["activation"]}
    if words["residual"]:
        y = CONV[rank](inputs["x"].data, inputs["w"].data, **geometry)
        inputs["residual"] = leaf(*y.shape, seed="residual")
    return inputs, geometry


@pytest.mark.parametrize(("rank", "count"), [(1, 70), (2, 70), (3, 40)])
def test_first_and_second_derivatives_of_combined_options(rank, count):
    seen = set()
    for words in combinations(rank, count):
        inputs, geometry = tensors(rank, words)

        def f(*given, names=tuple(inputs), geometry=geometry):
            return CONV[rank](**dict(zip(names, given, strict=True)), **geometry)

        assert fc.gradcheck(f, list(inputs.values())), words
        assert fc.gradgradcheck(f, list(inputs.values())), words
        seen |= {(name, value) for name, value in words.items() if not isinstance(value, tuple)}
    wanted = {(n, v) for n, values in OPTIONS.items() for v in values if not isinstance(v, tuple)}
    assert wanted - seen <= {("padding", "pairs"), ("padding", "causal")}


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_epilogue_against_the_reference(layout):
    """The gradients of x, w, bias and residual from the formulas, each activation, in float32 and float64."""
    for activation, dtype in itertools.product((None, *FUSED, *SEPARATE), (np.float32, np.float64)):
        kind, alpha = activation if isinstance(activation, tuple) else (activation, 0.0)
        rng = rng_for(str(activation))
        shapes = ((2, 3, 6, 5), (4, 3, 3, 3), (4,), (2, 4, 6, 5))
        if layout == "channels_last":
            shapes = ((2, 6, 5, 3), (4, 3, 3, 3), (4,), (2, 6, 5, 4))
        x, w, bias, residual = leaves = [
            fc.Tensor(rng.standard_normal(s).astype(dtype), requires_grad=True) for s in shapes
        ]
        y = fc.conv2d(x, w, bias, padding=1, residual=residual, activation=activation, layout=layout)
        z = reference.conv(x.data, w.data, bias.data, padding=1, residual=residual.data, layout=layout)
        assert_close(y.data, z if kind is None else reference.activation(kind, z, alpha), "parity")
        dy = rng.standard_normal(y.shape).astype(dtype)
        y.backward(dy)
        dz = dy if kind is None else reference.activation_backward(kind, dy, z, alpha)
        expected = (
            reference.conv_backward_data(dz, w.data, x.shape, padding=1, layout=layout),
            reference.conv_backward_filter(dz, x.data, w.shape, padding=1, layout=layout),
            dz.sum(axis=(0, 2, 3) if layout == "channels_first" else (0, 1, 2)),
            dz,
        )
        for name, t, e in zip(("x", "w", "bias", "residual"), leaves, expected, strict=True):
            assert_close(t.grad.data, e, "parity", what=f"{name}: {activation} {np.dtype(dtype)}")


@pytest.mark.parametrize("activation", [*FUSED, *SEPARATE])
def test_what_runs_in_the_kernel(activation):
    """One node where the derivative follows from y, two where the sum is needed; one kernel where nothing records."""
    x, w, bias, residual = leaf(1, 2, 5, 5), leaf(3, 2, 3, 3), leaf(3), leaf(1, 3, 5, 5)
    words = {"padding": 1, "activation": activation}
    y = fc.conv2d(x, w, bias, residual=residual, **words)
    plain = fc.conv2d(x.data, w.data, bias.data, residual=residual.data, **words)
    if activation in FUSED:
        assert y.node.function.__name__ == "Conv"
        assert_same_bits(y.data, plain)
    else:
        assert y.node.function.__name__ == "Activation"
        assert y.node.parents[0].function.__name__ == "Conv"
        assert_close(y.data, plain, "pointwise")
    with fc.no_grad():
        assert_same_bits(fc.conv2d(x, w, bias, residual=residual, **words).data, plain)
    t = fc.conv_transpose2d(y, w, **words)
    assert t.node.function.__name__ == ("ConvBackwardData" if activation in FUSED else "Activation")
    with fc.no_grad():
        assert_same_bits(fc.conv_transpose2d(y, w, **words).data, fc.conv_transpose2d(y.data, w.data, **words))


def test_only_y_is_kept_of_a_fused_activation():
    """The sum before the activation is nowhere: a training step holds one array of y's size per layer."""
    y = fc.conv2d(leaf(1, 2, 5, 5), leaf(3, 2, 3, 3), leaf(3), activation="relu")
    arrays = [entry[0] for entry in y.node.ctx._entries]
    assert [a.shape for a in arrays] == [(1, 2, 5, 5), (3, 2, 3, 3), y.shape] and arrays[-1] is y.data


def test_second_derivatives_stay_convolutions():
    """All of a double backward is the three passes on the first one's geometry; nothing is stuffed with zeros."""
    x, w = leaf(2, 4, 9, 9), leaf(6, 2, 3, 3)
    with fc.trace() as t:
        y = fc.conv2d(x, w, stride=2, groups=2, padding=1, activation="tanh")
        gradients = fc.grad(y.sum(), [x, w], create_graph=True)
        fc.grad(sum(((g * g).sum() for g in gradients), start=fc.Tensor(np.zeros(()))), [x, w])
    geometry = " n2 c4 h9 w9 k6 r3 s3 stride2 pad1 dil1 g2 nchw f64"
    problems = [str(call["problem"]) for call in t.calls]
    assert problems[0] == f"fwd{geometry} tanh"
    assert set(problems[1:]) == {f"{pass_}{geometry}" for pass_ in ("fwd", "bwd_data", "bwd_filter")}
    assert len(problems) <= 10
