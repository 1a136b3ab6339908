# SPDX-License-Identifier: Apache-2.0
"""Whole networks, each rival at its best setting for the latency of one batch in float32.

A task's folder holds what `bench.networks` wrote: x.npy, state.npz (fastconv's weights by key), model.onnx, model.pt2
(for PyTorch), model.ncnn.param and .bin. What a rival cannot load it refuses.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from . import Array, Prepared, RefusedError, Task


def _package(name: str) -> Any:
    return importlib.import_module(name)


class _Network:
    """What all share: the task's folder and its input."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def versions(self) -> dict[str, str]:
        raise NotImplementedError

    def make(self, task: Task, folder: Path, x: Array) -> Prepared:
        raise NotImplementedError

    def prepare(self, task: Task) -> Prepared:
        if task["kind"] != "network":
            raise RefusedError(f"{type(self).__name__} runs networks, not {task['kind']}")
        folder = Path(task["folder"])
        return self.make(task, folder, np.load(folder / "x.npy"))

    @staticmethod
    def file(folder: Path, name: str) -> str:
        path = folder / name
        if not path.exists():
            raise RefusedError(f"there is no {name} for it")
        return str(path)


class FastconvSession(_Network):
    """`fc.InferenceSession`; with options["tune"] after timing algorithms for so many seconds."""

    def versions(self) -> dict[str, str]:
        fc: Any = _package("fastconv")
        return {"fastconv": fc.__version__, "isa": fc.info()["isa"]}

    def make(self, task: Task, folder: Path, x: Array) -> Prepared:
        fc: Any = _package("fastconv")
        model = fc.models.build(task["name"])
        with np.load(self.file(folder, "state.npz")) as state:
            model.load_state_dict(dict(state))
        session = fc.InferenceSession(model, x, tune=task["options"].get("tune"))
        about = {"algorithm": "session", "arena_bytes": session.arena_bytes, "algorithms": session.algorithms}
        return Prepared(lambda: session(x), lambda y: y, about)


