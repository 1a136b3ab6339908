# SPDX-License-Identifier: Apache-2.0
"""Seeded changes of training images, as the `transform` of a `DataLoader`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RandomAffine:
    """Turn, zoom and shift each image (C, H, W) of a batch about its centre, bilinearly, with zeros from outside.

    Args:
        degrees: the largest turn, either way.
        zoom: each axis is scaled by a factor between 1/(1 + zoom) and 1 + zoom.
        shift: the largest shift along each axis, in pixels.

    >>> loader = fc.data.DataLoader(train, 32, shuffle=True, transform=fc.data.RandomAffine(10, 0.1, 2))
    """

    degrees: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0

    def __call__(self, images: Array, generator: np.random.Generator) -> Array:
        count, _, height, width = images.shape
        angle = np.deg2rad(generator.uniform(-self.degrees, self.degrees, (count, 1, 1)))
        limit = np.log1p(self.zoom)
        zoom_y, zoom_x = np.exp(generator.uniform(-limit, limit, (2, count, 1, 1)))
        shift_y, shift_x = generator.uniform(-self.shift, self.shift, (2, count, 1, 1))
        y, x = np.mgrid[:height, :width].astype(np.float64)
        centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
        y, x = y - centre_y, x - centre_x
        # From where each output pixel comes: the turn back, then scale and shift.
        from_y = (np.cos(angle) * y - np.sin(angle) * x) * zoom_y + shift_y + centre_y
        from_x = (np.sin(angle) * y + np.cos(angle) * x) * zoom_x + shift_x + centre_x
        return _sample(images, from_y, from_x)


def _sample(images: Array, y: Array, x: Array) -> Array:
    """Bilinear values of images (N, C, H, W) at positions y, x (N, H, W), 0 outside."""
    height, width = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (1, 2), (1, 2)))
    # In the padded plane everything further out than one pixel is the same zero.
    y, x = np.clip(y + 1, 0, height + 1), np.clip(x + 1, 0, width + 1)
    top, left = y.astype(np.int64), x.astype(np.int64)
    down = (y - top).astype(images.dtype)[:, np.newaxis]
    right = (x - left).astype(images.dtype)[:, np.newaxis]
    image = np.arange(len(images))[:, np.newaxis, np.newaxis]

    def at(row: Array, column: Array) -> Array:
        return padded[image, :, row, column].transpose(0, 3, 1, 2)

    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return np.asarray(upper * (1 - down) + lower * down)
