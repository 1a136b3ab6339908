# SPDX-License-Identifier: Apache-2.0
"""Every figure that the lectures print about shapes, parameters and operations, computed by the library itself.

    S0  Universidad de Granada, "Deep Learning para vision por Computador"
    S1  UNLP, "Filtros convolucionales" and "Redes neuronales convolucionales", class 7, 2019
    S2  EAFIT, "Introduccion a las Redes Neuronales Convolucionales", 2023
    S3  Peretti and Pastore
    S4  "ML I ConvNets"

The worked examples with numbers are in test_worked_examples.py. Nothing here needs training.
"""

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn
from fastconv.geometry import conv_geometry
from tolerance import assert_exact


def table(model, input_shape):
    """(class, shape of its output without the batch, parameters) of each layer."""
    rows, x = [], fc.Tensor(np.zeros((1, *input_shape), np.float32))
    with fc.no_grad():
        for layer in model:
            x = layer(x)
            rows.append((type(layer).__name__, x.shape[1:], parameters(layer)))
    return rows


def parameters(model):
    return sum(p.size for p in model.parameters())


def shapes(model, input_shape, kinds):
    return [shape for kind, shape, _ in table(model, input_shape) if kind in kinds]


def dense_parameters(inputs, outputs):
    """Of nn.Linear(inputs, outputs), from one of its neurons: the whole layer would fill the memory."""
    return outputs * parameters(nn.Linear(inputs, 1))


def macs(text):
    return fc.ConvProblem.parse(text).macs


def cifar_a():
    return nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(57600, 32), nn.ReLU(), nn.Linear(32, 10)
    )


def cifar_b():
    return nn.Sequential(
        nn.Conv2d(3, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(14400, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def cifar_deeper():
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 8 * 8, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def dncnn():
    """The 57 layers of S0's list between its input and its regression layer."""
    layers = [nn.Conv2d(1, 64, 3, padding=1), nn.ReLU()]
    for _ in range(18):
        layers += [nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(64, 1, 3, padding=1))


def alexnet_features(first_padding=0, groups=(1, 2, 1, 2, 2)):
    g = groups
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4, first_padding, groups=g[0]), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=g[1]), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1, groups=g[2]), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=g[3]), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=g[4]), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip


def test_cifar_net_a():
    """S1, "Capa Convolucional sobre CIFAR10": the summary of the net without pooling."""
    rows = [row for row in table(cifar_a(), (3, 32, 32)) if row[0] != "ReLU"]
    assert rows == [
        ("Conv2d", (64, 30, 30), 1792),
        ("Flatten", (57600,), 0),
        ("Linear", (32,), 1_843_232),
        ("Linear", (10,), 330),
    ]
    assert parameters(cifar_a()) == 1_845_354
    # "Por que 30x30?", "Por que 1792?", "30x30x64=57600"
    assert 32 - 3 + 1 == 30 and (3 * 3 * 3 + 1) * 64 == 1792 and 30 * 30 * 64 == 57600


def test_cifar_net_b():
    """S1, "Capas Pooling": "la cantidad de parametros se redujo a un cuarto"."""
    rows = [row for row in table(cifar_b(), (3, 32, 32)) if row[0] != "ReLU"]
    assert rows == [
        ("Conv2d", (64, 30, 30), 1792),
        ("MaxPool2d", (64, 15, 15), 0),
        ("Flatten", (14400,), 0),
        ("Linear", (32,), 460_832),
        ("Linear", (10,), 330),
    ]
    assert parameters(cifar_b()) == 462_954
    assert parameters(cifar_b()) / parameters(cifar_a()) == pytest.approx(1 / 4, rel=0.01)


def test_deeper_cifar_net():
    """S1, "Modelo mas profundo": the sizes of the feature maps are printed, the parameters are not."""
    net = cifar_deeper()
    assert shapes(net, (3, 32, 32), {"MaxPool2d"}) == [(64, 16, 16), (64, 8, 8)]
    assert [p for _, _, p in table(net, (3, 32, 32)) if p] == [1792, 36_928, 524_416, 1290]
    assert parameters(net) == 564_426


def test_exercise_of_28_by_28():
    """S4, "Ejercicio": ((3x3)x1)x32 + 32 and ((3x3)x32)x64 + 64; pooling learns nothing."""
    net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU())
    rows = [row for row in table(net, (1, 28, 28)) if row[0] != "ReLU"]
    assert rows == [("Conv2d", (32, 26, 26), 320), ("MaxPool2d", (32, 13, 13), 0), ("Conv2d", (64, 11, 11), 18_496)]
    assert ((3 * 3) * 1) * 32 + 32 == 320 and ((3 * 3) * 32) * 64 + 64 == 18_496


