# SPDX-License-Identifier: Apache-2.0
"""Every network of `fc.models` without a framework: counts, keys, outputs and gradients.

Outputs are compared with zoo_twins.py, the same networks in NumPy; gradients with central differences in random
directions of the whole parameter space. test_parity_models.py compares both with PyTorch.
"""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from cases import rng_for
from fastconv import nn
from tolerance import assert_close, assert_slope
from zoo import small, small_options
from zoo_layers import InNumPy
from zoo_twins import TWINS

FACTS = Path(__file__).resolve().parent / "facts"
NAMES = fc.models.list()
# name: (parameters, multiply-adds) at the size that the network was made for. The parameters are those that
# torchvision, the papers and the lectures give; multiply-adds in millions are in the papers (PUBLISHED).
COUNTS = {
    "alexnet": (61_100_840, 714_188_480),
    "alexnet_paper": (60_965_224, 724_406_816),
    "cifar_resnet20": (269_722, 40_551_040),
    "cifar_resnet56": (853_018, 125_485_696),
    "convnext_tiny": (28_589_128, 4_455_531_264),
    "dcgan_discriminator": (17_232_897, 638_992_384),
    "dcgan_generator": (18_855_043, 640_614_400),
    "dncnn": (668_225, 1_661_760_000),
    "efficientnet_lite0": (4_652_008, 385_187_552),
    "frrn_a": (17_712_307, 118_568_779_776),
    "googlenet": (13_004_888, 1_498_376_192),
    "hed": (14_716_171, 80_211_607_552),
    "inception_naive": (387_296, 303_464_448),
    "keras_cifar_a": (1_845_354, 3_398_720),
    "keras_cifar_b": (462_954, 2_016_320),
    "keras_cifar_deep": (564_426, 11_732_224),
    "keras_exercise": (320 + 18_496, 2_424_960),
    "keras_mnist": (1_385_450, 1_774_144),
    "lenet5": (61_706, 416_520),
    "linear": (9_219, 9_216),
    "logistic": (785, 784),
    "mobilenet_v1": (4_231_976, 568_740_352),
    "mobilenet_v2": (3_504_872, 300_774_272),
    "overfeat": (145_920_872, 2_801_403_904),
    "plain34": (21_623_848, 3_644_493_824),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet101": (44_549_160, 7_801_405_440),
    "resnet152": (60_192_808, 11_513_626_624),
    "squeezenet1_1": (1_235_496, 349_151_936),
    "three_layer": (89_610, 89_400),
    "two_layer": (79_510, 79_400),
    "unet": (31_030_658, 150_428_424_448),
    "upconv_7": (552_483, 9_521_953_536),
    "vgg11": (132_863_336, 7_609_090_048),
    "vgg11_bn": (132_868_840, 7_609_090_048),
    "vgg13": (133_047_848, 11_308_466_176),
    "vgg13_bn": (133_053_736, 11_308_466_176),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg16_bn": (138_365_992, 15_470_264_320),
    "vgg19": (143_667_240, 19_632_062_464),
    "vgg19_bn": (143_678_248, 19_632_062_464),
    "yolo_grid": (395_160, 46_467_072),
}
# (name, figure of the paper, in what unit, of which count): rounded there, or cut off.
PUBLISHED = [
    ("alexnet_paper", "60", 1e6, 0),  # section 1
    ("cifar_resnet20", "0.27", 1e6, 0),  # He et al. 2016, table 6
    ("cifar_resnet56", "0.85", 1e6, 0),
    ("convnext_tiny", "29", 1e6, 0),  # Liu et al. 2022, table 9
    ("convnext_tiny", "4.5", 1e9, 1),
    ("frrn_a", "17.7", 1e6, 0),  # Pohlen et al. 2017, section 4
    ("mobilenet_v1", "4.2", 1e6, 0),  # table 8
    ("mobilenet_v1", "569", 1e6, 1),
    ("mobilenet_v2", "300", 1e6, 1),  # section 1 and table 4
    ("plain34", "3.6", 1e9, 1),  # table 1
    ("resnet18", "1.8", 1e9, 1),
    ("vgg11", "133", 1e6, 0),  # Simonyan and Zisserman 2014, table 2
    ("vgg13", "133", 1e6, 0),
    ("vgg16", "138", 1e6, 0),
    ("vgg19", "144", 1e6, 0),
]


def unfilled(name, **options):
    with nn.init.skip():
        return fc.models.build(name, **options)


def counts(name):
    s = fc.summary(unfilled(name), fc.models.input_shape(name))
    return s.parameters, s.macs


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_those_of_the_docstring(name):
    parameters, macs = counts(name)
    assert COUNTS.get(name, (parameters, macs)) == (parameters, macs)
    text = getattr(fc.models, name).__doc__
    assert f"{parameters:,}" in text and f"{macs:,}" in text


@pytest.mark.parametrize(("name", "printed", "unit", "which"), PUBLISHED)
def test_counts_are_those_of_the_paper(name, printed, unit, which):
    last_digit = 10.0 ** -len(printed.partition(".")[2])
    assert -last_digit / 2 < COUNTS[name][which] / unit - float(printed) < last_digit


