# SPDX-License-Identifier: Apache-2.0
"""Every layer of fastconv.nn in float16 and bfloat16: what it gives in float32, up to a few roundings."""

import copy
import inspect
import re

import numpy as np
import pytest

import fastconv as fc
from cases import HALVES, NUMPY_DTYPE, rng_for
from fastconv import half
from tolerance import assert_close

# What the constructors of layers need, by the beginning of their names; the first that fits. None: left out.
ARGUMENTS = {
    r"CausalConv": (4, 6, 3),
    r"Conv": (4, 6, 3),
    r"LPPool": (2.0, 2),
    r"Adaptive": (3,),
    r"Global": (),
    r"MaxUnpool|CausalStream|Module|Parameter|Sequential|Fractional": None,
    r"(Max|Min|Avg)Pool": (2,),
    r"(Batch|Instance)Norm": (4,),
    r"GroupNorm": (2, 4),
    r"(Layer|RMS)Norm": (5,),
    r"Fold": ((2, 6), 2),
    r"Unfold": (2,),
    r"Linear": (5, 3),
    r"MaxoutLinear": (5, 3, 2),
    r"Maxout": (2,),
    r"ConstantPad": (1, 0.5),
    r".*Pad\dd": (1,),
    r"LocalResponseNorm": (3,),
    r"Upsampl": (None, 2),
    r".*Dropout|.*Loss|Unflatten|Fold|Unfold|Embedding|Bilinear|CrossMap": None,
    r"": (),
}


def layers():
    """(name, class, arguments, shape of x) of all that can be made from the table."""
    for name in fc.nn.__all__:
        layer = getattr(fc.nn, name)
        if not (isinstance(layer, type) and issubclass(layer, fc.nn.Module)):
            continue
        arguments = next(words for pattern, words in ARGUMENTS.items() if re.match(pattern, name))
        if arguments is not None and any(
            p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
            for p in list(inspect.signature(layer).parameters.values())[len(arguments) :]
        ):
            continue  # it needs more than the table knows
        rank = re.search(r"(\d)d$", name)
        shape = (2, 4, *(7, 6, 5)[: int(rank.group(1))]) if rank else (2, 4, 5)
        if arguments is not None:
            yield name, layer, arguments, shape


@pytest.mark.parametrize("dtype", HALVES)
def test_every_layer_computes_in_a_half(dtype):
    tested = []
    for name, layer, arguments, shape in layers():
        module = layer(*arguments).to(NUMPY_DTYPE[dtype])
        single = copy.deepcopy(module).float()
        x = rng_for(name).standard_normal(shape).astype(NUMPY_DTYPE[dtype])
        found = []
        for part, values in ((module, x), (single, half.widen(x))):
            inputs = fc.Tensor(values, requires_grad=True)
            y = part(inputs)
            dy = rng_for("dy").standard_normal(y.shape).astype(NUMPY_DTYPE[dtype])
            y.backward(fc.Tensor(dy if part is module else half.widen(dy)))
            found.append([y, inputs.grad, *(p.grad for p in part.parameters())])
        for i, (got, expected) in enumerate(zip(*found, strict=True)):
            assert got.dtype == NUMPY_DTYPE[dtype], f"{name}: {i} is {got.dtype}"
            assert_close(
                np.asarray(got.data).astype(np.float32), expected.data, "half layer", got.dtype, what=f"{name}, {i}"
            )
        tested.append(name)
    assert len(tested) >= 60, tested
