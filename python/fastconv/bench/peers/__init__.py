# SPDX-License-Identifier: Apache-2.0
"""The rivals. Each is a class in a module of its own, imported in its own process only (see worker.py).

To add one: a module here with a class that has `Peer`'s methods, and a line in PEERS.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt

Task = dict[str, Any]
Array = npt.NDArray[Any]


class RefusedError(Exception):
    """A rival cannot do this task; the message is a sentence that says why."""


class Prepared(NamedTuple):
    """A task that is ready to be timed."""

    call: Callable[[], Any]  # what is timed
    result: Callable[[Any], Array]  # the answer of `call` as a channels-first array
    about: dict[str, Any]  # algorithm, workspace_bytes, ... as far as the rival tells


class Peer(Protocol):
    """A rival that computes with `threads` threads."""

    def __init__(self, threads: int) -> None: ...

    def versions(self) -> dict[str, str]:
        """Package -> version, and what else identifies the build."""

    def prepare(self, task: Task) -> Prepared:
        """Make inputs, pack weights, choose algorithms: everything that is not timed.

        Args:
            task: kind ("conv" with layer, "train" with model and batch, "pool", "network" with name and folder), seed,
                options for fastconv.

        Raises:
            RefusedError: with a sentence.
        """


class Entry(NamedTuple):
    module: str
    cls: str
    package: str  # what must be installed


PEERS = {
    "fastconv_plan": Entry("fastconv_", "Planned", "fastconv"),
    "fastconv": Entry("fastconv_", "OneShot", "fastconv"),
    "torch": Entry("torch_", "ChannelsFirst", "torch"),
    "torch_channels_last": Entry("torch_", "ChannelsLast", "torch"),
    "onnxruntime": Entry("onnxruntime_", "OnnxRuntime", "onnxruntime"),
    "openvino": Entry("openvino_", "OpenVino", "openvino"),
    "ncnn": Entry("ncnn_", "Ncnn", "ncnn"),
    "mnn": Entry("mnn_", "Mnn", "MNN"),
    "mnn_small_tiles": Entry("mnn_", "SmallTiles", "MNN"),
    "opencv": Entry("opencv_", "OpenCV", "cv2"),
}
TRAINERS = {
    "fastconv_train": Entry("training", "FastconvTraining", "fastconv"),
    "torch_train": Entry("training", "TorchTraining", "torch"),
    "torch_train_channels_last": Entry("training", "TorchTrainingChannelsLast", "torch"),
}
POOLS = {
    "fastconv_pool": Entry("pooling", "FastconvPool", "fastconv"),
    "fastconv_pool_channels_last": Entry("pooling", "FastconvPoolChannelsLast", "fastconv"),
    "torch_pool": Entry("pooling", "TorchPool", "torch"),
    "torch_pool_channels_last": Entry("pooling", "TorchPoolChannelsLast", "torch"),
}
NETWORKS = {
    "fastconv_session": Entry("networks", "FastconvSession", "fastconv"),
    "torch_compiled": Entry("networks", "TorchCompiled", "torch"),
    "torch_eager": Entry("networks", "TorchEager", "torch"),
    "onnxruntime_network": Entry("networks", "OnnxRuntimeNetwork", "onnxruntime"),
    "openvino_network": Entry("networks", "OpenVinoNetwork", "openvino"),
    "ncnn_network": Entry("networks", "NcnnNetwork", "ncnn"),
    "mnn_network": Entry("networks", "MnnNetwork", "MNN"),
}
REFERENCES = {
    "reference_torch": Entry("torch_", "Float64", "torch"),
    "reference_fastconv": Entry("fastconv_", "Float64", "fastconv"),
    "reference_torch_pool": Entry("pooling", "TorchPool64", "torch"),
    "reference_torch_train": Entry("training", "TorchTraining64", "torch"),
    "reference_fastconv_train": Entry("training", "FastconvTraining64", "fastconv"),
}
ALL = {**PEERS, **TRAINERS, **POOLS, **NETWORKS, **REFERENCES}


def entry(name: str) -> Entry:
    """The entry of a rival; of name@isa that of the name.

    Raises:
        ValueError: no such rival.
    """
    found = ALL.get(name.partition("@")[0])
    if found is None:
        raise ValueError(f"there is no peer {name!r}; known: {', '.join(ALL)}")
    return found


def installed(name: str) -> bool:
    """Whether the package of a rival is there.

    Raises:
        ValueError: no such rival.
    """
    return importlib.util.find_spec(entry(name).package) is not None


def create(name: str, threads: int) -> Peer:
    """The rival, its packages imported into this process."""
    module, cls, _ = entry(name)
    peer: Peer = getattr(importlib.import_module(f".{module}", __name__), cls)(threads)
    return peer
