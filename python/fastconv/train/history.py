# SPDX-License-Identifier: Apache-2.0
"""What a training run has shown so far: one record per epoch, one loss and accuracy per iteration."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data. `loss` and `accuracy` are means over its examples, taken while the weights
    changed; `val_loss` and `val_accuracy` those of the validation set after it, None without one."""

    number: int
    loss: float
    accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float


@dataclass
class History:
    """`epochs` in order; `iteration_loss` and `iteration_accuracy` by training step, over all epochs."""

    epochs: list[Epoch] = field(default_factory=list)
    iteration_loss: list[float] = field(default_factory=list)
    iteration_accuracy: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, as JSON takes them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "History":
        """The inverse of `to_dict`."""
        epochs = [Epoch(**epoch) for epoch in record["epochs"]]
        return cls(epochs, list(record["iteration_loss"]), list(record["iteration_accuracy"]))
