# SPDX-License-Identifier: Apache-2.0
"""Inference sessions: the same results as the model, in fewer steps, less memory and from any thread."""

import concurrent.futures
import itertools

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn, ops
from fastconv.session.places import ALIGNMENT, Life, assigned
from tolerance import assert_close

SEED = 72


class Residual(nn.Module):
    """Two blocks' worth of what a residual network has, down to its softmax."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.short, self.norm3 = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        y = ops.relu(self.norm1(self.conv1(x)))
        y = ops.relu(self.norm2(self.conv2(y)) + self.norm3(self.short(x)))
        return ops.softmax(self.fc(ops.mean(y, (2, 3))))


class Inception(nn.Module):
    """Branches side by side, then local response normalisation."""

    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
        self.three = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.pooled = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
        self.last, self.norm = nn.Conv2d(15, 4, 3), nn.LocalResponseNorm(3)

    def forward(self, x):
        y = ops.concat([self.one(x), self.three(x), self.pooled(self.pool(x)), self.pool(x)], 1)
        return ops.flatten(self.norm(self.last(y)), 1)


class UNet(nn.Module):
    """Skips that are concatenated, one branch upsampled and one transposed."""

    def __init__(self):
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.down2 = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU())
        self.up, self.norm = nn.ConvTranspose2d(8, 4, 2, stride=2), nn.BatchNorm2d(4)
        self.nearest, self.last = nn.Upsample(scale_factor=2), nn.Conv2d(16, 2, 1)

    def forward(self, x):
        first = self.down1(x)
        second = self.down2(first)
        up = ops.relu(self.norm(self.up(second)))
        return self.last(ops.concat([first, up, self.nearest(second)], 1))


class Denoiser(nn.Module):
    """DnCNN: the noise is estimated and taken off."""

    def __init__(self):
        super().__init__()
        self.noise = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 3, 3, padding=1),
        )

    def forward(self, x):
        return x - self.noise(x)


def depthwise():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 16, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(16, 4),
    )


# A net and the steps that are left of it for one image.
NETS = {
    "residual": (Residual, ["conv"] * 3 + ["pool", "dense", "softmax"]),
    "inception": (Inception, ["conv"] * 3 + ["pool", "conv", "pool", "conv", "response_norm"]),
    "unet": (UNet, ["conv", "pool", "conv", "conv_transpose", "resample", "resample", "conv"]),
    "denoiser": (Denoiser, ["conv"] * 3),
    "depthwise": (depthwise, ["conv"] * 3 + ["pool", "dense"]),
}


def made(name, dtype=np.float32):
    """A net of NETS whose normalisations have statistics of their own."""
    fc.manual_seed(SEED)
    model, rng = NETS[name][0](), np.random.default_rng(SEED)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            n = module.num_features
            module.running_mean[...], module.running_var[...] = rng.standard_normal(n), rng.random(n) + 0.5
            module.weight.data[...], module.bias.data[...] = rng.random(n) + 0.5, rng.standard_normal(n)
    return model.to(dtype).eval()


def image(n=1, channels=3, side=12, dtype=np.float32, seed=SEED):
    return np.random.default_rng(seed).standard_normal((n, channels, side, side)).astype(dtype)


def eager(model, *inputs):
    with fc.no_grad():
        return model(*map(fc.Tensor, inputs))


def steps(session, *inputs):
    return [step.op for step in session.profile(*inputs, repeats=1).steps]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("name", NETS)
def test_results_are_the_model_s(name, n, dtype):
    model, x = made(name, dtype), image(n, dtype=dtype)
    session = fc.InferenceSession(model, x)
    exact = made(name, np.float64)
    assert_close(session(x), eager(exact, x.astype(np.float64)).data, "parity", what=name)
    other = image(2, dtype=dtype, seed=1)  # planned at its first call
    assert_close(session(other), eager(exact, other.astype(np.float64)).data, "parity", what=name)


@pytest.mark.parametrize("name", NETS)
def test_what_is_fused_and_not_copied(name):
    x = image()
    assert steps(fc.InferenceSession(made(name), x), x) == NETS[name][1]


def test_concatenation_of_several_images_costs_no_copies():
    x = image(4)
    assert steps(fc.InferenceSession(made("inception"), x), x) == NETS["inception"][1]


def test_what_is_cut_out_of_planes_is_copied_to_its_place():
    def crop_and_join(x, y):
        return ops.concat([x[:, :, 1:-1, 2:-2], fc.conv2d(y, WEIGHTS)], 1)

    x, y = image(2), image(2)[:, :, :, 2:-2].copy()
    y = np.pad(y, ((0, 0), (0, 0), (0, 0), (1, 1)))
    session = fc.InferenceSession(crop_and_join, (x, y))
    assert steps(session, x, y) == ["copy", "conv"]
    assert_close(session(x, y), eager(crop_and_join, x, y).data, "parity")


def test_same_bits_for_any_number_of_threads_and_from_many():
    model, x = made("unet"), image(2, side=48)
    session = fc.InferenceSession(model, x)
    with fc.options(threads=1):
        expected = session(x)
    np.testing.assert_array_equal(session(x), expected)
    images = [image(2, side=48, seed=i) for i in range(8)]
    alone = [session(i) for i in images]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for result, i in zip(pool.map(session, images * 4), itertools.cycle(alone), strict=False):
            np.testing.assert_array_equal(result, i)


def test_one_arena_in_which_memory_is_used_again():
    layers = [layer for _ in range(6) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())]
    x = image(1, 8, 16)
    session = fc.InferenceSession(nn.Sequential(*layers), x)
    assert session.arena_bytes == 2 * x.nbytes  # five arrays between six convolutions, two at a time
    assert session.packed_bytes > 0


def test_offsets_of_the_arena():
    rng = np.random.default_rng(SEED)
    for _ in range(50):
        spans = [sorted(rng.integers(0, 20, 2).tolist()) for _ in range(15)]
        lives = [Life(i, a, b, int(rng.integers(1, 1000))) for i, (a, b) in enumerate(spans)]
        offsets, size = assigned(lives)
        for one, other in itertools.combinations(lives, 2):
            if one.first <= other.last and other.first <= one.last:
                a, b = offsets[one.root], offsets[other.root]
                assert a + one.bytes <= b or b + other.bytes <= a
        assert all(offset % ALIGNMENT == 0 for offset in offsets.values())
        peak = max(sum(life.bytes for life in lives if life.first <= t <= life.last) for t in range(20))
        assert max(offsets[life.root] + life.bytes for life in lives) <= size <= 3 * peak + 15 * ALIGNMENT


class Everything(nn.Module):
    """Operations with native steps that the nets above do not have."""

    def __init__(self):
        super().__init__()
        self.prelu, self.reflect = nn.PReLU(4), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.group, self.instance = nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True)
        self.layer = nn.LayerNorm(12)
        self.gate, self.framed = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, stride=2)

    def forward(self, x):
        y = self.prelu(self.reflect(x))
        y = y * ops.sigmoid(self.gate(ops.mean(y, (2, 3), True)))
        z = self.framed(ops.pad(y, ((0, 0), (0, 0), (1, 2), (2, 1))))
        cut = y[:, 1:3] * 2.0 + 0.5
        return {
            "product": ops.clip(y * x, 0.0, 6.0),
            "difference": x - y,
            "framed": z,
            "cut": ops.concat([cut, ops.tanh(cut)], 1),
            "stepped": y[:, :, 1::2, 3],
            "turned": ops.transpose(y, 0, 2, 3, 1),
            "padded": ops.pad(y, ((0, 0), (1, 0), (0, 2), (1, 1)), value=-1.5),
            "probabilities": ops.softmax(y, 1),
            "lp": fc.lp_pool2d(y, 2.0, 2),
            "rows": ops.concat([y, x], 2) / 4.0,
            "resized": ops.interpolate(y, size=(5, 17), mode="bilinear"),
            "group": self.instance(self.group(y)),
            "layer": self.layer(y),
            "input": x,
        }


@pytest.mark.parametrize("n", [1, 2])
def test_every_native_step(n):
    model = Everything().to(np.float64).eval()
    x = image(n, 4, dtype=np.float64)
    session = fc.InferenceSession(model, x)
    result, expected = session(x), eager(model, x)
    assert list(result) == list(expected)
    for name, y in result.items():
        assert_close(y, expected[name].data, "parity", what=name)
    assert result["input"] is not x
    kinds = set(steps(session, x))
    assert "python" not in kinds
    assert kinds >= {
        "prelu",
        "gate",
        "scale_shift",
        "copy",
        "activation",
        "softmax",
        "resample",
        "pool",
        "binary",
        "group_norm",
    }


def test_one_and_three_axes_and_channels_last():
    models = [
        (nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2)), (2, 3, 10)),
        (nn.Sequential(nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4), nn.AvgPool3d(2)), (2, 2, 6, 6, 6)),
        (lambda x: fc.conv2d(x, WEIGHTS, layout="channels_last", activation="relu"), (2, 6, 5, 3)),
    ]
    for model, shape in models:
        x = np.random.default_rng(SEED).standard_normal(shape).astype(np.float32)
        model = model.eval() if isinstance(model, nn.Module) else model
        assert_close(fc.InferenceSession(model, x)(x), eager(model, x).data, "parity")


WEIGHTS = np.random.default_rng(SEED).standard_normal((4, 3, 3, 3)).astype(np.float32)


class Unusual(nn.Module):
    """Functions without native steps, an array of integers between two of them."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        y = self.conv(x)
        pooled, indices = fc.max_pool2d(y, 2, return_indices=True)
        y = fc.max_unpool2d(pooled, indices, 2) + x
        return self.last(ops.sin(y)), ops.max(y, 1)


