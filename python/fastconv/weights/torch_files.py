# SPDX-License-Identifier: Apache-2.0
"""PyTorch's files, through PyTorch: `.pth` and `.pt`, zip archives and the older single pickles."""

import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import as_dtype
from .npz import shortened

Array = npt.NDArray[Any]

_NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts put the model's state


def read(path: Path) -> dict[str, Array]:
    """The tensors of a file by name, on the CPU.

    PyTorch is asked for `weights_only=True`: a file that needs more than tensors and containers is refused.

    Raises:
        ImportError: PyTorch is not installed.
        ValueError: PyTorch cannot read the file, or it holds no dictionary of tensors.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(
            f"{path}: a file of PyTorch, which only PyTorch reads: pip install torch; "
            "or convert it where PyTorch is: fastconv convert IN OUT.safetensors"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about storages of old files: nothing that a reader could act upon
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # of whatever kind: unpickling damaged bytes can raise all of them
        raise ValueError(f"{path}: PyTorch cannot read it with weights_only=True ({shortened(error)})") from error
    for name in _NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping) or not loaded:
        raise ValueError(f"{path}: holds {_kind(loaded)}; expected a dictionary of tensors")
    return {_name(path, name): _array(path, name, value, torch) for name, value in loaded.items()}


def _kind(value: Any) -> str:
    return "an empty dictionary" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def _name(path: Path, name: Any) -> str:
    if not isinstance(name, str):
        raise ValueError(f"{path}: a name is {name!r}; expected text")
    return name


def _array(path: Path, name: str, value: Any, torch: Any) -> Array:
    if not torch.is_tensor(value):
        raise ValueError(f"{path}: {name!r} is a {type(value).__name__}; expected a tensor")
    try:
        value = value.detach().contiguous()
        if value.dtype == torch.bfloat16:  # which NumPy has not: its bits, under ml_dtypes' name
            return np.asarray(value.view(torch.int16).numpy()).view(as_dtype("bfloat16"))
        return np.asarray(value.numpy())
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{path}: {name!r} is no plain array ({error})") from error
