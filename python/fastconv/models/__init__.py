# SPDX-License-Identifier: Apache-2.0
"""Networks by name. To add one: write its function in the file of its family, and one line in `_ENTRIES`."""

import builtins
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from .. import nn
from .alexnet import alexnet, alexnet_paper
from .cards import Card, card
from .cifar_resnet import cifar_resnet20, cifar_resnet56
from .convnext import convnext_tiny
from .dcgan import dcgan_discriminator, dcgan_generator
from .dncnn import denoise_image, denoising_loss, dncnn
from .efficientnet_lite import efficientnet_lite0
from .frrn import frrn_a
from .googlenet import auxiliary_loss, googlenet, inception_naive
from .hed import hed
from .lectures import (
    keras_cifar_a,
    keras_cifar_b,
    keras_cifar_deep,
    keras_exercise,
    keras_mnist,
    linear,
    logistic,
    three_layer,
    two_layer,
)
from .lenet import lenet5
from .mobilenet_v1 import mobilenet_v1
from .mobilenet_v2 import mobilenet_v2
from .overfeat import overfeat
from .resnet import plain34, resnet18, resnet34, resnet50, resnet101, resnet152
from .squeezenet import squeezenet1_1
from .unet import unet
from .upconv7 import upconv_7
from .vgg import vgg11, vgg11_bn, vgg13, vgg13_bn, vgg16, vgg16_bn, vgg19, vgg19_bn
from .yolo import yolo_encode, yolo_grid, yolo_loss

__all__ = [
    "Card",
    "alexnet",
    "alexnet_paper",
    "auxiliary_loss",
    "build",
    "card",
    "cifar_resnet20",
    "cifar_resnet56",
    "convnext_tiny",
    "dcgan_discriminator",
    "dcgan_generator",
    "denoise_image",
    "denoising_loss",
    "dncnn",
    "efficientnet_lite0",
    "frrn_a",
    "googlenet",
    "hed",
    "inception_naive",
    "input_shape",
    "input_size",
    "keras_cifar_a",
    "keras_cifar_b",
    "keras_cifar_deep",
    "keras_exercise",
    "keras_mnist",
    "lenet5",
    "linear",
    "list",
    "logistic",
    "mobilenet_v1",
    "mobilenet_v2",
    "overfeat",
    "plain34",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "source",
    "squeezenet1_1",
    "three_layer",
    "two_layer",
    "unet",
    "upconv_7",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "yolo_encode",
    "yolo_grid",
    "yolo_loss",
]


class _Entry(NamedTuple):
    build: Callable[..., nn.Module]
    input_shape: tuple[int, int, int]  # (channels, height, width) that it was made for
    source: str  # who described it, and when


