# SPDX-License-Identifier: Apache-2.0
"""GoogLeNet: filters of several sizes side by side, and two classifiers halfway that help it learn.

C. Szegedy et al., "Going Deeper with Convolutions", CVPR 2015 (arXiv 1409.4842). Keys, initial values and what comes
out in training are torchvision's.
"""

from typing import Any, NamedTuple

from .. import nn, ops
from ..nn import init
from ..tensor import Tensor
from .parts import initialize, scaled, small_normal


class GoogLeNetOutputs(NamedTuple):
    """What `GoogLeNet` gives in training: logits (N, num_classes) of its three classifiers."""

    logits: Tensor
    aux_logits2: Tensor
    aux_logits1: Tensor


class BasicConv2d(nn.Module):
    """A convolution without bias, batch norm (eps 0.001) and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__()
        padding = (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Any) -> Any:
        return ops.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """The module with reductions, figure 2(b): x (N, in_channels, H, W) -> (N, sum of the four branches, H, W).

    Args:
        ch1x1, ch3x3, ch5x5, pool_proj: channels of the four branches.
        ch3x3red, ch5x5red: channels of the 1 x 1 before the larger filters.
        kernel_size5: 5 as in the paper, or the 3 of torchvision and its weights.
    """

    def __init__(self, in_channels: int, ch1x1: int, ch3x3red: int, ch3x3: int, ch5x5red: int, ch5x5: int,
                 pool_proj: int, *, kernel_size5: int = 3) -> None:  # fmt: skip
        super().__init__()
        self.branch1 = BasicConv2d(in_channels, ch1x1, 1)
        self.branch2 = nn.Sequential(BasicConv2d(in_channels, ch3x3red, 1), BasicConv2d(ch3x3red, ch3x3, 3))
        self.branch3 = nn.Sequential(BasicConv2d(in_channels, ch5x5red, 1), BasicConv2d(ch5x5red, ch5x5, kernel_size5))
        pool = nn.MaxPool2d(3, 1, padding=1, ceil_mode=True)
        self.branch4 = nn.Sequential(pool, BasicConv2d(in_channels, pool_proj, 1))

    def forward(self, x: Any) -> Any:
        return ops.concat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionAux(nn.Module):
    """A classifier beside the main path: x (N, in_channels, H, W) -> logits (N, num_classes).

    The map is averaged to 4 x 4; for 14 x 14 that is not the paper's pool of 5 with stride 3, but close to it.
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float, width_mult: float) -> None:
        super().__init__()
        channels, hidden = scaled(128, width_mult), scaled(1024, width_mult)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.conv = BasicConv2d(in_channels, channels, 1)
        self.fc1 = nn.Linear(channels * 4 * 4, hidden)
        self.fc2 = nn.Linear(hidden, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Any) -> Any:
        x = self.conv(self.pool(x))
        return self.fc2(self.dropout(ops.relu(self.fc1(ops.flatten(x, 1)))))


