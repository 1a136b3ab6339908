# SPDX-License-Identifier: Apache-2.0
"""The thread pool under `threadpoolctl.threadpool_limits`, beside those of BLAS and OpenMP.

threadpoolctl knows a library by a controller that is registered with it. Ours is registered when `fastconv` is
imported or, where threadpoolctl comes later (scikit-learn imports it), right after that module has run; nothing is
imported for it.

    with threadpoolctl.threadpool_limits(limits=1, user_api="fastconv"):
        y = fc.conv2d(x, w)  # one thread, whatever fc.options says
"""

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from . import _core
from .options import settings

NAME = "threadpoolctl"


def _get_num_threads(self: object) -> int:
    """The threads of a call that starts now, here."""
    return _core.get_threads(settings().threads)


def _set_num_threads(self: object, num_threads: int) -> None:
    """At most so many threads in any call of the process. threadpoolctl ends a limit by asking for what was there
    before: the number that holds without a limit means none."""
    _core.set_threads(0)
    if num_threads != _core.get_threads(settings().threads):
        _core.set_threads(num_threads)


def _get_version(self: object) -> str:
    return str(_core.info()["version"])


def register(threadpoolctl: Any) -> None:
    """Make the pool known to the module threadpoolctl; those before 3.3 take no others than their own."""
    if not hasattr(threadpoolctl, "register"):
        return
    members = {
        "user_api": "fastconv",
        "internal_api": "fastconv",
        "filename_prefixes": ("_core.",),  # one of many; the symbol makes the difference
        "check_symbols": ("fastconv_get_num_threads",),
        "get_num_threads": _get_num_threads,
        "set_num_threads": _set_num_threads,
        "get_version": _get_version,
    }
    threadpoolctl.register(type("FastconvController", (threadpoolctl.LibController,), members))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds threadpoolctl as the other finders do, and has `register` called once the module has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != NAME:
            return None
        others = (finder for finder in sys.meta_path if not isinstance(finder, _Finder))
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """A loader followed by `register`; what else is asked of it the loader answers."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        register(module)


def install() -> None:
    """Register now, or when threadpoolctl is imported."""
    if sys.modules.get(NAME) is not None:
        register(sys.modules[NAME])
    sys.meta_path.insert(0, _Finder())
