# SPDX-License-Identifier: Apache-2.0
"""The training loop. It reads from top to bottom: an epoch is train, validate, record, save, tell."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .. import nn
from .. import random as fc_random
from ..autograd import no_grad
from ..optim import Optimizer
from ..schedule import ReduceLROnPlateau
from ..tensor import Tensor
from .checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from .history import Epoch, History
from .progress import Silent, make_progress

Array = npt.NDArray[Any]
Loss = Callable[[Any, Array], Tensor]  # what the network gives, labels
PathOrText = str | PathLike[str]


class Batches(Protocol):
    """What `fit` and `evaluate` iterate: `fc.data.DataLoader`, or a list of pairs `(images, labels)`."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Any: ...


@dataclass(frozen=True)
class Evaluation:
    """A model's answers to a data set, in its order. `loss` is the mean over examples; `labels`, `predictions` (N,)
    are int64; both means are 0.0 for an empty set, whose `support` is 0."""

    loss: float
    accuracy: float
    support: int
    labels: npt.NDArray[np.int64]
    predictions: npt.NDArray[np.int64]


class _Mean:
    """Loss and accuracy over the examples seen."""

    def __init__(self) -> None:
        self.count = self.right = 0
        self.loss_sum = 0.0

    def add(self, loss: float, right: int, count: int) -> None:
        self.loss_sum += loss * count
        self.right += right
        self.count += count

    @property
    def loss(self) -> float:
        return self.loss_sum / self.count if self.count else 0.0

    @property
    def accuracy(self) -> float:
        return self.right / self.count if self.count else 0.0


def fit(
    model: nn.Module,
    train_loader: Batches,
    *,
    optimizer: Optimizer,
    loss: Loss | None = None,
    epochs: int,
    learning_rate: Callable[[int], float] | None = None,
    schedule: Any = None,
    schedule_every: str = "epoch",
    validation: Batches | None = None,
    checkpoint: PathOrText | None = None,
    resume: PathOrText | None = None,
    progress: bool = True,
    on_epoch_end: Sequence[Callable[[Epoch, History], bool | None]] = (),
    metadata: dict[str, Any] | None = None,
) -> History:
    """Train `model` as a classifier until `epochs` epochs are complete, and return what happened.

    Args:
        model: gives logits (N, num_classes) for images (N, ...); in training it may give a tuple that begins with
            them, as GoogLeNet does, which `loss` then takes.
        train_loader: batches `(images, labels)`; one pass over it is an epoch.
        optimizer: over the model's parameters.
        loss: of (logits, labels), a mean over the batch; None is `nn.CrossEntropyLoss()`.
        epochs: in all, those of a resumed run included.
        learning_rate: the rate of epoch e (from 1), set in every parameter group before it; None leaves them alone.
        schedule: of `fc.schedule`, over this optimizer; fit calls its `step`. ReduceLROnPlateau looks at the loss of
            `validation`, or of the training without one.
        schedule_every: "epoch" or "batch", when `step` is called.
        validation: batches to evaluate after every epoch.
        checkpoint: a file written after every epoch, in one step: an interruption leaves the last one whole.
        resume: a checkpoint to continue from. With the same arguments, the weights get the same bits as in a run
            that was never stopped: it restores model, optimiser, loader, random generator and history.
        progress: show a bar (on a terminal, needs rich) or one line per epoch (elsewhere).
        on_epoch_end: called in order with the finished epoch and the history so far; True from one ends training.
        metadata: kept in the checkpoint, e.g. how to build the model.

    Raises:
        ValueError: `epochs` is negative, the loader has no batches, or `resume` does not fit the model or optimiser.
        FloatingPointError: the loss is not finite; weights of that step are left as they were before it.
        ImportError: a bar is wanted and rich is not installed.
    """
    if epochs < 0:
        raise ValueError(f"fit: epochs is {epochs}; expected 0 or more")
    if len(train_loader) == 0:
        raise ValueError(
            "fit: train_loader has no batches; expected at least one (is drop_last leaving out the only one?)"
        )
    _check_schedule(schedule, schedule_every, learning_rate)
    loss = nn.CrossEntropyLoss() if loss is None else loss
    history = History()
    if resume is not None:
        history = _restore(load_checkpoint(resume), resume, model, optimizer, train_loader, schedule)
    after_batch = schedule if schedule_every == "batch" else None
    first = len(history.epochs) + 1
    with make_progress(progress, epochs) as display:
        for number in range(first, epochs + 1):
            start = time.perf_counter()
            display.begin_epoch(number, len(train_loader))
            if learning_rate is not None:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(number)
            mean = _train_epoch(model, train_loader, optimizer, loss, history, display, number, after_batch)
            held_out = None if validation is None else evaluate(model, validation, loss=loss)
            epoch = Epoch(
                number,
                mean.loss,
                mean.accuracy,
                held_out.loss if held_out else None,
                held_out.accuracy if held_out else None,
                time.perf_counter() - start,
            )
            history.epochs.append(epoch)
            if schedule is not None and after_batch is None:
                _step(schedule, epoch)
            display.end_epoch(epoch)
            # All of them hear of the epoch, also after one that ends training.
            answers = [callback(epoch, history) for callback in on_epoch_end]
            # After the callbacks: what they changed belongs to the state that a resumed run starts from.
            if checkpoint is not None:
                save_checkpoint(checkpoint, _capture(model, optimizer, train_loader, history, metadata, schedule))
            if any(answers):
                break
    return history


