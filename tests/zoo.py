# SPDX-License-Identifier: Apache-2.0
"""The networks of `fc.models`, made small enough to be compared number by number."""

import math

import numpy as np

import fastconv as fc
from cases import rng_for

_NARROW = {"width_mult": 1 / 8}
# name: (options, input shape); sides differ, so that height and width cannot be confused.
_SMALL = {
    "alexnet": (_NARROW, (3, 63, 79)),
    "alexnet_paper": ({"width_mult": 1 / 16}, (3, 227, 227)),
    "cifar_resnet20": ({}, (3, 13, 18)),
    "cifar_resnet56": ({}, (3, 13, 18)),
    "convnext_tiny": (_NARROW, (3, 33, 68)),
    "dcgan_discriminator": ({"width_mult": 1 / 64}, (3, 64, 64)),
    "dcgan_generator": ({"width_mult": 1 / 64, "latent": 9}, (9, 1, 1)),
    "dncnn": ({"depth": 5, "channels": 2, "width": 6}, (2, 9, 14)),
    "efficientnet_lite0": ({}, (3, 33, 50)),
    "frrn_a": (_NARROW, (3, 32, 48)),
    "googlenet": (_NARROW, (3, 64, 90)),  # each of its pools meets an odd side
    "hed": (_NARROW, (3, 35, 50)),
    "inception_naive": ({"in_channels": 6, "ch1x1": 4, "ch3x3": 5, "ch5x5": 2}, (6, 7, 9)),
    "keras_cifar_a": ({"size": 12}, (3, 12, 12)),
    "keras_mnist": ({"size": 11}, (1, 11, 11)),
    "mobilenet_v1": ({"width_mult": 1 / 4}, (3, 33, 50)),
    "mobilenet_v2": ({"width_mult": 1 / 4}, (3, 33, 50)),
    "overfeat": ({"width_mult": 1 / 32}, (3, 231, 263)),
    "squeezenet1_1": ({}, (3, 33, 50)),
    "unet": ({"width_mult": 1 / 16}, (1, 188, 204)),
    "upconv_7": ({}, (3, 17, 20)),
    "yolo_grid": ({}, (3, 64, 32)),
    **dict.fromkeys(("plain34", "resnet18", "resnet34", "resnet50"), (_NARROW, (3, 33, 50))),
    **{name: ({"width_mult": 1 / 16}, (3, 33, 50)) for name in ("resnet101", "resnet152")},
    **{f"vgg{depth}{norm}": (_NARROW, (3, 33, 50)) for depth in (11, 13, 16, 19) for norm in ("", "_bn")},
}


def small(name, **more):
    """(network in float64 and evaluation, an input (2, *shape)), with weights and statistics that all do something."""
    options, shape = small_options(name)
    if name in fc.models.list("num_classes") and "num_classes" not in more:
        more["num_classes"] = 7
    model = fc.models.build(name, **options, **more).to(np.float64)
    rng = rng_for(name)
    for module in model.modules():
        for key, p in module.named_parameters(recurse=False):
            deviation = 0.1 if p.ndim < 2 else math.sqrt(2 / math.prod(p.shape[1:]))
            p.data[...] = rng.normal(1.0 if _is_gain(module, key) else 0.0, deviation, p.shape)
        for key, b in module.named_buffers(recurse=False):
            if key == "running_var":
                b[...] = rng.uniform(0.5, 2, b.shape)
            elif key == "running_mean":
                b[...] = rng.normal(0, 0.1, b.shape)
    return model.eval(), rng.standard_normal((2, *shape))


def _is_gain(module, key):
    return key == "weight" and "Norm" in type(module).__name__


def small_options(name):
    """(options, input shape); without an entry narrow where there is an option for it, and no image larger than 64."""
    if name in _SMALL:
        return _SMALL[name]
    channels, height, width = fc.models.input_shape(name)
    options = _NARROW if name in fc.models.list("width_mult") else {}
    return options, (channels, min(height, 64), min(width, 64))
