# SPDX-License-Identifier: Apache-2.0
"""What the networks that make images do besides their outputs: denoising, cells of a grid, windows, streams."""

import math

import numpy as np
import pytest

import fastconv as fc
from cases import rng_for
from tolerance import assert_close, assert_exact, assert_same_bits

# The table of the lecture "Redes convolucionales", as far as it is printed there.
DNCNN = """\
1	'InputLayer'	Image Input	50x50x1 images
2	'Conv1'	Convolution	64 3x3x1 convolutions with stride [1 1] and padding [1 1 1 1]
3	'ReLU1'	ReLU	ReLU
4	'Conv2'	Convolution	64 3x3x64 convolutions with stride [1 1] and padding [1 1 1 1]
5	'BNorm2'	Batch Normalization	Batch normalization with 64 channels
6	'ReLU2'	ReLU	ReLU
57	'ReLU19'	ReLU	ReLU
58	'Conv20'	Convolution	1 3x3x64 convolutions with stride [1 1] and padding [1 1 1 1]
59	'FinalRegressionLayer'	Regression Output	mean-squared-error"""


def test_dncnn_is_the_table_of_59_layers():
    s = fc.summary(fc.models.dncnn(), (1, 50, 50), style="matlab", loss=fc.models.denoising_loss())
    lines = [line.split() for line in str(s).splitlines()]
    assert max(int(line[0]) for line in lines if line and line[0].isdigit()) == 59
    for line in DNCNN.splitlines():
        assert line.split() in lines, line
    assert s.parameters == 640 + 18 * 36_928 + 18 * 128 + 577 == 668_225
    assert round(s.macs / 1e9, 3) == 1.662
    assert round(fc.summary(fc.models.dncnn(), (1, 256, 256)).macs / 1e9, 2) == 43.56


def test_heads_of_dncnn():
    x, t = rng_for("heads").standard_normal((2, 3, 1, 5, 6))
    assert_close(fc.models.denoising_loss()(x, t).data, np.mean((x - t) ** 2), "model")
    assert_close(fc.models.denoising_loss("mae")(x, t).data, np.mean(abs(x - t)), "model")
    with pytest.raises(ValueError, match="head is 'psnr'; expected one of mse, mae"):
        fc.models.denoising_loss("psnr")
    with pytest.raises(ValueError, match="depth is 1; expected at least 2"):
        fc.models.dncnn(1)


@pytest.mark.parametrize("head", ["mse", "mae"])
def test_a_small_dncnn_learns_to_denoise(head):
    """On bright and dark stripes with noise of variance 0.01, as the lecture's `imnoise`."""
    fc.manual_seed(4)
    rng = rng_for("stripes")
    model, loss = fc.models.dncnn(5, width=16), fc.models.denoising_loss(head)
    optimizer = fc.optim.Adam(model.parameters(), lr=5e-3)

    def pair(count):
        clean = 0.5 + 0.3 * np.sign(np.sin(rng.uniform(0.3, 0.8, (count, 1, 1, 1)) * np.arange(20) + rng.uniform(0, 6)))
        clean = np.broadcast_to(clean, (count, 1, 20, 20)).astype(np.float32)
        return clean, (clean + rng.normal(0, 0.1, clean.shape)).astype(np.float32)

    for _ in range(150):
        clean, noisy = pair(8)
        optimizer.zero_grad()
        loss(model(noisy), noisy - clean).backward()
        optimizer.step()
    clean, noisy = pair(8)
    denoised = np.stack([fc.models.denoise_image(model, image) for image in noisy])
    psnr = fc.train.image_quality.psnr
    assert psnr(clean, denoised, data_range=1) > psnr(clean, noisy, data_range=1) + 3
    assert model.training  # as before
    assert_same_bits(fc.models.denoise_image(model, noisy[0, 0]), denoised[0, 0])
    with pytest.raises(ValueError, match=r"denoise_image: image has shape \(20, 20\) and dtype uint8"):
        fc.models.denoise_image(model, np.zeros((20, 20), np.uint8))


def test_unet_with_same_padding_keeps_the_size():
    model = fc.models.unet(3, width_mult=1 / 16, padding="same")
    assert model(np.zeros((1, 1, 32, 48), np.float32)).shape == (1, 3, 32, 48)
    with pytest.raises(ValueError, match="padding is 'full'; expected 'valid' or 'same'"):
        fc.models.unet(padding="full")


