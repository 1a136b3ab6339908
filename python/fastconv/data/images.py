# SPDX-License-Identifier: Apache-2.0
"""The size of images, in plain NumPy: bilinear resizing, and fitting a data set to the square input of a net."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

# MNIST's 28 x 28 digits are LeNet-5's 32 x 32 inputs without their margin (LeCun et al. 1998, section II-B).
_LARGEST_MARGIN = 2


def resize_bilinear(images: Array, size: tuple[int, int]) -> Array:
    """Resize images (..., H, W) to (..., *size) by bilinear interpolation between pixel centres.

    Output pixel i samples the input at (i + 0.5) * H / size - 0.5, clamped to the border; this is the rule that
    PyTorch calls `align_corners=False`. Shrinking by more than two skips pixels: blur first where that matters.

    Raises:
        ValueError: images have fewer than two axes or an empty plane, or `size` is not two positive integers.
    """
    images = np.asarray(images)
    if images.ndim < 2 or 0 in images.shape[-2:]:
        raise ValueError(f"resize_bilinear: images have shape {images.shape}; expected (..., H, W) with pixels in it")
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"resize_bilinear: size is {size}; expected two positive integers (H, W)")
    return _resize_axis(_resize_axis(images, size[0], -2), size[1], -1)


def _resize_axis(images: Array, size: int, axis: int) -> Array:
    old = images.shape[axis]
    position = np.clip((np.arange(size) + 0.5) * (old / size) - 0.5, 0, old - 1)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, old - 1)
    fraction = (position - low).astype(images.dtype)
    if axis == -2:
        fraction = fraction[:, np.newaxis]
    # One multiply and one add per pixel, not a matrix product: the same bits on every machine.
    below, above = np.take(images, low, axis), np.take(images, high, axis)
    return np.asarray(below + (above - below) * fraction)


def fit_square(images: Array, size: int) -> Array:
    """Bring images (N, C, H, W) to (N, C, size, size): a margin of zeros where at most two pixels lack on each side
    (MNIST's 28 to 32), bilinear enlargement of anything smaller.

    Raises:
        ValueError: images are not (N, C, H, W), or larger than `size`: shrinking them would lose what they show.
    """
    if images.ndim != 4:
        raise ValueError(f"fit_square: images have shape {images.shape}; expected (N, C, H, W)")
    height, width = images.shape[2:]
    if height > size or width > size:
        raise ValueError(f"fit_square: images are {height}x{width}; expected at most {size}x{size}, shrink them first")
    missing = (size - height, size - width)
    if missing == (0, 0):
        return images
    if max(missing) <= 2 * _LARGEST_MARGIN:
        margins = [(0, 0), (0, 0)] + [(lack // 2, lack - lack // 2) for lack in missing]
        return np.pad(images, margins)
    return resize_bilinear(images, (size, size))