def evaluate(model: nn.Module, loader: Iterable[Any], *, loss: Loss | None = None) -> Evaluation:
    """Run `model` over all batches in evaluation mode, without gradients; its mode is put back afterwards.

    Args:
        loss: of (logits, labels), a mean over the batch; None is `nn.CrossEntropyLoss()`.
    """
    loss = nn.CrossEntropyLoss() if loss is None else loss
    mean = _Mean()
    labels_seen, predictions_seen = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    was_training = model.training
    model.eval()
    try:
        with no_grad():
            for images, labels in loader:
                logits = model(Tensor(images))
                predictions = logits.detach().numpy().argmax(axis=1)
                mean.add(loss(logits, labels).item(), int((predictions == labels).sum()), len(labels))
                labels_seen.append(labels)
                predictions_seen.append(predictions)
    finally:
        model.train(was_training)
    return Evaluation(
        mean.loss, mean.accuracy, mean.count, np.concatenate(labels_seen), np.concatenate(predictions_seen)
    )


def _train_epoch(
    model: nn.Module,
    loader: Batches,
    optimizer: Optimizer,
    loss: Loss,
    history: History,
    display: Silent,
    number: int,
    schedule: Any,
) -> _Mean:
    mean = _Mean()
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        outputs = model(Tensor(images))
        objective = loss(outputs, labels)
        value = objective.item()
        if not math.isfinite(value):
            step = len(history.iteration_loss) + 1
            raise FloatingPointError(
                f"fit: the loss is {value} in epoch {number}, step {step}; try a smaller learning rate"
            )
        objective.backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        right = int((logits.detach().numpy().argmax(axis=1) == labels).sum())
        mean.add(value, right, len(labels))
        history.iteration_loss.append(value)
        history.iteration_accuracy.append(right / len(labels))
        display.step(mean.loss, mean.accuracy)
    return mean


def _capture(
    model: nn.Module,
    optimizer: Optimizer,
    loader: Batches,
    history: History,
    metadata: dict[str, Any] | None,
    schedule: Any,
) -> Checkpoint:
    return Checkpoint(
        model=dict(model.state_dict()),
        optimizer=optimizer.state_dict(),
        optimizer_class=type(optimizer).__name__,
        loader=loader.state_dict() if hasattr(loader, "state_dict") else None,
        random=fc_random.get_state(),
        epoch=len(history.epochs),
        history=history.to_dict(),
        metadata=metadata or {},
        schedule=None if schedule is None else schedule.state_dict(),
    )


def _check_schedule(schedule: Any, every: str, learning_rate: Any) -> None:
    if schedule is None:
        return
    if learning_rate is not None:
        raise ValueError("fit: both learning_rate and schedule set the rate; expected one of them")
    if every not in ("epoch", "batch"):
        raise ValueError(f'fit: schedule_every is {every!r}; expected "epoch" or "batch"')
    if every == "batch" and isinstance(schedule, ReduceLROnPlateau):
        raise ValueError('fit: ReduceLROnPlateau looks at the loss of an epoch; expected schedule_every="epoch"')


def _step(schedule: Any, epoch: Epoch) -> None:
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(epoch.loss if epoch.val_loss is None else epoch.val_loss)
    else:
        schedule.step()


def _restore(
    checkpoint: Checkpoint,
    path: PathOrText,
    model: nn.Module,
    optimizer: Optimizer,
    loader: Batches,
    schedule: Any,
) -> History:
    if checkpoint.optimizer is None or checkpoint.history is None:
        raise ValueError(f"fit: {path} holds weights but no run; expected a checkpoint that fit wrote")
    if checkpoint.optimizer_class != type(optimizer).__name__:
        raise ValueError(
            f"fit: {path} holds the state of {checkpoint.optimizer_class}, the optimizer is {type(optimizer).__name__}"
        )
    if (checkpoint.schedule is None) != (schedule is None):
        held = "no" if checkpoint.schedule is None else "a"
        raise ValueError(f"fit: {path} holds {held} schedule; expected the arguments of the run that wrote it")
    model.load_state_dict(checkpoint.model)
    optimizer.load_state_dict(checkpoint.optimizer)
    if checkpoint.loader is not None and hasattr(loader, "load_state_dict"):
        loader.load_state_dict(checkpoint.loader)
    if schedule is not None:
        schedule.load_state_dict(checkpoint.schedule)
    fc_random.set_state(checkpoint.random)
    return History.from_dict(checkpoint.history)
