# SPDX-License-Identifier: Apache-2.0
"""What is allowed of an algorithm that computes by transforms of tiles."""

import numpy as np
import pytest

from bench import fuzz
from fastconv import ConvProblem
from fastconv.verify import Call


def signal(pass_, width, geometry, **arrays):
    shaped = {name: np.asarray(a, np.float32).reshape(1, 1, -1) for name, a in arrays.items()}
    return Call(ConvProblem.parse(f"{pass_} n1 c1 w{width} k1 s3 {geometry} dil1 g1 nchw f32"), shaped)


def test_inside_the_image_the_largest_sum_is_that_of_the_answer():
    call = signal("fwd", 4, "stride1 pad1", x=[1, -2, 3, -4], w=[1, 5, 1])
    assert call.largest_sum == call.magnitude().max() == 23  # 3 + 5 * 4


def test_a_tap_that_meets_padding_alone_counts_where_the_tile_reaches_over_the_edge():
    call = signal("fwd", 1, "stride1 pad0_2", x=[2], w=[0, 7, 0])
    assert call.exact().max() == 0 and call.largest_sum == 14
    assert (call.allowed(call.exact(), call.magnitude(), 4) > 1e-6).all()
    assert (call.allowed(call.exact(), call.magnitude(), 1) < 1e-30).all()  # a plain sum is exactly zero
    strided = signal("fwd", 1, "stride2 pad0_2", x=[2], w=[0, 0, 7])
    assert strided.largest_sum == 14


def test_backward_too():
    call = signal("bwd_data", 1, "stride1 pad0_2", dy=[2], w=[0, 7, 0])
    assert call.exact().max() == 0 and call.largest_sum == 14


@pytest.mark.parametrize("seed, index", [(6, 3623)])
def test_what_the_fuzz_found(capsys, seed, index):
    """Zeros where the taps meet the image, another tap in padding alone: the answer is 0, a tile's 6e-8."""
    assert fuzz.main(["--seed", str(seed), "--first", str(index), "--count", "1"]) == 0
