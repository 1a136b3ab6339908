# SPDX-License-Identifier: Apache-2.0
"""The CUDA library of fastconv, which finds this package by its entry point and opens the library at first use."""

from pathlib import Path

LIBRARY = str(Path(__file__).with_name("libfastconv_cuda.so"))
