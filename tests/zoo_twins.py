# SPDX-License-Identifier: Apache-2.0
"""The networks of `fc.models` once more, as functions of an image and a state dict, written from the papers.

Each takes the layers f of zoo_layers.py, NumPy's or PyTorch's, and shares no code with fastconv's layers or networks.
"""

from functools import partial

import zoo_images


def linear(f, x):
    return f.dense(f.flat(x), "1")


def logistic(f, x):
    return f.activation("sigmoid", f.dense(f.flat(x), "1"))


def two_layer(f, x):
    return f.dense(f.relu(f.dense(f.flat(x), "1")), "3")


def three_layer(f, x):
    hidden = f.relu(f.dense(f.flat(x), "1"))
    return f.dense(f.activation("tanh", f.dense(hidden, "3")), "5")


def keras_cifar_a(f, x):
    x = f.relu(f.conv(x, "0"))
    return f.dense(f.relu(f.dense(f.flat(x), "3")), "5")


def keras_cifar_b(f, x):
    x = f.max_pool(f.relu(f.conv(x, "0")), 2, 2)
    return f.dense(f.relu(f.dense(f.flat(x), "4")), "6")


def keras_cifar_deep(f, x):
    x = f.max_pool(f.relu(f.conv(x, "0", padding=1)), 2, 2)
    x = f.max_pool(f.relu(f.conv(x, "3", padding=1)), 2, 2)
    return f.dense(f.relu(f.dense(f.flat(x), "7")), "9")


def keras_exercise(f, x):
    return f.relu(f.conv(f.max_pool(f.relu(f.conv(x, "0")), 2, 2), "3"))


def lenet5(f, x):
    x = f.avg_pool(f.activation("tanh", f.conv(x, "0")), 2)
    x = f.flat(f.avg_pool(f.activation("tanh", f.conv(x, "3")), 2))
    for key in ("7", "9"):
        x = f.activation("tanh", f.dense(x, key))
    return f.dense(x, "11")


def dense_tail(f, x, keys):
    for key in keys[:-1]:
        x = f.relu(f.dense(x, f"classifier.{key}"))
    return f.dense(x, f"classifier.{keys[-1]}")


def alexnet(f, x):
    x = f.max_pool(f.relu(f.conv(x, "features.0", 4, 2)), 3, 2)
    x = f.max_pool(f.relu(f.conv(x, "features.3", padding=2)), 3, 2)
    for key in (6, 8, 10):
        x = f.relu(f.conv(x, f"features.{key}", padding=1))
    x = f.adaptive(f.max_pool(x, 3, 2), 6)
    return dense_tail(f, f.flat(x), (1, 4, 6))


def alexnet_paper(f, x):
    def normalized(x):
        return f.response_norm(x, 5, 5 * 1e-4, 0.75, 2)  # the paper's alpha is not divided by n

    x = f.max_pool(normalized(f.relu(f.conv(x, "features.0", 4))), 3, 2)
    x = f.max_pool(normalized(f.relu(f.conv(x, "features.4", 1, 2, 2))), 3, 2)
    for key, groups in ((8, 1), (10, 2), (12, 2)):
        x = f.relu(f.conv(x, f"features.{key}", 1, 1, groups))
    return dense_tail(f, f.flat(f.max_pool(x, 3, 2)), (1, 4, 6))


def vgg(f, x, plan, norm=False):
    """plan: convolutions of each block."""
    at = 0
    for convolutions in plan:
        for _ in range(convolutions):
            x = f.conv(x, f"features.{at}", padding=1)
            x = f.relu(f.norm(x, f"features.{at + 1}") if norm else x)
            at += 3 if norm else 2
        x = f.max_pool(x, 2, 2)
        at += 1
    return dense_tail(f, f.flat(f.adaptive(x, 7)), (0, 3, 6))


def resnet(f, x, plan, bottleneck=False, plain=False):
    """plan: blocks of each stage."""
    x = f.conv_norm_relu(x, "conv1", "bn1", 2, 3)
    x = f.max_pool(x, 3, 2, 1)
    for stage, blocks in enumerate(plan, 1):
        for block in range(blocks):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            if bottleneck:
                y = f.conv_norm_relu(x, f"{at}.conv1", f"{at}.bn1")
                y = f.conv_norm_relu(y, f"{at}.conv2", f"{at}.bn2", stride, 1)
                y = f.norm(f.conv(y, f"{at}.conv3"), f"{at}.bn3")
            else:
                y = f.conv_norm_relu(x, f"{at}.conv1", f"{at}.bn1", stride, 1)
                y = f.norm(f.conv(y, f"{at}.conv2", 1, 1), f"{at}.bn2")
            if plain:
                x = f.relu(y)
                continue
            if block == 0 and (stage > 1 or bottleneck):
                x = f.norm(f.conv(x, f"{at}.downsample.0", stride), f"{at}.downsample.1")
            x = f.relu(x + y)
    return f.dense(f.mean(x), "fc")


def cifar_resnet(f, x, blocks):
    x = f.conv_norm_relu(x, "conv1", "bn1", 1, 1)
    for stage in (1, 2, 3):
        for block in range(blocks):
            at, halves = f"layer{stage}.{block}", stage > 1 and block == 0
            y = f.conv_norm_relu(x, f"{at}.conv1", f"{at}.bn1", 2 if halves else 1, 1)
            y = f.norm(f.conv(y, f"{at}.conv2", 1, 1), f"{at}.bn2")
            if halves:  # option A: no parameters
                x = x[:, :, ::2, ::2]
                x = f.concat([x, f.zeros(x, x.shape[1])])
            x = f.relu(x + y)
    return f.dense(f.mean(x), "fc")


