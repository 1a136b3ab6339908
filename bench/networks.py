# SPDX-License-Identifier: Apache-2.0
"""Whole networks against other engines: `python -m bench.networks --threads 1,2 --batch 1,8`.

Every network is built here with random weights, written down for each rival (as ONNX, as an exported PyTorch program,
for ncnn by pnnx), and runs in float32 in the rival's own process. Results are compared with the model in float64
before anything is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import fastconv as fc
from bench import repository
from fastconv.bench import measure, peers, report, summary, timing
from fastconv.graph import trace_graph
from fastconv.session.lowering import lowered
from fastconv.session.operators import conv_problem, shapes_of
from fastconv.session.passes import optimised

OURS = "fastconv_session"
# The image of one input: as in the nets' papers, DnCNN's and U-Net's of 256 pixels a side.
NETWORKS = {
    "vgg16": (3, 224, 224),
    "resnet18": (3, 224, 224),
    "resnet50": (3, 224, 224),
    "googlenet": (3, 224, 224),
    "mobilenet_v1": (3, 224, 224),
    "squeezenet1_1": (3, 224, 224),
    "dncnn": (1, 256, 256),
    "unet": (1, 252, 252),
}
# Some thirty layers of float32 one after the other; MNN's large tiles have errors of 1e-3 in a single one.
ERROR_LIMIT = 1e-2
# ONNX Runtime's threads spin for 30 ms after its last run, on the cores of whoever is timed next.
SETTLE_S = 0.06


def list_of(names: list[str]) -> str:
    """The distinct convolutions of one image, as a problem file; of equal ones the first network stays."""
    seen: dict[str, str] = {}
    for name in names:
        model = fc.models.build(name).eval()
        net = optimised(lowered(model, np.zeros((1, *NETWORKS[name]), np.float32)))
        shapes = shapes_of(net, net.input_shapes)
        for node in net.nodes:
            if node.op == "conv":
                problem = str(conv_problem(node, shapes[node.inputs[0]], "float32"))
                seen.setdefault(" ".join(problem.split()[: problem.split().index("f32") + 1]), name)
    head = "# The convolutions of bench.networks, one image each; written by python -m bench.networks --list FILE.\n"
    return head + "".join(f"{problem}   # {name}\n" for problem, name in seen.items())


def main() -> int:
    p = argparse.ArgumentParser(prog="python -m bench.networks", description="time whole networks")
    defaults = measure.Settings()
    p.add_argument("--networks", default=",".join(NETWORKS), help="by commas (default: all, %(default)s)")
    p.add_argument("--batch", default="1,8", help="images at a time, by commas (default %(default)s)")
    p.add_argument("--threads", default="1,2", help="thread counts, by commas (default %(default)s)")
    p.add_argument("--rivals", default="all", help=f"of {', '.join(peers.NETWORKS)} (default %(default)s)")
    p.add_argument("--tune", type=float, help="seconds in which fastconv may time algorithms (default: estimates)")
    p.add_argument("--rounds", type=int, default=defaults.rounds, help="samples of each (default %(default)s)")
    p.add_argument("--min-sample", type=float, default=0.2, help="seconds (default %(default)s)")
    p.add_argument("--isa", help="force fastconv's instruction set")
    p.add_argument("--out", type=Path, help="JSON file (default: bench/results/<date>-networks-<commit>.json)")
    p.add_argument("--list", type=Path, metavar="FILE", help="write down the distinct convolutions, time nothing")
    a = p.parse_args()
    if a.list:
        a.list.write_text(list_of(a.networks.split(",")), encoding="utf-8")
        return 0
    names = list(peers.NETWORKS) if a.rivals == "all" else [OURS, *(n for n in a.rivals.split(",") if n != OURS)]
    threads, batches = ([int(n) for n in text.split(",")] for text in (a.threads, a.batch))
    settings = measure.Settings(a.rounds, a.min_sample, SETTLE_S, error_limit=ERROR_LIMIT)
    result: dict[str, Any] = {"format": report.FORMAT, "kind": "networks", **repository.surroundings("bench.networks")}
    result |= {"settings": dataclasses.asdict(settings), "options": {"isa": a.isa, "tune": a.tune}, "rows": []}
    with contextlib.ExitStack() as stack:
        teams = {t: stack.enter_context(measure.start(names, t, a.isa)) for t in threads}
        result["versions"] = measure.versions(teams[threads[0]])
        result["missing"] = [name for name in names if name not in teams[threads[0]]]
        print(report.head(result))
        for name in a.networks.split(","):
            for batch in batches:
                with tempfile.TemporaryDirectory() as folder:
                    reference = write(name, (batch, *NETWORKS[name]), Path(folder), settings.seed)
                    task = {"kind": "network", "name": name, "folder": folder, "y_shape": list(reference.shape),
                            "options": {"tune": a.tune}}  # fmt: skip
                    for t in threads:
                        report.progress(f"{name} n{batch}: {t} thread(s)")
                        row = measure.measure(task, teams[t], reference, settings)
                        about = {"problem": f"{name} n{batch}", "layer": name, "batch": batch}
                        result["rows"].append({**about, **row})
    report.progress("")
    table(result["rows"])
    print("saved:", repository.save(result, a.out))
    return 1 if any("wrong" in row["peers"].get(OURS, {}) for row in result["rows"]) else 0


def write(name: str, shape: tuple[int, ...], folder: Path, seed: int) -> Any:
    """A network's files for all rivals, and its answer in float64."""
    report.progress(f"{name} n{shape[0]}: writing it down")
    fc.manual_seed(seed)
    model = fc.models.build(name).eval()
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.savez(folder / "state.npz", **model.state_dict())
    importlib.import_module("fastconv.onnx").export(model, folder / "model.onnx", x)
    if importlib.util.find_spec("torch") is not None:
        torch: Any = importlib.import_module("torch")
        module = importlib.import_module("bench.torch_graph").GraphModule(trace_graph(model, x))
        torch.export.save(torch.export.export(module.eval(), (torch.from_numpy(x),)), folder / "model.pt2")
    if importlib.util.find_spec("pnnx") is not None:
        one = ",".join(map(str, (1, *shape[1:])))  # ncnn has no batch
        importlib.import_module("fastconv.onnx").export(model, folder / "one.onnx", x[:1])
        words = [f"inputshape=[{one}]", "fp16=0", f"ncnnparam={folder / 'model.ncnn.param'}",
                 f"ncnnbin={folder / 'model.ncnn.bin'}"]  # fmt: skip
        command = [importlib.import_module("pnnx").EXEC_PATH, str(folder / "one.onnx"), *words]  # type: ignore[attr-defined]
        subprocess.run(command, cwd=folder, capture_output=True, check=False)
    with fc.no_grad():
        return model.double()(fc.Tensor(x.astype(np.float64))).data


def table(rows: list[dict[str, Any]]) -> None:
    """Milliseconds with errors, our ratio to the best rival, and the geometric means."""
    names, body = summary.cells(rows, OURS, lambda row: [summary.best_rival(row)])
    report.print_table(
        "milliseconds of a batch (largest error relative to the largest result)",
        ["network", "threads", *names, "x best [95 %]"],
        body,
    )
    for batch, threads in dict.fromkeys((row["batch"], row["threads"]) for row in rows):
        of = [row for row in rows if (row["batch"], row["threads"]) == (batch, threads)]
        ratios = [found.value for row in of if (found := summary.ratio(row, summary.best_rival(row), OURS))]
        if ratios:
            print(
                f"  batch {batch}, {threads} thread(s): geometric mean {timing.geometric_mean(ratios):.2f} x the best "
                f"rival of each network, least {min(ratios):.2f}"
            )
    for row in rows:
        for name, entry in row["peers"].items():
            if told := entry.get("wrong") or entry.get("refused"):
                print(f"  {name} does not count on {row['problem']}: {told}")


if __name__ == "__main__":
    sys.exit(main())