def test_what_has_no_native_step_is_called_and_named(tmp_path):
    model, x = Unusual().eval(), image(2, 4)
    session = fc.InferenceSession(model, x)
    for result, expected in zip(session(x), eager(model, x), strict=True):
        assert_close(result, expected.data, "parity")
    profile = session.profile(x, repeats=2)
    assert {"ExtremePool", "ScatterPositions", "Sin"} <= {s.algorithm for s in profile.steps if s.op == "python"}
    with pytest.raises(fc.ProblemError, match="ExtremePool has no native step, so that the batch is fixed"):
        session(x[:1])
    with pytest.raises(fc.UnsupportedError, match="has no native step; only native ones can be saved"):
        session.save(tmp_path / "session.npz")
    assert not list(tmp_path.iterdir())


def test_profile():
    model, x = made("residual"), image()
    session = fc.InferenceSession(model, x)
    profile = session.profile(x, repeats=3)
    first = profile.steps[0]
    assert (first.node, first.op, first.algorithm) == ("conv1", "conv", session.algorithms["conv1"])
    assert first.problem.activation == "relu" and first.seconds > 0 and first.peak > 0
    assert profile.seconds == pytest.approx(sum(s.seconds for s in profile.steps))
    lines = str(profile).splitlines()
    assert lines[0].split() == ["node", "op", "algorithm", "ms", "time", "peak"] and len(lines) == 8
    with pytest.raises(fc.ProblemError, match="repeats is 0"):
        session.profile(x, repeats=0)