def inception(f, x, at, size5):
    def unit(x, key, padding=0):
        return f.conv_norm_relu(x, f"{at}.{key}.conv", f"{at}.{key}.bn", 1, padding, eps=1e-3)

    return f.concat(
        [
            unit(x, "branch1"),
            unit(unit(x, "branch2.0"), "branch2.1", 1),
            unit(unit(x, "branch3.0"), "branch3.1", size5 // 2),
            unit(f.max_pool(x, 3, 1, 1, ceil_mode=True), "branch4.1"),
        ]
    )


def googlenet(f, x, size5=3):
    """In training (logits, second auxiliary logits, first ones)."""

    def unit(x, key, stride=1, padding=0):
        return f.conv_norm_relu(x, f"{key}.conv", f"{key}.bn", stride, padding, eps=1e-3)

    def side(x, key):
        x = unit(f.adaptive(x, 4), f"{key}.conv")
        return f.dense(f.relu(f.dense(f.flat(x), f"{key}.fc1")), f"{key}.fc2")

    auxiliary = {}
    x = f.max_pool(unit(x, "conv1", 2, 3), 3, 2, ceil_mode=True)
    x = f.max_pool(unit(unit(x, "conv2"), "conv3", 1, 1), 3, 2, ceil_mode=True)
    for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        x = inception(f, x, f"inception{name}", size5)
        if f.training and name in ("4a", "4d"):
            auxiliary[name] = side(x, {"4a": "aux1", "4d": "aux2"}[name])
        if name in ("3b", "4e"):
            x = f.max_pool(x, {"3b": 3, "4e": 2}[name], 2, ceil_mode=True)
    logits = f.dense(f.mean(x), "fc")
    return (logits, auxiliary["4d"], auxiliary["4a"]) if f.training else logits


def inception_naive(f, x):
    filters = [f.relu(f.conv(x, f"branch{i}", 1, i - 1)) for i in (1, 2, 3)]
    return f.concat([*filters, f.max_pool(x, 3, 1, 1)])


def mobilenet_v1(f, x):
    x = f.conv_norm_relu(x, "features.0.0", "features.0.1", 2, 1)
    for i in range(1, 14):
        at = f"features.{i}"
        x = f.conv_norm_relu(x, f"{at}.0.0", f"{at}.0.1", 2 if i in (2, 4, 6, 12) else 1, 1, x.shape[1])
        x = f.conv_norm_relu(x, f"{at}.1.0", f"{at}.1.1")
    return f.dense(f.mean(x), "classifier.1")


def mobilenet_v2(f, x):
    x = f.conv_norm_relu(x, "features.0.0", "features.0.1", 2, 1, then="relu6")
    at = 1
    for count, stride in ((1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)):
        for block in range(count):
            key, y = f"features.{at}.conv", x
            last = 2 if at > 1 else 1  # the first block does not widen
            if at > 1:
                y = f.conv_norm_relu(y, f"{key}.0.0", f"{key}.0.1", then="relu6")
            step = stride if block == 0 else 1
            y = f.conv_norm_relu(
                y, f"{key}.{last - 1}.0", f"{key}.{last - 1}.1", step, 1, groups=y.shape[1], then="relu6"
            )
            y = f.norm(f.conv(y, f"{key}.{last}"), f"{key}.{last + 1}")
            x = x + y if x.shape == y.shape else y
            at += 1
    x = f.conv_norm_relu(x, f"features.{at}.0", f"features.{at}.1", then="relu6")
    return f.dense(f.mean(x), "classifier.1")


VGG = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2,) * 5, "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
TWINS = {
    "alexnet": alexnet,
    "alexnet_paper": alexnet_paper,
    "cifar_resnet20": partial(cifar_resnet, blocks=3),
    "cifar_resnet56": partial(cifar_resnet, blocks=9),
    "googlenet": googlenet,
    "inception_naive": inception_naive,
    "keras_cifar_a": keras_cifar_a,
    "keras_cifar_b": keras_cifar_b,
    "keras_cifar_deep": keras_cifar_deep,
    "keras_exercise": keras_exercise,
    "keras_mnist": keras_cifar_a,
    "lenet5": lenet5,
    "linear": linear,
    "logistic": logistic,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "plain34": partial(resnet, plan=(3, 4, 6, 3), plain=True),
    "resnet18": partial(resnet, plan=(2, 2, 2, 2)),
    "resnet34": partial(resnet, plan=(3, 4, 6, 3)),
    "resnet50": partial(resnet, plan=(3, 4, 6, 3), bottleneck=True),
    "resnet101": partial(resnet, plan=(3, 4, 23, 3), bottleneck=True),
    "resnet152": partial(resnet, plan=(3, 8, 36, 3), bottleneck=True),
    "three_layer": three_layer,
    "two_layer": two_layer,
    **{name: partial(vgg, plan=plan) for name, plan in VGG.items()},
    **{f"{name}_bn": partial(vgg, plan=plan, norm=True) for name, plan in VGG.items()},
    **zoo_images.TWINS,
}
