# SPDX-License-Identifier: Apache-2.0
"""Networks of other people's, and how a network with our layers is compared with the same one with torch's."""

import copy
import importlib

import pytest
import torch

import fastconv.torch as fct
from fastconv.torch import measuring, swapping
from tolerance import assert_close

SEED = 81
QUICK = {"rounds": 2, "min_sample_s": 0.0, "whole_s": 0.0}  # settings of accelerate where times do not matter


def network():
    """A small network with every kind of layer that matters here: six of them can be ours."""
    torch.manual_seed(SEED)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, padding=1),
        torch.nn.BatchNorm2d(6),
        torch.nn.ReLU(inplace=True),
        torch.nn.Dropout(0.3),
        torch.nn.Sequential(torch.nn.MaxPool2d(2), torch.nn.Conv2d(6, 4, 1, bias=False)),
        torch.nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1),
        torch.nn.AvgPool2d(2),
    )


def images(n=2, c=3, size=8):
    return torch.randn(n, c, size, size, generator=torch.Generator().manual_seed(SEED))


def kinds(model):
    """name -> whether it is ours, of the layers that can be."""
    ours = set(swapping.classes().values())
    return {name: type(m) in ours for name, m in model.named_modules() if swapping.stock_class(m) in swapping.classes()}


# name: (module of pytorchcv.models, pixels a side); every one of another family.
FAST = {
    "resnet10": ("resnet", 64),
    "seresnet10": ("seresnet", 64),
    "darknet_ref": ("darknet", 64),
    "squeezenet_v1_1": ("squeezenet", 64),
    "shufflenet_g1_wd4": ("shufflenet", 64),
    "shufflenetv2_wd2": ("shufflenetv2", 64),
    "mobilenet_wd4": ("mobilenet", 64),
    "mobilenetv3_small_w7d20": ("mobilenetv3", 64),
    "octresnet10_ad2": ("octresnet", 64),
    "nin_cifar10": ("nin_cifar", 32),
    "xdensenet40_2_k24_bc_cifar10": ("xdensenet_cifar", 32),
    "enet_cityscapes": ("enet", 64),
}
SLOW = {
    "linknet_cityscapes": ("linknet", 64),
    "condensenet74_c4_g4": ("condensenet", 64),
    "regnetx002": ("regnet", 64),
    "vovnet27s": ("vovnet", 64),
    "mnasnet_small": ("mnasnet", 64),
    "menet108_8x1_g3": ("menet", 64),
    "sqnxt23_w1": ("squeezenext", 64),
    "peleenet": ("peleenet", 64),
    "resnext14_16x4d": ("resnext", 64),
    "preresnet10": ("preresnet", 64),
    "diaresnet10": ("diaresnet", 64),
    "resneta10": ("resneta", 64),
    "hardnet39ds": ("hardnet", 64),
    "cbam_resnet18": ("cbamresnet", 64),
    "alexnet": ("alexnet", 224),
    "zfnet": ("zfnet", 224),
    "vgg11": ("vgg", 224),
    "bninception": ("bninception", 64),
    "inceptionv3": ("inceptionv3", 160),
    "bam_resnet18": ("bamresnet", 64),
    "diracnet18v2": ("diracnetv2", 64),
    "ibn_resnet50": ("ibnresnet", 64),
    "airnet50_1x64d_r2": ("airnet", 64),
    "resattnet56": ("resattnet", 224),
    "senet16": ("senet", 64),
    "densenet121": ("densenet", 64),
    "sparsenet121": ("sparsenet", 64),
    "drnc26": ("drn", 64),
    "bagnet9": ("bagnet", 64),
    "dla34": ("dla", 64),
    "fishnet99": ("fishnet", 64),
    "hrnet_w18_small_v1": ("hrnet", 64),
    "irevnet301": ("irevnet", 64),
    "revnet38": ("revnet", 64),
    "fdmobilenet_wd4": ("fdmobilenet", 64),
    "mobilenetv2_wd4": ("mobilenetv2", 64),
    "igcv3_wd4": ("igcv3", 64),
    "ghostnet": ("ghostnet", 64),
    "efficientnet_b0": ("efficientnet", 64),
    "mixnet_s": ("mixnet", 64),
    "darts": ("darts", 64),
    "nasnet_4a1056": ("nasnet", 96),
    "proxylessnas_cpu": ("proxylessnas", 64),
    "fbnet_cb": ("fbnet", 64),
    "spnasnet": ("spnasnet", 64),
    "selecsls42b": ("selecsls", 64),
    "resnet20_cifar10": ("resnet_cifar", 32),
    "rir_cifar10": ("rir_cifar", 32),
    "unet_cityscapes": ("unet", 64),
    "segnet_cityscapes": ("segnet", 64),
    "erfnet_cityscapes": ("erfnet", 64),
    "dabnet_cityscapes": ("dabnet", 64),
    "esnet_cityscapes": ("esnet", 64),
    "simplepose_resnet18_coco": ("simplepose_coco", 64),
    "prnet": ("prnet", 64),
}


def pytorchcv(name):
    """(an architecture with random weights, in training, without dropout; an input of two images)"""
    module, size = (FAST | SLOW)[name]
    torch.manual_seed(sum(name.encode()))
    model = getattr(importlib.import_module(f"pytorchcv.models.{module}"), name)()
    for part in list(model.modules()):
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        if isinstance(getattr(part, "final_pool", None), torch.nn.AvgPool2d):  # of 7, for images of 224
            part.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    return model.train(), torch.randn(2, getattr(model, "in_channels", 3), size, size)


def answers(model, x):
    """name -> the outputs and the gradients of all parameters, by a step with fixed random numbers."""
    torch.manual_seed(1)
    model.zero_grad()
    outputs = list(swapping.tensors(model(x)))
    generator = torch.Generator().manual_seed(2)
    torch.autograd.backward(outputs, [torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in outputs])
    found = {f"output {i}": y.detach() for i, y in enumerate(outputs)}
    return found | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same_network(model, x):
    """A step of a model in which every layer is ours is a step of the model.

    In float64 as a whole, and in float32 layer by layer, on the inputs that reach it there: a whole step in float32
    amplifies rounding where a ReLU or a maximum falls to the other side, with anybody's layers.
    """
    model = model.double()
    ours = fct.accelerate(copy.deepcopy(model), "always")
    report = ours.fastconv_report
    assert report.layers and all(layer.replaced for layer in report.layers), report.table()
    expected, actual = answers(model, x.double()), answers(ours, x.double())
    assert expected.keys() == actual.keys()
    largest = max(float(g.abs().max()) for name, g in expected.items() if not name.startswith("output"))
    for name, value in expected.items():
        scale = 0.0 if name.startswith("output") else largest
        assert_close(actual[name].numpy(), value.numpy(), "network", scale=scale, what=name)

    found = swapping.candidates(model.float())
    seen = set()

    def look(module, args, kwargs):
        candidate = next(c for c in found if c.module is module)
        if (candidate.text, args[0].shape) in seen:
            return
        seen.add((candidate.text, args[0].shape))
        call = measuring.Pair(candidate, args, kwargs, True).check(measuring.Settings(reference=True)).call
        assert call.error_float64 is not None, candidate.name
        zero = torch.zeros(1).numpy()
        assert_close(zero + call.error_float64, zero, "parity", "float32", scale=1.0, what=candidate.name)

    for candidate in found:
        candidate.module.register_forward_pre_hook(look, with_kwargs=True)
    model(x)
    assert len(seen) > 1


def skip_without(package):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install --no-deps {package}")
