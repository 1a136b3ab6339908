# SPDX-License-Identifier: Apache-2.0
"""A PyTorch network, accelerated by a measurement, and its report replayed as a deployment does it.

python examples/pytorch_inference.py
"""

import tempfile
from pathlib import Path

import torch

import fastconv.torch


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(32, 64, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 10),
    ).eval()


def main() -> None:
    images = torch.randn(4, 3, 64, 64)
    with torch.inference_mode():
        expected = network()(images)

        # Here: measure each layer on these images, keep what is faster, look at it, save it.
        model = fastconv.torch.accelerate(network(), example=images)
        print(model.fastconv_report)
        print(model.fastconv_report.table())
        report = Path(tempfile.mkdtemp()) / "report.json"
        model.fastconv_report.save(report)

        # There: the same choice, without measuring.
        deployed = fastconv.torch.accelerate(network(), report=report)
        error = (deployed(images) - expected).abs().max() / expected.abs().max()
    print(f"largest difference to torch's answer: {error:.0e}")


if __name__ == "__main__":
    main()