_ENTRIES: dict[str, _Entry] = {
    "alexnet": _Entry(alexnet, (3, 224, 224), "Krizhevsky 2014"),
    "alexnet_paper": _Entry(alexnet_paper, (3, 227, 227), "Krizhevsky et al. 2012"),
    "cifar_resnet20": _Entry(cifar_resnet20, (3, 32, 32), "He et al. 2016"),
    "cifar_resnet56": _Entry(cifar_resnet56, (3, 32, 32), "He et al. 2016"),
    "convnext_tiny": _Entry(convnext_tiny, (3, 224, 224), "Liu et al. 2022"),
    "dcgan_discriminator": _Entry(dcgan_discriminator, (3, 64, 64), "Radford et al. 2016"),
    "dcgan_generator": _Entry(dcgan_generator, (100, 1, 1), "Radford et al. 2016"),
    "dncnn": _Entry(dncnn, (1, 50, 50), "Zhang et al. 2017"),
    "efficientnet_lite0": _Entry(efficientnet_lite0, (3, 224, 224), "Tan and Le 2019"),
    "frrn_a": _Entry(frrn_a, (3, 256, 512), "Pohlen et al. 2017"),
    "googlenet": _Entry(googlenet, (3, 224, 224), "Szegedy et al. 2015"),
    "hed": _Entry(hed, (3, 512, 512), "Xie and Tu 2015"),
    "inception_naive": _Entry(inception_naive, (192, 28, 28), "Szegedy et al. 2015"),
    "keras_cifar_a": _Entry(keras_cifar_a, (3, 32, 32), "Ronchetti and Quiroga 2019"),
    "keras_cifar_b": _Entry(keras_cifar_b, (3, 32, 32), "Ronchetti and Quiroga 2019"),
    "keras_cifar_deep": _Entry(keras_cifar_deep, (3, 32, 32), "Ronchetti and Quiroga 2019"),
    "keras_exercise": _Entry(keras_exercise, (1, 28, 28), "Machine learning I: ConvNets"),
    "keras_mnist": _Entry(keras_mnist, (1, 28, 28), "Ronchetti and Quiroga 2019"),
    "lenet5": _Entry(lenet5, (1, 32, 32), "LeCun et al. 1998"),
    "linear": _Entry(linear, (3, 32, 32), "Peretti and Pastore"),
    "logistic": _Entry(logistic, (1, 28, 28), "Peretti and Pastore"),
    "mobilenet_v1": _Entry(mobilenet_v1, (3, 224, 224), "Howard et al. 2017"),
    "mobilenet_v2": _Entry(mobilenet_v2, (3, 224, 224), "Sandler et al. 2018"),
    "overfeat": _Entry(overfeat, (3, 231, 231), "Sermanet et al. 2014"),
    "plain34": _Entry(plain34, (3, 224, 224), "He et al. 2016"),
    "resnet101": _Entry(resnet101, (3, 224, 224), "He et al. 2016"),
    "resnet152": _Entry(resnet152, (3, 224, 224), "He et al. 2016"),
    "resnet18": _Entry(resnet18, (3, 224, 224), "He et al. 2016"),
    "resnet34": _Entry(resnet34, (3, 224, 224), "He et al. 2016"),
    "resnet50": _Entry(resnet50, (3, 224, 224), "He et al. 2016"),
    "squeezenet1_1": _Entry(squeezenet1_1, (3, 224, 224), "Iandola et al. 2016"),
    "three_layer": _Entry(three_layer, (1, 28, 28), "Peretti and Pastore"),
    "two_layer": _Entry(two_layer, (1, 28, 28), "Peretti and Pastore"),
    "unet": _Entry(unet, (1, 572, 572), "Ronneberger et al. 2015"),
    "upconv_7": _Entry(upconv_7, (3, 142, 142), "nagadomi's waifu2x"),
    "vgg11": _Entry(vgg11, (3, 224, 224), "Simonyan and Zisserman 2014"),
    "vgg11_bn": _Entry(vgg11_bn, (3, 224, 224), "Simonyan and Zisserman 2014"),
    "vgg13": _Entry(vgg13, (3, 224, 224), "Simonyan and Zisserman 2014"),
    "vgg13_bn": _Entry(vgg13_bn, (3, 224, 224), "Simonyan and Zisserman 2014"),
    "vgg16": _Entry(vgg16, (3, 224, 224), "Simonyan and Zisserman 2014"),
    "vgg16_bn": _Entry(vgg16_bn, (3, 224, 224), "Simonyan and Zisserman 2014"),
    "vgg19": _Entry(vgg19, (3, 224, 224), "Simonyan and Zisserman 2014"),
    "vgg19_bn": _Entry(vgg19_bn, (3, 224, 224), "Simonyan and Zisserman 2014"),
    "yolo_grid": _Entry(yolo_grid, (3, 96, 96), "Redmon et al. 2016"),
}


def list(*options: str) -> builtins.list[str]:
    """The names that `build` knows, in alphabetical order; of those only whose functions take all of `options`.

    >>> classifiers = fc.models.list("num_classes")
    """
    names = sorted(_ENTRIES)
    return [name for name in names if {*options} <= inspect.signature(_ENTRIES[name].build).parameters.keys()]


def build(name: str, **options: Any) -> nn.Module:
    """Make the network `name` with fresh weights; `options` go to its function, e.g. `num_classes=10`.

    Raises:
        ValueError: no network has that name; the message lists those that exist.

    >>> model = fc.models.build("lenet5", num_classes=26)
    """
    return _entry("build", name).build(**options)


def input_shape(name: str) -> tuple[int, int, int]:
    """(channels, height, width) of the images that the network `name` was made for; many also take larger ones.

    Raises:
        ValueError: no network has that name; the message lists those that exist.
    """
    return _entry("input_shape", name).input_shape


def input_size(name: str) -> int:
    """The side, in pixels, of the square images that the network `name` was made for.

    Raises:
        ValueError: no network has that name; the message lists those that exist.
    """
    return _entry("input_size", name).input_shape[1]


def source(name: str) -> str:
    """Who described the network `name`, and when; its function's docstring has the title and the section.

    Raises:
        ValueError: no network has that name; the message lists those that exist.
    """
    return _entry("source", name).source


def _entry(function: str, name: str) -> _Entry:
    if name not in _ENTRIES:
        raise ValueError(f"models.{function}: no network is called {name!r}; expected one of {', '.join(list())}")
    return _ENTRIES[name]