def test_counts_of_googlenet_without_its_auxiliary_classifiers():
    model = unfilled("googlenet", aux_logits=False)
    s = fc.summary(model, (3, 224, 224))
    assert (s.parameters, s.macs, s.idle) == (6_624_904, COUNTS["googlenet"][1], {})
    with_them = fc.summary(unfilled("googlenet"), (3, 224, 224))
    assert list(with_them.idle) == ["aux1", "aux2"] and sum(with_them.idle.values()) == 6_379_984
    model = unfilled("googlenet", aux_logits=False, kernel_size5=5)
    larger = fc.summary(model, (3, 224, 224)).parameters - s.parameters
    pairs = [(16, 32), (32, 96), (16, 48), (24, 64), (24, 64), (32, 64), (32, 128), (32, 128), (48, 128)]
    assert larger == sum((25 - 9) * reduced * filters for reduced, filters in pairs)


KEYS = json.loads((FACTS / "torchvision_keys.json").read_text(encoding="utf-8"))


def digest_of(shapes):
    """Of the keys of a state dict with their shapes, in alphabetical order."""
    lines = [f"{key} {tuple(shape)}" for key, shape in sorted(shapes.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("name", sorted(KEYS.keys() & set(NAMES)))
def test_keys_and_shapes_are_those_of_torchvision(name):
    state = {key: value.shape for key, _, _, value in unfilled(name)._state(saved=True)}
    assert (len(state), digest_of(state)) == (KEYS[name]["keys"], KEYS[name]["sha256"])


@pytest.mark.parametrize("name", sorted(TWINS))
def test_outputs_are_those_of_the_twin_in_numpy(name):
    model, x = small(name)
    f = InNumPy(model.state_dict())
    expected = TWINS[name](f, x)
    assert_close(model(x).data, expected, "model", what=name)
    in_training = ("aux1.", "aux2.")
    assert [key for key in f.state if key not in f.used and not key.startswith(in_training)] == []


def test_googlenet_in_training_gives_three_answers():
    model, x = small("googlenet", dropout=0.0, dropout_aux=0.0, kernel_size5=5)
    f = InNumPy(model.state_dict(), training=True)
    expected = TWINS["googlenet"](f, x, size5=5)
    outputs = model.train()(x)
    for actual, wanted in zip(outputs, expected, strict=True):
        assert_close(actual.data, wanted, "model")
    assert f.used == f.state.keys()
    assert outputs.logits is outputs[0] and outputs.aux_logits2 is outputs[1] and outputs.aux_logits1 is outputs[2]
    labels = np.array([3, 0])
    losses = [fc.reference.cross_entropy(wanted, labels)[0].mean() for wanted in expected]
    total = np.asarray(losses[0] + 0.3 * (losses[1] + losses[2]))
    assert_close(fc.models.auxiliary_loss(outputs, labels).data, total, "model")
    plain = fc.models.auxiliary_loss(outputs.logits, labels).data
    assert_close(plain, np.asarray(losses[0]), "model")


def test_googlenet_takes_images_normalised_for_others():
    model, x = small("googlenet", transform_input=True)
    plain, _ = small("googlenet")
    pixels = x * np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1) + np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1)
    assert_close(model(x).data, plain((pixels - 0.5) / 0.5).data, "model")


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_slopes(name):
    """Of the parameters together and of the image, in random directions."""
    model, x = small(name)
    x = fc.Tensor(x, requires_grad=True)
    tensors = [x, *model.parameters()]
    rng = rng_for(f"{name} slopes")
    directions = [rng.standard_normal(t.shape) * (np.abs(t.data).mean() + 1e-3) for t in tensors]
    y = model(x)
    dy = rng.standard_normal(y.shape)
    y.backward(fc.Tensor(dy))
    for part, group in (("image", [0]), ("parameters", range(1, len(tensors)))):
        exact = [0.0 if tensors[i].grad is None else np.sum(tensors[i].grad.data * directions[i]) for i in group]

        def value(step, group=group):
            kept = [tensors[i].data for i in group]
            for i in group:
                tensors[i].data = tensors[i].data + step * directions[i]
            with fc.no_grad():
                result = float(np.sum(model(x).data * dy))
            for i, data in zip(group, kept, strict=True):
                tensors[i].data = data
            return result

        assert_slope(value, sum(exact), np.abs(exact).sum(), what=f"{name}, {part}")


@pytest.mark.parametrize("name", NAMES)
def test_float32_and_batches_do_not_change_answers(name):
    model, x = small(name)
    exact = model(x).data
    model.float()
    x = x.astype(np.float32)
    y = model(x).data
    assert y.dtype == np.float32
    assert_close(y, exact, "model", what=name)
    for i in range(2):
        assert_close(model(x[i : i + 1]).data, y[i : i + 1], "parity", what=f"{name}, image {i} alone")


# Narrow and without batch norm, they need more than a dozen steps; Simonyan and Zisserman began their deep ones with
# weights of the trained shallow one.
SLOW_LEARNERS = {"alexnet_paper", "vgg11", "vgg13", "vgg16", "vgg19"}


