# SPDX-License-Identifier: Apache-2.0
"""Data sets on disk, read as `train, test`: a folder with the four MNIST files, or `.npz` archives."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .dataset import ArrayDataset, stratified_split
from .digits import digits
from .idx import read_idx

Array = npt.NDArray[Any]
Pair = tuple[ArrayDataset, ArrayDataset]

_TEST_FRACTION = 0.2
_MNIST_PARTS = {"train": "train", "test": "t10k"}


def load(source: str | PathLike[str], *, size: int | None = None, seed: int = 0) -> Pair:
    """The data set that a command line names: "digits", a folder with MNIST's files, or a `.npz` file or folder.

    Args:
        source: the word `digits`, or a path.
        size: a wish for the embedded digits alone: 8 or 32; None is 8. Files keep their size.
        seed: of the split where an archive has no test part.

    Raises:
        FileNotFoundError: no such file or folder, or a folder with nothing that is known.
        ValueError: a file that is not what its name says.
    """
    if source == "digits":
        return digits(size or 8)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; expected digits, a folder or a .npz file")
    if path.is_file() or any(path.glob("*.npz")):
        return npz(path, seed=seed)
    return idx_folder(path)


def idx_folder(folder: str | PathLike[str], classes: Sequence[str] | None = None) -> Pair:
    """Read a folder with the four files of MNIST, Fashion-MNIST or their relatives.

    The names are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    `t10k-labels-idx1-ubyte`, each also with a dot before `idx` and with `.gz` at the end.

    Raises:
        FileNotFoundError: one of the four is not there; the message gives its name.
        ValueError: a file is not IDX, or images and labels do not belong together.
    """
    folder = Path(folder)
    parts = {}
    for part, prefix in _MNIST_PARTS.items():
        images = read_idx(_find(folder, f"{prefix}-images", "idx3-ubyte"))
        labels = read_idx(_find(folder, f"{prefix}-labels", "idx1-ubyte"))
        parts[part] = _dataset(images, labels, f"{folder} ({part} part)", classes)
    return parts["train"], parts["test"]


def npz(path: str | PathLike[str], classes: Sequence[str] | None = None, *, seed: int = 0) -> Pair:
    """Read `.npz` archives with `images` (N, H, W) or (N, C, H, W) and integer `labels` (N,).

    `path` is a folder with `train.npz` and `test.npz`; or one file (or a folder with one), whose test part is
    `test_images` and `test_labels`, and without these a stratified fifth, drawn by `seed`.

    Raises:
        FileNotFoundError: no such file, or a folder in which it is not clear which files are meant.
        ValueError: arrays are missing, of the wrong shape, or pickled objects (which are never loaded).
    """
    path = Path(path)
    if path.is_dir():
        train_file, test_file = path / "train.npz", path / "test.npz"
        if train_file.exists() and test_file.exists():
            train = _part(train_file, classes)
            test = _part(test_file, classes or train.classes)
            return train, test
        archives = sorted(path.glob("*.npz"))
        if len(archives) != 1:
            raise FileNotFoundError(
                f"{path}: holds {len(archives)} .npz files; expected train.npz and test.npz, or one"
            )
        path = archives[0]
    whole = _part(path, classes)
    with _open_npz(path) as archive:
        has_test = "test_images" in archive
    if has_test:
        test = _part(path, classes or whole.classes, prefix="test_")
        return whole, test
    first, second = stratified_split(whole.labels, _TEST_FRACTION, seed=seed)
    return ArrayDataset(*whole[first], whole.classes), ArrayDataset(*whole[second], whole.classes)


def _find(folder: Path, stem: str, kind: str) -> Path:
    names = [f"{stem}{joint}{kind}{end}" for end in ("", ".gz") for joint in "-."]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder}: has no {names[0]}; expected it, with '.' for the last '-' or .gz if you like")


def _open_npz(path: Path) -> Any:
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path}: not an .npz archive ({error})") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{path}: holds one bare array; expected an .npz archive with images and labels")
    return archive


def _part(path: Path, classes: Sequence[str] | None, *, prefix: str = "") -> ArrayDataset:
    names = (f"{prefix}images", f"{prefix}labels")
    with _open_npz(path) as archive:
        missing = [name for name in names if name not in archive]
        if missing:
            raise ValueError(f"{path}: has no {' and no '.join(missing)}; it holds {', '.join(archive) or 'nothing'}")
        try:
            images, labels = (archive[name] for name in names)
        except ValueError as error:
            raise ValueError(f"{path}: cannot be read ({error})") from error
    return _dataset(images, labels, str(path), classes)


def _dataset(images: Array, labels: Array, origin: str, classes: Sequence[str] | None) -> ArrayDataset:
    """Integers 0..255 become 0..1; a channel axis is added to (N, H, W)."""
    if images.ndim == 3:
        images = images[:, np.newaxis]
    if images.ndim != 4:
        raise ValueError(f"{origin}: images have shape {images.shape}; expected (N, H, W) or (N, C, H, W)")
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / np.float32(255)
    elif np.issubdtype(images.dtype, np.floating):
        images = images.astype(np.float32)
    else:
        raise ValueError(f"{origin}: images are {images.dtype}; expected uint8 (0..255) or floats (0..1)")
    try:
        return ArrayDataset(images, labels, classes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{origin}: {error}") from error
