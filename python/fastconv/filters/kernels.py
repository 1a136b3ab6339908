# SPDX-License-Identifier: Apache-2.0
"""The classic kernels by name, as float64 arrays for `fc.correlate`. None is normalised unless it says so.

"x" is along the columns (the last axis of an image), "y" along the rows. A kernel that answers to a step does so with a
positive number where the image grows along its axis, under correlation.
"""

from typing import Any

import numpy as np

from .._core import ProblemError
from ..geometry import as_int


def _array(rows: Any) -> Any:
    return np.array(rows, np.float64)


def identity(size: int = 3) -> Any:
    """1 in the middle of size x size zeros: gives the image back. `size` is odd.

    0 0 0
    0 1 0
    0 0 0
    """
    kernel = np.zeros((_odd(size, "identity"),) * 2)
    kernel[size // 2, size // 2] = 1
    return kernel


def box(size: int = 3) -> Any:
    """The mean of size x size cells: every tap is 1 / size^2."""
    size = as_int(size, "size", "box", 1)
    return np.full((size, size), 1 / size**2)


mean = box


def sharpen() -> Any:
    """The image and its difference from its four neighbours, for more contrast (UNLP, "Filtros convolucionales", 2019).

     0 -1  0
    -1  5 -1
     0 -1  0
    """
    return _array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]])


def edges() -> Any:
    """A high-pass for edges of any direction: -laplacian(diagonal=True) (EAFIT, "Deteccion de Bordes", 2023).

    -1 -1 -1
    -1  8 -1
    -1 -1 -1
    """
    return _array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]])


def horizontal_lines() -> Any:
    """Answers to bright horizontal lines of one pixel (EAFIT, "Deteccion de Lineas Horizontales", 2023).

    -1 -1 -1
     2  2  2
    -1 -1 -1
    """
    return _array([[-1, -1, -1], [2, 2, 2], [-1, -1, -1]])


def vertical_lines() -> Any:
    """Answers to bright vertical lines of one pixel (EAFIT, "Deteccion de Lineas Verticales", 2023).

    -1  2 -1
    -1  2 -1
    -1  2 -1
    """
    return horizontal_lines().T


def laplacian(diagonal: bool = False) -> Any:
    """The sum of second differences; as scipy.ndimage.laplace, or with the diagonals too.

    0  1  0        1  1  1
    1 -4  1        1 -8  1
    0  1  0        1  1  1
    """
    return -edges() if diagonal else _array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])


def prewitt(axis: str = "x") -> Any:
    """The first difference along an axis, over three lines (Prewitt, 1970); as scipy.ndimage.prewitt.

        -1 0 1          -1 -1 -1
        -1 0 1   "x"     0  0  0   "y"
        -1 0 1           1  1  1

    The vertical edge detector of the lectures, rows of 1 0 -1, is -prewitt("x").
    """
    return _derivative("prewitt", axis, (1, 1, 1))


def sobel(axis: str = "x") -> Any:
    """The first difference along an axis, smoothed by 1 2 1 across (Sobel and Feldman, 1968); as scipy.ndimage.sobel.

    -1 0 1          -1 -2 -1
    -2 0 2   "x"     0  0  0   "y"
    -1 0 1           1  2  1
    """
    return _derivative("sobel", axis, (1, 2, 1))


def scharr(axis: str = "x") -> Any:
    """The first difference along an axis, smoothed by 3 10 3 across: edges of all directions answer nearly alike
    (Scharr, "Optimale Operatoren in der Digitalen Bildverarbeitung", 2000).

         -3 0  3         -3 -10 -3
        -10 0 10   "x"    0   0  0   "y"
         -3 0  3          3  10  3
    """
    return _derivative("scharr", axis, (3, 10, 3))


def emboss() -> Any:
    """A relief lit from one corner (the emboss example of GIMP's manual, "Convolution Matrix").

    -2 -1  0
    -1  1  1
     0  1  2
    """
    return _array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])


def compose(first: Any, second: Any) -> Any:
    """One kernel that does what two do one after the other: their full convolution, (R1 + R2 - 1, S1 + S2 - 1).

    Equal to two calls of `fc.correlate` where no window reaches beyond the border.

    Example:
        >>> smooth_edges = fc.filters.compose(fc.filters.gaussian(1.0), fc.filters.edges())
    """
    from .sliding import convolve

    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.ndim != second.ndim:
        raise ProblemError(f"compose: the kernels have shapes {first.shape} and {second.shape}; expected equal ranks")
    return convolve(first, second, "full", "constant")


def _derivative(name: str, axis: str, across: tuple[int, ...]) -> Any:
    if axis not in ("x", "y"):
        raise ProblemError(f'{name}: axis is {axis!r}; expected "x" (along the columns) or "y" (along the rows)')
    kernel = np.outer(across, (-1.0, 0.0, 1.0))
    return kernel if axis == "x" else np.ascontiguousarray(kernel.T)


def _odd(size: Any, caller: str) -> int:
    size = as_int(size, "size", caller, 1)
    if size % 2 == 0:
        raise ProblemError(f"{caller}: size is {size}; expected an odd number, which has a middle")
    return size
