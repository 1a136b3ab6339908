# SPDX-License-Identifier: Apache-2.0
"""One rival in one process, driven over a pipe: the server (started by boot.py) and its client.

A request is a line of JSON, and so is its answer: {"value": ...}, {"refused": sentence} or {"failed": traceback}.

    prepare {task}                      -> about: algorithm, workspace_bytes, ...   (untimed: data, packing, choice)
    result  {path}                      -> null; the result as .npy, to be checked
    run     {repeats, settle, cold}     -> seconds per call
    peak    {seconds}                   -> GFLOP/s of float32 multiply-adds on registers
    versions, quit

Thread counts are environment variables set before the process starts, because most libraries read them when loaded.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from . import peers, timing

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "FASTCONV_NUM_THREADS",
)
BOOT = Path(__file__).resolve().parent / "boot.py"
# Prefixes of what tunes a library: left out, so that each runs as it comes.
TUNING_VARIABLES = ("DNNL_", "FASTCONV_", "GOMP_", "KMP_", "MKL_", "OMP_", "ONEDNN_", "OPENCV_", "ORT_", "OV_", "TBB_")
COLD_BYTES = 256 << 20  # more than any last-level cache that one process fills


class WorkerError(RuntimeError):
    """A rival's process failed; the message holds its traceback."""


def environment(threads: int, **variables: str) -> dict[str, str]:
    """This process's environment with the thread counts set, and no other setting that changes what is measured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(TUNING_VARIABLES)}
    return {**kept, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **variables}


class Server:
    """What runs in the rival's process."""

    def __init__(self, name: str, threads: int) -> None:
        self.threads = threads
        self.peer = peers.create(name, threads)
        self.prepared: peers.Prepared | None = None
        self.ballast: Any = None

    def serve(self, requests: TextIO, answers: TextIO) -> None:
        for line in requests:
            request = json.loads(line)
            command = request.pop("do")
            if command == "quit":
                return
            try:
                answer = {"value": getattr(self, f"do_{command}")(**request)}
            except peers.RefusedError as refusal:
                answer = {"refused": str(refusal)}
            except Exception:
                answer = {"failed": traceback.format_exc()}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()

    def _ready(self) -> peers.Prepared:
        if self.prepared is None:
            raise WorkerError("nothing is prepared")
        return self.prepared

    def do_versions(self) -> dict[str, str]:
        return self.peer.versions()

    def do_prepare(self, task: peers.Task) -> dict[str, Any]:
        self.prepared = None  # release the last task's memory first
        self.prepared = self.peer.prepare(task)
        return self.prepared.about

    def do_result(self, path: str) -> None:
        prepared = self._ready()
        np.save(path, np.ascontiguousarray(prepared.result(prepared.call())))

    def do_run(self, repeats: int, settle: float, cold: bool) -> float:
        return timing.time_calls(self._ready().call, repeats, settle, self.empty_caches if cold else None)

    def empty_caches(self) -> None:
        if self.ballast is None:
            self.ballast = np.zeros(COLD_BYTES // 8)
        self.ballast += 1.0

    def do_peak(self, seconds: float) -> float:
        from fastconv import _core

        return _core.fma_peak(seconds, self.threads)


class Worker:
    """The client: a rival's process, started here, ended by `close` or at the end of a `with` block."""

    def __init__(self, name: str, threads: int, variables: dict[str, str] | None = None) -> None:
        self.name, self.threads, self.variables = name, threads, variables or {}
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", str(BOOT), self.name, str(self.threads)],
            env=environment(self.threads, **self.variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def restart(self) -> None:
        """A new process, after one that failed."""
        self.close()
        self.process = self._start()

    def ask(self, command: str, **arguments: Any) -> Any:
        """One request and its answer.

        Raises:
            peers.RefusedError: the rival cannot do the task.
            WorkerError: the process raised, or ended.
        """
        assert self.process.stdin and self.process.stdout
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"{self.name}: the process ended with code {self.process.wait()} on {command!r}")
        answer = json.loads(line)
        if "refused" in answer:
            raise peers.RefusedError(answer["refused"])
        if "failed" in answer:
            raise WorkerError(f"{self.name}: {command} failed\n{answer['failed']}")
        return answer["value"]

    def prepare(self, task: peers.Task) -> dict[str, Any]:
        about: dict[str, Any] = self.ask("prepare", task=task)
        return about

    def result(self) -> peers.Array:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "result.npy"
            self.ask("result", path=str(path))
            array: peers.Array = np.load(path)
            return array

    def run(self, repeats: int, settle: float, cold: bool = False) -> float:
        return float(self.ask("run", repeats=repeats, settle=settle, cold=cold))

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            if self.process.poll() is None:
                self.process.stdin.write('{"do": "quit"}\n')
        with contextlib.suppress(BrokenPipeError):  # what could not be sent
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main() -> None:
    name, threads = sys.argv[1], int(sys.argv[2])
    # Some libraries print what they do: the answers have a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    Server(name, threads).serve(sys.stdin, answers)
    os._exit(0)  # some libraries complain when they are taken apart
