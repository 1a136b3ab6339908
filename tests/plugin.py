# SPDX-License-Identifier: Apache-2.0
"""The package fastconv-cuda13 as pip would have installed it, with any library in it."""

import shutil
import tomllib
from pathlib import Path

import fastconv as fc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "packaging" / "cuda13"
VERSION = fc.info()["version"]


def installed(folder, version, library):
    """`folder` as a place to import from, with fastconv-cuda13 in it as pip would have installed it."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    shutil.copytree(PACKAGE / "fastconv_cuda13", folder / "fastconv_cuda13")
    (folder / "fastconv_cuda13" / "libfastconv_cuda.so").symlink_to(library)
    facts = folder / f"fastconv_cuda13-{version}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n")
    ((group, points),) = project["entry-points"].items()
    (facts / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()))
    return str(folder)
