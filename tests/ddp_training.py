# SPDX-License-Identifier: Apache-2.0
"""A training loop under DistributedDataParallel, two processes over gloo; test_torch_ddp.py starts it.

python ddp_training.py RANK FILE POLICY    # rank 0 prints the losses as JSON
"""

import json
import os
import sys

import torch
import torch.distributed as dist

import fastconv.torch

WORLD, STEPS, IMAGES = 2, 6, 4


def network() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(8, 16, 3, padding=1, groups=2),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(16, 4, 2, stride=2),
        torch.nn.AvgPool2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 5),
    )


def train(rank: int, policy: str) -> dict[str, object]:
    """The mean loss over both processes of each step, and how rank 0's model was accelerated."""
    torch.manual_seed(3)  # the same weights everywhere
    model = network()
    if policy == "always":
        fastconv.torch.accelerate(model, "always")
    model = torch.nn.parallel.DistributedDataParallel(model)
    if policy == "auto":  # around DDP, by the first input
        fastconv.torch.accelerate(model, rounds=2, min_sample_s=0.0, whole_s=0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(IMAGES, 3, 16, 16, generator=generator)
    labels = torch.randint(5, (IMAGES,), generator=generator)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        losses.append(float(mean) / WORLD)
    report = getattr(model.module, "fastconv_report", None)
    return {"losses": losses, "report": str(report), "pending": bool(report and report.pending)}


if __name__ == "__main__":
    rank, file, policies = int(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=WORLD)
    found = {policy: train(rank, policy) for policy in policies}
    if rank == 0:
        print(json.dumps(found), flush=True)
    dist.destroy_process_group()
    # DDP's constructor keeps gloo's threads beyond that (torch 2.13, without us too). One that lets go of a tensor
    # while Python finalizes aborts the process (pytorch/pytorch#179291): leave without finalizing.
    os._exit(0)
