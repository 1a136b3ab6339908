# SPDX-License-Identifier: Apache-2.0
"""The build backend: scikit-build-core, which gets nvcc from the package index where it is wanted and not there.

FASTCONV_CUDA=on builds the CUDA library. The compiler is nvcc on PATH; without one the packages of nvcc.txt become
requirements of the build.
"""

import os
import shutil
from pathlib import Path

from scikit_build_core import build as _build
from scikit_build_core.build import build_sdist, build_wheel, get_requires_for_build_sdist

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

NVCC = [line for line in Path(__file__).with_name("nvcc.txt").read_text().splitlines() if not line.startswith("#")]
build_editable = _build.build_editable


def _with_compiler(requirements: list[str]) -> list[str]:
    wanted = os.environ.get("FASTCONV_CUDA", "off") == "on"
    return [*requirements, *NVCC] if wanted and shutil.which("nvcc") is None else requirements


def get_requires_for_build_wheel(config_settings: dict[str, str | list[str]] | None = None) -> list[str]:
    return _with_compiler(_build.get_requires_for_build_wheel(config_settings))


def get_requires_for_build_editable(config_settings: dict[str, str | list[str]] | None = None) -> list[str]:
    return _with_compiler(_build.get_requires_for_build_editable(config_settings))
