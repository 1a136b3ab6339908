# SPDX-License-Identifier: Apache-2.0
"""`fastconv convert`: weights from one kind of file to another."""

import argparse
from pathlib import Path
from typing import Any

TEXT = """\
Read weights from safetensors, .npz (also a checkpoint of fastconv train) or a
.pth or .pt file of PyTorch, and write them as safetensors or .npz. What the
input is, its first bytes say; the output's ending decides its format.
"""
EXAMPLE = "fastconv convert resnet18.pth resnet18.safetensors --model resnet18"


def add_arguments(command: Any) -> None:
    """Add the arguments of `fastconv convert` to a parser."""
    command.add_argument("source", metavar="IN", help="the file to read")
    command.add_argument("out", metavar="OUT", help="the file to write: .safetensors or .npz")
    command.add_argument("--model", metavar="NAME", help="also check that the weights fit this network of fc.models")
    command.add_argument("--list", action="store_true", help="print the name, shape and dtype of every array")
    command.add_argument("--overwrite", action="store_true", help="replace OUT where it exists")


def run(options: argparse.Namespace) -> int:
    """Convert, and return the exit code."""
    import fastconv as fc

    if Path(options.out).exists() and not options.overwrite:
        raise ValueError(f"{options.out} exists: replace it with --overwrite, or choose another name")
    state = fc.weights.load(options.source)
    about = fc.weights.metadata(options.source)
    if options.model:
        fit(options.model, state, options.source)
        about["model"] = options.model
    fc.weights.save(options.out, state, metadata=about if options.out.endswith(".safetensors") else None)
    if options.list:
        width = max((len(name) for name in state), default=0)
        for name, array in state.items():
            print(f"{name:{width}}  {array.dtype.name:8}  {'x'.join(map(str, array.shape)) or 'scalar'}")
    numbers, size = sum(array.size for array in state.values()), Path(options.out).stat().st_size
    fits = f", which fit {options.model}" if options.model else ""
    print(f"{options.out}: {len(state)} arrays of {numbers:,} numbers in {size:,} bytes{fits}")
    return 0


def fit(name: str, state: dict[str, Any], path: str, **build: Any) -> Any:
    """The network `name`, made with the options `build`, with these weights.

    Raises:
        ValueError: no network has that name, or the weights of the file do not fit it: one line that says why.
    """
    import fastconv as fc

    with fc.nn.init.skip():
        model = fc.models.build(name, **build)
    try:
        model.load_state_dict(state)
    except ValueError as error:
        reasons = "; ".join(_first(line.strip()) for line in str(error).splitlines()[1:])
        raise ValueError(f"{path}: does not fit {name}: {reasons}") from error
    return model


def _first(line: str, count: int = 3) -> str:
    """The first names of a line `kind: name, name, ...`, and how many there are."""
    kind, _, names = line.partition(": ")
    parts = names.split("; " if kind == "wrong shape" else ", ")
    more = f" and {len(parts) - count} more" if len(parts) > count else ""
    return f"{kind}: {', '.join(parts[:count])}{more}"
