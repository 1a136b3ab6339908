# SPDX-License-Identifier: Apache-2.0
"""fastconv inside PyTorch programs: layers, functions, `torch.ops.fastconv`, and a patch for those of other people.

    import fastconv.torch
    with fastconv.torch.patch():
        y = model(x)

Nothing of torch is needed to build or import fastconv itself. docs/pytorch.md is the page.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError('fastconv.torch needs PyTorch: pip install "fastconv[torch]"') from error

from . import functional, nn
from .accelerate import accelerate
from .patching import patch
from .report import Report, ReportError
from .team import share_team

share_team()

__all__ = ["Report", "ReportError", "accelerate", "functional", "nn", "patch"]
