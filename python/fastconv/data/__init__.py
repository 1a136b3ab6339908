# SPDX-License-Identifier: Apache-2.0
"""Data sets as arrays: the embedded digits, readers for files on disk, and the seeded loader that feeds training.

Everything here needs numpy alone. Images are float32 of shape (N, C, H, W) scaled to 0..1, labels are int64 of shape
(N,). A data set comes as a pair `train, test` of `ArrayDataset`.

>>> train, test = fc.data.digits(size=32)
>>> loader = fc.data.DataLoader(train, batch_size=64, shuffle=True, seed=0)
"""

from .augment import RandomAffine
from .dataset import ArrayDataset, DataLoader, stratified_split
from .digits import digits
from .files import idx_folder, load, npz
from .idx import read_idx
from .images import fit_square, resize_bilinear

__all__ = [
    "ArrayDataset",
    "DataLoader",
    "RandomAffine",
    "digits",
    "fit_square",
    "idx_folder",
    "load",
    "npz",
    "read_idx",
    "resize_bilinear",
    "stratified_split",
]
