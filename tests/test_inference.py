# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation made ready for inference: folded into weights, population statistics; PyTorch's weights."""

import numpy as np
import pytest

import fastconv as fc
from cases import DTYPES, NUMPY_DTYPE, rng_for
from fastconv import nn
from tolerance import assert_close, assert_same_bits


def trained(model, shape, dtype=np.float32, steps=3):
    """The model with parameters and statistics that are not the initial ones."""
    rng = rng_for("trained")
    model = model.to(dtype)
    for name, p in model.named_parameters():
        p.data = (rng.standard_normal(p.shape) * 0.5 + (name.endswith("weight") and p.ndim == 1)).astype(dtype)
    for _ in range(steps):
        model.train()((rng.standard_normal(shape) * 2 + 1).astype(dtype))
    return model


CASES = [
    (lambda b: nn.Sequential(nn.Conv1d(4, 6, 3, groups=2, bias=b), nn.BatchNorm1d(6)), (5, 4, 9)),
    (lambda b: nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=b), nn.BatchNorm2d(6, eps=1e-3)), (4, 3, 7, 6)),
    (lambda b: nn.Sequential(nn.Conv3d(2, 4, 2, bias=b), nn.BatchNorm3d(4, affine=False)), (3, 2, 4, 5, 4)),
    (lambda b: nn.Sequential(nn.ConvTranspose1d(4, 6, 3, bias=b), nn.BatchNorm1d(6)), (5, 4, 9)),
    (lambda b: nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2, groups=2, bias=b), nn.BatchNorm2d(6)), (4, 4, 5, 6)),
    (lambda b: nn.Sequential(nn.Linear(7, 5, bias=b), nn.BatchNorm1d(5)), (6, 7)),
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("make", "shape"), CASES)
def test_folding_is_exact(make, shape, bias):
    for dtype in DTYPES:
        model = trained(make(bias), shape, NUMPY_DTYPE[dtype]).eval()
        x = rng_for("fold").standard_normal(shape).astype(NUMPY_DTYPE[dtype])
        before, state = model(x).data, model.state_dict()
        folded = nn.fold_batchnorm(model, [("0", "1")] if isinstance(model[0], nn.Linear) else None)
        assert [type(m).__name__ for m in folded][1] == "Identity" and not folded.training
        assert_close(folded(x).data, before, "statistics")
        assert np.abs(folded(x).data - before).max() <= 1e-6 * np.abs(before).max()
        for key, value in model.state_dict().items():
            assert_same_bits(np.asarray(value), np.asarray(state[key]), key)
        assert folded[0].weight.dtype == x.dtype and folded[0].bias.dtype == x.dtype


def test_folding_finds_neighbours_and_leaves_the_rest():
    shared = nn.Conv2d(4, 4, 1)
    assert isinstance(nn.fold_batchnorm(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))[1], nn.BatchNorm1d)
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    model = nn.Sequential(inner, shared, nn.BatchNorm2d(4), shared, nn.Conv2d(4, 2, 1),
                          nn.BatchNorm2d(2, track_running_stats=False))  # fmt: skip
    model = trained(model, (2, 3, 5, 5)).eval()
    x = rng_for("neighbours").standard_normal((2, 3, 5, 5)).astype(np.float32)
    folded = nn.fold_batchnorm(model)
    kinds = [type(m).__name__ for m in folded[0]]
    assert kinds == ["Conv2d", "Identity", "ReLU", "BatchNorm2d"]
    assert isinstance(folded[2], nn.BatchNorm2d) and isinstance(folded[5], nn.BatchNorm2d)
    assert_close(folded(x).data, model(x).data, "model")


def test_folding_named_pairs():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)
            self.down, self.wide = nn.Sequential(nn.Conv2d(3, 3, 1)), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.norm(self.conv(x)) + self.down(x)

    model = trained(nn.Sequential(Block()), (2, 3, 4, 4)).eval()
    x = rng_for("pairs").standard_normal((2, 3, 4, 4)).astype(np.float32)
    folded = nn.fold_batchnorm(model, [("0.conv", "0.norm")])
    assert isinstance(folded[0].norm, nn.Identity)
    assert_close(folded(x).data, model(x).data, "statistics")
    for pair, sentence in (
        (("0.norm", "0.norm"), "the first is a BatchNorm2d; expected a convolution or Linear"),
        (("0.wide", "0.norm"), "the first gives 4 channels, the second takes 3"),
        (("0.conv", "0.down.0"), "the second is a Conv2d; expected a batch normalisation with running statistics"),
    ):
        with pytest.raises(fc.ProblemError, match=sentence):
            nn.fold_batchnorm(model, [pair])
    with pytest.raises(AttributeError, match="has no module 'bn'"):
        nn.fold_batchnorm(model, [("0.conv", "0.bn")])
    model[0].conv.register_forward_hook(lambda m, args, y: None)
    with pytest.raises(fc.ProblemError, match="has hooks"):
        nn.fold_batchnorm(model, [("0.conv", "0.norm")])
    with pytest.raises(fc.ProblemError, match=r"the weight gives 4 channels, running_mean has shape \(3,\)"):
        nn.functional.fold_weights(np.ones((4, 2)), None, np.zeros(3), np.ones(3))


# ---- Population statistics ------------------------------------------------------------------------------------------


