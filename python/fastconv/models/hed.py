# SPDX-License-Identifier: Apache-2.0
"""HED: edges of objects, seen at five scales by the convolutions of VGG-16."""

from typing import Any

from .. import nn, ops
from ..nn import init
from ..tensor import Tensor
from .parts import initialize, scaled

# (channels, how many convolutions) of VGG-16's blocks.
_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class HED(nn.Module):
    """What `hed` makes: `blocks` are VGG-16's, `sides` a 1 x 1 convolution for each, `fuse` one over their maps."""

    def __init__(self, in_channels: int, width_mult: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.sides = nn.ModuleList()
        before = in_channels
        for wanted, count in _BLOCKS:
            channels = scaled(wanted, width_mult)
            layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if len(self.blocks) else []
            for number in range(count):
                layers += [nn.Conv2d(channels if number else before, channels, 3, padding=1), nn.ReLU()]
            self.blocks.append(nn.Sequential(*layers))
            self.sides.append(nn.Conv2d(channels, 1, 1))
            before = channels
        self.fuse = nn.Conv2d(len(_BLOCKS), 1, 1)

    def features(self, x: Any) -> list[Tensor]:
        """The maps after each of VGG-16's five blocks, before their pooling."""
        maps: list[Tensor] = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps

    def side_outputs(self, x: Any) -> tuple[Tensor, ...]:
        """Logits (N, 1, H, W) of the five scales and, last, of their fusion: what deep supervision trains."""
        size = tuple(x.shape[2:])
        maps = [
            ops.interpolate(side(part), size, mode="bilinear", align_corners=False)
            for side, part in zip(self.sides, self.features(x), strict=True)
        ]
        return (*maps, self.fuse(ops.concat(maps, axis=1)))

    def forward(self, x: Any) -> Tensor:
        return self.side_outputs(x)[-1]


def hed(in_channels: int = 3, *, width_mult: float = 1.0) -> HED:
    """Holistically-nested edge detection for images (N, in_channels, H, W): logits of edges (N, 1, H, W).

    S. Xie, Z. Tu, "Holistically-Nested Edge Detection", ICCV 2015 (arXiv 1504.06375), sections 3.1 to 3.3: VGG-16
    without its last pooling and its dense layers, a side output after each block, resized to the image by bilinear
    interpolation, and a weighted sum of all five. The sigmoid of what is returned is the probability of an edge.
    14,716,171 parameters, 80,211,607,552 multiply-adds for an image of 512 x 512.

    `features` are VGG-16's maps, as for style transfer. In weights trained for edges they are not ImageNet's: training
    for edges has changed them.

    Args:
        width_mult: a factor on all channel counts.

    | layer                       | output         | parameters |
    |-----------------------------|----------------|------------|
    | 2 Conv2d 3x3                | 64 @ HxW       | 38,720     |
    | pool, 2 Conv2d 3x3          | 128 @ H/2xW/2  | 221,440    |
    | pool, 3 Conv2d 3x3          | 256 @ H/4xW/4  | 1,475,328  |
    | pool, 3 Conv2d 3x3          | 512 @ H/8xW/8  | 5,899,776  |
    | pool, 3 Conv2d 3x3          | 512 @ H/16xW/16| 7,079,424  |
    | 5 side outputs, 1x1         | 5 @ HxW        | 1,477      |
    | fusion, 1x1                 | 1 @ HxW        | 6          |
    """
    with init.skip():
        model = HED(in_channels, width_mult)
    initialize(model, conv=lambda w: init.kaiming_normal(w, nonlinearity="relu"))
    for side in model.sides:
        init.zeros(side.weight)
    init.constant(model.fuse.weight, 0.2)
    return model
