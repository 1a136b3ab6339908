# SPDX-License-Identifier: Apache-2.0
"""Any options of losses, batch normalisation, global pools and dropout, against their definitions in float64."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from any_arrays import DTYPE, SEED, SHAPE, backward, dot, integers, normal, strided
from cases import NUMPY_DTYPE
from fastconv import ops, reference
from tolerance import assert_close, assert_exact

# kind of the reference: (ours, the options of both).
LOSSES = {
    "mse": (ops.mse_loss, {"weight"}),
    "l1": (ops.l1_loss, {"weight"}),
    "huber": (lambda *a, alpha, **w: ops.huber_loss(*a, delta=alpha, **w), {"alpha", "weight"}),
    "smooth_l1": (lambda *a, alpha, **w: ops.smooth_l1_loss(*a, beta=alpha, **w), {"alpha", "weight"}),
    "bce": (ops.binary_cross_entropy, {"weight"}),
    "bce_with_logits": (ops.binary_cross_entropy_with_logits, {"weight", "pos_weight"}),
    "kl": (ops.kl_div, set()),
    "kl_log": (lambda *a, **w: ops.kl_div(*a, log_target=True, **w), set()),
}


@given(
    st.data(), SHAPE, DTYPE, SEED, st.sampled_from(("none", "mean", "sum", "batchmean")), st.floats(0.1, 3),
    st.booleans(),
)  # fmt: skip
def test_any_options_of_losses(data, shape, dtype, seed, reduction, alpha, weighted):
    """The gradient with respect to x of a sum or a mean is that of each loss by itself, scaled."""
    rng = np.random.default_rng(seed)
    weight_shape = shape[data.draw(st.integers(0, len(shape))) :]
    weights = [strided(rng, np.asarray(0.5 + rng.random(weight_shape), NUMPY_DTYPE[dtype])) for _ in range(2)]
    for kind, (f, takes) in LOSSES.items():
        if reduction == "batchmean" and (not kind.startswith("kl") or not shape or not shape[0]):
            continue
        x, t = (normal(rng, shape, dtype) for _ in range(2))
        if kind == "bce":
            x = strided(rng, np.asarray(0.05 + 0.9 * rng.random(shape), x.dtype))
        if kind in ("bce", "bce_with_logits", "kl"):
            t = strided(rng, np.asarray(rng.random(shape), x.dtype))
        words = {"alpha": alpha, **dict(zip(("weight", "pos_weight"), weights, strict=True) if weighted else ())}
        words = {word: value for word, value in words.items() if word in takes}
        what = f"{kind} {shape} {reduction} {words}"
        expected = np.asarray(reference.pair_loss(kind, x, t, reduction, **words))
        y, dy, (dx,) = backward(lambda a, f=f, t=t, w=words: f(a, t, reduction=reduction, **w), [x])
        assert y.dtype == x.dtype
        assert_close(y.data, expected, "statistics", scale=1.0, what=what)
        if reduction != "none" and x.size:
            share = {"sum": 1, "mean": x.size, "batchmean": len(x) if shape else 1}[reduction]
            ones = np.ones(shape, x.dtype)
            _, _, (each,) = backward(lambda a, f=f, t=t, w=words: f(a, t, reduction="none", **w), [x], ones)
            wide = each.astype(np.float64) * dy / share
            # What cancels, sigmoid(x) - t for one, is about 1 before dy and the share.
            assert_close(dx, wide, "pointwise", scale=8 / share, what=f"gradient of {what}")


@given(
    st.integers(0, 5), st.integers(1, 5), st.lists(st.integers(0, 3), max_size=2), DTYPE, SEED, st.booleans(),
    st.integers(-1, 5), st.sampled_from(("none", "mean", "sum")),
)  # fmt: skip
def test_any_options_of_nll_loss(n, classes, places, dtype, seed, weighted, ignore, reduction):
    rng = np.random.default_rng(seed)
    logits = normal(rng, (n, classes, *places), "f64")
    x = strided(rng, np.asarray(ops.log_softmax(logits, 1).data, NUMPY_DTYPE[dtype]))
    labels = strided(rng, rng.integers(0, classes, (n, *places)))
    weight = np.asarray(0.5 + rng.random(classes), x.dtype) if weighted else None
    words = {"weight": weight, "ignore_index": ignore, "reduction": reduction}
    y, dy, (dx,) = backward(lambda t: ops.nll_loss(t, labels, **words), [x])
    assert_close(y.data, reference.class_loss(logits, labels, **words), "statistics", scale=1.0, what=str(words))
    if np.isfinite(y.data).all():  # linear
        assert_close(dot(dx, x), dot(dy, y.data), "statistics", x.dtype, scale=float(x.size), what=f"adjoint {words}")


@given(
    st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(1, 3), max_size=3), DTYPE, SEED, st.booleans(),
    st.booleans(), st.booleans(), st.floats(0, 1), st.sampled_from((1e-5, 1e-2, 1.0)),
)  # fmt: skip
def test_any_options_of_batch_norm(n, channels, size, dtype, seed, last, training, affine, momentum, eps):
    rng = np.random.default_rng(seed)
    x = normal(rng, (n, channels, *size), dtype)
    count = x.size // channels
    training = training and count > 1
    mean, variance, gamma, beta = (np.asarray(0.5 + rng.random(channels), x.dtype) for _ in range(4))
    scale, shift = (gamma, beta) if affine else (np.ones(channels), np.zeros(channels))
    place = (0, *range(2, x.ndim), 1) if last else tuple(range(x.ndim))
    running = mean.copy(), variance.copy()
    parameters = [gamma, beta] if affine else []
    words = {"momentum": momentum, "eps": eps, "layout": "channels_last" if last else "channels_first"}

    def f(x, *parameters):
        return ops.batch_norm(x, *running, *parameters, training=training, **words)

    y, dy, grads = backward(f, [x.transpose(place), *parameters])
    back = np.argsort(place)
    dy, dx = dy.transpose(back), grads[0].transpose(back)
    what = f"batch_norm {x.shape} {training} {affine} {words}"
    if training:
        expected, m, v = reference.batch_norm(x, scale, shift, eps)
        gradients = reference.batch_norm_backward(dy, x, scale, eps)
        m = mean + momentum * (m - mean)
        v = variance + momentum * (v * count / (count - 1) - variance)
    else:
        expected, m, v = reference.batch_norm_inference(x, scale, shift, mean, variance, eps), mean, variance
        axes, shape = (0, *range(2, x.ndim)), (-1, *(1,) * len(size))
        root = np.sqrt(variance.astype(np.float64) + eps).reshape(shape)
        normed = (x - mean.reshape(shape).astype(np.float64)) / root
        gradients = scale.reshape(shape) / root * dy, (dy * normed).sum(axes), dy.sum(axes)
    assert_close(y.data.transpose(back), expected, "statistics", scale=3.0, what=what)
    # A variance near 0 enlarges the error of what is divided by its root, up to 1 / sqrt(eps) times.
    enlarged = 8 * count / eps**0.5 if training else 8.0 * count
    for mine, wide in zip([dx, *grads[1:]], gradients, strict=False):
        assert_close(mine, wide, "statistics", scale=enlarged, what=f"gradient of {what}")
    for mine, wide in zip(running, (m, v), strict=True):
        assert_close(mine, wide, "statistics", scale=1.0, what=f"running {what}")


GLOBAL_POOLS = {
    "global_max_pool": (lambda x, axes, p: x.max(axes, keepdims=True), ()),
    "global_min_pool": (lambda x, axes, p: x.min(axes, keepdims=True), ()),
    "global_avg_pool": (lambda x, axes, p: x.mean(axes, keepdims=True), ()),
    "global_lp_pool": (lambda x, axes, p: (x**p).sum(axes, keepdims=True) ** (1 / p), ("norm_type",)),
}


@given(
    st.integers(0, 2), st.integers(1, 3), st.lists(st.integers(1, 4), min_size=1, max_size=3), DTYPE, SEED,
    st.booleans(), st.sampled_from((1, 2, 3)),
)  # fmt: skip
def test_any_shapes_of_global_pools(n, channels, size, dtype, seed, last, norm):
    rng = np.random.default_rng(seed)
    shape = (n, *size, channels) if last else (n, channels, *size)
    x = strided(rng, 0.5 + np.abs(normal(rng, shape, dtype)))
    axes = tuple(range(1, len(size) + 1)) if last else tuple(range(2, len(size) + 2))
    for name, (numpy, takes) in GLOBAL_POOLS.items():
        words = {"norm_type": norm} if takes else {}
        words["layout"] = "channels_last" if last else "channels_first"
        function = getattr(fc, f"{name}{len(size)}d")
        y, dy, (dx,) = backward(lambda t, f=function, w=words: f(t, **w), [x])
        assert y.dtype == x.dtype
        assert_close(y.data, numpy(x.astype(np.float64), axes, norm), "norm", what=f"{name} {shape} {words}")
        # All four are homogeneous: <x, f'(g)> = <f(x), g> by Euler's theorem.
        allowed = 64.0 * max(x.size, 1)
        assert_close(dot(x, dx), dot(y.data, dy), "norm", x.dtype, scale=allowed, what=f"gradient of {name} {shape}")


@given(SHAPE, DTYPE, SEED, st.sampled_from((0.0, 0.25, 0.5, 1.0)), st.booleans())
def test_any_options_of_dropout(shape, dtype, seed, p, training):
    x = 1 + np.abs(integers(np.random.default_rng(seed), shape, dtype))
    kinds = {"dropout": ops.dropout, "dropout2d": ops.dropout2d if x.ndim in (3, 4) else ops.dropout}
    for name, f in kinds.items():
        fc.manual_seed(seed % 1000)
        y, dy, (dx,) = backward(lambda t, f=f: f(t, p, training), [x])
        scale = 1 / (1 - p) if training and p < 1 else 1.0
        kept = y.data != 0
        assert_close(y.data, np.where(kept, x.astype(np.float64) * scale, 0), "pointwise", what=f"{name} {p}")
        assert_close(dx, np.where(kept, dy.astype(np.float64) * scale, 0), "pointwise", what=f"gradient {name} {p}")
        assert kept.all() if not training or p == 0 else p < 1 or not kept.any()
        fc.manual_seed(seed % 1000)
        assert_exact(f(x, p, training).data, y.data, "repeated")
        if f is ops.dropout2d:
            cells = tuple(range(2, x.ndim))
            assert (kept.all(cells) == kept.any(cells)).all() or not x.size
