# SPDX-License-Identifier: Apache-2.0
"""The embedded data set: 1,797 handwritten digits of 8 x 8 pixels (see the NOTICE file beside it)."""

import gzip
from importlib.resources import files

import numpy as np

from .dataset import ArrayDataset, stratified_split
from .images import resize_bilinear

_LARGEST_VALUE = 16  # each pixel counts the ink in a block of 4 x 4 binary pixels
_SIZES = (8, 32)


def digits(size: int = 8, *, test_fraction: float = 0.2, seed: int = 0) -> tuple[ArrayDataset, ArrayDataset]:
    """The digits of E. Alpaydin and C. Kaynak (UCI, 1998) as `train, test`: images (N, 1, size, size), 0 is paper.

    The split keeps each digit's share; its seed is fixed, so that results of different runs compare. Writers appear
    in both parts (the file does not name them), hence accuracies are those of known hands.

    Args:
        size: 8 as stored, or 32: enlarged bilinearly, the input size of LeNet-5.
        test_fraction: the share of held-out images of each digit, between 0 and 1.
        seed: of the split.

    Raises:
        ValueError: `size` is neither 8 nor 32, or `test_fraction` is not between 0 and 1.

    >>> train, test = digits(size=32)
    >>> train.images.shape, test.images.shape
    ((1438, 1, 32, 32), (359, 1, 32, 32))
    """
    if size not in _SIZES:
        raise ValueError(f"digits: size is {size!r}; expected 8 or 32")
    with files(__package__).joinpath("digits.csv.gz").open("rb") as packed, gzip.open(packed, "rt") as text:
        table = np.loadtxt(text, delimiter=",", dtype=np.float32)
    images = table[:, :-1].reshape(-1, 1, 8, 8) / np.float32(_LARGEST_VALUE)
    labels = table[:, -1].astype(np.int64)
    if size != 8:
        images = resize_bilinear(images, (size, size))
    classes = tuple(str(digit) for digit in range(10))
    train, test = stratified_split(labels, test_fraction, seed=seed)
    return ArrayDataset(images[train], labels[train], classes), ArrayDataset(images[test], labels[test], classes)
