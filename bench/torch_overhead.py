# SPDX-License-Identifier: Apache-2.0
"""What fastconv.torch costs beyond the native call: `python -m bench.torch_overhead`.

One thread, a convolution of a few thousand multiply-adds, tensors of torch against the same memory as NumPy arrays. A
figure is the least mean of many short blocks of calls, and blocks of all of them alternate: on a shared machine a short
block is sometimes undisturbed, and the least of them is what the code takes.

    planned     `plan(x)` on a NumPy array; beyond it: a layer in eval mode without gradients, and the function with a
                parameter, which find the same plan
    one_shot    the native forward call on arrays; beyond it: the function with a plain tensor, the same while autograd
                records, and `torch.ops.fastconv.conv`
    at_address  the least that a native forward call takes: at the addresses of dense arrays of known shapes
    native_max_pool, native_max_pool_offsets
                max pooling of arrays, alone and with what its gradient needs; beyond them: `max_pool2d` without
                gradients and while autograd records
    torch       PyTorch's own layer and functions, for comparison
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import repository
from fastconv.bench import report

X_SHAPE, W_SHAPE = (1, 16, 4, 4), (16, 16, 3, 3)
BLOCK = 20  # calls
# What is measured: the native call that it is beyond.
BEYOND = {
    "layer": "planned",
    "layer_channels_last": "planned",
    "parameter": "planned",
    "tensor": "one_shot",
    "recording": "one_shot",
    "op": "one_shot",
    "max_pool": "native_max_pool",
    "max_pool_recording": "native_max_pool_offsets",
}


def measure(blocks: int) -> dict[str, float]:
    """Seconds of a call of each."""
    import torch

    import fastconv as fc
    import fastconv.torch as ft
    from fastconv import _core
    from fastconv.pool_geometry import pool_geometry
    from fastconv.torch import tensors

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal(X_SHAPE, dtype=np.float32))
    last = x.to(memory_format=torch.channels_last)
    layer = ft.nn.Conv2d(16, 16, 3, padding=1).eval()
    theirs = torch.nn.Conv2d(16, 16, 3, padding=1).eval()
    w, bias = layer.weight, layer.bias
    plain = w.detach()
    arrays = [tensors.as_array(t) for t in (x, w, bias)]
    options = tensors.options()
    with fc.options(threads=1):
        plan = fc.plan(arrays[1], arrays[2], x_shape=X_SHAPE, padding=1)
    ones = (1, 1)
    at = _core.ConvAt("fwd", X_SHAPE, W_SHAPE, None, W_SHAPE[:1], ones, ones, ones, ones, 1, "zeros", 0.0,
                      "channels_first", "f32", options)  # fmt: skip
    places = [t.data_ptr() for t in (x, w, bias)]
    pool = pool_geometry("max_pool2d", "max", 2, X_SHAPE, 2, None, 0, 1, False, True, None, "channels_first").problem
    leaf = x.clone().requires_grad_()

    def native() -> Any:
        return _core.conv_forward(*arrays, None, ones, ones, ones, ones, 1, "zeros", 0.0, "none", 0.0, "channels_first",
                                  options, None)  # fmt: skip

    conv2d, max_pool2d = ft.functional.conv2d, ft.functional.max_pool2d
    shift = bias.detach()
    silent: dict[str, Callable[[], Any]] = {
        "planned": lambda: plan(arrays[0]),
        "layer": lambda: layer(x),
        "layer_channels_last": lambda: layer(last),
        "parameter": lambda: conv2d(x, w, bias, 1, 1),
        "one_shot": native,
        "at_address": lambda: at(*places),
        "tensor": lambda: conv2d(x, plain, shift, 1, 1),
        "op": lambda: torch.ops.fastconv.conv(x, plain, shift, ones, ones, ones, ones, 1),
        "native_max_pool": lambda: _core.pool_forward(pool, arrays[0], 1.0, False, options),
        "native_max_pool_offsets": lambda: _core.pool_forward_offsets(pool, arrays[0], options),
        "max_pool": lambda: max_pool2d(x, 2),
        "torch_layer": lambda: theirs(x),
        "torch_max_pool": lambda: torch.nn.functional.max_pool2d(x, 2),
        "torch_function": lambda: torch.nn.functional.conv2d(x, plain, shift, 1, 1),
    }
    recording = {
        "recording": lambda: conv2d(x, w, bias, 1, 1),
        "max_pool_recording": lambda: max_pool2d(leaf, 2),
        "torch_recording": lambda: torch.nn.functional.conv2d(x, w, bias, 1, 1),
        "torch_max_pool_recording": lambda: torch.nn.functional.max_pool2d(leaf, 2),
    }
    least: dict[str, float] = {}
    for _ in range(blocks):
        for calls, grad in ((silent, False), (recording, True)):
            with torch.set_grad_enabled(grad):
                for name, call in calls.items():
                    start = time.perf_counter()
                    for _ in range(BLOCK):
                        call()
                    seconds = (time.perf_counter() - start) / BLOCK
                    least[name] = min(seconds, least.get(name, seconds))
    return least


def main(words: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="python -m bench.torch_overhead", description="the cost of a call from PyTorch")
    p.add_argument("--blocks", type=int, default=3000, help="of each (default %(default)s)")
    p.add_argument("--out", type=Path, help="JSON file (default: bench/results/<date>-torch-overhead-<commit>.json)")
    p.add_argument("--print", action="store_true", help="save nothing, print JSON")
    arguments = p.parse_args(words)
    least = measure(arguments.blocks)
    beyond = {name: least[name] - least[native] for name, native in BEYOND.items()}
    if arguments.print:
        print(json.dumps({"seconds": least, "beyond": beyond}))
        return 0
    result = {"format": report.FORMAT, "kind": "torch-overhead", **repository.surroundings("bench.torch_overhead"),
              "settings": {"blocks": arguments.blocks, "block": BLOCK}, "seconds": least, "beyond": beyond}  # fmt: skip
    body = [[name.replace("_", " "), f"{1e6 * s:.2f} us", f"{1e6 * beyond[name]:.2f} us" if name in beyond else ""]
            for name, s in least.items()]  # fmt: skip
    report.print_table(f"one thread, x {X_SHAPE}, w {W_SHAPE}: the least of {arguments.blocks} blocks",
                       ["call", "time", "beyond the native call"], body)  # fmt: skip
    print("saved:", repository.save(result, arguments.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
