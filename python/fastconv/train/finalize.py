# SPDX-License-Identifier: Apache-2.0
"""Population statistics for batch normalisation, taken after training."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..nn import BatchNorm1d, BatchNorm2d, BatchNorm3d, Module
from ..tensor import Tensor, plain


class _Population:
    """Mean and sum of squared distances of all values that a layer saw, per channel, in float64."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, np.zeros(()), np.zeros(())

    def add(self, x: Any, layout: str) -> None:
        channel = x.ndim - 1 if layout == "channels_last" else 1
        axes = tuple(a for a in range(x.ndim) if a != channel)
        count = math.prod(x.shape[a] for a in axes)
        if count == 0:
            return
        values = np.asarray(x, np.float64)
        mean = values.mean(axes)
        squares = values.var(axes) * count
        # Chan, Golub and LeVeque, 1983.
        total, distance = self.count + count, mean - self.mean
        self.squares = self.squares + squares + distance**2 * (self.count * count / total)
        self.mean = self.mean + distance * (count / total)
        self.count = total


def finalize_batchnorm(model: Module, data: Iterable[Any], max_batches: int | None = None) -> int:
    """Set every batch normalisation's running statistics to those of the data, and return the number of batches.

    During training running_mean and running_var are moving averages. This passes the data through the trained network
    once more and takes, for every layer, mean and unbiased variance of all the values that reach it, the pooled form of
    Ioffe and Szegedy's algorithm 2 ("Batch Normalization", 2015) and MATLAB's 'population' statistics. In the pass the
    layers normalise by their batch, as in training; everything else, dropout above all, is in evaluation mode. Nothing
    records, parameters stay as they are, every module gets its mode back.

    Args:
        data: batches: arrays, or tuples whose first entry is the input, as a DataLoader gives.
        max_batches: stop after as many; None takes all.

    Raises:
        ValueError: there is no batch, or no value reached one of the layers; statistics are as before then.
    """
    layers = [
        (name, m)
        for name, m in model.named_modules()
        if isinstance(m, BatchNorm1d | BatchNorm2d | BatchNorm3d) and m.running_mean is not None
    ]
    populations = {id(layer): _Population() for _, layer in layers}
    modes = [(module, module.training) for module in model.modules()]
    kept = {id(m): (m.running_mean.copy(), m.running_var.copy(), m.num_batches_tracked.copy()) for _, m in layers}

    def watch(layer: Any) -> Callable[[Any, tuple[Any, ...]], None]:
        return lambda module, inputs: populations[id(layer)].add(plain(inputs[0]), layer.layout)

    handles = [layer.register_forward_pre_hook(watch(layer)) for _, layer in layers]
    batches = 0
    try:
        model.eval()
        for _, layer in layers:
            layer.train()
        with no_grad():
            for batch in data:
                if max_batches is not None and batches >= max_batches:
                    break
                inputs = batch[0] if isinstance(batch, tuple | list) else batch
                model(inputs if isinstance(inputs, Tensor) else np.asarray(inputs))
                batches += 1
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
        for _, layer in layers:
            layer.running_mean[...], layer.running_var[...], layer.num_batches_tracked[...] = kept[id(layer)]
    if not batches:
        raise ValueError("finalize_batchnorm: data has no batches; expected at least one")
    unseen = [name for name, layer in layers if populations[id(layer)].count == 0]
    if unseen:
        raise ValueError(f"finalize_batchnorm: no value reached {', '.join(unseen)}; expected every layer to be used")
    for _, layer in layers:
        seen = populations[id(layer)]
        layer.running_mean[...] = seen.mean
        layer.running_var[...] = seen.squares / max(seen.count - 1, 1)
        layer.num_batches_tracked[...] = batches
    return batches
