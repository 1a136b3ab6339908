# SPDX-License-Identifier: Apache-2.0
"""`python -m fastconv` is the command `fastconv`."""

import sys

from .cli import main

sys.exit(main())