def test_overfeat_gives_an_answer_every_32_pixels():
    model = fc.models.overfeat(4, width_mult=1 / 32).eval()
    for size, answers in (((231, 231), (1, 1)), ((262, 262), (1, 1)), ((263, 295), (2, 3))):
        assert model(np.zeros((1, 3, *size), np.float32)).shape == (1, 4, *answers)


def test_hed_has_five_sides_and_their_fusion():
    model = fc.models.hed(width_mult=1 / 16).eval()
    x = rng_for("hed").standard_normal((1, 3, 33, 41)).astype(np.float32)
    sides = model.side_outputs(x)
    assert [side.shape for side in sides] == [(1, 1, 33, 41)] * 6
    assert_same_bits(sides[-1].data, model(x).data)
    sizes = [(33, 41), (17, 21), (9, 11), (5, 6), (3, 3)]
    assert [f.shape[2:] for f in model.features(x)] == sizes
    # As its authors start it: sides of zero, whose mean is their fusion.
    assert not any(side.data.any() for side in sides[:5]) and (model.fuse.weight.data == np.float32(0.2)).all()


def test_stochastic_depth_leaves_out_whole_samples():
    fc.manual_seed(1)
    drop = fc.models.convnext.StochasticDepth(0.25)
    x = np.ones((400, 3, 2, 2), np.float32)
    y = drop(fc.Tensor(x)).data
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    per_sample = y.reshape(400, -1)
    assert (per_sample == per_sample[:, :1]).all() and 60 < (per_sample[:, 0] == 0).sum() < 140
    assert_exact(drop.eval()(fc.Tensor(x)).data, x)


def test_dcgan_trains_one_step_of_the_game():
    fc.manual_seed(3)
    rng = rng_for("game")
    generator = fc.models.dcgan_generator(8, width_mult=1 / 64)
    discriminator = fc.models.dcgan_discriminator(width_mult=1 / 64)
    real, z = np.tanh(rng.standard_normal((6, 3, 64, 64))), rng.uniform(-1, 1, (6, 8, 1, 1))
    loss = fc.nn.BCEWithLogitsLoss()
    fake = generator(z.astype(np.float32))
    assert fake.shape == real.shape and abs(fake.data).max() <= 1
    optimizer = fc.optim.Adam(discriminator.parameters(), lr=2e-3)

    def cost():
        ones, zeros = np.ones((6, 1), np.float32), np.zeros((6, 1), np.float32)
        return loss(discriminator(real.astype(np.float32)), ones) + loss(discriminator(fake.detach()), zeros)

    before = cost()
    before.backward()
    optimizer.step()
    assert cost().item() < before.item() and math.isclose(before.item(), 2 * math.log(2), rel_tol=0.2)
    loss(discriminator(fake), np.ones((6, 1), np.float32)).backward()
    assert all(p.grad is not None and np.isfinite(p.grad.data).all() for p in generator.parameters())


# The grid of cells


