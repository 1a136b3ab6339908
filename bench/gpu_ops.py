# SPDX-License-Identifier: Apache-2.0
"""One operation other than convolution and pooling on the GPU, as bench/gpu_calls.py has those: activations,
normalisations and softmax, in float32, channels first. Its gradient is that of x, with those of gamma and beta computed
beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from bench.gpu_classes import Problem, numbers
from fastconv import _core

Tensor = Any
EPS = 1e-5


class Operation:
    """`problem.text`: the operation's name and the shape, as "group_norm groups32 n32 c256 h56 w56"."""

    ALGORITHM = "ops"

    def __init__(self, place: Any, problem: Problem) -> None:
        self.place, self.problem, self.torch = place, problem, place.torch
        self.name, self.forward = problem.text.split()[0], problem.pass_ == "fwd"
        self.shape = tuple(length for axis in "nchw" for length in numbers(problem.text, axis))
        (self.groups,) = numbers(problem.text, "groups") or (1,)
        self.x, self.dy = place.normal(self.shape, problem, "x"), place.normal(self.shape, problem, "dy")
        self.gamma, self.beta = (place.normal(self.shape[1:2], problem, role) for role in ("gamma", "beta"))
        self.out = self.torch.empty_like(self.x)
        self.dgamma, self.dbeta = (self.torch.empty_like(self.gamma) for _ in range(2))
        grouped = self.name in ("group_norm", "layer_norm")
        statistics = self.shape[0] * self.groups if grouped else self.shape[1]
        kind = self.torch.float64 if grouped else self.torch.float32
        self.mean, self.variance = (self.torch.empty(statistics, dtype=kind, device=place.device) for _ in range(2))
        self.y = self.torch.empty_like(self.x)
        if not self.forward and self.name != "gelu":
            self._run("forward", self.y)  # what the gradient reads
        self.bytes = self.x.numel() * self.x.element_size() * (2 if self.forward else 3)

    def _function(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        torch = self.torch
        if self.name == "batch_norm":
            return torch.nn.functional.batch_norm(x, None, None, gamma, beta, True, 0.1, EPS)
        if self.name == "group_norm":
            return torch.nn.functional.group_norm(x, self.groups, gamma, beta, EPS)
        if self.name == "layer_norm":
            return torch.nn.functional.layer_norm(x, self.shape[1:], gamma, beta, EPS)
        return torch.nn.functional.gelu(x) if self.name == "gelu" else torch.softmax(x, 1)

    def _theirs(self, x: Tensor, dy: Tensor, gamma: Tensor, beta: Tensor) -> Callable[[], Tensor]:
        if self.forward:
            return lambda: self._function(x, gamma, beta)
        wanted = [t.detach().clone().requires_grad_() for t in (x, gamma, beta)]
        y = self._function(*wanted)
        used = wanted if self.name.endswith("norm") else wanted[:1]
        return lambda: self.torch.autograd.grad(y, used, dy, retain_graph=True)[0]

    def theirs(self) -> Tensor:
        if not hasattr(self, "_prepared"):
            self._prepared = self._theirs(self.x, self.dy, self.gamma, self.beta)
        return self._prepared()

    def _run(self, pass_: str, out: Tensor) -> None:
        x, dy, y, stream = self.x.data_ptr(), self.dy.data_ptr(), self.y.data_ptr(), self.place.stream
        forward, to = pass_ == "forward", out.data_ptr()
        if self.name == "gelu":
            op = "activation" if forward else "activation_backward"
            buffers = (x, 0, 0, 0, to, 0) if forward else (x, dy, 0, 0, 0, to)
            _core.device_pointwise(op, "gelu", 0.0, "f32", (1, 1, self.x.numel()), buffers, 0, stream)
            return
        name = "group_norm" if self.name == "layer_norm" else self.name
        softmax = self.name == "softmax"
        others = (self.gamma, self.beta, self.dgamma, self.dbeta, self.mean, self.variance)
        gamma, beta, *rest = (t.data_ptr() for t in others)
        x = 0 if softmax and not forward else x
        buffers = (x, 0, gamma, beta, to, 0, *rest) if forward else (x, dy, gamma, beta, y, to, *rest)
        shape = (*self.shape[:2], math.prod(self.shape[2:]), self.groups)
        _core.device_norm(f"{name}_{pass_}", "f32", "channels_first", False, EPS, shape, buffers, 0, stream,
                          self.place.allocate)  # fmt: skip

    def candidates(self) -> dict[str, float]:
        return {self.ALGORITHM: 0.0}

    def choice(self) -> str:
        return self.ALGORITHM

    def ours(self, algorithm: str) -> Callable[[], Tensor]:
        def call() -> Tensor:
            self._run("forward" if self.forward else "backward", self.out)
            return self.out

        return call

    def reference(self) -> Tensor:
        """In float64."""
        return self._theirs(*(t.double() for t in (self.x, self.dy, self.gamma, self.beta)))().detach()

    def part(self, result: Tensor) -> Tensor:
        return result