def test_why_convolution():
    """S4: 76 parameters per filter, 456 for 6 of them, against 14.5 million for a dense layer with the same output."""
    layer = nn.Conv2d(3, 6, 5)
    assert parameters(nn.Conv2d(3, 1, 5)) == 5 * 5 * 3 + 1 == 76 and parameters(layer) == 76 * 6 == 456
    (plane,) = shapes(nn.Sequential(layer), (3, 32, 32), {"Conv2d"})
    assert plane == (6, 28, 28) and 6 * 28 * 28 == 4704 and 3 * 32 * 32 == 3072
    weights = dense_parameters(3072, 4704) - 4704  # the lecture leaves the biases out
    assert weights == 3072 * 4704 == 14_450_688


def test_shared_weights():
    """S4: "Con solo 9 parametros sacamos 16 valores"; "28 parametros (3x3x3+1)"."""
    filter = nn.Conv2d(1, 1, 3, bias=False)
    assert parameters(filter) == 9 and filter(np.zeros((1, 1, 6, 6), np.float32)).size == 16
    assert parameters(nn.Conv2d(3, 1, 3)) == 28
    two = nn.Conv2d(3, 2, 3, stride=2, padding=1)  # S0 and S4: 5x5x3, padded to 7x7x3 -> 3x3x2
    assert two(np.zeros((1, 3, 5, 5), np.float32)).shape == (1, 2, 3, 3) and parameters(two) == 2 * 28


def test_dense_layers_on_images():
    """S2: 256 x 256 x 2048 is "mayor que 134 millones"; S3: 28 x 28 = 784 inputs, receptive fields of 5 x 5."""
    weights = dense_parameters(256 * 256, 2048) - 2048
    assert weights == 256 * 256 * 2048 == 134_217_728 > 134e6
    image = np.zeros((1, 1, 28, 28), np.float32)
    assert nn.Flatten()(image).shape == (1, 784)
    assert nn.Conv2d(1, 1, 5)(image).shape[2:] == (24, 24) and nn.Conv2d(1, 1, 5, 2)(image).shape[2:] == (12, 12)


