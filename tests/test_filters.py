# SPDX-License-Identifier: Apache-2.0
"""`fc.correlate`, `fc.convolve` and fc.filters against the reference, gradients, dtypes, shapes and refusals.

What SciPy and NumPy answer is in test_parity_scipy.py.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import rng_for
from fastconv import filters, reference
from tolerance import assert_bound, assert_exact

BOUNDARIES = ("reflect", "mirror", "nearest", "wrap", "constant", "symm", "fill")
FUNCTIONS = ("correlate", "convolve")


def draw(text, *shapes, dtype=np.float64):
    rng = rng_for(text)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def check(name, image, kernel, **words):
    """One call against the reference, under the bound of a sum of `kernel.size` products."""
    got = getattr(fc, name)(image, kernel, **words)
    twin = getattr(reference, name)
    magnitude = {**words, "cval": abs(words.get("cval", 0.0))}
    assert_bound(
        got, twin(image, kernel, **words), twin(np.abs(image), np.abs(kernel), **magnitude), kernel.size, 2, f"{words}"
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("size", "taps"),
    [
        ((17,), (3,)),
        ((40,), (4,)),
        ((3,), (7,)),  # reaches around the image
        ((40, 44), (3, 3)),  # border bands
        ((60, 64), (4, 5)),
        ((9, 8), (5, 1)),
        ((2, 1), (4, 3)),
        ((12, 9, 8), (3, 2, 3)),
        ((33, 30, 31), (3, 1, 2)),
    ],
)
def test_every_boundary_and_mode(size, taps, name, dtype):
    image, kernel = draw(f"{size} {taps}", size, taps, dtype=dtype)
    count = 0
    for boundary, mode in itertools.product(BOUNDARIES, ("same", "full", "valid")):
        if mode == "valid" and any(f > n for f, n in zip(taps, size, strict=True)):
            continue
        check(name, image, kernel, mode=mode, boundary=boundary, cval=0.75)
        count += 1
    assert count >= 14


@given(st.data())
def test_any_call(data):
    """Random rank, axes in any order, sizes, kernel, boundary and origin."""
    rank = data.draw(st.integers(1, 3), label="rank")
    image_rank = data.draw(st.integers(rank, 4), label="image rank")
    axes = tuple(data.draw(st.permutations(range(image_rank)), label="axes")[:rank])
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=image_rank, max_size=image_rank), label="shape"))
    taps = tuple(data.draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank), label="taps"))
    origin = data.draw(st.integers(-(min(taps) // 2), (min(taps) - 1) // 2), label="origin")
    boundary = data.draw(st.sampled_from(BOUNDARIES[:5]), label="boundary")
    image, kernel = draw(f"{shape} {taps} {axes}", shape, taps)
    name = data.draw(st.sampled_from(FUNCTIONS))
    check(name, image, kernel, boundary=boundary, axes=axes, origin=origin, cval=-0.5)


def test_exact_on_integers_and_equal_for_any_layout_of_memory():
    rng = rng_for("layouts")
    image, kernel = rng.integers(0, 255, (31, 37)).astype(np.float32), rng.integers(-4, 5, (3, 4)).astype(np.float32)
    read_only = image.copy()
    read_only.flags.writeable = False
    backwards = np.ascontiguousarray(image[::-1, ::-1])[::-1, ::-1]
    for boundary in BOUNDARIES:
        expected = reference.correlate(image, kernel, boundary=boundary)
        for same in (image, np.asfortranarray(image), backwards, np.repeat(image, 2, 1)[:, ::2], read_only):
            assert_exact(fc.correlate(same, kernel, boundary=boundary), expected, boundary)
    before = image.copy()
    fc.correlate(image, kernel)
    assert_exact(image, before, "the image is left alone")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_several_kernels_stack_in_front(name):
    f = getattr(fc, name)
    for shape, axes, taps in (
        ((20,), None, (3,)),
        ((12, 11), None, (3, 2)),
        ((12, 11, 3), (0, 1), (3, 3)),
        ((2, 12, 11), (1, 2), (3, 3)),
        ((2, 12, 11, 3), (2, 1), (3, 2)),
        ((9, 8, 7), 1, (4,)),
        ((9, 8, 7), (0, 2), (3, 4)),
        ((6, 5, 4), None, (2, 3, 2)),
    ):
        image, kernels = draw(f"{shape} {axes}", shape, (3, *taps))
        together = f(image, kernels, "full", axes=axes)
        alone = np.stack([f(image, k, "full", axes=axes) for k in kernels])
        np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-12, err_msg=f"{shape} {axes}")


def test_channels_are_filtered_by_themselves():
    image, kernel, volume, cube = draw("channels", (10, 9, 3), (3, 3), (6, 5, 7, 2), (2, 3, 3))
    for c in range(3):
        np.testing.assert_allclose(fc.correlate(image, kernel)[..., c], fc.correlate(image[..., c].copy(), kernel))
    for c in range(2):
        np.testing.assert_allclose(fc.correlate(volume, cube)[..., c], fc.correlate(volume[..., c].copy(), cube))
    # A 3-D kernel on an array of three axes is one 3-D filter, as in SciPy.
    assert fc.correlate(image, np.ones((3, 3, 3))).shape == (10, 9, 3)


@pytest.mark.parametrize(
    ("given", "computed"),
    [
        (np.uint8, np.float32),
        (np.int16, np.float32),
        (bool, np.float32),
        (np.float16, np.float32),
        (np.int32, np.float64),
        (np.int64, np.float64),
    ],
)
def test_dtypes_of_images(given, computed):
    image = rng_for("dtypes").integers(0, 2, (8, 9)).astype(given)
    kernel = np.array([[1, 2], [3, 4]])
    got = fc.correlate(image, kernel)
    assert got.dtype == computed
    assert_exact(got, reference.correlate(image, kernel))
    assert fc.correlate(image, kernel, output=np.float64).dtype == np.float64


def test_output_is_a_dtype_or_an_array():
    image = np.array([[250, 10], [100, 0]], np.uint8)
    assert_exact(fc.correlate(image, [[2.0]], output=np.uint8), np.array([[255, 20], [200, 0]]), "saturates")
    assert_exact(fc.correlate(image, [[-1.0]], output="uint8"), np.zeros((2, 2)), "saturates below")
    assert_exact(fc.correlate(image, [[0.25]], output=int), np.array([[62, 2], [25, 0]]), "half to even, 2.5 and 62.5")
    huge = fc.correlate(np.array([1e30, -1e30], np.float32), [1.0], output=np.int32)
    assert huge[0] > 2**31 - 200 and huge[1] == -(2**31)
    for dtype in (np.float32, np.float64, np.int16):
        out = np.full((2, 2), 7, dtype)
        assert fc.convolve(image, [[1, 0], [0, 0]], output=out) is out
        assert_exact(out, reference.convolve(image, [[1, 0], [0, 0]]))
    # The image itself may be the output.
    same = image.astype(np.float32)
    fc.correlate(same, np.ones((3, 3)), output=same)
    assert_exact(same, reference.correlate(image, np.ones((3, 3))))
    assert fc.correlate([1, 2, 3], [1, 1]).dtype == np.float64  # lists, as NumPy reads them


def test_empty_and_single_cells():
    kernel = np.ones((3, 3))
    assert fc.correlate(np.zeros((0, 5, 6)), kernel, axes=(1, 2)).shape == (0, 5, 6)
    assert fc.correlate(np.zeros((5, 6, 0)), kernel).shape == (5, 6, 0)
    assert fc.correlate(np.zeros((5, 6, 0)), np.ones((4, 3, 3)), axes=(0, 1)).shape == (4, 5, 6, 0)
    for boundary in BOUNDARIES:
        check("correlate", np.array([[2.5]]), np.arange(15.0).reshape(3, 5), boundary=boundary)


def gradients(f, *arrays):
    tensors = [fc.Tensor(a, requires_grad=True) for a in arrays]
    assert fc.gradcheck(f, tensors)
    assert fc.gradgradcheck(f, tensors)


@pytest.mark.parametrize("boundary", BOUNDARIES[:5])
def test_gradients(boundary):
    for shape, taps, name, mode in (((5,), (3,), "convolve", "full"), ((3, 2, 2), (3, 2), "correlate", "same")):
        image, kernel = draw(f"{shape}", shape, taps)
        gradients(lambda x, w, n=name, m=mode: getattr(fc, n)(x, w, m, boundary), image, kernel)
    image, kernels = draw("several", (3, 3), (2, 2, 3))
    gradients(lambda x, w: fc.convolve(x, w, boundary=boundary, axes=(1, 0)), image, kernels)


def test_tensors_give_what_arrays_give():
    image, kernel = draw("tensors", (30, 28), (3, 4), dtype=np.float32)
    for name, boundary in itertools.product(FUNCTIONS, BOUNDARIES):
        f = getattr(fc, name)
        tensor = f(fc.Tensor(image), kernel.astype(np.float64), boundary=boundary)
        assert isinstance(tensor, fc.Tensor) and tensor.dtype == np.float32
        np.testing.assert_allclose(tensor.data, f(image, kernel, boundary=boundary), rtol=1e-5, atol=1e-5)
    soft = filters.gaussian_filter(fc.Tensor(image, requires_grad=True), 1.5)
    soft.sum().backward()
    np.testing.assert_allclose(soft.data, filters.gaussian_filter(image, 1.5), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_call_chooses_its_algorithm(name):
    image, kernel, channels = draw("chosen", (20, 18), (3, 3), (20, 18, 3))
    function = getattr(fc, name)
    for boundary in ("reflect", "nearest"):
        for algorithm in ("direct", "im2col_gemm"):
            with fc.trace() as t:
                function(image, kernel, boundary=boundary, algorithm=algorithm)
                function(channels, kernel, boundary=boundary, algorithm=algorithm)
            assert {call["algorithm"] for call in t.calls} == {algorithm}
    with pytest.raises(fc.ProblemError, match="no_such"):
        function(image, kernel, algorithm="no_such")
    with fc.options(algorithm="winograd_f4x4_3x3"), pytest.raises(fc.UnsupportedError, match=r"error_factor|precision"):
        function(image.astype(np.float32), kernel, precision="strict")


def test_classic_kernels_have_the_matrices_of_their_names():
    assert_exact(filters.sharpen(), np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]))
    assert_exact(filters.edges(), np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]))
    assert_exact(filters.vertical_lines(), np.array([[-1, 2, -1]] * 3))
    assert_exact(filters.horizontal_lines(), np.array([[-1] * 3, [2] * 3, [-1] * 3]))
    assert_exact(-filters.prewitt("x"), np.array([[1, 0, -1]] * 3))
    assert_exact(filters.sobel("y"), np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]))
    assert_exact(filters.scharr("x"), np.array([[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]]))
    assert_exact(filters.laplacian(), np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]))
    assert_exact(filters.laplacian(True), -filters.edges())
    assert_exact(filters.emboss(), np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    assert_exact(filters.identity(5) @ np.ones(5), np.array([0, 0, 1, 0, 0]))
    assert filters.mean is filters.box and filters.box(4).sum() == 1
    for kernel in (
        filters.edges(),
        filters.vertical_lines(),
        filters.laplacian(),
        filters.sobel(),
        filters.scharr("y"),
    ):
        assert kernel.sum() == 0 and kernel.flags.writeable


def test_what_the_kernels_answer():
    """The lectures' worked examples, and the sign of the derivatives."""
    image = [[105, 102, 100], [103, 99, 103], [101, 98, 104]]
    assert fc.correlate(image, filters.sharpen(), "valid") == [[89]]
    padded = [[60, 113, 56], [73, 121, 54], [131, 99, 70]]
    assert fc.correlate(padded, filters.sharpen(), boundary="constant")[0, 0] == 114
    ramp = np.arange(5.0) * np.ones((4, 1))
    assert (fc.correlate(ramp, filters.sobel("x"), "valid") == 8).all()
    assert (fc.correlate(ramp, filters.sobel("y"), "valid") == 0).all()
    assert (fc.correlate(ramp, filters.edges(), "valid") == 0).all()
    assert_exact(fc.correlate(ramp, filters.identity()), ramp)
    line = np.zeros((5, 5))
    line[:, 2] = 1
    assert (fc.correlate(line, filters.vertical_lines(), "valid")[:, 1] == 6).all()


