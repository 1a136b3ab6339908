# SPDX-License-Identifier: Apache-2.0
"""MSE, MAE, PSNR and SSIM against their formulas written out window by window, and against published properties."""

import math

import numpy as np
import pytest

from cases import rng_for
from fastconv.train import metrics
from tolerance import assert_close


def pair(shape, dtype=np.float64, noise=0.1):
    rng = rng_for(f"{shape}")
    x = rng.uniform(0, 1, shape)
    y = np.clip(x + noise * rng.standard_normal(shape), 0, 1)
    return ((255 * x).astype(dtype), (255 * y).astype(dtype)) if np.issubdtype(dtype, np.integer) else (x, y)


def plain_ssim(x, y, data_range, sigma=1.5):
    """The formula of Wang et al. (2004), one window after the other."""
    radius = int(3.5 * sigma + 0.5)
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    w = line
    for _ in range(x.ndim - 1):
        w = np.multiply.outer(w, line)
    w = w / w.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for at in np.ndindex(*(n - len(line) + 1 for n in x.shape)):
        cut = tuple(slice(a, a + len(line)) for a in at)
        a, b = x[cut].astype(float), y[cut].astype(float)
        ma, mb = (w * a).sum(), (w * b).sum()
        va, vb, cov = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum(), (w * (a - ma) * (b - mb)).sum()
        values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return np.mean(values)


def test_mse_and_mae_by_hand():
    assert metrics.mse([[0, 3], [1, 2]], [[1, 1], [1, 0]]) == 9 / 4
    assert metrics.mae([[0, 3], [1, 2]], [[1, 1], [1, 0]]) == 5 / 4
    # Unsigned integers do not wrap around.
    assert metrics.mse(np.array([0], np.uint8), np.array([255], np.uint8)) == 255**2
    assert metrics.mse([], []) == metrics.mae([], []) == 0.0


def test_psnr_by_hand():
    zeros, ones = np.zeros((4, 4)), np.ones((4, 4))
    assert metrics.psnr(zeros, 0.1 * ones, data_range=1.0) == pytest.approx(20)
    assert metrics.psnr(zeros.astype(np.uint8), ones.astype(np.uint8)) == pytest.approx(48.1308036)
    assert metrics.psnr(zeros, zeros, 1.0) == math.inf
    # Gaussian noise of variance 0.01, unclipped: 20 dB.
    noise = rng_for("psnr").normal(0, 0.1, (400, 400))
    assert metrics.psnr(0 * noise, noise, 1.0) == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize(
    ("shape", "dtype", "sigma"),
    [
        ((16, 19), np.float64, 1.5),
        ((14, 13), np.uint8, 1.5),
        ((40,), np.float64, 1.5),
        ((6, 7, 6), np.float64, 0.7),
        ((24, 23), np.float64, 2.0),
    ],
)
def test_ssim_window_by_window(shape, dtype, sigma):
    x, y = pair(shape, dtype)
    data_range = 255 if dtype == np.uint8 else 1.0
    found = metrics.ssim(x, y, None if dtype == np.uint8 else 1.0, sigma=sigma)
    assert_close(np.array(found), np.array(plain_ssim(x, y, data_range, sigma)), "statistics")
    assert 0 < found < 1 and metrics.ssim(x, x, data_range, sigma=sigma) == pytest.approx(1.0)
    assert metrics.ssim(y, x, data_range, sigma=sigma) == pytest.approx(found)  # symmetric


def test_ssim_of_channels_is_their_mean():
    x, y = pair((15, 17, 3))
    each = [metrics.ssim(x[..., c], y[..., c], 1.0) for c in range(3)]
    assert metrics.ssim(x, y, 1.0, channel_axis=-1) == pytest.approx(np.mean(each))
    assert metrics.ssim(x.transpose(2, 0, 1), y.transpose(2, 0, 1), 1.0, 0) == pytest.approx(np.mean(each))


def test_ssim_knows_a_shift_of_brightness_from_noise():
    """The paper's point: distortions of one MSE are not alike."""
    rng = rng_for("brightness")
    x = np.cumsum(rng.standard_normal((32, 32)), axis=0)
    x = (x - x.min()) / np.ptp(x)
    noise = rng.standard_normal(x.shape)
    noise *= 0.1 / np.sqrt(np.mean(noise**2))
    assert metrics.mse(x, x + 0.1) == pytest.approx(metrics.mse(x, x + noise))
    assert metrics.ssim(x, x + 0.1, 1.0) > metrics.ssim(x, x + noise, 1.0) + 0.1


def test_the_same_as_scikit_image():
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    for shape, dtype, channel_axis in (
        ((30, 33), np.float64, None),
        ((20, 21, 3), np.uint8, 2),
        ((12, 13, 14), float, None),
    ):
        x, y = pair(shape, dtype)
        data_range = 255 if dtype == np.uint8 else 1.0
        expected = skimage.structural_similarity(
            x, y, data_range=data_range, channel_axis=channel_axis, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )  # fmt: skip
        assert_close(np.array(metrics.ssim(x, y, data_range, channel_axis)), np.array(expected), "parity")
        found, expected = metrics.psnr(x, y, data_range), skimage.peak_signal_noise_ratio(x, y, data_range=data_range)
        assert_close(np.array(found), np.array(expected), "parity")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: metrics.mse(x, x[1:]), ValueError, r"mse: target has shape \(12, 12\), image \(11, 12\)"),
        (lambda x: metrics.mae(x * 1j, x), TypeError, "mae: target has dtype complex128; expected real numbers"),
        (lambda x: metrics.psnr(x, x), ValueError, "psnr: target has dtype float64; expected data_range"),
        (lambda x: metrics.psnr(x, x, 0), ValueError, "psnr: data_range is 0; expected above 0"),
        (lambda x: metrics.ssim(x[:10], x[:10], 1.0), ValueError, "the window has 11 cells, the images shape"),
        (lambda x: metrics.ssim(x, x, 1.0, sigma=0), ValueError, "ssim: sigma is 0"),
        (lambda x: metrics.ssim(x[None, None], x[None, None], 1.0), ValueError, "the images have 4 axes"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(np.zeros((12, 12)))
