# SPDX-License-Identifier: Apache-2.0
"""Which calls are checked, and what is done about a wrong one."""

import itertools
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._core import ProblemError
from . import files
from .calls import Check, Results, judged


class CheckWarning(RuntimeWarning):
    """A result was not what NumPy computes; the text names the file that repeats it."""


def every_of(text: str) -> int:
    """N of "1/N". Raises ProblemError for anything else."""
    one, _, number = text.partition("/")
    if one.strip() != "1" or not number.strip().isdecimal() or int(number) < 1:
        raise ProblemError(f"FASTCONV_CHECK is {text!r}; expected 1/N, as 1/100 for one call in a hundred")
    return int(number)


class Sampler:
    """Judges one call in `every`, saves what is wrong into `folder`."""

    def __init__(self, every: int, folder: Path) -> None:
        self.every, self.folder = every, folder
        self._calls, self._files = itertools.count(), itertools.count()
        self.checked = 0

    def wants_this_one(self) -> bool:
        return not files.repeating and next(self._calls) % self.every == 0 and not _is_captured()

    def look_at(self, made: Callable[[], Check | None], results: Callable[[], Results]) -> None:
        """Check the call that has just been made, if it is one of those. `made`: None where it cannot be judged."""
        if self.wants_this_one() and (check := made()) is not None:
            self.check(check, results())

    def check(self, check: Check, results: Results) -> None:
        verdict = judged(check, results)
        self.checked += 1
        if verdict.right:
            return
        number = next(self._files)
        path = self.folder / f"fastconv-check-{os.getpid()}-{number}.npz"
        try:
            if number >= files.MOST_FILES:
                raise OSError(f"{files.MOST_FILES} files are enough of one process")
            files.save(path, check, results)
            saved = f"python -m fastconv check {path}"
        except OSError as error:
            saved = f"not saved: {error}"
        warnings.warn(f"{check.title}: {verdict} ({saved})", CheckWarning, stacklevel=_outside())


def _is_captured() -> bool:
    """Whether calls are recorded into a CUDA graph: then there is nothing to look at, nor may anybody wait for it."""
    cupy: Any = sys.modules.get("cupy")
    capturing = getattr(cupy.cuda.get_current_stream(), "is_capturing", None) if cupy else None
    return bool(capturing and capturing())


def _outside() -> int:
    """The stacklevel that makes a warning of `check` one of the first line outside of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "fastconv":
        level, frame = level + 1, frame.f_back
    return level