def test_composed_kernels_do_both():
    (image,) = draw("compose", (20, 19))
    first, second = filters.gaussian(0.7, 2), filters.edges()
    both = filters.compose(first, second)
    assert both.shape == (5, 5)
    twice = fc.correlate(fc.correlate(image, first, "valid"), second, "valid")
    np.testing.assert_allclose(fc.correlate(image, both, "valid"), twice, rtol=1e-12, atol=1e-12)


def test_gaussian_kernels():
    kernel = filters.gaussian(1.0)
    assert kernel.shape == (9, 9) and filters.gaussian(1.0, ndim=1).shape == (9,)
    assert filters.gaussian((1.0, 0.5)).shape == (9, 5) and filters.gaussian(2, radius=3).shape == (7, 7)
    np.testing.assert_allclose(kernel.sum(), 1, rtol=1e-14)
    np.testing.assert_allclose(kernel[4, 5] / kernel[4, 4], np.exp(-0.5), rtol=1e-14)
    assert filters.gaussian(0.0, ndim=1).tolist() == [1.0]
    # One pass along each axis is the matrix at once.
    (image,) = draw("gaussian", (30, 31))
    np.testing.assert_allclose(filters.gaussian_filter(image, 1.0), fc.correlate(image, kernel), rtol=1e-12, atol=1e-12)
    untouched = filters.gaussian_filter(image, 0)
    assert untouched is not image
    assert_exact(untouched, image)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, w: fc.correlate(x, w, "some"), fc.ProblemError, "correlate: mode is 'some'; expected one of"),
        (
            lambda x, w: fc.convolve(x, w, boundary="edge"),
            fc.ProblemError,
            "convolve: boundary is 'edge'; expected one of",
        ),
        (lambda x, w: fc.correlate(x, w[0]), fc.ProblemError, "expected as many, or axes= to say which axes"),
        (lambda x, w: fc.correlate(x, w, axes=(0, 2)), fc.ProblemError, "expected different numbers from -2 to 1"),
        (lambda x, w: fc.correlate(x, w, axes=(0, 0)), fc.ProblemError, "expected different numbers"),
        (lambda x, w: fc.correlate(x, w, axes=0.5), TypeError, "axes is 0.5; expected an integer"),
        (lambda x, w: fc.correlate(x, np.ones((2, 2, 2, 2)), axes=0), fc.ProblemError, "expected 1 to 3 of them"),
        (lambda x, w: fc.correlate(x, w, origin=2), fc.ProblemError, "origin is 2 for 3 taps; expected -1 to 1"),
        (
            lambda x, w: fc.convolve(x, w, origin=(0, 1, 0)),
            fc.ProblemError,
            "origin has 3 entries; expected an int or 2",
        ),
        (lambda x, w: fc.convolve(x, w, "full", origin=1), fc.ProblemError, "origin is 1 with mode='full'; expected"),
        (lambda x, w: fc.correlate(w, np.ones((5, 1)), "valid"), fc.ProblemError, "a kernel that fits into the image"),
        (lambda x, w: fc.correlate(x, np.ones((0, 3))), fc.ProblemError, r"the kernel has shape \(0, 3\); expected"),
        (lambda x, w: fc.correlate(x[:0], w), fc.ProblemError, "no cells along the filtered axis 0"),
        (lambda x, w: fc.correlate(x * 1j, w), TypeError, "image has dtype complex128; expected float"),
        (lambda x, w: fc.correlate(x, w * 1j), TypeError, "kernel has dtype complex128; expected real numbers"),
        (lambda x, w: fc.correlate("photo", w), TypeError, "image is a str; expected a NumPy array"),
        (lambda x, w: fc.correlate(fc.Tensor(x), w, output=float), TypeError, "output is for arrays"),
        (
            lambda x, w: fc.correlate(x, w, output=x[:1]),
            fc.ProblemError,
            r"output has shape \(1, 7\); expected \(8, 7\)",
        ),
        (lambda x, w: filters.gaussian_filter(x, -1), fc.ProblemError, "sigma is -1"),
        (lambda x, w: filters.gaussian_filter(x, (1, 2, 3)), fc.ProblemError, "sigma has 3 entries; expected"),
        (lambda x, w: filters.gaussian_filter(x, 1, axes=(1, 1)), fc.ProblemError, "gaussian_filter: axes is"),
        (lambda x, w: filters.gaussian_filter(fc.Tensor(x), 1, output=int), TypeError, "output is for arrays"),
        (lambda x, w: filters.sobel("z"), fc.ProblemError, "sobel: axis is 'z'"),
        (lambda x, w: filters.identity(4), fc.ProblemError, "identity: size is 4; expected an odd number"),
        (lambda x, w: filters.compose(w, w[0]), fc.ProblemError, "expected equal ranks"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((8, 7)), np.ones((3, 3)))
