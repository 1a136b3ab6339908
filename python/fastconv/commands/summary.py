# SPDX-License-Identifier: Apache-2.0
"""`fastconv summary`: its arguments, and what it does with them."""

import argparse
import json
import re
from typing import Any

TEXT = """\
Print the layers of a network: output shapes, parameters, multiply-adds, memory of activations. Nothing is computed
and no weights are drawn.
"""
EXAMPLE = "fastconv summary resnet18 --input 3x64x64"


def add_arguments(command: Any) -> None:
    """Add the arguments of `fastconv summary` to a parser."""
    from fastconv import models
    from fastconv.summarizing import STYLES

    command.add_argument("name", metavar="NAME", choices=models.list(), help=", ".join(models.list()))
    command.add_argument(
        "--style", choices=STYLES, default=STYLES[0], help="whose table it looks like (default: %(default)s)"
    )
    command.add_argument(
        "--input", type=shape, metavar="CxHxW", help="channels, height, width of one image (default: the network's)"
    )
    command.add_argument("--json", action="store_true", help="as JSON")


def shape(text: str) -> tuple[int, ...]:
    """3x224x224 as (3, 224, 224)."""
    if not re.fullmatch(r"\d+(x\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r}; expected numbers such as 3x224x224")
    return tuple(map(int, text.split("x")))


def run(options: argparse.Namespace) -> int:
    """Print the summary, and return the exit code."""
    import fastconv as fc

    shape = options.input or fc.models.input_shape(options.name)
    # Networks that are made for a number of channels or a size are made for that of the input.
    given = {"in_channels": shape[0], "size": shape[-1]}
    words = {word: value for word, value in given.items() if options.name in fc.models.list(word)}
    with fc.nn.init.skip():
        model = fc.models.build(options.name, **words)
    result = fc.summary(model, shape, options.style)
    print(json.dumps(result.to_dict(), indent=2) if options.json else result)
    return 0