def classifiers():
    """Those that give one score per class."""
    for name in fc.models.list("num_classes"):
        rows = fc.summary(unfilled(name), fc.models.input_shape(name)).rows
        if len(rows[-1].output_shape) == 1 and name not in SLOW_LEARNERS:
            yield name


@pytest.mark.parametrize("name", list(classifiers()))
def test_learns_a_batch(name):
    """In training, from its own initial values: some steps of Adam bring the loss down."""
    fc.manual_seed(7)
    options, shape = small_options(name)
    dropouts = {word: 0.0 for word in ("dropout", "dropout_aux") if name in fc.models.list(word)}
    model = fc.models.build(name, num_classes=3, **options, **dropouts)
    x = rng_for(name).standard_normal((6, *shape)).astype(np.float32)
    loader = [(x, np.array([0, 1, 2, 0, 1, 2]))] * 12
    optimizer = fc.optim.Adam(model.parameters(), lr=2e-3)
    history = fc.train.fit(model, loader, optimizer=optimizer, loss=fc.models.auxiliary_loss, epochs=1, progress=False)
    first, last = history.iteration_loss[0], min(history.iteration_loss[-2:])
    assert last < 0.9 * first


def test_initial_values():
    """Deviations as torchvision's, or the paper's, formulas say; float32 sums of thousands of draws."""
    fc.manual_seed(5)

    def deviation(w):
        return float(np.std(w.data))

    vgg = fc.models.vgg11(10, width_mult=1 / 4)
    assert deviation(vgg.features[6].weight) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert deviation(vgg.classifier[0].weight) == pytest.approx(0.01, rel=0.02)
    assert not vgg.classifier[0].bias.data.any() and not vgg.features[0].bias.data.any()
    resnet = fc.models.resnet18(width_mult=1 / 2, zero_init_residual=True)
    assert deviation(resnet.layer2[1].conv1.weight) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert not resnet.layer2[0].bn2.weight.data.any() and resnet.layer2[0].bn1.weight.data.all()
    assert np.abs(resnet.fc.weight.data).max() == pytest.approx(1 / math.sqrt(256), rel=0.01)
    bottlenecks = fc.models.resnet50(width_mult=1 / 8, zero_init_residual=True)
    assert not bottlenecks.layer1[0].bn3.weight.data.any() and bottlenecks.layer1[0].bn2.weight.data.all()
    mobile = fc.models.mobilenet_v2()
    assert deviation(mobile.features[5].conv[1][0].weight) == pytest.approx(math.sqrt(2 / (192 * 9)), rel=0.05)
    assert deviation(mobile.classifier[1].weight) == pytest.approx(0.01, rel=0.02)
    googlenet = fc.models.googlenet(width_mult=1 / 2)
    assert deviation(googlenet.inception4a.branch2[1].conv.weight) == pytest.approx(0.01, rel=0.03)
    assert deviation(googlenet.fc.weight) == pytest.approx(0.01, rel=0.02) and googlenet.fc.bias.data.any()
    paper = fc.models.alexnet_paper(width_mult=1 / 4)
    layers = [layer for part in (paper.features, paper.classifier) for layer in part if hasattr(layer, "weight")]
    assert [float(layer.bias.data[0]) for layer in layers] == [0, 1, 0, 1, 1, 1, 1, 0]
    assert all(deviation(layer.weight) == pytest.approx(0.01, rel=0.05) for layer in layers)


def test_init_skip_draws_nothing_and_ends():
    state = fc.random.get_state()
    with nn.init.skip():
        made = [fc.models.vgg19_bn(), nn.Conv2d(3, 4, 3), nn.Linear(3, 4)]
        nn.init.constant(made[1].weight, 7.0)
        assert not (made[1].weight.data == 7).all()
    assert fc.random.get_state() == state
    nn.init.constant(made[1].weight, 7.0)
    assert (made[1].weight.data == 7).all()
    nn.Linear(3, 4)
    assert fc.random.get_state() != state


def test_a_classifier_of_windows_runs_over_a_whole_image():
    """OverFeat's way with the AlexNet of the paper: the same as the loop over windows, every 32 pixels."""
    fc.manual_seed(2)
    model = fc.models.alexnet_paper(5, width_mult=1 / 16).eval()
    converted = nn.to_convolutional(model, (3, 227, 227), exact=False)
    x = rng_for("windows").standard_normal((1, 3, 227, 259)).astype(np.float32)
    assert converted(x).shape == (1, 5, 1, 2)
    assert_close(converted(x[..., :227].copy()).data[..., 0, 0], model(x[..., :227].copy()).data, "model")
    unpadded = fc.models.keras_cifar_b(5, size=12).eval()
    everywhere = nn.to_convolutional(unpadded, (3, 12, 12))
    x = rng_for("places").standard_normal((1, 3, 16, 20)).astype(np.float32)
    y = everywhere(x).data
    assert y.shape == (1, 5, 3, 5)
    for row, column in np.ndindex(3, 5):
        window = x[:, :, 2 * row : 2 * row + 12, 2 * column : 2 * column + 12].copy()
        assert_close(y[..., row, column], unpadded(window).data, "model")