class TorchCompiled(_Network):
    """`torch.compile` with freezing, which folds, packs and chooses layouts; the default mode of its CPU backend."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.torch: Any = _package("torch")
        self.torch.set_num_threads(threads)
        self.torch.set_num_interop_threads(1)
        self.torch.set_grad_enabled(False)

    def versions(self) -> dict[str, str]:
        return {"torch": self.torch.__version__}

    def wrapped(self, module: Any) -> Any:
        _package("torch._inductor.config").freezing = True
        return self.torch.compile(module)

    def make(self, task: Task, folder: Path, x: Array) -> Prepared:
        module = self.wrapped(self.torch.export.load(self.file(folder, "model.pt2")).module())
        tensor = self.torch.from_numpy(x)
        return Prepared(lambda: module(tensor), lambda y: y.numpy(), {"algorithm": "inductor"})


class TorchEager(TorchCompiled):
    """The same model without a compiler."""

    def wrapped(self, module: Any) -> Any:
        return module


class OnnxRuntimeNetwork(_Network):
    """All graph optimisations; input and output bound to memory."""

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": _package("onnxruntime").__version__}

    def make(self, task: Task, folder: Path, x: Array) -> Prepared:
        runtime: Any = _package("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        session = runtime.InferenceSession(self.file(folder, "model.onnx"), options, providers=["CPUExecutionProvider"])
        binding = session.io_binding()
        binding.bind_ortvalue_input(session.get_inputs()[0].name, runtime.OrtValue.ortvalue_from_numpy(x))
        y = runtime.OrtValue.ortvalue_from_shape_and_type(task["y_shape"], x.dtype)
        binding.bind_ortvalue_output(session.get_outputs()[0].name, y)
        return Prepared(lambda: session.run_with_iobinding(binding), lambda _: y.numpy(), {"algorithm": "onnxruntime"})


class OpenVinoNetwork(_Network):
    """One stream of all threads, tuned for latency, in float32."""

    def versions(self) -> dict[str, str]:
        return {"openvino": _package("openvino").__version__}

    def make(self, task: Task, folder: Path, x: Array) -> Prepared:
        openvino: Any = _package("openvino")
        settings = {"INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_PRECISION_HINT": "f32"}  # fmt: skip
        compiled = openvino.Core().compile_model(self.file(folder, "model.onnx"), "CPU", settings)
        request, y = compiled.create_infer_request(), np.empty(task["y_shape"], np.float32)
        request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(y, shared_memory=True))
        self.held = x  # OpenVINO borrows it
        return Prepared(request.infer, lambda _: y, {"algorithm": "openvino"})


class NcnnNetwork(_Network):
    """An extractor per image: ncnn has no batch. Everything in float32."""

    pools: Any = None  # of all networks: results of the last one may still lie in them
    narrow = ("bf16_packed", "bf16_storage", "fp16_arithmetic", "fp16_packed", "fp16_storage")

    def versions(self) -> dict[str, str]:
        return {"ncnn": _package("ncnn").__version__}

    def make(self, task: Task, folder: Path, x: Array) -> Prepared:
        ncnn: Any = _package("ncnn")
        net = ncnn.Net()
        for name in self.narrow:
            setattr(net.opt, f"use_{name}", False)
        net.opt.num_threads = self.threads
        self.pools = self.pools or (ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator())
        net.opt.blob_allocator, net.opt.workspace_allocator = self.pools
        if net.load_param(self.file(folder, "model.ncnn.param")) or net.load_model(self.file(folder, "model.ncnn.bin")):
            raise RefusedError("ncnn does not load this network")
        inputs = [ncnn.Mat(image) for image in x]
        self.held = x, net  # a Mat borrows its array

        def call() -> list[Any]:
            outputs = []
            for image in inputs:
                extractor = net.create_extractor()
                extractor.input("in0", image)
                code, y = extractor.extract("out0")
                if code:
                    raise RefusedError(f"ncnn answers with code {code}")
                outputs.append(y)
            return outputs

        def result(outputs: list[Any]) -> Array:
            return np.stack([np.array(y) for y in outputs]).reshape(task["y_shape"])

        return Prepared(call, result, {"algorithm": "ncnn"})


class MnnNetwork(_Network):
    """Converted from ONNX, at its high precision (float32), as it comes: with large Winograd tiles."""

    def versions(self) -> dict[str, str]:
        return {"MNN": _package("MNN").version()}

    def make(self, task: Task, folder: Path, x: Array) -> Prepared:
        mnn: Any = _package("MNN")
        converter: Any = _package("_tools")  # what its command mnnconvert calls
        converted = folder / f"model-{self.threads}.mnn"
        source = self.file(folder, "model.onnx")
        converter.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", source, "--MNNModel", str(converted)])
        if not converted.exists():
            raise RefusedError("MNN's converter does not take this network")
        net = mnn.Interpreter(str(converted))
        session = net.createSession({"backend": "CPU", "precision": "high", "numThread": self.threads})
        source_tensor = net.getSessionInput(session)
        net.resizeTensor(source_tensor, x.shape)  # the batch
        net.resizeSession(session)
        y = net.getSessionOutput(session)
        given = mnn.Tensor(x.shape, mnn.Halide_Type_Float, x, mnn.Tensor_DimensionType_Caffe)

        def call() -> None:
            source_tensor.copyFrom(given)
            net.runSession(session)

        def result(_: None) -> Array:
            shape = tuple(y.getShape())
            copy = mnn.Tensor(shape, mnn.Halide_Type_Float, np.empty(shape, np.float32),
                              mnn.Tensor_DimensionType_Caffe)  # fmt: skip
            y.copyToHostTensor(copy)
            return np.array(copy.getNumpyData(), np.float32).reshape(task["y_shape"])

        return Prepared(call, result, {"algorithm": "mnn"})
