# SPDX-License-Identifier: Apache-2.0
"""The small networks that lectures begin with: dense ones, and the first convolutional ones in Keras.

Where the originals end in a softmax, these give logits, for `fc.nn.CrossEntropyLoss`, which has the softmax inside.
"""

from .. import nn


def linear(num_classes: int = 3, in_channels: int = 3, size: int = 32, bias: bool = True) -> nn.Sequential:
    """The linear classifier f(x) = W x of images (N, in_channels, size, size): scores (N, num_classes).

    N. Peretti, P. Pastore, "Redes convolucionales aplicadas a imágenes", section "Clasificador lineal": W x for images
    of 32 x 32 x 3 and three classes, printed without the bias (bias=False); 9,219 parameters with it, 9,216 MACs.
    """
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * size * size, num_classes, bias))


def logistic(in_channels: int = 1, size: int = 28) -> nn.Sequential:
    """The logistic regressor f(x) = sigmoid(w x + b) of images: the probability (N, 1) of the one class.

    Peretti and Pastore, section "Función de costo", whose loss -y log f - (1 - y) log(1 - f) is `fc.nn.BCELoss`.
    785 parameters, 784 MACs.
    """
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * size * size, 1), nn.Sigmoid())


def two_layer(
    num_classes: int = 10, in_channels: int = 1, size: int = 28, hidden: int = 100, bias: bool = True
) -> nn.Sequential:
    """The network of two layers f(x) = W' max(0, W x) of images (N, in_channels, size, size): scores (N, num_classes).

    Peretti and Pastore, section "Redes Neuronales", with the 784 inputs of "Red neuronal como clasificador de dígitos".
    How many hidden units there are is not printed. 79,510 parameters, 79,400 MACs.
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_channels * size * size, hidden, bias),
        nn.ReLU(),
        nn.Linear(hidden, num_classes, bias),
    )


def three_layer(
    num_classes: int = 10,
    in_channels: int = 1,
    size: int = 28,
    hidden: tuple[int, int] = (100, 100),
    bias: bool = True,
) -> nn.Sequential:
    """The network of three layers f(x) = W'' tanh(W' max(0, W x)) of images: scores (N, num_classes).

    Peretti and Pastore, section "Redes Neuronales"; see `two_layer`. 89,610 parameters, 89,400 MACs.
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_channels * size * size, hidden[0], bias),
        nn.ReLU(),
        nn.Linear(hidden[0], hidden[1], bias),
        nn.Tanh(),
        nn.Linear(hidden[1], num_classes, bias),
    )


def keras_cifar_a(num_classes: int = 10, in_channels: int = 3, size: int = 32) -> nn.Sequential:
    """One convolution and two dense layers for images (N, in_channels, size, size): logits (N, num_classes).

    F. Ronchetti, F. Quiroga, "Filtros convolucionales", 2019, section "Capa Convolucional sobre CIFAR10".
    1,845,354 parameters, 3,398,720 MACs.

    | layer       | output     | parameters |
    |-------------|------------|------------|
    | Conv2d 3x3  | 64 @ 30x30 | 1,792      |
    | Linear      | 32         | 1,843,232  |
    | Linear      | 10         | 330        |
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, 64, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (size - 2) ** 2, 32),
        nn.ReLU(),
        nn.Linear(32, num_classes),
    )


def keras_mnist(num_classes: int = 10, in_channels: int = 1, size: int = 28) -> nn.Sequential:
    """`keras_cifar_a` for digits: the one layer of 64 filters of the section "Capa convolucional en MNIST".

    That section prints the filters and the accuracies (0.98 in the test) but not the layers behind; these are the ones
    of its CIFAR-10 net. 1,385,450 parameters, 1,774,144 MACs.
    """
    return keras_cifar_a(num_classes, in_channels, size)


def keras_cifar_b(num_classes: int = 10, in_channels: int = 3, size: int = 32) -> nn.Sequential:
    """`keras_cifar_a` with max pooling behind the convolution, which leaves a quarter of the parameters.

    Ronchetti and Quiroga, section "Capas Pooling". 462,954 parameters, 2,016,320 MACs.

    | layer       | output     | parameters |
    |-------------|------------|------------|
    | Conv2d 3x3  | 64 @ 30x30 | 1,792      |
    | MaxPool2d 2 | 64 @ 15x15 |            |
    | Linear      | 32         | 460,832    |
    | Linear      | 10         | 330        |
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * ((size - 2) // 2) ** 2, 32),
        nn.ReLU(),
        nn.Linear(32, num_classes),
    )


def keras_cifar_deep(num_classes: int = 10, in_channels: int = 3, size: int = 32) -> nn.Sequential:
    """Two convolutions with pooling and two dense layers: logits (N, num_classes).

    Ronchetti and Quiroga, section 'Modelo más "profundo" para clasificar CIFAR10'. 564,426 parameters, 11,732,224 MACs.

    | layer             | output     | parameters |
    |-------------------|------------|------------|
    | Conv2d 3x3 'same' | 64 @ 32x32 | 1,792      |
    | MaxPool2d 2       | 64 @ 16x16 |            |
    | Conv2d 3x3 'same' | 64 @ 16x16 | 36,928     |
    | MaxPool2d 2       | 64 @ 8x8   |            |
    | Linear            | 128        | 524,416    |
    | Linear            | 10         | 1,290      |
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, 64, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (size // 4) ** 2, 128),
        nn.ReLU(),
        nn.Linear(128, num_classes),
    )


def keras_exercise(in_channels: int = 1) -> nn.Sequential:
    """The layers whose parameters an exercise asks for: x (N, in_channels, 28, 28) -> maps (N, 64, 11, 11).

    "Machine learning I: ConvNets", section "Ejercicio": 320, none and 18,496 parameters, 18,816 in all; 2,424,960 MACs.
    """
    return nn.Sequential(nn.Conv2d(in_channels, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU())
