# SPDX-License-Identifier: Apache-2.0
"""Every operation of op_table.py once more against PyTorch: values and gradients, in both dtypes."""

import numpy as np
import pytest

import fastconv as fc
from cases import NUMPY_DTYPE, rng_for
from op_table import OPS, inputs
from tolerance import assert_close

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')


# PyTorch takes 1 / 6 and 1 / alpha in float32, also for float64.
ROUNDED_IN_PYTORCH = ("celu", "hard_sigmoid")


@pytest.mark.parametrize("op", [op for op in OPS if op.torch], ids=lambda op: op.name)
def test_values_and_gradients(op):
    for case, shapes in enumerate(op.shapes):
        for dtype in ("f32", "f64"):
            arrays = inputs(op, case, dtype)
            what = f"{op.name} {shapes} {dtype}"
            judged = np.float32 if op.name in ROUNDED_IN_PYTORCH else NUMPY_DTYPE[dtype]
            theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
            ours = [fc.Tensor(a, requires_grad=True) for a in arrays]
            expected, y = op.torch(torch, *theirs), op.ours(*ours)
            assert_close(y.data, expected.detach().numpy(), "parity", judged, what=what)
            dy = rng_for(what).standard_normal(y.shape).astype(y.dtype)
            expected.backward(torch.tensor(dy))
            y.backward(fc.Tensor(dy))
            for mine, other in zip(ours, theirs, strict=True):
                assert_close(mine.grad.data, other.grad.numpy(), "parity", judged, 1.0, what)
