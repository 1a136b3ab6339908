# SPDX-License-Identifier: Apache-2.0
"""A training loop of PyTorch with one line more: the first batch is measured, forward and backward.

python examples/pytorch_training.py
"""

import torch

import fastconv.data
import fastconv.torch


def main() -> None:
    torch.manual_seed(0)
    digits, _ = fastconv.data.digits(size=32)
    images, labels = torch.from_numpy(digits.images[:640]), torch.from_numpy(digits.labels[:640])
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(16, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.LazyLinear(10),
    )
    model(images[:64])  # the size of the last layer
    fastconv.torch.accelerate(model)  # <- the line
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(2):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
        if epoch == 0:
            print(model.fastconv_report)
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
