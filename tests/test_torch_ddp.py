# SPDX-License-Identifier: Apache-2.0
"""Training under DistributedDataParallel follows the same losses with our layers, replaced inside or around it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')

from tolerance import assert_close  # noqa: E402


def test_the_losses_of_two_processes(tmp_path):
    assert torch.distributed.is_gloo_available()
    command = [sys.executable, Path(__file__).parent / "ddp_training.py"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONWARNINGS": "ignore"}
    processes = [
        subprocess.Popen([*command, str(rank), tmp_path / "meeting", "none,always,auto"], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, env=environment)
        for rank in range(2)
    ]  # fmt: skip
    try:
        told = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [0, 0], told
    found = json.loads(told[0][0])
    stock = np.array(found["none"]["losses"])
    assert stock[-1] < 0.8 * stock[0], "it learns"
    assert found["always"]["report"].startswith("replaced 3 of 3 convolutions, 1 of 1 batch norm and 2 of 2 pools")
    assert found["auto"]["report"].startswith("replaced ") and not found["auto"]["pending"]
    for policy in ("always", "auto"):
        assert_close(np.array(found[policy]["losses"]), stock, "trained", "float32", what=policy)
