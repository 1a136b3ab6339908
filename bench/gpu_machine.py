# SPDX-License-Identifier: Apache-2.0
"""The GPU as the driver names it, the versions of what was measured, and the library: the installed one, or one that is
built from the checkout.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import gpu_sources
from bench.repository import ROOT

BUILD = ROOT / "build" / "gpu"
LIBRARY = "libfastconv_cuda.so"
CHECKS = ("check_cuda", "check_cuda_pool", "check_cuda_ops")
BUILD_SECONDS = 1800


class MissingError(Exception):
    """What is missing, in a sentence."""


@dataclass(frozen=True)
class Gpu:
    """The first GPU that this process may use."""

    name: str
    architecture: int  # compute capability times 10
    multiprocessors: int
    memory_bytes: int
    l2_bytes: int
    driver_cuda: str  # what the driver serves

    @property
    def slug(self) -> str:
        """For a file's name: "NVIDIA H100 80GB HBM3" is h100-80gb-hbm3."""
        words = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
        return words.removeprefix("nvidia-").removeprefix("geforce-")


def gpu(library: str = "libcuda.so.1") -> Gpu:
    """Asked of the driver alone, so that nothing else need be there.

    Raises:
        MissingError: there is no driver, or no GPU.
    """
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        raise MissingError(f"there is no NVIDIA driver here: {library} was not found") from None
    if status := cuda.cuInit(0):
        raise MissingError(f"there is a driver and no NVIDIA GPU that this process may use (cuInit says {status})")
    count, number, driver = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if cuda.cuDeviceGetCount(ctypes.byref(count)) or count.value < 1:
        raise MissingError("there is a driver and no NVIDIA GPU that this process may use")
    cuda.cuDeviceGet(ctypes.byref(number), 0)
    name, memory = ctypes.create_string_buffer(128), ctypes.c_size_t()
    cuda.cuDeviceGetName(name, 128, number)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), number)
    cuda.cuDriverGetVersion(ctypes.byref(driver))

    def attribute(which: int) -> int:
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), which, number)
        return value.value

    major, minor, multiprocessors, l2_bytes = 75, 76, 16, 38  # CUdevice_attribute
    return Gpu(
        name=name.value.decode(),
        architecture=attribute(major) * 10 + attribute(minor),
        multiprocessors=attribute(multiprocessors),
        memory_bytes=memory.value,
        l2_bytes=attribute(l2_bytes),
        driver_cuda=f"{driver.value // 1000}.{driver.value % 1000 // 10}",
    )


def versions() -> dict[str, str]:
    """Of the driver, the CUDA runtime, PyTorch, cuDNN, CuPy and fastconv: of what is there."""
    found = {"fastconv": importlib.import_module("fastconv").__version__}
    if smi := shutil.which("nvidia-smi"):
        asked = subprocess.run(
            [smi, "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0:
            found["driver"] = asked.stdout.split("\n")[0].strip()
    if nvcc := shutil.which("nvcc"):
        told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
        if release := re.search(r"release [\d.]+, V([\d.]+)", told):
            found["nvcc"] = release[1]
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        pass
    else:
        found |= {"torch": torch.__version__, "cuda runtime": str(torch.version.cuda)}
        cudnn = torch.backends.cudnn.version()
        if cudnn:
            found["cudnn"] = str(cudnn)
    for package in ("cupy", "cupy-cuda12x", "cupy-cuda13x"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found["cupy"] = importlib.metadata.version(package)
    return found


def _run(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    except FileNotFoundError:
        raise MissingError(f"{what} needs {command[0]}, which was not found") from None
    except subprocess.TimeoutExpired:
        raise MissingError(f"{what} did not end within {BUILD_SECONDS} s") from None
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise MissingError(f"{what} failed:\n{tail}")


def is_current(library: Path, root: Path = ROOT) -> bool:
    """Whether a library is there and younger than every file that its kernels are made of: these are verified."""
    if not library.is_file():
        return False
    files = {name for algorithm in gpu_sources.algorithms(root) for name in gpu_sources.files_of(algorithm, root)}
    return library.stat().st_mtime > max((root / name).stat().st_mtime for name in files)


def _tool(name: str) -> str:
    """A program of this Python's environment, else the one on PATH."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else name


def build(architecture: int, with_library: bool) -> Path | None:
    """Build the checks, and the library if it is wanted; the library's path.

    Raises:
        MissingError: a compiler, or what it says.
    """
    words = [_tool("cmake"), "-S", str(ROOT), "-B", str(BUILD), "-DCMAKE_BUILD_TYPE=Release", "-DFASTCONV_PYTHON=OFF"]
    words += ["-DFASTCONV_ISAS=scalar", "-DFASTCONV_CUDA_HOST=ON"]  # the checks: plain C++, against `reference`
    words += [f"-DFASTCONV_CUDA={'on' if with_library else 'off'}", f"-DCMAKE_CUDA_ARCHITECTURES={architecture}-real"]
    if shutil.which("ninja") and not (BUILD / "CMakeCache.txt").exists():
        words += ["-G", "Ninja"]
    _run(words, "configuring build/gpu")
    targets = [*CHECKS, *(["fastconv_cuda"] if with_library else [])]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    _run(
        [_tool("cmake"), "--build", str(BUILD), "-j", str(cores), "--target", *targets],
        "building " + ", ".join(targets),
    )
    return BUILD / "cuda" / LIBRARY if with_library else None


def check_program(name: str) -> Path:
    """Where `build` leaves one of the checks."""
    folder = BUILD / "cuda" / "cuda_host" if name != "check_cuda" else BUILD
    return folder / name


def prepare(architecture: int) -> tuple[Path, dict[str, Any]]:
    """The library, opened in this process, and what is recorded of it. The checks are built too.

    Raises:
        MissingError: it could be neither found nor built, or does not open.
    """
    core: Any = importlib.import_module("fastconv._core")
    device: Any = importlib.import_module("fastconv.device")
    installed = Path(core.__file__).with_name(LIBRARY)
    current = is_current(installed)
    built = build(architecture, with_library=not current)
    path = built or installed
    try:
        device.open_library(str(path))
    except core.DeviceError as error:
        raise MissingError(f"{path.name} does not open: {error}; pip install . installs this checkout") from None
    about = "installed" if current else f"built from the checkout for compute capability {architecture / 10}"
    return path, {"library": about, "device": core.device_info(0)}