# Table 1: channels of the branches, as `Inception` takes them.
_MODULES = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNet(nn.Module):
    """See `googlenet`, which makes one."""

    def __init__(self, num_classes: int, in_channels: int, aux_logits: bool, transform_input: bool, dropout: float,
                 dropout_aux: float, kernel_size5: int, width_mult: float) -> None:  # fmt: skip
        super().__init__()
        self.aux_logits, self.transform_input = aux_logits, transform_input
        stem, wider = scaled(64, width_mult), scaled(192, width_mult)
        self.conv1 = BasicConv2d(in_channels, stem, 7, stride=2)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = BasicConv2d(stem, stem, 1)
        self.conv3 = BasicConv2d(stem, wider, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        outputs, inputs = {}, wider
        for name, counts in _MODULES.items():
            branches = [scaled(c, width_mult) for c in counts]
            setattr(self, name, Inception(inputs, *branches, kernel_size5=kernel_size5))
            outputs[name] = inputs = branches[0] + branches[2] + branches[4] + branches[5]
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        if aux_logits:
            self.aux1 = InceptionAux(outputs["inception4a"], num_classes, dropout_aux, width_mult)
            self.aux2 = InceptionAux(outputs["inception4d"], num_classes, dropout_aux, width_mult)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(outputs["inception5b"], num_classes)

    def forward(self, x: Any) -> Any:
        x = _renormalized(x) if self.transform_input else x
        x = self.maxpool2(self.conv3(self.conv2(self.maxpool1(self.conv1(x)))))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        x4a = self.inception4a(x)
        x4d = self.inception4d(self.inception4c(self.inception4b(x4a)))
        x = self.maxpool4(self.inception4e(x4d))
        x = self.inception5b(self.inception5a(x))
        logits = self.fc(self.dropout(ops.flatten(self.avgpool(x), 1)))
        if self.training and self.aux_logits:
            return GoogLeNetOutputs(logits, self.aux2(x4d), self.aux1(x4a))
        return logits


def _renormalized(x: Any) -> Any:
    """Images normalised by the mean and deviation of ImageNet, as if by 0.5 and 0.5, which the weights expect."""
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    channels = [x[:, i : i + 1] * (deviation[i] / 0.5) + (mean[i] - 0.5) / 0.5 for i in range(3)]
    return ops.concat(channels, 1)


def googlenet(
    num_classes: int = 1000,
    in_channels: int = 3,
    aux_logits: bool = True,
    transform_input: bool = False,
    dropout: float = 0.2,
    dropout_aux: float = 0.7,
    *,
    kernel_size5: int = 3,
    width_mult: float = 1.0,
) -> GoogLeNet:
    """GoogLeNet for images (N, in_channels, 224, 224), from 32 x 32 on: logits (N, num_classes).

    Szegedy et al. 2015, table 1, with batch norm. 13,004,888 parameters, of these 6,379,984 in the two auxiliary
    classifiers; 1,498,376,192 MACs without them. In training it gives `GoogLeNetOutputs` with the logits of all three;
    `auxiliary_loss` is the sum of their losses.

    Args:
        aux_logits: whether there are auxiliary classifiers.
        transform_input: images arrive normalised by ImageNet's means and deviations, the weights want 0.5 and 0.5.
        dropout, dropout_aux: the probabilities before the last layer of the main and the auxiliary classifiers.
        kernel_size5: the size of what the paper calls 5 x 5; torchvision and its weights have 3 there.
        width_mult: a factor on all channel counts.

    | layer               | output        |
    |---------------------|---------------|
    | Conv2d 7x7 s2       | 64 @ 112x112  |
    | MaxPool2d 3 s2      | 64 @ 56x56    |
    | Conv2d 1x1, 3x3     | 192 @ 56x56   |
    | MaxPool2d 3 s2      | 192 @ 28x28   |
    | Inception 3a, 3b    | 480 @ 28x28   |
    | MaxPool2d 3 s2      | 480 @ 14x14   |
    | Inception 4a ... 4e | 832 @ 14x14   |
    | MaxPool2d 2         | 832 @ 7x7     |
    | Inception 5a, 5b    | 1024 @ 7x7    |
    | mean, Linear        | 1000          |
    """
    with init.skip():
        model = GoogLeNet(num_classes, in_channels, aux_logits, transform_input, dropout, dropout_aux, kernel_size5,
                          width_mult)  # fmt: skip
    # torchvision cuts its normal off at -2 and 2, that is at 200 deviations, and leaves the biases their default.
    initialize(model, conv=small_normal)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            small_normal(module.weight)
    return model


def auxiliary_loss(outputs: GoogLeNetOutputs, labels: Any, weight: float = 0.3) -> Tensor:
    """The cross-entropy of the main classifier plus `weight` times those of the auxiliary ones (section 5).

    Args:
        outputs: what `googlenet` gives in training, or logits (N, num_classes) alone.
        labels: (N,) integers.
    """
    if not isinstance(outputs, GoogLeNetOutputs):
        return ops.cross_entropy(outputs, labels)
    main, aux2, aux1 = (ops.cross_entropy(logits, labels) for logits in outputs)
    return main + (aux1 + aux2) * weight


class InceptionNaive(nn.Module):
    """See `inception_naive`, which makes one."""

    def __init__(self, in_channels: int, ch1x1: int, ch3x3: int, ch5x5: int) -> None:
        super().__init__()
        self.branch1 = nn.Conv2d(in_channels, ch1x1, 1)
        self.branch2 = nn.Conv2d(in_channels, ch3x3, 3, padding=1)
        self.branch3 = nn.Conv2d(in_channels, ch5x5, 5, padding=2)
        self.branch4 = nn.MaxPool2d(3, 1, padding=1)

    def forward(self, x: Any) -> Any:
        convolved = [ops.relu(branch(x)) for branch in (self.branch1, self.branch2, self.branch3)]
        return ops.concat([*convolved, self.branch4(x)], 1)


def inception_naive(in_channels: int = 192, ch1x1: int = 64, ch3x3: int = 128, ch5x5: int = 32) -> InceptionNaive:
    """The module without reductions: x (N, in_channels, H, W) -> (N, ch1x1 + ch3x3 + ch5x5 + in_channels, H, W).

    Szegedy et al. 2015, figure 2(a): filters of 1 x 1, 3 x 3 and 5 x 5 and max pooling side by side. The default
    numbers are those of `googlenet`'s inception 3a, (192, 28, 28) -> (416, 28, 28): 387,296 parameters, 303,464,448
    MACs. There the module with reductions (figure 2(b)) has a third: 163,328 parameters, 128,049,152 MACs.
    """
    return InceptionNaive(in_channels, ch1x1, ch3x3, ch5x5)
