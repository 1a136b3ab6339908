# SPDX-License-Identifier: Apache-2.0
"""Optimisers: SGD with momentum, Adam, AdamW, RMSprop, and the clipping of gradients. PyTorch's names and defaults.

Parameters are changed in place and their version rises, so that a graph which saved the old values refuses to use
them. Frozen parameters (requires_grad False) and those without a gradient are left alone, bit for bit.
Schedules of the learning rate are in `fc.schedule`.
"""

from .clipping import clip_grad_norm_, clip_grad_value_
from .optimizer import Optimizer, param_groups
from .steps import SGD, Adam, AdamW, RMSprop

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "clip_grad_norm_", "clip_grad_value_", "param_groups"]
