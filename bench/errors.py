# SPDX-License-Identifier: Apache-2.0
"""Winograd's errors against float64, beside those of a plain sum: `python -m bench.errors`.

For each shape, normal and non-negative inputs and He weights: the largest error over the largest result, the mean error
over the mean result, and the root mean square of the error over that of implicit_gemm. docs/numerics.md quotes these.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import fastconv as fc
from fastconv.bench import report

SHAPES = ((3, 32, 16), (16, 32, 16), (64, 56, 64), (128, 28, 128), (256, 28, 64), (512, 14, 64), (1024, 14, 32))
FILTERS = {  # with their stride
    (3, 3, 1): ("winograd_f2x2_3x3", "winograd_f4x4_3x3"),
    (3, 3, 2): ("winograd_f4x4_3x3_s2",),
    (5, 5, 2): ("winograd_f4x4_3x3",),
    (4, 4, 1): ("winograd_f3x3_4x4",),
    (7, 7, 2): ("winograd_f3x3_4x4",),
    (2, 2, 1): ("winograd_f5x5_2x2",),
    (4, 4, 2): ("winograd_f5x5_2x2",),
    (5, 5, 1): ("winograd_f2x2_5x5",),
    (1, 3, 1): ("winograd_f4_3",),
    (3, 1, 1): ("winograd_f4_3",),
}


def errors(x: np.ndarray, w: np.ndarray, stride: int, names: tuple[str, ...]) -> dict[str, tuple[float, float, float]]:
    """Algorithm -> (largest, mean, root mean square), the first two relative."""
    words = {"padding": (w.shape[2] // 2, w.shape[3] // 2), "stride": stride}
    exact = fc.conv2d(x.astype(np.float64), w.astype(np.float64), **words)
    found = {}
    for name in names:
        error = abs(fc.conv2d(x, w, algorithm=name, **words) - exact)
        relative = error.max() / abs(exact).max(), error.mean() / abs(exact).mean()
        found[name] = (*map(float, relative), float(np.sqrt(np.mean(error**2))))
    return found


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m bench.errors", description="Winograd's errors against float64")
    p.add_argument("--seed", type=int, default=1, help="of the data (default %(default)s)")
    rng = np.random.default_rng(p.parse_args().seed)
    body, factors = [], {}
    for (r, s, stride), names in FILTERS.items():
        for c, size, k in SHAPES:
            w = (rng.standard_normal((k, c, r, s)) * np.sqrt(2 / (c * r * s))).astype(np.float32)
            normal = rng.standard_normal((1, c, size, size)).astype(np.float32)
            for inputs, x in (("normal", normal), (">= 0", np.maximum(normal, 0))):
                found = errors(x, w, stride, ("implicit_gemm", *names))
                plain = found["implicit_gemm"][2]
                for name, (largest, mean, square) in found.items():
                    factors.setdefault(name, []).append(square / plain)
                    shape = f"{c}, {size} x {size}, {k}"
                    body.append(
                        [f"{r} x {s}", shape, inputs, name, f"{largest:.1e}", f"{mean:.1e}", f"{square / plain:.2f}"]
                    )
    header = ["filter", "c, image, k", "inputs", "algorithm", "largest", "mean", "rms / implicit_gemm"]
    report.print_table("errors against float64", header, body)
    print()
    for name, values in factors.items():
        print(f"{name}: {min(values):.1f} to {max(values):.1f} times the error of implicit_gemm")
    return 0


if __name__ == "__main__":
    sys.exit(main())
