# SPDX-License-Identifier: Apache-2.0
"""Starts a rival's process: `python -P boot.py NAME THREADS`.

It loads this folder as a package of another name, so that a rival's process holds nothing of fastconv.
"""

import importlib.util
import sys
from pathlib import Path

NAME = "fastconv_bench"


def main() -> None:
    here = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(NAME, here / "__init__.py", submodule_search_locations=[str(here)])
    assert spec and spec.loader
    package = sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    importlib.import_module(f"{NAME}.worker").main()


if __name__ == "__main__":
    main()
