# SPDX-License-Identifier: Apache-2.0
"""More of zoo_twins.py: the networks of `fc.models` that make images, or that have weights of their own in packages.

As there: functions of the layers f of zoo_layers.py, written from the papers, that share no code with the networks.
"""


def squeezenet1_1(f, x):
    def fire(x, key):
        x = f.relu(f.conv(x, f"{key}.squeeze"))
        return f.concat([f.relu(f.conv(x, f"{key}.expand1x1")), f.relu(f.conv(x, f"{key}.expand3x3", 1, 1))])

    x = f.relu(f.conv(x, "features.0", 2))
    for keys in ((3, 4), (6, 7), (9, 10, 11, 12)):
        x = f.max_pool(x, 3, 2, ceil_mode=True)
        for key in keys:
            x = fire(x, f"features.{key}")
    return f.mean(f.relu(f.conv(x, "classifier.1")))


def efficientnet_lite0(f, x):
    def same(x, conv, norm, size, stride=1, groups=1, then="relu6"):
        # TensorFlow's 'same': as many outputs as strides begin in x, the odd row of the border after.
        lack = [max(0, (-(-n // stride) - 1) * stride + size - n) for n in x.shape[2:]]
        x = f.pad(x, [(n // 2, n - n // 2) for n in lack])
        x = f.norm(f.conv(x, conv, stride, 0, groups), norm, 1e-3)
        return f.relu6(x) if then else x

    x, block, channels = same(x, "_conv_stem", "_bn0", 3, 2), 0, 32
    for out, count, size, stride, expand in [
        (16, 1, 3, 1, 1),
        (24, 2, 3, 2, 6),
        (40, 2, 5, 2, 6),
        (80, 3, 3, 2, 6),
        (112, 3, 5, 1, 6),
        (192, 4, 5, 2, 6),
        (320, 1, 3, 1, 6),
    ]:
        for number in range(count):
            key, y = f"_blocks.{block}", x
            if expand > 1:
                y = same(y, f"{key}._expand_conv", f"{key}._bn0", 1)
            y = same(
                y, f"{key}._depthwise_conv", f"{key}._bn1", size, 1 if number else stride, groups=channels * expand
            )
            y = same(y, f"{key}._project_conv", f"{key}._bn2", 1, then=None)
            x = x + y if number else y
            block, channels = block + 1, out
    return f.dense(f.mean(same(x, "_conv_head", "_bn1", 1)), "_fc")


def dncnn(f, x):
    x, key = f.relu(f.conv(x, "0", 1, 1)), 2
    while f"{key + 1}.running_mean" in f.state:
        x, key = f.conv_norm_relu(x, str(key), str(key + 1), padding=1), key + 3
    return f.conv(x, str(key), 1, 1)


def unet(f, x):
    def pair(x, key):
        return f.relu(f.conv(f.relu(f.conv(x, f"{key}.0")), f"{key}.2"))

    maps = [pair(x, "down.0")]
    for level in range(1, 5):
        maps.append(pair(f.max_pool(maps[-1], 2, 2), f"down.{level}"))
    x = maps[4]
    for level in range(4):
        x, beside = f.conv_transpose(x, f"expand.{level}", 2), maps[3 - level]
        top, left = (beside.shape[2] - x.shape[2]) // 2, (beside.shape[3] - x.shape[3]) // 2
        beside = beside[:, :, top : top + x.shape[2], left : left + x.shape[3]]
        x = pair(f.concat([beside, x]), f"up.{level}")
    return f.conv(x, "last")


def convnext_tiny(f, x):
    x = f.pixel_norm(f.conv(x, "features.0.0", 4), "features.0.1")
    for stage, depth in ((1, 3), (3, 3), (5, 9), (7, 3)):
        for number in range(depth):
            key = f"features.{stage}.{number}"
            y = f.pixel_norm(f.conv(x, f"{key}.block.0", 1, 3, x.shape[1]), f"{key}.block.2")
            y = f.pixel_dense(f.activation("gelu", f.pixel_dense(y, f"{key}.block.3")), f"{key}.block.5")
            x = x + y * f.get(f"{key}.layer_scale")
        if stage < 7:
            x = f.conv(f.pixel_norm(x, f"features.{stage + 1}.0"), f"features.{stage + 1}.1", 2)
    return f.dense(f.flat(f.pixel_norm(f.adaptive(x, 1), "classifier.0")), "classifier.2")


def hed(f, x):
    size, sides = x.shape[2:], []
    for block, count in enumerate((2, 2, 3, 3, 3)):
        if block:
            x = f.max_pool(x, 2, 2, ceil_mode=True)
        for number in range(count):
            x = f.relu(f.conv(x, f"blocks.{block}.{2 * number + bool(block)}", 1, 1))
        sides.append(f.bilinear(f.conv(x, f"sides.{block}"), size))
    return f.conv(f.concat(sides), "fuse")


def upconv_7(f, x):
    for key in range(0, 12, 2):
        x = f.leaky(f.conv(x, str(key)), 0.1)
    return f.conv_transpose(x, "12", 2, 3)


def frrn_a(f, x):
    def unit(x, key):
        y = f.conv_norm_relu(x, f"{key}.conv1.0", f"{key}.conv1.1", padding=1)
        return x + f.norm(f.conv(y, f"{key}.conv2.0", 1, 1), f"{key}.conv2.1")

    x = f.conv_norm_relu(x, "first.0", "first.1", padding=2)
    for number in range(3):
        x = unit(x, f"before.{number}")
    pooled, residual, last = x, f.conv(x, "split"), 1
    for group, (factor, count) in enumerate([(2, 3), (4, 4), (8, 2), (16, 2), (8, 2), (4, 2), (2, 2)]):
        pooled = f.max_pool(pooled, 2, 2) if factor > last else f.repeat(pooled, 2)
        last = factor
        for number in range(count):
            key = f"groups.{group}.{number}"
            pooled = f.concat([pooled, f.max_pool(residual, factor, factor)])
            for conv in ("conv1", "conv2"):
                pooled = f.conv_norm_relu(pooled, f"{key}.{conv}.0", f"{key}.{conv}.1", padding=1)
            residual = residual + f.repeat(f.conv(pooled, f"{key}.back"), factor)
    x = f.conv_norm_relu(f.concat([f.repeat(pooled, 2), residual]), "join.0", "join.1")
    for number in range(3):
        x = unit(x, f"after.{number}")
    return f.conv(x, "last")


def dcgan_generator(f, x):
    x = f.conv_transpose(x, "0")
    for key in (1, 4, 7, 10):
        x = f.conv_transpose(f.relu(f.norm(x, str(key))), str(key + 2), 2, 2, 1)
    return f.activation("tanh", x)


def dcgan_discriminator(f, x):
    x = f.leaky(f.conv(x, "0", 2, 2), 0.2)
    for key in (2, 5, 8):
        x = f.leaky(f.norm(f.conv(x, str(key), 2, 2), str(key + 1)), 0.2)
    return f.flat(f.conv(x, "11"))


def overfeat(f, x):
    x = f.max_pool(f.relu(f.conv(x, "features.0", 4)), 2, 2)
    x = f.max_pool(f.relu(f.conv(x, "features.3")), 2, 2)
    for key in (6, 8, 10):
        x = f.relu(f.conv(x, f"features.{key}", 1, 1))
    x = f.max_pool(x, 2, 2)
    for key in (0, 3):
        x = f.relu(f.conv(x, f"classifier.{key}"))
    return f.conv(x, "classifier.6")


def yolo_grid(f, x):
    for key in range(0, 20, 4):
        x = f.leaky(f.norm(f.conv(x, str(key), 1, 1), str(key + 1)), 0.1)
        x = f.max_pool(x, 2, 2)
    return f.channels_last(f.conv(x, "20"))


TWINS = {
    twin.__name__: twin
    for twin in (
        convnext_tiny,
        dcgan_discriminator,
        dcgan_generator,
        dncnn,
        efficientnet_lite0,
        frrn_a,
        hed,
        overfeat,
        squeezenet1_1,
        unet,
        upconv_7,
        yolo_grid,
    )
}
