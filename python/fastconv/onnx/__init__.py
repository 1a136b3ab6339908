# SPDX-License-Identifier: Apache-2.0
"""ONNX models: so far, the convolutions that one holds. Needs the extra `fastconv[onnx]`."""

from .layers import convolutions

__all__ = ["convolutions"]
