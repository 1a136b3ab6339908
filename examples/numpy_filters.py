# SPDX-License-Identifier: Apache-2.0
"""For NumPy users: filters on a photograph, many kernels at once, half precision, and a plan for a stream of frames.

    python examples/numpy_filters.py

Needs NumPy alone. Prints what it found; every line of it is checked.
"""

import numpy as np

import fastconv as fc

rng = np.random.default_rng(0)

# A picture: a bright disc on a dark ground, with noise. (H, W), as plt.imread gives grey pictures.
rows, columns = np.mgrid[:240, :320]
clean = ((rows - 120) ** 2 + (columns - 160) ** 2 < 80**2).astype(np.float32)
image = clean + 0.2 * rng.standard_normal(clean.shape, dtype=np.float32)

# scipy.ndimage.correlate(image, kernel, mode="reflect"), by another name.
gauss = fc.filters.gaussian(sigma=2.0).astype(np.float32)
smooth = fc.correlate(image, gauss)
print(f"noise: {np.std(image - clean):.3f} before, {np.std(smooth - clean):.3f} after smoothing")
assert smooth.shape == image.shape and np.std(smooth - clean) < np.std(image - clean) / 2

# Several kernels in one pass: the outline from the two slopes.
slopes = np.stack([fc.filters.sobel("x"), fc.filters.sobel("y")]).astype(np.float32)
outline = np.hypot(*fc.conv2d(smooth[None], slopes[:, None], padding="same", padding_mode="replicate"))
y, x = np.unravel_index(outline.argmax(), outline.shape)
print(f"strongest edge at ({y}, {x}), {np.hypot(y - 120, x - 160):.0f} pixels from the centre of a disc of radius 80")
assert abs(np.hypot(y - 120, x - 160) - 80) < 4

# A bank of 16 random filters over frames as they come, with bias and activation: the weights are packed once.
w = rng.standard_normal((16, 3, 5, 5), dtype=np.float32)
bias = np.zeros(16, np.float32)
bank = fc.plan(w, bias, x_shape=(1, 3, 64, 64), padding=2, activation="relu")
frames = rng.random((4, 3, 64, 64), dtype=np.float32)
features = [bank(frame[None]) for frame in frames]
same = fc.conv2d(frames, w, bias, padding=2, activation="relu", algorithm=bank.algorithm)
assert np.array_equal(np.concatenate(features), same)
print(f"features: {features[0].shape} per frame by {bank.algorithm}")

# Half the memory: float16 in and out, sums in float32. The reference is plain NumPy in float64.
half = fc.conv2d(frames.astype(np.float16), w.astype(np.float16), padding=2)
exact = fc.reference.conv(frames.astype(np.float16), w.astype(np.float16), padding=2)
error = float(np.abs(half - exact).max() / np.abs(exact).max())
print(f"float16: largest error {error:.1e} of the largest value")
assert half.dtype == np.float16 and error < 2.0**-10
