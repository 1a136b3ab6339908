# SPDX-License-Identifier: Apache-2.0
"""AlexNet: the one of the paper, and the one without groups and response normalisation that weights exist for."""

from .. import nn
from ..nn import init
from .parts import scaled


def alexnet(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5, *, width_mult: float = 1.0
) -> nn.Sequential:
    """AlexNet in torchvision's form for images (N, in_channels, 224, 224), at least 63 x 63: logits (N, num_classes).

    A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014 (arXiv 1404.5997), section 5.
    61,100,840 parameters, 714,188,480 MACs. Keys and initial values are torchvision's.

    Args:
        width_mult: a factor on all channel counts.

    | layer           | output      | parameters |
    |-----------------|-------------|------------|
    | Conv2d 11x11 s4 | 64 @ 55x55  | 23,296     |
    | MaxPool2d 3 s2  | 64 @ 27x27  |            |
    | Conv2d 5x5      | 192 @ 27x27 | 307,392    |
    | MaxPool2d 3 s2  | 192 @ 13x13 |            |
    | Conv2d 3x3      | 384 @ 13x13 | 663,936    |
    | Conv2d 3x3      | 256 @ 13x13 | 884,992    |
    | Conv2d 3x3      | 256 @ 13x13 | 590,080    |
    | MaxPool2d 3 s2  | 256 @ 6x6   |            |
    | Linear          | 4096        | 37,752,832 |
    | Linear          | 4096        | 16,781,312 |
    | Linear          | 1000        | 4,097,000  |
    """
    c1, c2, c3, c4, hidden = (scaled(c, width_mult) for c in (64, 192, 384, 256, 4096))
    features = nn.Sequential(
        nn.Conv2d(in_channels, c1, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(c1, c2, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(c2, c3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(c3, c4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(c4, c4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    return nn.Sequential(
        {
            "features": features,
            "avgpool": nn.AdaptiveAvgPool2d(6),
            "flatten": nn.Flatten(),
            "classifier": _classifier(c4, hidden, num_classes, dropout),
        }
    )


def alexnet_paper(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5, *, width_mult: float = 1.0
) -> nn.Sequential:
    """AlexNet as it won in 2012, for images (N, in_channels, 227, 227): logits (N, num_classes).

    A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NeurIPS
    2012, sections 3 and 5. 60,965,224 parameters, 724,406,816 MACs. The second, fourth and fifth convolution have two
    groups, one for each of the authors' two GPUs. Response normalisation is theirs: n = 5, k = 2, alpha = 1e-4 for each
    square, beta = 0.75. They say 224 x 224, from which a filter of 11 with stride 4 does not make 55 x 55; 227 does.
    Their initial values: normal with deviation 0.01; biases 1 in the second, fourth and fifth convolution and the
    hidden dense layers, 0 elsewhere. The lectures' 384 filters of 3 x 3 x 128 in the third layer would be two groups
    there too, and 60,522,856 parameters; the paper connects it to all maps.

    | layer                | output      | parameters |
    |----------------------|-------------|------------|
    | Conv2d 11x11 s4, LRN | 96 @ 55x55  | 34,944     |
    | MaxPool2d 3 s2       | 96 @ 27x27  |            |
    | Conv2d 5x5 g2, LRN   | 256 @ 27x27 | 307,456    |
    | MaxPool2d 3 s2       | 256 @ 13x13 |            |
    | Conv2d 3x3           | 384 @ 13x13 | 885,120    |
    | Conv2d 3x3 g2        | 384 @ 13x13 | 663,936    |
    | Conv2d 3x3 g2        | 256 @ 13x13 | 442,624    |
    | MaxPool2d 3 s2       | 256 @ 6x6   |            |
    | Linear               | 4096        | 37,752,832 |
    | Linear               | 4096        | 16,781,312 |
    | Linear               | 1000        | 4,097,000  |
    """
    c1, c2, c3, hidden = (scaled(c, width_mult) for c in (96, 256, 384, 4096))
    with init.skip():
        features = nn.Sequential(
            nn.Conv2d(in_channels, c1, 11, stride=4),
            nn.ReLU(),
            _response_norm(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(c1, c2, 5, padding=2, groups=2),
            nn.ReLU(),
            _response_norm(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(c2, c3, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c3, c3, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(c3, c2, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        classifier = _classifier(c2, hidden, num_classes, dropout)
    for layer in (*features, *classifier):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            init.normal(layer.weight, 0.0, 0.01)
            connected = layer in (features[0], features[8], classifier[6])
            init.constant(layer.bias, 0.0 if connected else 1.0)
    return nn.Sequential({"features": features, "flatten": nn.Flatten(), "classifier": classifier})


def _response_norm() -> nn.LocalResponseNorm:
    # The layer divides alpha by the size of the window, the paper does not.
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def _classifier(channels: int, hidden: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(channels * 6 * 6, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )
