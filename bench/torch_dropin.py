# SPDX-License-Identifier: Apache-2.0
"""PyTorch models as their users hold them, and after `fastconv.torch.accelerate`: `python -m bench.torch_dropin`.

float32, NCHW, on the CPU: stock eager PyTorch, channels_last, torch.compile and bf16 autocast beside the same model
accelerated; inference, and a training step (forward, loss, backward, SGD with momentum). All are compared with the
model in float64 before anything is timed. They share one process: the accelerated model runs torch's thread pool and
ours in turn, as it does for its users.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import importlib
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastconv as fc
from bench import repository, torch_zoo
from fastconv.bench import measure, report, summary, timing

torch: Any = importlib.import_module("torch")
F: Any = importlib.import_module("torch.nn.functional")
fct: Any = importlib.import_module("fastconv.torch")

EAGER, OURS = "torch", "fastconv"
RIVALS = (EAGER, "torch_channels_last", "torch_compile", "torch_bf16")
BESIDES = ("fastconv_always", "fastconv_compile")  # on demand: every layer ours; accelerated, then compiled
MODES = ("inference", "step")
USUAL_LIMIT = 5e-2  # DnCNN's gradients pass eighteen batch norms; torch's own are off by 6e-3 with four small images
ERROR_LIMIT = {"torch_bf16": float("inf")}  # reported as it is


class Network(NamedTuple):
    """An input as in the net's paper (DnCNN's and U-Net's are smaller), and images at a time in each mode."""

    shape: tuple[int, ...]
    inference: int = 8
    step: int = 8
    options: dict[str, Any] = {}  # noqa: RUF012


NETWORKS = {
    "resnet18": Network((3, 224, 224)),
    "resnet50": Network((3, 224, 224)),
    "vgg16": Network((3, 224, 224), 4, 4),
    "mobilenet_v2": Network((3, 224, 224)),
    "dncnn": Network((1, 50, 50), 16, 16),
    "unet": Network((1, 252, 252), 1, 1),
    "convnext_tiny": Network((3, 224, 224), options={"stochastic_depth": 0.0}),
    "cifar_resnet20": Network((3, 32, 32), 64, 64),
    "cifar_resnet56": Network((3, 32, 32), 64, 64),
    "keras_cifar_a": Network((3, 32, 32), 64, 64, {"size": 32}),
    "keras_cifar_b": Network((3, 32, 32), 64, 64, {"size": 32}),
    "keras_cifar_deep": Network((3, 32, 32), 64, 64, {"size": 32}),
}


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m bench.torch_dropin", description="time PyTorch models, accelerated")
    defaults = measure.Settings()
    p.add_argument("--networks", default=",".join(NETWORKS), help="by commas (default: all, %(default)s)")
    p.add_argument("--modes", default=",".join(MODES), help="by commas (default %(default)s)")
    p.add_argument("--threads", default="2", help="thread counts, by commas (default %(default)s)")
    p.add_argument("--batch", type=int, help="images at a time (default: each network's own)")
    p.add_argument("--size", type=int, help="pixels a side of every image (default: each network's own)")
    p.add_argument("--rivals", default=",".join(RIVALS), help=f"also {', '.join(BESIDES)} (default %(default)s)")
    p.add_argument("--rounds", type=int, default=defaults.rounds, help="samples of each (default %(default)s)")
    p.add_argument("--min-sample", type=float, default=0.2, help="seconds (default %(default)s)")
    p.add_argument("--out", type=Path, help="JSON file (default: bench/results/<date>-torch_dropin-<commit>.json)")
    a = p.parse_args()
    names = [EAGER, *(n for n in a.rivals.split(",") if n != EAGER), OURS]
    if unknown := set(names) - {*RIVALS, *BESIDES, OURS}:
        p.error(f"--rivals: {', '.join(sorted(unknown))}; expected some of {', '.join((*RIVALS, *BESIDES))}")
    settings = measure.Settings(rounds=a.rounds, min_sample_s=a.min_sample, error_limit=USUAL_LIMIT)
    head = repository.surroundings("bench.torch_dropin")
    result: dict[str, Any] = {"format": report.FORMAT, "kind": "torch_dropin", **head}
    result |= {"settings": dataclasses.asdict(settings), "options": {"batch": a.batch, "size": a.size}, "rows": []}
    result["versions"] = {"python": platform.python_version(), "torch": torch.__version__, "fastconv": fc.__version__}
    print(report.head(result), end="\n\n")
    for name in a.networks.split(","):
        for mode in a.modes.split(","):
            for t in (int(n) for n in a.threads.split(",")):
                report.progress(f"{name}, {mode}, {t} thread(s)")
                torch.set_num_threads(t)
                row = measured(name, mode, a.batch, a.size, names, settings)
                result["rows"].append(row)
                report.progress("")
                # The whole takes half an hour: what is stopped has told something.
                ratio = summary.ratio(row, EAGER, OURS) or "-"
                print(f"{row['problem']}, {t} thread(s): {ratio} x {EAGER}", flush=True)
    report.progress("")
    table(result["rows"])
    print("saved:", repository.save(result, a.out))
    return 1 if any("wrong" in row["peers"].get(OURS, {}) for row in result["rows"]) else 0


def measured(
    name: str, mode: str, batch: int | None, size: int | None, names: list[str], settings: measure.Settings
) -> dict[str, Any]:
    """One row: a network in one mode, by everybody."""
    about = NETWORKS[name]
    batch = batch or getattr(about, mode)
    shape = (batch, about.shape[0], size, size) if size else (batch, *about.shape)
    fc.manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    options = about.options | ({"size": size} if size and "size" in about.options else {})
    model = without_dropout(torch_zoo.build(name, **options)).train(mode == "step")
    x = torch.randn(shape)
    target = target_of(model, x)
    exact = Program(copy.deepcopy(model).double(), x.double(), target, mode).answer()
    found: dict[str, dict[str, Any]] = {}
    samplers: dict[str, Callable[[], float]] = {}
    for rival in names:
        try:
            program = PROGRAMS[rival](sharing(model), x, target, mode)
            error = measure.largest_error(program.answer(), exact)
        except RuntimeError as failure:  # no compiler, an operator without bf16, ...
            found[rival] = {"refused": f"{type(failure).__name__}: {str(failure).strip().splitlines()[0]}"}
            continue
        found[rival] = {"error": error if np.isfinite(error) else None, **program.about}
        if not error <= (limit := ERROR_LIMIT.get(rival, settings.error_limit)):
            found[rival]["wrong"] = f"error {error:.1e} is over {limit:.0e}"
            continue
        repeats = timing.repeats_for(timing.time_calls(program, 1, 0.0), settings.min_sample_s)
        samplers[rival] = sampler(program, repeats, settings.settle_s)
    for rival, seconds in timing.interleave(samplers, settings.rounds, np.random.default_rng(settings.seed)).items():
        found[rival] |= {"median_s": timing.median(seconds), "spread": timing.spread(seconds), "seconds": seconds}
    torch._dynamo.reset()
    about_row = {"problem": f"{name} n{batch} {mode}", "layer": name, "batch": batch, "mode": mode}
    return {**about_row, "shape": list(shape), "threads": torch.get_num_threads(), "peers": found}


def sampler(program: Program, repeats: int, settle: float) -> Callable[[], float]:
    return lambda: timing.time_calls(program, repeats, settle)


def without_dropout(model: Any) -> Any:
    """With probabilities of zero: random masks would hide a wrong gradient."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def sharing(model: Any) -> Any:
    """Another model on the same parameters, so that five of VGG-16 fit into memory."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def target_of(model: Any, x: Any) -> Any:
    """A class for each image or pixel; for DnCNN an image."""
    with torch.no_grad():
        y = copy.deepcopy(model)(x[:2])
    shape = (len(x), *y.shape[1:])
    return torch.randn(shape) if shape == tuple(x.shape) else torch.randint(shape[1], (shape[0], *shape[2:]))


class Program:
    """What is timed: inference, or a training step. The learning rate is zero, so that all share their weights."""

    autocast = False
    fullgraph = False

    def __init__(self, model: Any, x: Any, target: Any, mode: str) -> None:
        self.about: dict[str, Any] = {}
        self.training = mode == "step"
        self.model, self.x, self.target = model, x, target if target.dtype == torch.int64 else target.to(x.dtype)
        self.prepare()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0, momentum=0.9) if self.training else None

    def prepare(self) -> None:
        """What a rival does to its model first."""

    def __call__(self) -> Any:
        with torch.set_grad_enabled(self.training), torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            y = self.model(self.x)
            if self.optimizer is None:
                return y
            classes = self.target.dtype == torch.int64
            loss = (F.cross_entropy if classes else F.mse_loss)(
                y.to(self.target.dtype) if not classes else y, self.target
            )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def answer(self) -> Any:
        """The output; of a step the gradients of all parameters in one vector."""
        y = self()
        if not self.training:
            return y.double().numpy()
        return np.concatenate([p.grad.double().numpy().ravel() for p in self.model.parameters()])


class ChannelsLast(Program):
    def prepare(self) -> None:
        # Of its own: the others' parameters keep their order in memory.
        self.model = copy.deepcopy(self.model).to(memory_format=torch.channels_last)
        self.x = self.x.contiguous(memory_format=torch.channels_last)


class Compiled(Program):
    def prepare(self) -> None:
        self.model = torch.compile(self.model)


class HalfAutocast(Program):
    autocast = True


class Accelerated(Program):
    policy = "auto"

    def prepare(self) -> None:
        with torch.set_grad_enabled(self.training):
            fct.accelerate(self.model, self.policy, example=self.x)
        self.about = {"report": str(self.model.fastconv_report)}


class AcceleratedAlways(Accelerated):
    policy = "always"


class AcceleratedCompiled(Accelerated):
    def prepare(self) -> None:
        super().prepare()
        self.model = torch.compile(self.model)


PROGRAMS: dict[str, type[Program]] = {
    EAGER: Program,
    "torch_channels_last": ChannelsLast,
    "torch_compile": Compiled,
    "torch_bf16": HalfAutocast,
    "fastconv_always": AcceleratedAlways,
    "fastconv_compile": AcceleratedCompiled,
    OURS: Accelerated,
}


def table(rows: list[dict[str, Any]]) -> None:
    """Milliseconds with errors, our ratio to each, what was replaced, and the geometric means."""
    names, body = summary.cells(rows, OURS, lambda row: [EAGER])
    title = "milliseconds (largest error, of the output or of the gradients, relative to the largest)"
    report.print_table(title, ["network", "threads", *names, f"x {EAGER} [95 %]"], body)
    for mode, threads in dict.fromkeys((row["mode"], row["threads"]) for row in rows):
        of = [row for row in rows if (row["mode"], row["threads"]) == (mode, threads)]
        for name in (n for n in names if n != OURS):
            if ratios := [found.value for row in of if (found := summary.ratio(row, name, OURS))]:
                print(
                    f"  {mode}, {threads} thread(s): geometric mean {timing.geometric_mean(ratios):.2f} x {name}, "
                    f"least {min(ratios):.2f} ({len(ratios)} networks)"
                )
    for row in rows:
        for name, entry in row["peers"].items():
            if told := entry.get("wrong") or entry.get("refused"):
                print(f"  {name} does not count on {row['problem']}: {told}")
            elif "report" in entry:
                print(f"  {name} on {row['problem']}: {entry['report']}")


if __name__ == "__main__":
    sys.exit(main())
