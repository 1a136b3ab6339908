# SPDX-License-Identifier: Apache-2.0
"""Types of arguments as argparse calls them, and what a command needs to be installed."""

import argparse
import importlib.util
import re
from collections.abc import Mapping

_EXTRA = {"rich": "the progress bar and tables", "matplotlib": "the figures", "PIL": "Pillow, which reads pictures"}
_UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SIZES = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def whole(text: str) -> int:
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}; expected at least 1")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{value}; expected a number above 0")
    return value


def seed(text: str) -> int:
    """An integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value}; expected at least 0")
    return value


whole.__name__, positive.__name__, seed.__name__ = "integer", "number", "integer"  # the words in argparse's errors


def seconds(text: str) -> float:
    """30, 30s, 500ms, 2m or 1h in seconds."""
    return _measure(text, _UNITS, "a time such as 30s, 500ms or 2m")


def size(text: str) -> int:
    """4096, 512MiB or 2GB in bytes."""
    return int(_measure(text, _SIZES, "bytes such as 4096, 512MiB or 2GB"))


def _measure(text: str, units: Mapping[str, float], expected: str) -> float:
    match = re.fullmatch(r"(\d+\.?\d*)\s*([A-Za-z]*)", text.strip())
    if not match or match[2] not in units or not float(match[1]) > 0:
        raise argparse.ArgumentTypeError(f"{text!r}; expected {expected}")
    return float(match[1]) * units[match[2]]


def need(command: str, *modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        uses = " and ".join(f"{name} ({_EXTRA[name]})" for name in missing)
        raise ImportError(f'{command} needs {uses}: pip install "fastconv[demo]"')
