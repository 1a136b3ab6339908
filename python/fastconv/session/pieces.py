# SPDX-License-Identifier: Apache-2.0
"""How a batch is cut into pieces, which threads run side by side.

Threads that share every step wait for each other after every step. Threads that each run a piece of the batch through
the whole network do not, and what one step writes is still in the caches when the next reads it. The price is that the
weights are read once for each piece. A piece of p images reads weights / p bytes for an image, and the memory that its
intermediate arrays take grows with p: the best p grows with the square root of weights over activations.
"""

import math

from .network import Network, Shape

# Times that root: the best pieces of eight networks, on one and two threads, were of 1 to 2 images (DnCNN), 2
# (SqueezeNet, MobileNet v1), 4 (GoogLeNet, ResNet-18 and -50, U-Net) and 8 or more (VGG-16).
_IMAGES = 2.5
_SMALLEST = 0.7  # of the best; with less for each thread, all share every step


def images_stay_apart(network: Network, shapes: dict[int, Shape]) -> bool:
    """Whether the results for a batch are those for its images alone, one behind the other."""
    n = network.input_shapes[0][:1]
    values = [*network.inputs, *network.outputs, *(v for node in network.nodes for v in node.outputs)]
    mixing = any(
        node.op in ("python", "constant")
        or (node.op == "concat" and node.words["axis"] == 0)
        or (node.op == "permute" and node.words["axes"][0] != 0)
        for node in network.nodes
    )
    return not mixing and n != () and all(shapes[v][:1] == n for v in values)


def best_piece(weight_bytes: int, activation_bytes: float) -> float:
    """How many images a piece should have.

    Args:
        weight_bytes: of the packed weights.
        activation_bytes: of all that is written for one image.
    """
    return _IMAGES * math.sqrt(weight_bytes / max(activation_bytes, 1.0))


def cut(images: int, threads: int, best: float) -> list[tuple[int, int]]:
    """The batch as (pieces, images of each): runs of pieces side by side, each on one thread, and single pieces, which
    all threads share."""
    parts = []
    while images:
        lane = images // threads
        if lane < 1 or lane < _SMALLEST * best or images == 1:
            parts.append((1, images))
            break
        runs = max(1, round(lane / max(best, 1.0)))
        size = lane // runs
        parts.append((runs * threads, size))
        images -= runs * threads * size
    return parts
