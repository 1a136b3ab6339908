# SPDX-License-Identifier: Apache-2.0
"""The same numbers as PyTorch in each padding mode: its `pad`, then its convolution, with all gradients.

Needs the `parity` extra. Layers with padding modes are in test_parity_convolution.py.
"""

import itertools

import numpy as np
import pytest

import fastconv as fc
from cases import MODES, NUMPY_DTYPE, rng_for
from tolerance import assert_close

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')
functional = torch.nn.functional

PADS = {
    1: [((4, 1),), ((0, 5),)],
    2: [((1, 2), (2, 0)), ((4, 3), (0, 4))],
    3: [((1, 2), (0, 1), (2, 1)), ((2, 2),) * 3],
}
SIZE = (6, 5, 7)
# (stride, dilation, groups)
OTHERS = [(1, 1, 1), (2, 1, 2), (3, 2, 6), (1, 2, 3), (1, 3, 6)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_padded_convolution_and_gradients(rank, mode, dtype):
    for pads, (stride, dilation, groups) in itertools.product(PADS[rank], OTHERS):
        what = f"{mode} {rank}d {pads} stride {stride} dilation {dilation} groups {groups}"
        rng = rng_for(what)
        filter = (2, 1, 2) if rank == 3 else (3, 2)[:rank]
        shapes = (2, 6, *SIZE[:rank]), (12, 6 // groups, *filter)
        x, w = (rng.standard_normal(shape).astype(NUMPY_DTYPE[dtype]) for shape in shapes)
        tx, tw = (torch.tensor(a, requires_grad=True) for a in (x, w))
        flat = [width for pair in reversed(pads) for width in pair]
        word = {"zeros": "constant"}.get(mode, mode)
        value = {"value": 0.75} if mode == "constant" else {}
        whole = functional.pad(tx, flat, mode=word, **value)
        expected = getattr(functional, f"conv{rank}d")(whole, tw, None, stride, 0, dilation, groups)
        words = {"padding_mode": mode, "pad_value": 0.75}
        y = getattr(fc, f"conv{rank}d")(x, w, None, stride, pads, dilation, groups, **words)
        assert_close(y, expected.detach().numpy(), "parity", what=what)
        dy = rng.standard_normal(y.shape).astype(y.dtype)
        expected.backward(torch.tensor(dy))
        dx, dw, _ = getattr(fc, f"conv{rank}d_backward")(dy, x, w, stride, pads, dilation, groups, **words)
        assert_close(dx, tx.grad.numpy(), "parity", what=f"dx: {what}")
        assert_close(dw, tw.grad.numpy(), "parity", what=f"dw: {what}")
        last = getattr(fc, f"conv{rank}d")(
            np.moveaxis(x, 1, -1), w, None, stride, pads, dilation, groups, layout="channels_last", **words
        )
        assert_close(np.moveaxis(last, -1, 1), expected.detach().numpy(), "parity", what=f"channels last: {what}")
