# SPDX-License-Identifier: Apache-2.0
"""Training a classifier: the loop, its checkpoints and history, and the metrics of the result.

>>> history = fc.train.fit(model, loader, optimizer=fc.optim.Adam(model.parameters()), epochs=10, validation=held_out)
>>> result = fc.train.evaluate(model, held_out)
>>> print(fc.train.metrics.classification_report(result.labels, result.predictions))
"""

from . import metrics
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .finalize import finalize_batchnorm
from .history import Epoch, History
from .loop import Evaluation, evaluate, fit

__all__ = [
    "Checkpoint",
    "Epoch",
    "Evaluation",
    "History",
    "evaluate",
    "finalize_batchnorm",
    "fit",
    "load_checkpoint",
    "metrics",
    "save_checkpoint",
]