def test_population_statistics_do_not_depend_on_batches():
    """The first layer sees the data themselves: mean and unbiased variance of all of them, however they are cut."""
    data = (rng_for("population").standard_normal((20, 3, 4, 5)) * 3 + 100).astype(np.float32)
    wide = data.astype(np.float64)
    for cuts in ([20], [7, 13], [1, 6, 12, 20]):
        model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        model[1].eval()
        batches = [(part, None) for part in np.split(data, cuts) if len(part)]
        state = model.state_dict()
        assert fc.train.finalize_batchnorm(model, batches) == len(batches)
        assert_close(model[0].running_mean, wide.mean((0, 2, 3)), "statistics")
        assert_close(model[0].running_var, wide.var((0, 2, 3), ddof=1), "statistics")
        assert model[0].num_batches_tracked == len(batches) and model[3].num_batches_tracked == len(batches)
        assert [m.training for m in model] == [True, False, True, True] and not model[0]._hooks
        assert_same_bits(model[2].weight.data, state["2.weight"])
        assert not np.array_equal(model[3].running_mean, state["3.running_mean"])


def test_population_statistics_of_deeper_layers():
    """A layer behind another sees what the batch's statistics made: pooled over batches of equal size, its mean is the
    mean of the batch means, and its variance has the spread of these means in it."""
    rng = rng_for("deeper")
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2), nn.BatchNorm1d(2))
    batches = [rng.standard_normal((8, 4)).astype(np.float32) + i for i in range(3)]
    with fc.no_grad():
        seen = np.concatenate([model[2](model[1](model[0](x))).data for x in batches]).astype(np.float64)
    fc.train.finalize_batchnorm(model, batches)
    assert_close(model[3].running_mean, seen.mean(0), "model", dtype="f4", scale=1.0)
    assert_close(model[3].running_var, seen.var(0, ddof=1), "model", dtype="f4", scale=1.0)
    kept = model[1].running_mean.copy()
    fc.train.finalize_batchnorm(model, iter(batches), max_batches=1)
    assert model[1].num_batches_tracked == 1 and not np.array_equal(kept, model[1].running_mean)


def test_population_statistics_are_refused_in_words():
    model = nn.Sequential(nn.BatchNorm1d(2))
    unused = nn.ModuleList([nn.BatchNorm1d(2)])
    unused.forward = lambda x: x
    state = model.state_dict()
    with pytest.raises(ValueError, match="data has no batches"):
        fc.train.finalize_batchnorm(model, [])
    with pytest.raises(ValueError, match="no value reached 0"):
        fc.train.finalize_batchnorm(unused, [np.ones((3, 2), np.float32)])
    with pytest.raises(fc.ProblemError, match="more than one value"):
        fc.train.finalize_batchnorm(model, [np.ones((1, 2), np.float32)])
    assert all(np.array_equal(v, state[k]) for k, v in model.state_dict().items()) and model.training


# ---- PyTorch's weights ----------------------------------------------------------------------------------------------


def build(library):
    """A network of most layers, from either library."""
    block = library.Sequential(library.Conv2d(8, 8, 3, padding=1, groups=2, bias=False), library.BatchNorm2d(8),
                               library.LeakyReLU(0.1))  # fmt: skip
    return library.Sequential(
        library.ReflectionPad2d(1),
        library.Conv2d(3, 8, 3, stride=2),
        library.GroupNorm(2, 8),
        library.ReLU(),
        block,
        library.InstanceNorm2d(8, affine=True, track_running_stats=True),
        library.Upsample(scale_factor=2, mode="bilinear"),
        library.LocalResponseNorm(3, 0.1),
        library.ConvTranspose2d(8, 6, 2, stride=2),
        library.MaxPool2d(2),
        library.Dropout2d(0.3),
        library.Flatten(2),
        library.LayerNorm(64),
        library.Linear(64, 16),
        library.BatchNorm1d(6),
        library.Unflatten(1, (2, 3)),
    )


def test_a_state_dict_of_pytorch_gives_pytorchs_outputs():
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')
    torch.manual_seed(0)
    theirs, mine = build(torch.nn), build(nn)
    x = rng_for("state").standard_normal((3, 3, 8, 8)).astype(np.float32)
    for p in theirs.parameters():
        p.data += 0.1 * torch.randn_like(p)
    theirs.train()
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.eval()
    for _ in range(2):
        theirs(torch.tensor(x))
    state = theirs.state_dict()
    assert list(mine.state_dict()) == list(state)
    found = mine.load_state_dict(state)
    assert found.missing_keys == [] and found.unexpected_keys == []
    assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in mine.named_buffers()] == [n for n, _ in theirs.named_buffers()]
    assert [n for n, _ in mine.named_modules()] == [n for n, _ in theirs.named_modules()]
    want = theirs.eval()(torch.tensor(x)).detach().numpy()
    assert_close(mine.eval()(x).data, want, "model")
    assert_close(nn.fold_batchnorm(mine)(x).data, want, "model")
    for key in ("4.1.running_var", "13.weight"):
        short = {k: v for k, v in state.items() if k != key}
        with pytest.raises(ValueError, match=f"missing: {key}"):
            mine.load_state_dict(short)
        assert mine.load_state_dict(short, strict=False).missing_keys == [key]
