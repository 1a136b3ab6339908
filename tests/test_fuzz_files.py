# SPDX-License-Identifier: Apache-2.0
"""bench.fuzz_files: a few damaged files of each format, and that it sees what is wrong."""

import random
import subprocess
import sys

import numpy as np
import pytest

from bench import fuzz_files

pytest.importorskip("onnx", reason="onnx comes with fastconv[onnx]")


def test_a_few_files_of_each_format(tmp_path, monkeypatch, capsys):
    """ONNX begins with exported nets alone here; the command has the onnx package's cases besides."""
    folders = {name: tmp_path / name for name in fuzz_files.FORMATS}
    onnx = fuzz_files.FORMATS["onnx"]._replace(write=fuzz_files.fuzz_onnx.write_nets)
    monkeypatch.setitem(fuzz_files.FORMATS, "onnx", onnx)
    for name, folder in folders.items():
        folder.mkdir()
        tally, peak, _ = fuzz_files.run_format(5, name, 0, 60, folder)
        assert not tally["failed"], capsys.readouterr().out
        assert tally["refused"] > 10 and tally.total() == 60
        assert 10 < peak < 2000
    assert tally["worked"], "some damage leaves an array as it was"


def test_damage_is_the_same_each_time(tmp_path):
    fuzz_files.FORMATS["npz"].write(tmp_path)
    files = sorted(tmp_path.glob("*.npz"))
    assert len(files) == 3
    cases = [fuzz_files.case(1, "npz", i, files) for i in range(20)]
    assert cases == [fuzz_files.case(1, "npz", i, files) for i in range(20)]
    good = {f.read_bytes() for f in files}
    assert sum(data in good for data in cases) < 4
    assert fuzz_files.damage(random.Random(0), b"", b"") is not None


def finish(code):
    """What a child's end says: run in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_hangs_and_crashes_are_told_apart():
    for code in ("signal.alarm(1); signal.pause()", "signal.setitimer(signal.ITIMER_PROF, 0.1)\nwhile True: pass"):
        assert "took longer than 10 s" in fuzz_files._died(finish(f"import signal; {code}"))
    assert "ended with -11" in fuzz_files._died(finish("import os; os.kill(os.getpid(), 11)"))


def test_what_a_reader_must_not_do(tmp_path, monkeypatch, capsys):
    """Other errors, errors of several lines, and running out of memory count as failures."""
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    monkeypatch.setattr(fuzz_files.resource, "setrlimit", lambda *_: None)
    raised = iter(
        [KeyError("k"), ValueError("two\nlines"), ValueError("MemoryError: no"), ValueError(""), ValueError("x")]
    )

    def read(path):
        raise next(raised)

    monkeypatch.setitem(fuzz_files.FORMATS, "npz", fuzz_files.FORMATS["npz"]._replace(read=read))
    fuzz_files.child(1, "npz", 0, 5, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[1].rstrip(":") for line in lines[:5]] == ["wrong"] * 4 + ["refused"]
    assert lines[5].startswith("peak ")