def test_shape_algebra():
    """S4, "Capa Convolucional": n - f + 1; n + 2p - f + 1; p = (f - 1) / 2; floor((n + 2p - f) / s + 1)."""

    def size(n, f, p=0, s=1):
        return conv_geometry("conv2d", 2, (1, 1, n, n), (1, 1, f, f), s, p, 1, 1, "channels_first").y_shape[2:]

    assert size(6, 3) == (4, 4)
    count = 0
    for n in range(1, 24):
        for f in range(1, n + 1):
            assert size(n, f) == (n - f + 1,) * 2
            if f % 2:
                assert size(n, f, (f - 1) // 2) == (n, n) == size(n, f, "same")
            for p in range(f):
                assert size(n, f, p) == (n + 2 * p - f + 1,) * 2
                for s in (2, 3, 5):
                    assert size(n, f, p, s) == (int((n + 2 * p - f) / s + 1),) * 2
                    count += 1
    assert count > 5000
    for n in (7, 8):  # "Tipicamente f=2, s=2", "al entero mas cercano por abajo"
        assert nn.MaxPool2d(2)(np.zeros((1, 1, n, n), np.float32)).shape[2:] == (n // 2,) * 2
        assert nn.AvgPool2d(2)(np.zeros((1, 1, n, n), np.float32)).shape[2:] == (n // 2,) * 2
    assert not list(nn.MaxPool2d(2).parameters()) and not list(nn.AvgPool2d(2).parameters())


def test_operations_of_inception():
    """S0, "Inception": a 5x5 convolution of 16x16, and the same behind a 1x1 that leaves one channel."""
    direct = macs("fwd n1 c3 h16 w16 k96 r5 s5 stride1 pad2 dil1 g1 nchw f32")
    narrow = macs("fwd n1 c3 h16 w16 k1 r1 s1 stride1 pad0 dil1 g1 nchw f32")
    behind = macs("fwd n1 c1 h16 w16 k96 r5 s5 stride1 pad2 dil1 g1 nchw f32")
    assert direct == 96 * 5 * 5 * 3 * 16 * 16 == 1_843_200
    assert narrow + behind == 16 * 16 * 3 + 16 * 16 * 5 * 5 * 96 == 615_168


def test_denoising_network():
    """S0, "59 capas": input, 20 convolutions, 18 batch norms, 19 ReLUs, regression; the map keeps its 50 x 50."""
    net = dncnn()
    rows = table(net, (1, 50, 50))
    assert len(rows) + 2 == 59
    kinds = [kind for kind, _, _ in rows]
    assert [kinds.count(kind) for kind in ("Conv2d", "BatchNorm2d", "ReLU")] == [20, 18, 19]
    assert {shape for _, shape, _ in rows[:-1]} == {(64, 50, 50)} and rows[-1][1] == (1, 50, 50)
    # "64 3x3x1 convolutions with stride [1 1] and padding [1 1 1 1]", "Weights [3x3x1x64]", "Bias [1x1x64]"
    first = net[0]
    assert first.weight.shape == (64, 1, 3, 3) and first.bias.shape == (64,)
    assert first.stride == (1, 1) and first.padding == (1, 1)
    assert parameters(net) == 640 + 18 * 36_928 + 18 * 128 + 577 == 668_225
    for side, giga in ((50, 1.662), (256, 43.56)):
        ends, middle = (macs(f"fwd n1 c{c} h{side} w{side} k64 r3 s3 stride1 pad1 dil1 g1 nchw f32") for c in (1, 64))
        assert (2 * ends + 18 * middle) / 1e9 == pytest.approx(giga, abs=0.005)


def test_matlabs_conv2_is_not_the_layer():
    """S0, `conv2(noisyI, Weights)`: the full convolution with the filter turned around, while the layer correlates."""
    w = np.array([[0.1201, 0.0118, 0.1693], [-0.0516, -0.0485, -0.1265], [-0.0307, -0.0603, 0.0029]])
    image = np.random.default_rng(0).uniform(size=(256, 256))
    full = fc.convolve(image, w, "full", "constant")
    layer = fc.conv2d(image[None, None], w[None, None], padding=1)[0, 0]
    assert full.shape == (258, 258) and layer.shape == (256, 256)
    assert not np.allclose(full[1:-1, 1:-1], layer)
    np.testing.assert_allclose(fc.convolve(image, w[::-1, ::-1], "full", "constant")[1:-1, 1:-1], layer, atol=1e-12)


def test_alexnet():
    """S0, "Arquitecturas de Redes Conocidas": the maps of the five convolutions, with overlapping pools of 3 / 2.

    Its "padding=1, stride=4 ... 55x55x96" holds for images of 225 to 228; without padding for 227 to 230. Layer 3 is
    printed with filters of 3x3x128, which would be two groups; the published net has 3x3x256.
    """
    net = alexnet_features()
    assert shapes(net, (3, 227, 227), {"Conv2d"}) == [
        (96, 55, 55),
        (256, 27, 27),
        (384, 13, 13),
        (384, 13, 13),
        (256, 13, 13),
    ]
    assert [net[i].weight.shape[1:] for i in (0, 3, 6, 8, 10)] == [
        (3, 11, 11), (48, 5, 5), (256, 3, 3), (192, 3, 3), (192, 3, 3),
    ]  # fmt: skip
    assert shapes(net, (3, 227, 227), {"MaxPool2d"}) == [(96, 27, 27), (256, 13, 13), (256, 6, 6)]
    for side, expected in ((224, 54), (225, 55), (228, 55), (229, 56)):
        geometry = conv_geometry("conv2d", 2, (1, 3, side, side), (96, 3, 11, 11), 4, 1, 1, 1, "channels_first")
        assert geometry.y_shape[2:] == (expected, expected)
    head = dense_parameters(256 * 6 * 6, 4096) + dense_parameters(4096, 4096) + dense_parameters(4096, 1000)
    assert parameters(net) + head == 60_965_224
    assert parameters(alexnet_features(groups=(1, 2, 2, 2, 2))) + head == 60_522_856  # as printed


def test_lenet():
    """S0: twice convolution, activation and pooling, then dense layers with activations."""
    kinds = [type(layer).__name__ for layer in fc.models.lenet5()]
    assert kinds == ["Conv2d", "Tanh", "AvgPool2d"] * 2 + ["Flatten"] + ["Linear", "Tanh"] * 2 + ["Linear"]
    assert parameters(fc.models.lenet5()) == 61_706


def test_true_convolution_formulas():
    """S1: f[x] * g[x] = sum over k of f[k] g[x - k], and the double sum in two dimensions."""
    f, g = np.array([1.0, 2, 3]), np.array([4.0, 5, 6, 7])
    expected = [sum(f[k] * g[x - k] for k in range(3) if 0 <= x - k < 4) for x in range(6)]
    assert_exact(fc.convolve(g, f, "full", "fill"), np.array(expected))
    assert_exact(np.convolve(f, g), np.array(expected))
    a, b = np.arange(12.0).reshape(3, 4), np.array([[1.0, -2], [3, 5]])
    double = [
        [
            sum(b[i, j] * a[y - i, x - j] for i in range(2) for j in range(2) if 0 <= y - i < 3 and 0 <= x - j < 4)
            for x in range(5)
        ]
        for y in range(4)
    ]
    assert_exact(fc.convolve(a, b, "full", "fill"), np.array(double))
