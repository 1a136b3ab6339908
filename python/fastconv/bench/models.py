# SPDX-License-Identifier: Apache-2.0
"""Networks for the training benchmark, written once: `nn` is fastconv's or PyTorch's, whose names are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .problems import Array


def lenet5(nn: Any) -> Any:
    """LeNet-5 as in `fastconv.models.lenet5`: 32x32 gray images, 10 classes."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.Tanh(),
        nn.Linear(120, 84),
        nn.Tanh(),
        nn.Linear(84, 10),
    )


def residual_blocks(nn: Any) -> Any:
    """A stem, two residual blocks of 16 channels at 32x32, a strided convolution, two of 32 at 16x16: small images."""

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(channels)
            self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(channels)
            self.relu = nn.ReLU()

        def forward(self, x: Any) -> Any:
            y = self.relu(self.bn1(self.conv1(x)))
            return self.relu(self.bn2(self.conv2(y)) + x)

    def stem(c: int, k: int, stride: int) -> list[Any]:
        return [nn.Conv2d(c, k, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(k), nn.ReLU()]

    return nn.Sequential(
        *stem(3, 16, 1), Block(16), Block(16), *stem(16, 32, 2), Block(32), Block(32),
        nn.AvgPool2d(16), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def resnet20(nn: Any) -> Any:
    """The ResNet-20 for CIFAR (He et al. 2015, section 4.2), with 1x1 convolutions where a shortcut changes size."""

    class Block(nn.Module):  # type: ignore[misc]
        def __init__(self, c: int, k: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(c, k, 3, stride=stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(k)
            self.conv2 = nn.Conv2d(k, k, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(k)
            self.relu = nn.ReLU()
            changes = c != k or stride != 1
            projection = [nn.Conv2d(c, k, 1, stride=stride, bias=False), nn.BatchNorm2d(k)]
            self.shortcut = nn.Sequential(*(projection if changes else []))

        def forward(self, x: Any) -> Any:
            y = self.relu(self.bn1(self.conv1(x)))
            return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))

    blocks, c = [], 16
    for k, stride in ((16, 1), (32, 2), (64, 2)):
        blocks += [Block(c, k, stride), Block(k, k, 1), Block(k, k, 1)]
        c = k
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, 10))


def vgg11(nn: Any) -> Any:
    """The convolutional part of VGG-11 (Simonyan and Zisserman 2014, column A), then a mean and 10 classes."""
    layers, c = [], 3
    for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for k in stage:
            layers += [nn.Conv2d(c, k, 3, padding=1), nn.ReLU()]
            c = k
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AvgPool2d(7), nn.Flatten(), nn.Linear(512, 10))


class Network(NamedTuple):
    build: Callable[[Any], Any]
    image: tuple[int, int, int]
    batch: int  # images in a step, unless asked otherwise
    checked_steps: int  # whose losses are compared


MODELS = {
    "lenet5": Network(lenet5, (1, 32, 32), 64, 5),
    "residual_blocks": Network(residual_blocks, (3, 32, 32), 64, 5),
    "resnet20": Network(resnet20, (3, 32, 32), 64, 5),
    "vgg11": Network(vgg11, (3, 224, 224), 4, 2),
}


def initial_state(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, Array]:
    """The same first weights for every framework: by He's rule, biases 0, batch norm's as it defines them.

    Args:
        shapes: the shapes of a state_dict; the keys are PyTorch's.
    """
    rng = np.random.default_rng(seed)
    state: dict[str, Array] = {}
    for key in sorted(shapes):
        shape = shapes[key]
        if len(shape) > 1:
            scale = np.sqrt(2 / np.prod(shape[1:]))
            state[key] = (scale * rng.standard_normal(shape)).astype(np.float32)
        elif key.endswith("num_batches_tracked"):
            state[key] = np.zeros(shape, np.int64)
        else:
            ones = key.endswith(("running_var", "weight"))
            state[key] = np.full(shape, 1 if ones else 0, np.float32)
    return state


def batch(name: str, size: int, seed: int) -> tuple[Array, Array]:
    """Images (N, C, H, W) of N(0, 1) and their labels: the step's cost does not depend on what is learned."""
    rng = np.random.default_rng([seed, size])
    images = rng.standard_normal((size, *MODELS[name].image), dtype=np.float32)
    return images, rng.integers(0, 10, size)
