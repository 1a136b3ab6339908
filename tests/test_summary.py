# SPDX-License-Identifier: Apache-2.0
"""`fc.summary` prints the tables of the lectures, and counts as they do."""

import json
import re

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn
from fastconv.cli import main

# "Capa Convolucional sobre CIFAR10": the table of net B as Keras printed it, and what the lecture shows of net A's.
KERAS_B = """\
_________________________________________________________________
Layer (type)                 Output Shape              Param #
=================================================================
conv2d_1 (Conv2D)            (None, 30, 30, 64)        1792
_________________________________________________________________
max_pooling2d_1 (MaxPooling2 (None, 15, 15, 64)        0
_________________________________________________________________
flatten_1 (Flatten)          (None, 14400)             0
_________________________________________________________________
dense_1 (Dense)              (None, 32)                460832
_________________________________________________________________
dense_2 (Dense)              (None, 10)                330
=================================================================
Total params: 462,954
Trainable params: 462,954
Non-trainable params: 0
_________________________________________________________________
Multiply-adds: 2,016,320
Activation memory: 518,696 bytes per input"""
KERAS_A = """\
Layer (type)	Output Shape	Param #
conv2d_1 (Conv2D)	(None, 30, 30, 64)	1792
flatten_1 (Flatten)	(None, 57600)	0
dense_1 (Dense)	(None, 32)	1843232
dense_2 (Dense)	(None, 10)	330
Total params: 1,845,354
Trainable params: 1,845,354
Non-trainable params: 0"""

# "59 capas": the rows that the lecture prints of DnCNN (row 7 has "&" for "and" there), and its second layer.
MATLAB = """\
1	'InputLayer'	Image Input	50x50x1 images
2	'Conv1'	Convolution	64 3x3x1 convolutions with stride [1 1] and padding [1 1 1 1]
3	'ReLU1'	ReLU	ReLU
4	'Conv2'	Convolution	64 3x3x64 convolutions with stride [1 1] and padding [1 1 1 1]
5	'BNorm2'	Batch Normalization	Batch normalization with 64 channels
6	'ReLU2'	ReLU	ReLU
7	'Conv3'	Convolution	64 3x3x64 convolutions with stride [1 1] and padding [1 1 1 1]
8	'BNorm3'	Batch Normalization	Batch normalization with 64 channels
9	'ReLU3'	ReLU	ReLU
10	'Conv4'	Convolution	64 3x3x64 convolutions with stride [1 1] and padding [1 1 1 1]
11	'BNorm4'	Batch Normalization	Batch normalization with 64 channels
12	'ReLU4'	ReLU	ReLU
57	'ReLU19'	ReLU	ReLU
58	'Conv20'	Convolution	1 3x3x64 convolutions with stride [1 1] and padding [1 1 1 1]
59	'FinalRegressionLayer'	Regression Output	mean-squared-error"""
MATLAB_LAYER = """\
Convolution2DLayer with properties:

              Name: 'Conv1'

   Hyperparameters
        FilterSize: [3 3]
       NumChannels: 1
        NumFilters: 64
            Stride: [1 1]
       PaddingMode: 'manual'
       PaddingSize: [1 1 1 1]

   Learnable Parameters
           Weights: [3×3×1×64 single]
              Bias: [1×1×64 single]"""


def dncnn():
    """The lecture's: 20 convolutions, 18 of them with batch norm."""
    middle = [layer for _ in range(18) for layer in (nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())]
    first, last = nn.Conv2d(1, 64, 3, padding=1), nn.Conv2d(64, 1, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), *middle, last)


def tabbed(text):
    """Columns that are two or more blanks apart, as the lectures' text has them; without lines and empty lines."""
    lines = [re.sub(r" {2,}", "\t", line.strip()) for line in text.splitlines()]
    return [line for line in lines if line.strip("_=")]


