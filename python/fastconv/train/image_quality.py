# SPDX-License-Identifier: Apache-2.0
"""How near an image is to the one it should be: MSE, MAE, PSNR and SSIM, computed in float64."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..filters import correlate, gaussian


def mse(target: npt.ArrayLike, image: npt.ArrayLike) -> float:
    """The mean of the squared differences of two arrays of one shape; 0.0 for empty ones.

    Raises:
        ValueError: shapes differ.
        TypeError: complex numbers or objects.
    """
    difference = np.subtract(*_checked("mse", target, image))
    return float(np.mean(difference * difference)) if difference.size else 0.0


def mae(target: npt.ArrayLike, image: npt.ArrayLike) -> float:
    """The mean of the absolute differences; otherwise as `mse`."""
    difference = np.subtract(*_checked("mae", target, image))
    return float(np.mean(np.abs(difference))) if difference.size else 0.0


def psnr(target: npt.ArrayLike, image: npt.ArrayLike, data_range: float | None = None) -> float:
    """The peak signal-to-noise ratio in decibels: 10 log10(data_range^2 / mse); infinite for equal images.

    Args:
        data_range: the largest value that is possible less the smallest one; None takes it from an integer dtype (255
            for uint8).

    Raises:
        ValueError: shapes differ; floats without data_range; a data_range that is not positive.
        TypeError: complex numbers or objects.
    """
    peak = _range("psnr", target, data_range)
    error = mse(target, image)
    return math.inf if error == 0 else 20 * math.log10(peak) - 10 * math.log10(error)


def ssim(
    target: npt.ArrayLike,
    image: npt.ArrayLike,
    data_range: float | None = None,
    channel_axis: int | None = None,
    sigma: float = 1.5,
    K1: float = 0.01,
    K2: float = 0.03,
) -> float:
    """The mean structural similarity of two images: 1.0 for equal ones.

    Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE
    Trans. Image Processing 13(4), 2004: local means, variances and the covariance under a Gaussian window of standard
    deviation 1.5 and 11 x 11 cells (for another sigma it ends after 3.5 of them),

        (2 m_x m_y + C1) (2 s_xy + C2) / ((m_x^2 + m_y^2 + C1) (s_x^2 + s_y^2 + C2)),  C = (K data_range)^2,

    averaged over all places where the window lies inside of the image. Equal to scikit-image's structural_similarity
    with gaussian_weights=True and use_sample_covariance=False.

    Args:
        target, image: (H, W), or of one or three axes; with channels along `channel_axis` the mean over these.
        data_range: as for `psnr`.

    Raises:
        ValueError: shapes differ, a window that does not fit, a sigma or data_range that is not positive.
        TypeError: complex numbers or objects.
    """
    peak = _range("ssim", target, data_range)
    x, y = _checked("ssim", target, image)
    if channel_axis is not None:
        x, y = np.moveaxis(x, channel_axis, -1), np.moveaxis(y, channel_axis, -1)
    axes = range(x.ndim if channel_axis is None else x.ndim - 1)
    if len(axes) not in (1, 2, 3):
        raise ValueError(f"ssim: the images have {len(axes)} axes besides channels, shape {x.shape}; expected 1 to 3")
    if not sigma > 0:
        raise ValueError(f"ssim: sigma is {sigma}; expected above 0")
    window = gaussian(sigma, truncate=3.5, ndim=1)
    if min(x.shape[a] for a in axes) < window.size or not x.size:
        raise ValueError(f"ssim: the window has {window.size} cells, the images shape {x.shape}; expected larger ones")

    def local_mean(a: Any) -> Any:
        for axis in axes:
            a = correlate(a, window, "valid", axes=axis)
        return a

    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x, variance_y = local_mean(x * x) - mean_x**2, local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return float(similarity.mean())


def _checked(name: str, target: npt.ArrayLike, image: npt.ArrayLike) -> tuple[Any, Any]:
    arrays = []
    for argument, given in {"target": target, "image": image}.items():
        array = np.asarray(given)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name}: {argument} has dtype {array.dtype}; expected real numbers")
        arrays.append(array.astype(np.float64))
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(f"{name}: target has shape {arrays[0].shape}, image {arrays[1].shape}; expected one shape")
    return arrays[0], arrays[1]


def _range(name: str, target: npt.ArrayLike, data_range: float | None) -> float:
    if data_range is None:
        dtype = np.asarray(target).dtype
        if dtype.kind not in "iu":
            raise ValueError(f"{name}: target has dtype {dtype}; expected data_range, as 1.0 for values from 0 to 1")
        limits = np.iinfo(dtype)
        return float(limits.max) - float(limits.min)
    if not data_range > 0:
        raise ValueError(f"{name}: data_range is {data_range}; expected above 0")
    return float(data_range)
