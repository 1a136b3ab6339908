# SPDX-License-Identifier: Apache-2.0
"""A training step - forward, cross-entropy, backward, SGD with momentum - in fastconv and in PyTorch.

The result that is checked is the loss of the first steps: it depends on every gradient and on the optimiser.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import models
from . import Array, Prepared, RefusedError, Task

RATE, MOMENTUM = 0.002, 0.9  # VGG-11 without normalisation overflows at 0.01
Step = Callable[[], Any]  # one training step; returns the loss


class Training:
    """What both frameworks share: the task, and the losses that are checked."""

    def __init__(self, threads: int) -> None:
        raise NotImplementedError

    def versions(self) -> dict[str, str]:
        raise NotImplementedError

    def build(self, name: str, images: Array, labels: Array, seed: int) -> Step:
        raise NotImplementedError

    def prepare(self, task: Task) -> Prepared:
        if task["kind"] != "train":
            raise RefusedError(f"{type(self).__name__} trains, it has no single {task['kind']}")
        images, labels = models.batch(task["model"], task["batch"], task["seed"])
        step = self.build(task["model"], images, labels, task["seed"])
        losses = [float(step()) for _ in range(models.MODELS[task["model"]].checked_steps)]
        # The timed steps go on from here; each costs the same.
        return Prepared(step, lambda _: np.asarray(losses), {"last_checked_loss": losses[-1]})


class FastconvTraining(Training):
    dtype: Any = np.float32

    def __init__(self, threads: int) -> None:
        from .fastconv_ import OneShot

        self.versions = OneShot(threads).versions  # type: ignore[method-assign]

    def build(self, name: str, images: Array, labels: Array, seed: int) -> Step:
        import fastconv as fc

        model = models.MODELS[name].build(fc.nn)
        shapes = {key: np.shape(value) for key, value in model.state_dict().items()}
        model.load_state_dict(models.initial_state(shapes, seed))
        model.to(self.dtype)
        optimizer = fc.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
        loss_of = fc.nn.CrossEntropyLoss()
        x = fc.Tensor(images.astype(self.dtype))

        def step() -> Any:
            optimizer.zero_grad()
            loss = loss_of(model(x), labels)
            loss.backward()
            optimizer.step()
            return loss.data

        return step


class FastconvTraining64(FastconvTraining):
    dtype = np.float64


class TorchTraining(Training):
    """PyTorch's eager mode, NCHW, with the optimiser's fused kernel (its fastest)."""

    double = False
    channels_last = False

    def __init__(self, threads: int) -> None:
        from .torch_ import ChannelsFirst

        self.versions = ChannelsFirst(threads).versions  # type: ignore[method-assign]

    def build(self, name: str, images: Array, labels: Array, seed: int) -> Step:
        torch: Any = importlib.import_module("torch")
        torch.set_grad_enabled(True)
        model = models.MODELS[name].build(torch.nn)
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        state = models.initial_state(shapes, seed)
        model.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in state.items()})
        x, targets = torch.from_numpy(images), torch.from_numpy(labels)
        if self.double:
            model, x = model.double(), x.double()
        if self.channels_last:
            model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, fused=True)
        loss_of = torch.nn.CrossEntropyLoss()

        def step() -> Any:
            optimizer.zero_grad()
            loss = loss_of(model(x), targets)
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step


class TorchTrainingChannelsLast(TorchTraining):
    channels_last = True


class TorchTraining64(TorchTraining):
    double = True
