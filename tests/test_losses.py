# SPDX-License-Identifier: Apache-2.0
"""Losses with every option: the reference, PyTorch, first and second derivatives, extreme values, messages."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import NUMPY_DTYPE, rng_for
from fastconv import _core, nn, ops, reference
from tolerance import assert_close

DTYPES = pytest.mark.parametrize("dtype", ["f32", "f64"])
REDUCTIONS = ("none", "mean", "sum")
# (logits, labels): without a batch, rows of one and of many classes, pixels, volumes, nothing.
CLASSES = [((4,), ()), ((5, 3), (5,)), ((3, 1), (3,)), ((9, 37), (9,)), ((2, 4, 3), (2, 3)), ((2, 5, 3, 4), (2, 3, 4)),
           ((1, 3, 2, 2, 2), (1, 2, 2, 2)), ((0, 3), (0,))]  # fmt: skip
OPTIONS = [
    dict(zip(("weight", "ignore_index", "label_smoothing"), words, strict=True))
    for words in itertools.product((False, True), (-100, 1), (0.0, 0.1))
]
PAIRS = {
    "mse": (ops.mse_loss, "mse_loss", {}),
    "l1": (ops.l1_loss, "l1_loss", {}),
    "huber": (ops.huber_loss, "huber_loss", {"delta": 0.7}),
    "smooth_l1": (ops.smooth_l1_loss, "smooth_l1_loss", {"beta": 0.7}),
    "bce": (ops.binary_cross_entropy, "binary_cross_entropy", {}),
    "bce_with_logits": (ops.binary_cross_entropy_with_logits, "binary_cross_entropy_with_logits", {}),
    "kl": (ops.kl_div, "kl_div", {}),
    "kl_log": (ops.kl_div, "kl_div", {"log_target": True}),
}
SHAPES = [(3, 5), (17,), (2, 3, 7), (), (0, 4), (40, 33)]


def class_arrays(shapes, words, dtype):
    rng = rng_for(f"{shapes} {words}")
    x_shape, label_shape = shapes
    classes = x_shape[1] if len(x_shape) > 1 else x_shape[0]
    logits = (rng.standard_normal(x_shape) * 3).astype(NUMPY_DTYPE[dtype])
    weight = (0.5 + rng.random(classes)).astype(logits.dtype) if words["weight"] else None
    return logits, rng.integers(0, classes, label_shape), weight


def pair_arrays(kind, shape, dtype):
    rng = rng_for(f"{kind} {shape}")
    x, t = rng.standard_normal(shape), rng.standard_normal(shape)
    x = x + np.copysign(0.05, x - t)
    if kind == "bce":
        x = 0.05 + 0.9 * rng.random(shape)
    if kind.startswith("bce") or kind == "kl":
        t = 0.05 + 0.9 * rng.random(shape)
    return [np.asarray(a, NUMPY_DTYPE[dtype]) for a in (x, t)]


@DTYPES
@pytest.mark.parametrize("shapes", CLASSES, ids=str)
def test_classes_against_the_reference_and_differences(shapes, dtype):
    for words, reduction in itertools.product(OPTIONS, REDUCTIONS):
        logits, labels, weight = class_arrays(shapes, words, dtype)
        rest = {**words, "weight": weight, "reduction": reduction}
        batched = (logits, labels) if logits.ndim > 1 else (logits[None], labels[None])
        expected = reference.class_loss(*batched, **rest).reshape(labels.shape if reduction == "none" else ())
        y = ops.cross_entropy(logits, labels, **rest)
        assert_close(y.data, expected, "statistics", scale=1.0, what=f"{shapes} {rest}")
        rest.pop("label_smoothing")
        if not words["label_smoothing"]:
            picked = ops.nll_loss(ops.log_softmax(logits, 1 if logits.ndim > 1 else 0), labels, **rest)
            assert_close(picked.data, expected, "statistics", scale=1.0, what=f"nll {shapes} {rest}")
        if dtype == "f64" and logits.size and logits.size < 60 and reduction != "sum" and not np.isnan(expected).any():
            rest["label_smoothing"] = words["label_smoothing"]
            leaf = fc.Tensor(logits, requires_grad=True)

            def f(x, t=labels, rest=rest):
                return ops.cross_entropy(x, t, **rest)

            assert fc.gradcheck(f, leaf) and fc.gradgradcheck(lambda x, f=f: f(x) ** 2, leaf, atol=1e-4)


@DTYPES
@pytest.mark.parametrize("shapes", CLASSES[1:], ids=str)
def test_classes_against_pytorch(shapes, dtype):
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')
    functional = torch.nn.functional
    for words, reduction, kind in itertools.product(OPTIONS, REDUCTIONS, ("labels", "probabilities", "nll")):
        logits, labels, weight = class_arrays(shapes, words, dtype)
        rest = {**words, "reduction": reduction}
        names = {"labels": "cross_entropy", "probabilities": "cross_entropy", "nll": "nll_loss"}
        if kind == "probabilities":
            labels = np.abs(rng_for(str(shapes)).standard_normal(logits.shape)).astype(logits.dtype)
            rest.pop("ignore_index")
        if kind == "nll":
            rest.pop("label_smoothing")
        ours, theirs = fc.Tensor(logits, requires_grad=True), torch.tensor(logits, requires_grad=True)
        rest["weight"] = weight
        y = getattr(ops, names[kind])(ours, labels, **rest)
        rest["weight"] = None if weight is None else torch.tensor(weight)
        expected = getattr(functional, names[kind])(theirs, torch.tensor(labels), **rest)
        if not logits.size and reduction == "mean":
            assert np.isnan(y.data) and np.isnan(expected.item())
            continue
        assert_close(y.data, expected.detach().numpy(), "parity", scale=1.0, what=f"{kind} {shapes} {rest}")
        dy = rng_for("dy").standard_normal(y.shape).astype(logits.dtype)
        y.backward(fc.Tensor(np.asarray(dy)))
        expected.backward(torch.tensor(dy))
        if np.isfinite(expected.detach().numpy()).all():
            assert_close(ours.grad.data, theirs.grad.numpy(), "parity", scale=1.0, what=f"{kind} {shapes} {rest}")


@DTYPES
def test_ignored_predictions_have_no_gradient(dtype):
    """Fused and recorded backward agree, as PyTorch has it: 0 where the label is ignored, even of a mean of nothing,
    which is NaN, and even where the ignored logits are not finite."""
    x = rng_for("ignored").standard_normal((4, 3)).astype(NUMPY_DTYPE[dtype])
    x[1, 0] = -np.inf
    cases = 0
    for f, labels, reduction, weight in itertools.product(
        (ops.cross_entropy, ops.nll_loss),
        ([-100] * 4, [0, -100, 2, 1], [-100, -100, 1, -100]),
        REDUCTIONS,
        (None, np.zeros(3, x.dtype), np.array([0.5, 2, 1], x.dtype)),
    ):
        labels = np.array(labels)
        grads = []
        for create_graph in (False, True):
            leaf = fc.Tensor(x, requires_grad=True)
            loss = f(leaf, labels, weight, reduction=reduction)
            total = ops.sum(loss)
            nothing = reduction == "mean" and ((weight is not None and not weight.any()) or (labels < 0).all())
            assert np.isnan(total.data) == nothing
            (g,) = fc.grad(total, [leaf], create_graph=create_graph)
            grads.append(g.data)
            assert (g.data[labels < 0] == 0).all(), f"{labels} {reduction} {weight} create_graph={create_graph}"
            if create_graph:
                (second,) = fc.grad(ops.sum(g * g), [leaf]) if g.requires_grad else (fc.Tensor(np.zeros_like(x)),)
                assert (second.data[labels < 0] == 0).all()
        assert_close(grads[1], grads[0], "pointwise", what=f"{labels} {reduction} {weight}")
        cases += 1
    assert cases == 54


@DTYPES
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("kind", PAIRS)
def test_pairs_against_the_reference_and_pytorch(kind, dtype):
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')
    function, name, words = PAIRS[kind]
    weighted = kind in ("bce", "bce_with_logits")
    extra = ("batchmean",) if name == "kl_div" else ()
    for shape, reduction, with_weight in itertools.product(SHAPES, (*REDUCTIONS, *extra), (False, True)):
        if (with_weight and not weighted) or (reduction == "batchmean" and not shape):
            continue
        x, t = pair_arrays(kind, shape, dtype)
        rest = dict(words, reduction=reduction)
        if with_weight:
            rest["weight"] = np.asarray(0.5 + rng_for("w").random(shape[-1:]), x.dtype)
            if kind == "bce_with_logits":
                rest["pos_weight"] = np.asarray(0.5 + rng_for("p").random(shape[-1:]), x.dtype)
        ours = [fc.Tensor(a, requires_grad=True) for a in (x, t)]
        theirs = [torch.tensor(a, requires_grad=True) for a in (x, t)]
        y = function(*ours, **rest)
        what = f"{kind} {shape} {reduction} {with_weight}"
        if 0 not in shape or reduction in ("none", "sum"):
            more = {k: v for k, v in rest.items() if k in ("weight", "pos_weight")}
            expected = reference.pair_loss(kind, x, t, reduction, alpha=0.7, **more)
            assert_close(y.data, expected, "statistics", scale=1.0, what=what)
        other = getattr(torch.nn.functional, name)(
            *theirs, **{k: torch.tensor(v) if k.endswith("weight") else v for k, v in rest.items()}
        )
        if 0 in shape and reduction in ("mean", "batchmean"):
            assert np.isnan(y.data) == np.isnan(other.item())
            continue
        assert_close(y.data, other.detach().numpy(), "parity", scale=1.0, what=what)
        dy = np.asarray(rng_for("dy").standard_normal(y.shape), x.dtype)
        y.backward(fc.Tensor(dy))
        other.backward(torch.tensor(dy))
        for mine, his in zip(ours, theirs, strict=True):
            assert_close(mine.grad.data, his.grad.numpy(), "parity", scale=1.0, what=f"gradient of {what}")


@pytest.mark.parametrize("kind", PAIRS)
def test_pairs_against_differences(kind):
    function, _, words = PAIRS[kind]
    for reduction in REDUCTIONS:
        tensors = [fc.Tensor(a, requires_grad=True) for a in pair_arrays(kind, (3, 4), "f64")]

        def f(x, t, reduction=reduction):
            return function(x, t, reduction=reduction, **words)

        assert fc.gradcheck(f, tensors)
        assert fc.gradgradcheck(lambda x, t: f(x, t) ** 2, tensors, atol=1e-4)
    if kind == "bce_with_logits":
        rest = {"weight": np.array([1.0, 2, 0.5, 3]), "pos_weight": np.array([2.0, 1, 3, 0.1])}
        assert fc.gradgradcheck(lambda x, t: function(x, t, **rest) ** 2, tensors, atol=1e-4)


@given(
    st.integers(0, 5), st.integers(1, 9), st.lists(st.integers(1, 3), max_size=2), st.booleans(),
    st.floats(0, 1), st.integers(-1, 9), st.sampled_from(REDUCTIONS), st.sampled_from(("f32", "f64")),
)  # fmt: skip
def test_any_options_of_cross_entropy(n, classes, places, weighted, smoothing, ignore, reduction, dtype):
    words = {"weight": weighted}
    logits, labels, weight = class_arrays(((n, classes, *places), (n, *places)), words, dtype)
    rest = {"weight": weight, "ignore_index": ignore, "reduction": reduction, "label_smoothing": smoothing}
    expected = reference.class_loss(logits, labels, **rest)
    leaf = fc.Tensor(logits, requires_grad=True)
    y = ops.cross_entropy(leaf, labels, **rest)
    assert_close(y.data, expected, "statistics", scale=1.0, what=str(rest))
    if np.isnan(y.data).any():  # the mean over nothing
        return
    # The fused gradient against that in tensor operations.
    seed = fc.Tensor(np.ones(y.shape, y.dtype))
    (fused,) = fc.grad(y, leaf, seed, retain_graph=True)
    (slow,) = fc.grad(y, leaf, seed, create_graph=True)
    assert_close(fused.data, slow.data, "statistics", scale=1.0, what=str(rest))


@DTYPES
def test_extreme_values(dtype):
    kind = NUMPY_DTYPE[dtype]
    x = fc.Tensor(np.array([0.0, 1, 0, 1, 1e-9], kind), requires_grad=True)
    t = np.array([0.0, 1, 1, 0, 0], kind)
    y = ops.binary_cross_entropy(x, t, reduction="none")
    assert_close(y.data, np.array([0, 0, 100, 100, 1e-9]), "pointwise", scale=0.0)
    assert y.data[4] > 0.9e-9
    y.sum().backward()
    assert np.isfinite(x.grad.data).all()
    far = fc.Tensor(np.array([1e30, -1e30, 1e30, -1e30], kind), requires_grad=True)
    y = ops.binary_cross_entropy_with_logits(far, np.array([1, 0, 0, 1], kind), reduction="none")
    assert y.data.tolist() == [0, 0, kind(1e30), kind(1e30)]
    y.sum().backward()
    assert far.grad.data.tolist() == [0, 0, 1, -1]
    assert ops.kl_div(np.array([-2.0], kind), np.array([0.0], kind)).item() == 0
    sure = ops.cross_entropy(np.array([[5000, 4990]], kind), np.array([0]))
    assert 4.4e-5 < sure.item() < 4.7e-5
    assert ops.smooth_l1_loss(np.array([2.0], kind), np.array([0.0], kind), beta=0).item() == 2


def test_means_of_many_are_right_to_the_last_place():
    x = np.random.default_rng(0).random(1_000_003, np.float32) + np.float32(1)
    t = np.zeros_like(x)
    assert_close(ops.l1_loss(x, t).data, x.astype(np.float64).mean(), "rounded")
    assert_close(ops.mse_loss(x, t, "sum").data, (x.astype(np.float64) ** 2).sum(), "rounded")
    first = _core.pair_loss_sum("mse", x, t)
    for threads in (1, 2, 5):
        _core.set_threads(threads)
        assert _core.pair_loss_sum("mse", x, t) == first
    _core.set_threads(0)


def test_layers_have_pytorchs_arguments():
    x, t = np.array([[0.2, 0.7]], np.float32), np.array([[0.0, 1.0]], np.float32)
    for layer, function in [
        (nn.MSELoss("sum"), lambda: ops.mse_loss(x, t, "sum")),
        (nn.L1Loss(), lambda: ops.l1_loss(x, t)),
        (nn.HuberLoss("mean", 0.3), lambda: ops.huber_loss(x, t, "mean", 0.3)),
        (nn.SmoothL1Loss(beta=0.3), lambda: ops.smooth_l1_loss(x, t, beta=0.3)),
        (nn.BCELoss([1.0, 2.0]), lambda: ops.binary_cross_entropy(x, t, np.array([1, 2], np.float32))),
        (nn.BCEWithLogitsLoss(pos_weight=[2.0, 3.0]),
         lambda: ops.binary_cross_entropy_with_logits(x, t, pos_weight=np.array([2, 3], np.float32))),
        (nn.KLDivLoss("batchmean", log_target=True), lambda: ops.kl_div(x, t, "batchmean", True)),
        (nn.NLLLoss([1.0, 2.0]), None),
        (nn.CrossEntropyLoss([1.0, 2.0], label_smoothing=0.1), None),
    ]:  # fmt: skip
        if function:
            assert layer(x, t).item() == function().item() and type(layer).__name__ in repr(layer)
        else:
            assert layer(x, np.array([1])).shape == () and list(layer.state_dict()) == ["weight"]


X = np.full((2, 3), 0.5, np.float32)
REFUSED = [
    (lambda: ops.mse_loss(X, X[0]), ValueError, r"mse_loss: target has shape \(3,\), x \(2, 3\)"),
    (lambda: ops.l1_loss(X, X.astype(np.float64)), TypeError, "l1_loss: target has dtype float64, x float32"),
    (lambda: ops.mse_loss(X, X, "max"), ValueError, 'mse_loss: reduction is \'max\'; expected "mean" or "sum"'),
    (lambda: nn.MSELoss("batchmean"), ValueError, "MSELoss: reduction is 'batchmean'"),
    (lambda: ops.huber_loss(X, X, delta=0), ValueError, "huber_loss: delta is 0"),
    (lambda: ops.smooth_l1_loss(X, X, beta=-1), ValueError, "smooth_l1_loss: beta is -1"),
    (lambda: ops.binary_cross_entropy(X + 1, X), ValueError, "expected probabilities from 0 to 1"),
    (lambda: ops.mse_loss(X, X, weight=np.ones((4, 1, 1), np.float32)), ValueError, "expected one that broadcasts"),
    (lambda: ops.cross_entropy(X, np.array([0, 3])), ValueError, "labels go from 0 to 3; expected 0 to 2"),
    (lambda: ops.cross_entropy(X, np.array([0.0, 1])), TypeError, "labels have dtype float64"),
    (lambda: ops.cross_entropy(X, np.array([0])), ValueError, r"logits have shape \(2, 3\), labels \(1,\)"),
    (lambda: ops.cross_entropy(X, [0, 1], weight=np.ones(2, np.float32)), ValueError, r"weight has shape \(2,\)"),
    (lambda: ops.cross_entropy(X, [0, 1], weight=np.ones(3)), TypeError, "weight has dtype float64, logits float32"),
    (lambda: ops.cross_entropy(X, [0, 1], label_smoothing=2), ValueError, "label_smoothing is 2; expected 0 to 1"),
    (lambda: ops.nll_loss(X, [0, -1]), ValueError, "nll_loss: labels go from -1 to 0"),
    (lambda: _core.pair_loss_forward("hinge", X, X), ValueError, "kind is 'hinge'; expected mse"),
    (lambda: _core.cross_entropy_forward(X, np.array([0, 1]), X[0, :2]), ValueError, r"weight has shape \(2,\)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "sentence"), REFUSED)
def test_refused_in_words(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
