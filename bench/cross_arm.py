# SPDX-License-Identifier: Apache-2.0
"""The NEON kernels without AArch64 hardware: `python -m bench.cross_arm`.

Builds the core with a cross compiler and runs its native drivers under an emulator of user programs: `check_main`,
every algorithm in all passes on the problems of a file, and `check_pool`. Debian has both: g++-aarch64-linux-gnu and
qemu-user-static. Correctness alone; nothing here says how fast the kernels are. Emulated arithmetic is slow:
--every takes a part of the problems.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.repository import ROOT

TARGET = "aarch64-linux-gnu"
EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")


def tools() -> tuple[str, str]:
    """(cross compiler, emulator); SystemExit names what is missing."""
    compiler = shutil.which(f"{TARGET}-g++")
    emulator = next(filter(None, map(shutil.which, EMULATORS)), None)
    if compiler is None or emulator is None:
        sys.exit(f"cross_arm: {TARGET}-g++ or {EMULATORS[0]} is missing; Debian: g++-{TARGET}, qemu-user-static")
    return compiler, emulator


def build(folder: Path, compiler: str) -> None:
    """`check_main` and `check_pool` for AArch64 in `folder`."""
    settings = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_CXX_COMPILER": compiler,
        "CMAKE_BUILD_TYPE": "Release",
        "FASTCONV_PYTHON": "OFF",
    }
    defined = [f"-D{name}={value}" for name, value in settings.items()]
    subprocess.run(["cmake", "-S", str(ROOT), "-B", str(folder), *defined], check=True, stdout=subprocess.DEVNULL)
    command = ["cmake", "--build", str(folder), "--target", "check_main", "check_pool", "-j", str(os.cpu_count() or 1)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def sampled(problems: Path, every: int, into: Path) -> int:
    """Writes every so-manieth problem of a file; their number."""
    texts = [line for line in problems.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    chosen = texts[::every]
    into.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    return len(chosen)


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m bench.cross_arm", description="NEON kernels under an emulator")
    small = ROOT / "tests" / "problems" / "small.txt"
    p.add_argument("--problems", type=Path, default=small, help="(default %(default)s)")
    p.add_argument("--every", type=int, default=1, help="take every so-manieth problem (default %(default)s)")
    p.add_argument("--build", type=Path, default=ROOT / "build" / "arm", help="(default build/arm)")
    p.add_argument("--only", choices=("check_main", "check_pool"), help="one of the drivers")
    a = p.parse_args()
    compiler, emulator = tools()
    build(a.build, compiler)
    count = sampled(a.problems, a.every, a.build / "problems.txt")
    drivers = {"check_main": [str(a.build / "problems.txt")], "check_pool": []}
    failed = 0
    for name in [a.only] if a.only else drivers:
        print(f"{name}" + (f", {count} problems" if name == "check_main" else ""), flush=True)
        start = time.monotonic()
        command = [emulator, "-L", f"/usr/{TARGET}", str(a.build / name), *drivers[name]]
        status = subprocess.run(command).returncode
        print(f"{name}: exit status {status} after {time.monotonic() - start:.0f} s", flush=True)
        failed += status != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
