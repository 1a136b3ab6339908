# SPDX-License-Identifier: Apache-2.0
"""A YOLO grid: every cell of an image says whether an object is centred in it, where it lies and what it is.

A cell's answer is [p_c, b_x, b_y, b_h, b_w, c_1, ..., c_k]: J. Redmon, S. Divvala, R. Girshick, A. Farhadi, "You Only
Look Once: Unified, Real-Time Object Detection", CVPR 2016, section 2, with one box per cell. b_x and b_y are the centre
within the cell, b_h and b_w the sides within the image, all in 0..1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import nn, ops
from ..arrays import beside, namespace
from ..nn import init
from ..tensor import Tensor, as_tensor
from .parts import initialize

_WIDTHS = (16, 32, 64, 128, 256)
_SMALLEST = 1e-6  # keeps the slope of a root finite at 0
_BOX = 5  # p_c and the four numbers of a box come before the classes


class YOLOGrid(nn.Sequential):
    """What `yolo_grid` makes: convolutions, then the channels at the end."""

    def forward(self, x: Any) -> Tensor:
        return super().forward(x).transpose(0, 2, 3, 1)


def yolo_grid(num_classes: int = 3, in_channels: int = 3) -> YOLOGrid:
    """A small one-box detector for images (N, in_channels, 96, 96): (N, 3, 3, 5 + num_classes), a vector per cell.

    Five times a convolution of 3 x 3 with batch norm, leaky ReLU with slope 0.1 and max pooling by 2, as the first
    layers of Redmon and Farhadi's tiny YOLO, then a 1 x 1 convolution; so an image of another size has a cell for each
    32 x 32 pixels. `yolo_encode` makes targets of boxes, `yolo_loss` compares. 395,160 parameters, 46,467,072
    multiply-adds for 96 x 96.

    | layer                         | output       | parameters |
    |-------------------------------|--------------|------------|
    | Conv2d 3x3, norm, pool        | 16 @ 48x48   | 464        |
    | Conv2d 3x3, norm, pool        | 32 @ 24x24   | 4,672      |
    | Conv2d 3x3, norm, pool        | 64 @ 12x12   | 18,560     |
    | Conv2d 3x3, norm, pool        | 128 @ 6x6    | 73,984     |
    | Conv2d 3x3, norm, pool        | 256 @ 3x3    | 295,424    |
    | Conv2d 1x1                    | 8 @ 3x3      | 2,056      |
    """
    with init.skip():
        layers: list[nn.Module] = []
        before = in_channels
        for after in _WIDTHS:
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)]
            layers += [nn.LeakyReLU(0.1), nn.MaxPool2d(2)]
            before = after
        model = YOLOGrid(*layers, nn.Conv2d(before, _BOX + num_classes, 1))
    initialize(model, conv=lambda w: init.kaiming_normal(w, a=0.1))
    return model


def yolo_encode(
    boxes: npt.ArrayLike, labels: Sequence[int], num_classes: int = 3, grid: tuple[int, int] = (3, 3)
) -> npt.NDArray[np.float32]:
    """The target (rows, columns, 5 + num_classes) of one image: [1, b_x, b_y, b_h, b_w, 0, .., 1, .., 0] in the cell
    that an object's centre lies in, [0, NaN, ...] elsewhere, where NaN is the lecture's "?": no matter what.

    Args:
        boxes: (objects, 4) of left, top, right, bottom within the image, in 0..1.
        labels: the class of each, from 0.

    Raises:
        ValueError: boxes of another shape, outside of the image or without an area, labels that do not fit, or two
            objects in one cell, of which this grid can say only one.
    """
    corners = np.asarray(boxes, np.float64).reshape(-1, 4) if np.size(boxes) == 0 else np.asarray(boxes, np.float64)
    if corners.ndim != 2 or corners.shape[1] != 4 or len(corners) != len(labels):
        raise ValueError(
            f"yolo_encode: boxes have shape {corners.shape} for {len(labels)} labels; expected (labels, 4)"
        )
    rows, columns = grid
    target = np.full((rows, columns, _BOX + num_classes), np.nan, np.float32)
    target[..., 0] = 0
    for (left, top, right, bottom), label in zip(corners.tolist(), labels, strict=True):
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError(
                f"yolo_encode: a box is {left, top, right, bottom}; "
                "expected 0 <= left < right <= 1 and 0 <= top < bottom <= 1"
            )
        if not 0 <= label < num_classes:
            raise ValueError(f"yolo_encode: a label is {label}; expected 0 to {num_classes - 1}")
        x, y = (left + right) / 2 * columns, (top + bottom) / 2 * rows
        column, row = min(int(x), columns - 1), min(int(y), rows - 1)
        if target[row, column, 0]:
            raise ValueError(f"yolo_encode: two objects have their centre in the cell of row {row}, column {column}")
        one_hot = np.eye(num_classes)[label]
        target[row, column] = [1, x - column, y - row, bottom - top, right - left, *one_hot]
    return target


def yolo_loss(predicted: Any, target: Any, coord: float = 5.0, noobj: float = 0.5) -> Tensor:
    """The sum of squares of section 2.2, equation 3, divided by the number of images.

    Args:
        predicted: what `yolo_grid` returns, (N, rows, columns, 5 + num_classes).
        target: of that shape, from `yolo_encode`; cells without an object count through p_c alone.
        coord: the weight of the four numbers of a box, sides under a root, so that a small box's error counts more.
        noobj: the weight of p_c where there is no object.

    Raises:
        ValueError: shapes differ.
    """
    wanted = np.asarray(target)
    if tuple(predicted.shape) != wanted.shape or wanted.ndim != 4:
        raise ValueError(
            f"yolo_loss: predicted has shape {tuple(predicted.shape)}, target {wanted.shape}; "
            "expected both (N, rows, columns, 5 + classes)"
        )
    there = wanted[..., :1] == 1
    goal = np.where(np.isnan(wanted), 0, wanted).astype(predicted.dtype)
    goal[..., 3:_BOX] = np.sqrt(goal[..., 3:_BOX] + _SMALLEST)
    weight = np.zeros_like(goal)
    weight[..., :1] = np.where(there, 1, noobj)
    weight[..., 1:_BOX] = there * coord
    weight[..., _BOX:] = there
    x = as_tensor(predicted)
    # The root of a side that came out negative is minus the root of its size: it still pulls towards the target.
    sides = x[..., 3:_BOX]
    sign = namespace(x.data).where(sides.data > 0, 1, -1).astype(x.dtype)
    rooted = ops.sqrt(ops.abs(sides) + _SMALLEST) * sign
    differences = ops.concat([x[..., :3], rooted, x[..., _BOX:]], axis=-1) - beside(goal, x.data)
    return (differences * differences * beside(weight, x.data)).sum() / len(goal)
