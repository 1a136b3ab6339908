# SPDX-License-Identifier: Apache-2.0
"""Every operation of op_table.py on a device, with its gradients."""

import numpy as np
import pytest

import fastconv as fc
from op_table import OPS, inputs
from tolerance import assert_close


# Where `to` leads away from the device, test_nn.py goes too.
@pytest.mark.parametrize("op", [op for op in OPS if op.name != "to"], ids=lambda op: op.name)
def test_an_operation_gives_what_it_gives_on_the_cpu(cp, op):
    for case in range(len(op.shapes)):
        results = []
        for place in (np.asarray, cp.asarray):
            tensors = [fc.Tensor(place(a), requires_grad=True) for a in inputs(op, case, "f32")]
            y = op.ours(*tensors)
            (y * y).sum().backward()
            results.append([y.data, *(t.grad.data for t in tensors)])
        for expected, got in zip(*results, strict=True):
            assert type(got) is cp.ndarray, op.name
            scale = float(np.max(np.abs(expected), initial=1.0))
            assert_close(cp.asnumpy(got), expected, "model", np.float32, scale, f"{op.name} {op.shapes[case]}")