def test_keras_table_as_printed():
    assert str(fc.summary(fc.models.keras_cifar_b(), (3, 32, 32))) == KERAS_B
    printed = tabbed(str(fc.summary(fc.models.keras_cifar_a(), (3, 32, 32))))
    assert printed[:-2] == KERAS_A.splitlines()
    exercise = fc.summary(fc.models.keras_exercise(), (1, 28, 28))
    assert [row.parameters for row in exercise.rows] == [320, 0, 0, 18_496, 0]
    deep = fc.summary(fc.models.keras_cifar_deep(), (3, 32, 32))
    assert [row.output_shape for row in deep.rows][2:6:3] == [(64, 16, 16), (64, 8, 8)]


def test_matlab_table_as_printed():
    s = fc.summary(dncnn(), (1, 50, 50), "matlab", loss=nn.MSELoss())
    lines = str(s).splitlines()
    assert lines[:2] == ["59x1 Layer array with layers:", ""] and lines[61] == ""
    rows = [re.sub(r" {3,}", "\t", line.strip()) for line in lines[2:61]]
    assert [rows[i] for i in (*range(12), 56, 57, 58)] == MATLAB.splitlines()
    assert [int(row.split("\t")[0]) for row in rows] == list(range(1, 60))
    assert lines[2] == "    1   'InputLayer'             Image Input           50x50x1 images"
    assert lines[62:] == [
        "Learnable parameters: 668,225",
        "Multiply-adds: 1,661,760,000",
        "Activation memory: 35,850,000 bytes per input",
    ]
    mae = fc.summary(dncnn(), (1, 50, 50), "matlab", loss=nn.L1Loss())
    assert str(mae).splitlines()[60].endswith("'FinalRegressionLayer'   Regression Output     mean-absolute-error")


def test_one_layer_as_printed():
    s = fc.summary(dncnn(), (1, 50, 50), "matlab", loss=nn.MSELoss())
    assert s.layer(2) == MATLAB_LAYER
    assert s.layer(1) == (
        "ImageInputLayer with properties:\n\n"
        "              Name: 'InputLayer'\n\n   Hyperparameters\n         InputSize: [50 50 1]"
    )
    assert s.layer(5).startswith("BatchNormalizationLayer") and "NumChannels: 64" in s.layer(5)
    assert s.layer(3) == "ReLULayer with properties:\n\n              Name: 'ReLU1'"
    assert s.layer(59).startswith("RegressionOutputLayer")
    for number in (0, 60):
        with pytest.raises(fc.ProblemError, match=f"layer: number is {number}; expected 1 to 59"):
            s.layer(number)


def test_counts_of_the_lectures():
    net = dncnn()
    assert fc.summary(net, (1, 256, 256)).macs == 43_562_041_344  # 43.56 GMAC
    assert fc.summary(net, (1, 50, 50)).macs == 1_661_760_000  # 1.662 GMAC
    plain = nn.Conv2d(3, 96, 5, padding="same")
    assert fc.summary(plain, (3, 16, 16)).macs == 1_843_200
    reduced = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 96, 5, padding="same"))
    assert fc.summary(reduced, (3, 16, 16)).macs == 615_168


