# SPDX-License-Identifier: Apache-2.0
"""Python on a device: with CuPy on a GPU where there is one, else on the emulated device.

FASTCONV_EMULATED_DEVICE names the library of the emulated one (CONTRIBUTING.md says how it is built); a CuPy of our own
then takes the real one's place, in this process alone.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

EMULATED = os.environ.get("FASTCONV_EMULATED_DEVICE")
FAKE = str(Path(__file__).parents[1] / "cuda_host" / "fake")


@pytest.fixture(scope="session")
def cp():
    """The module of the device's arrays."""
    from fastconv import DeviceError, device

    if not EMULATED:
        pytest.importorskip("cupy", reason="no CuPy and no FASTCONV_EMULATED_DEVICE: CONTRIBUTING.md builds one")
        try:
            device.open_library()
        except DeviceError as error:
            pytest.skip(f"no device: {error}; the emulated one is named by FASTCONV_EMULATED_DEVICE")
        import cupy

        return cupy
    sys.path.insert(0, FAKE)
    import cupy

    assert cupy.__file__.startswith(FAKE)
    cupy.memory.use_library(EMULATED)
    assert device.open_library(EMULATED) == "cuda_host"
    return cupy


@pytest.fixture(autouse=True)
def _no_error_on_the_device(cp):
    """Whatever the checks of the emulation find fails the test that caused it."""
    yield
    if EMULATED:
        cp.memory.synchronize()
    else:
        cp.cuda.get_current_stream().synchronize()


@pytest.fixture
def rng(request):
    seed = sum(request.node.name.encode())
    print("seed", seed)
    return np.random.default_rng(seed)