def test_the_lectures_cells():
    """S4, "YOLO": one object of the second and one of the third class; "?" everywhere else but for p_c."""
    boxes = [[0.0, 0.4, 0.3, 0.6], [0.5, 0.5, 1.0, 0.9]]
    target = fc.models.yolo_encode(boxes, [1, 2])
    assert target.shape == (3, 3, 8) and target.dtype == np.float32
    assert target[..., 0].tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 1]]
    np.testing.assert_allclose(target[1, 0], [1, 0.45, 0.5, 0.2, 0.3, 0, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(target[2, 2], [1, 0.25, 0.1, 0.4, 0.5, 0, 0, 1], rtol=1e-6)
    assert np.isnan(target[0, 0, 1:]).all() and np.isnan(target).sum() == 7 * 7
    assert np.isnan(fc.models.yolo_encode([], [])[..., 1:]).all()


@pytest.mark.parametrize(
    ("boxes", "labels", "words"),
    [
        ([[0, 0, 1]], [0], r"boxes have shape \(1, 3\) for 1 labels"),
        ([[0, 0, 1, 1]], [0, 1], r"boxes have shape \(1, 4\) for 2 labels"),
        ([[0.5, 0, 0.4, 1]], [0], "expected 0 <= left < right <= 1"),
        ([[0, 0, 1, 1.1]], [0], "expected 0 <= left < right <= 1"),
        ([[0, 0, 1, 1]], [3], "a label is 3; expected 0 to 2"),
        ([[0, 0, 1, 1], [0.4, 0.4, 0.6, 0.6]], [0, 1], "two objects have their centre in the cell of row 1, column 1"),
    ],
)
def test_encoding_refuses(boxes, labels, words):
    with pytest.raises(ValueError, match=words):
        fc.models.yolo_encode(boxes, labels)


def test_loss_of_the_grid():
    rng = rng_for("grid")
    target = np.stack([fc.models.yolo_encode([[0.1, 0.2, 0.5, 0.9]], [0]), fc.models.yolo_encode([], [])])
    predicted = rng.uniform(0.05, 1, target.shape)
    expected = 0.0
    for image, row, column in np.ndindex(2, 3, 3):
        p, t = predicted[image, row, column], target[image, row, column].astype(np.float64)
        if t[0]:
            sides = np.sqrt(p[3:5] + 1e-6) - np.sqrt(t[3:5] + 1e-6)
            expected += (p[0] - 1) ** 2 + 5 * (sum((p[1:3] - t[1:3]) ** 2) + sum(sides**2)) + sum((p[5:] - t[5:]) ** 2)
        else:
            expected += 0.5 * p[0] ** 2
    assert_close(fc.models.yolo_loss(fc.Tensor(predicted), target).data, np.asarray(expected / 2), "model")
    # Nothing is left of a perfect answer, and "?" has no gradient.
    perfect = fc.Tensor(np.where(np.isnan(target), 7.0, target).astype(np.float64), requires_grad=True)
    loss = fc.models.yolo_loss(perfect, target)
    loss.backward()
    assert loss.item() == 0 and not perfect.grad.data.any()
    signed = fc.Tensor(rng.standard_normal(target.shape), requires_grad=True)
    assert fc.gradcheck(lambda p: fc.models.yolo_loss(p, target), signed)
    with pytest.raises(ValueError, match=r"predicted has shape \(2, 3, 3, 8\), target \(1, 3, 3, 8\)"):
        fc.models.yolo_loss(perfect, target[:1])


def test_the_grid_learns_where_squares_are():
    """Images of one bright square, whose channel is its class: p_c, place and class come out right."""
    fc.manual_seed(8)
    rng = rng_for("squares")
    model = fc.models.yolo_grid(2)
    optimizer = fc.optim.Adam(model.parameters(), lr=3e-3)
    x, target = rng.normal(0, 0.05, (10, 3, 96, 96)).astype(np.float32), []
    for image in x:
        side, label = int(rng.integers(20, 30)), int(rng.integers(0, 2))
        top, left = rng.integers(0, 96 - side, 2)
        image[label, top : top + side, left : left + side] += 1
        target.append(fc.models.yolo_encode([np.array([left, top, left + side, top + side]) / 96], [label], 2))
    target = np.stack(target)
    for _ in range(80):
        optimizer.zero_grad()
        fc.models.yolo_loss(model(x), target).backward()
        optimizer.step()
    with fc.no_grad():
        found = model.eval()(x).data.reshape(10, 9, 7)
    wanted = target.reshape(10, 9, 7)
    cells = (np.arange(10), wanted[..., 0].argmax(1))
    assert (found[..., 0].argmax(1) == cells[1]).all()
    assert (found[cells][:, 5:].argmax(1) == wanted[cells][:, 5:].argmax(1)).all()
    assert np.abs(found[cells][:, 1:5] - wanted[cells][:, 1:5]).mean() < 0.1


def test_summary_of_what_computes_with_channels_last():
    rows = [line.split() for line in str(fc.summary(fc.models.convnext_tiny(), (3, 64, 96))).splitlines()]
    shapes = [" ".join(row[2:6]) for row in rows if row and row[0] in ("permute_1", "dense_1", "permute_2", "dense_2")]
    assert shapes == ["(None, 16, 24, 96)", "(None, 16, 24, 384)", "(None, 16, 24, 96)", "(None, 16, 24, 96)"]