def test_counts_of_other_layers():
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, groups=2, bias=False),
        nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1),
        nn.Conv2d(6, 6, 3, dilation=2, groups=6, padding=((1, 2), (0, 3))),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(6 * 11 * 11, 5, bias=False),
    )
    s = fc.summary(model, (4, 13, 13), "matlab")
    macs = [8 * 36 * 2 * 9, 8 * 36 * 6 * 16, 6 * 11 * 11 * 9, 0, 0, 6 * 121 * 5]
    assert [row.macs for row in s.rows] == macs and s.macs == sum(macs)
    assert [row.parameters for row in s.rows] == [8 * 2 * 9, 8 * 6 * 16 + 6, 6 * 9 + 6, 0, 0, 6 * 121 * 5]
    assert [row.activation_bytes for row in s.rows] == [4 * 8 * 36, 4 * 6 * 144, 4 * 6 * 121, 0, 0, 4 * 5]
    words = [re.split(r" {3,}", line.strip())[2:] for line in str(s).splitlines()[2:9]]
    assert words == [
        ["Image Input", "13x13x4 images"],
        ["Grouped Convolution", "2 groups of 4 3x3x2 convolutions with stride [2 2] and padding [0 0 0 0]"],
        ["Transposed Convolution", "6 4x4x8 transposed convolutions with stride [2 2] and cropping [1 1 1 1]"],
        [
            "Grouped Convolution",
            "6 groups of 1 3x3x1 convolutions with stride [1 1], dilation factor [2 2], and padding [1 2 0 3]",
        ],
        ["Flatten", "Flatten"],
        ["Dropout", "25% dropout"],
        ["Fully Connected", "5 fully connected layer"],
    ]
    assert "NumGroups: 2" in s.layer(2) and "Weights: [3×3×2×4×2 single]" in s.layer(2) and "Bias" not in s.layer(2)
    assert "DilationFactor: [2 2]" in s.layer(4) and "InputSize: 726" in s.layer(7)
    keras = str(fc.summary(model, (4, 13, 13)))
    for name in (
        "conv2d_1 (Conv2D)",
        "conv2d_transpose_1 (Conv2DTr",
        "depthwise_conv2d_1 (Depthwis",
        "dropout_1 (Dropout)",
    ):
        assert name in keras
    doubles = fc.summary(model.double(), (4, 13, 13))
    assert doubles.activation_bytes == 2 * s.activation_bytes and "double" in doubles.layer(2)


def test_activations_are_rows_where_keras_has_no_argument_for_them():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.PReLU())
    names = [line.split(" (")[0] for line in str(fc.summary(model, (1, 5, 5))).splitlines() if "_1 (" in line]
    assert names == ["conv2d_1", "batch_normalization_1", "re_lu_1", "global_average_pooling2d_1", "p_re_lu_1"]


def test_shared_layers_count_once_and_frozen_ones_do_not_learn():
    shared = nn.Linear(4, 4)
    shared.bias.requires_grad = False
    s = fc.summary(nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh()), (4,), "matlab")
    assert [row.parameters for row in s.rows] == [20, 0, 0, 0]
    assert (s.parameters, s.trainable, s.macs) == (20, 16, 32)
    assert [line.split("'")[1] for line in str(s).splitlines()[3:7]] == ["FC1", "Tanh1", "FC2", "Tanh2"]
    twice = fc.summary(nn.Sequential(nn.Tanh(), nn.Tanh(), nn.Tanh()), (4,), "matlab")
    assert [line.split("'")[1] for line in str(twice).splitlines()[3:6]] == ["Tanh0", "Tanh0_1", "Tanh0_2"]


def test_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Sequential(nn.ReLU()))
    model[1].eval()
    before, state = model.state_dict(), fc.random.get_state()
    fc.summary(model, (1, 8, 8))
    with pytest.raises(fc.ProblemError, match="x has 3"):
        fc.summary(model, (3, 8, 8))
    assert [m.training for m in model.modules()] == [True, True, False, True, True, True]
    assert all(np.array_equal(before[key], value) for key, value in model.state_dict().items())
    assert fc.random.get_state() == state and not any(m._hooks for m in model.modules())


def test_refusals():
    with pytest.raises(TypeError, match="summary: model is a int; expected a Module"):
        fc.summary(3, (1, 8, 8))
    with pytest.raises(fc.ProblemError, match="summary: style is 'torch'; expected one of keras, matlab"):
        fc.summary(nn.ReLU(), (1, 8, 8), "torch")


def test_command(capsys):
    assert main(["summary", "keras_cifar_b"]) == 0
    assert capsys.readouterr().out == KERAS_B + "\n"
    assert main(["summary", "resnet18", "--input", "1x64x64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 11_689_512 - 2 * 64 * 49 and found["layers"][0]["output_shape"] == [64, 32, 32]
    assert main(["summary", "lenet5", "--style", "matlab", "--input", "1x32x32"]) == 0
    assert capsys.readouterr().out.startswith("13x1 Layer array with layers:")
    assert main(["summary", "lenet5", "--input", "1x64x64"]) == 1
    for wrong in (["lenet6"], ["lenet5", "--input", "1,2"]):
        with pytest.raises(SystemExit, match="2"):
            main(["summary", *wrong])
