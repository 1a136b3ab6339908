# SPDX-License-Identifier: Apache-2.0
"""A data set in memory, its stratified split, and the loader that cuts it into seeded batches.

Orders come from sorting the raw 64-bit output of PCG64, which NumPy promises never to change, unlike the methods of
`Generator`: a seed means the same order with every NumPy version.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from .. import random as fc_random

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.int64]
Transform = Callable[[Array, np.random.Generator], Array]

_ORDER, _TRANSFORM = 0, 1  # one stream of random numbers for each use


class ArrayDataset:
    """Images (N, ...) with labels (N,); `dataset[i]` is the pair of image and label, i an integer or an index array.

    Args:
        images: an array, the first axis counts the images.
        labels: integers 0..len(classes) - 1, one per image; kept as int64.
        classes: names by label; left out, the labels' own numbers.

    Raises:
        TypeError: labels are not integers.
        ValueError: lengths differ, labels are not one-dimensional, or a label has no class.
    """

    def __init__(self, images: Array, labels: Array, classes: Sequence[str] | None = None) -> None:
        images, labels = np.asarray(images), np.asarray(labels)
        if labels.ndim != 1 or images.ndim == 0 or len(images) != len(labels):
            raise ValueError(
                f"ArrayDataset: images have shape {images.shape}, labels {labels.shape}; expected (N, ...) and (N,)"
            )
        if not np.issubdtype(labels.dtype, np.integer):
            raise TypeError(f"ArrayDataset: labels are {labels.dtype}; expected integers, e.g. labels.astype('int64')")
        labels = labels.astype(np.int64)
        highest = int(labels.max(initial=-1))
        if classes is None:
            classes = [str(label) for label in range(highest + 1)]
        if highest >= len(classes) or labels.min(initial=0) < 0:
            raise ValueError(
                f"ArrayDataset: labels run from {labels.min()} to {highest}; expected 0..{len(classes) - 1}, "
                f"one for each of the {len(classes)} classes"
            )
        self.images = images
        self.labels: Labels = labels
        self.classes = tuple(classes)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Any) -> tuple[Array, Any]:
        return self.images[index], self.labels[index]

    def __repr__(self) -> str:
        return f"ArrayDataset({len(self)} images of {self.images.shape[1:]}, {len(self.classes)} classes)"


def stratified_split(labels: Array, test_fraction: float, *, seed: int = 0) -> tuple[Labels, Labels]:
    """Indices `train, test`, each ascending, such that every class gives the same share (rounded) to the test part.

    Raises:
        ValueError: `test_fraction` is not between 0 and 1 (both excluded).
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction!r}; expected a number between 0 and 1")
    labels = np.asarray(labels)
    shuffled = _order(len(labels), seed)
    in_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        in_test[members[: round(len(members) * test_fraction)]] = True
    return np.flatnonzero(~in_test), np.flatnonzero(in_test)


class LoaderState(TypedDict):
    """All that a loader needs to continue: its seed, and how many epochs it has begun."""

    seed: int
    epoch: int


class DataLoader:
    """Batches `(images, labels)` of a data set; each `for` over the loader is one epoch.

    The order of epoch e, and what `transform` draws in it, follow from the seed and e alone: a loader that is put back
    to a saved state (`state_dict`, `load_state_dict`) yields the same batches as one that was never stopped.

    Args:
        dataset: what to load; anything with `len()` that takes index arrays.
        batch_size: images per batch; the last batch of an epoch may hold fewer.
        shuffle: a new order each epoch, else the order of the data set.
        seed: of the orders. A Generator, or None for `fastconv.random.generator()`, gives one draw when the loader is
            made; `fc.manual_seed` before it therefore fixes the orders too.
        drop_last: leave out a last batch that is not full.
        transform: `transform(images, generator)` gives the batch's images changed, e.g. `fc.data.RandomAffine`.

    Raises:
        ValueError: `batch_size` is below 1.
    """

    def __init__(
        self,
        dataset: ArrayDataset,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        seed: int | np.random.Generator | None = None,
        drop_last: bool = False,
        transform: Transform | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"DataLoader: batch_size is {batch_size}; expected at least 1")
        if seed is None and shuffle:
            seed = fc_random.generator()
        if isinstance(seed, np.random.Generator):
            seed = int(seed.integers(2**63))
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.transform = transform
        self.seed = seed or 0
        self.epoch = 0

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Array, Labels]]:
        count = len(self.dataset)
        order = _order(count, self.seed, self.epoch, _ORDER) if self.shuffle else np.arange(count)
        generator = np.random.Generator(_stream(self.seed, self.epoch, _TRANSFORM))
        self.epoch += 1
        for batch in range(len(self)):
            images, labels = self.dataset[order[batch * self.batch_size : (batch + 1) * self.batch_size]]
            yield images if self.transform is None else self.transform(images, generator), labels

    def state_dict(self) -> LoaderState:
        """The state between two epochs, as JSON would have it."""
        return {"seed": self.seed, "epoch": self.epoch}

    def load_state_dict(self, state: LoaderState) -> None:
        """Continue where a loader of the same data set was when `state` was taken."""
        self.seed, self.epoch = int(state["seed"]), int(state["epoch"])


def _stream(*entropy: int) -> np.random.PCG64:
    return np.random.PCG64(np.random.SeedSequence(entropy))


def _order(count: int, *entropy: int) -> Labels:
    """A permutation of 0..count - 1 that is a fixed function of the numbers given."""
    return np.argsort(_stream(*entropy).random_raw(count), kind="stable")