def test_weights_are_copies_and_the_options_are_kept():
    model, x = made("denoiser"), image()
    with fc.options(algorithm="direct"):
        session = fc.InferenceSession(model, x)
    before = session(x)
    assert set(session.algorithms.values()) == {"direct"}
    for parameter in model.parameters():
        parameter.data[...] = 0
    np.testing.assert_array_equal(session(x), before)


def test_tuning_chooses_within_its_budget():
    model, x = made("denoiser"), image()
    session = fc.InferenceSession(model, x, tune=0.3)
    assert_close(session(x), eager(made("denoiser", np.float64), x.astype(np.float64)).data, "parity")


def test_what_a_call_refuses():
    x = image(2)
    session = fc.InferenceSession(made("denoiser"), x)
    with pytest.raises(
        fc.ProblemError, match=r"input 0 has shape \(2, 3, 12, 13\); expected \(2, 3, 12, 12\), with any"
    ):
        session(np.zeros((2, 3, 12, 13), np.float32))
    with pytest.raises(fc.ProblemError, match="2 inputs came; expected 1"):
        session(x, x)
    with pytest.raises(TypeError, match=r"input 0 is float64; expected .* use .astype\(numpy.float32\)"):
        session(x.astype(np.float64))
    with pytest.raises(fc.UnsupportedError, match="the model gives float16"):
        fc.InferenceSession(made("denoiser").half(), x.astype(np.float16))
    assert session(x[:0]).shape == (0, 3, 12, 12)
    np.testing.assert_array_equal(session(fc.Tensor(x[::-1])), session(np.ascontiguousarray(x[::-1])))


def test_plans_of_other_batch_sizes_are_bounded():
    session = fc.InferenceSession(made("denoiser"), image())
    session._best_piece = None  # in pieces, they would be fewer sizes
    for n in range(1, 14):
        assert session(image(n, side=12)).shape[0] == n
    assert len(session._programs) == 8


# A net of the zoo, and the shape of a small input that it takes.
ZOO = {
    "cifar_resnet20": (1, 3, 32, 32),
    "dncnn": (1, 1, 24, 24),
    "efficientnet_lite0": (2, 3, 64, 64),
    "googlenet": (1, 3, 64, 64),
    "mobilenet_v1": (2, 3, 64, 64),
    "mobilenet_v2": (1, 3, 64, 64),
    "resnet18": (2, 3, 64, 64),
    "squeezenet1_1": (1, 3, 64, 64),
    "unet": (1, 1, 188, 188),
}


@pytest.mark.parametrize("name", ZOO)
def test_nets_of_the_zoo_run_natively(name):
    fc.manual_seed(SEED)
    model = fc.models.build(name).eval()
    x = np.random.default_rng(SEED).standard_normal(ZOO[name]).astype(np.float32)
    session = fc.InferenceSession(model, x)
    assert_close(session(x), eager(model, x).data, "model", what=name)
    assert "python" not in steps(session, x)
