# SPDX-License-Identifier: Apache-2.0
"""fastconv and its rivals layer by layer: `python -m bench.layers --threads 1,2 --passes fwd`.

It is `fastconv bench` with the repository's commit in its result, which goes into bench/results. README.md beside this
file explains the method and the columns.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bench import repository
from fastconv.bench import command


def main() -> int:
    p = argparse.ArgumentParser(
        prog="python -m bench.layers",
        description=command.TEXT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(p, what="layers", threads="1,2", rounds=15, sample=0.05)

    def save(result: dict[str, Any], path: Path | None) -> None:
        print("saved:", repository.save(result, path))

    return command.main(p.parse_args(), lambda: repository.surroundings("bench.layers"), save)


if __name__ == "__main__":
    sys.exit(main())
