# SPDX-License-Identifier: Apache-2.0
"""What a network becomes before it runs: constants folded into weights, what follows a convolution into its kernel.

Every pass leaves the network computing the same function; folding changes rounding alone, and is done in float64.
"""

import numpy as np

from .network import Network, Node
from .operators import shapes_of

_WEIGHTED = ("conv", "conv_transpose", "dense")
_ACTIVATED = (*_WEIGHTED, "scale_shift", "binary")  # may apply an activation to what they write


def optimised(network: Network) -> Network:
    """The network itself, after all passes."""
    for pass_ in (
        drop_identities,
        merge_reshapes,
        merge_scale_shifts,
        fold_scale_shifts,
        merge_pads,
        fuse_residuals,
        fuse_activations,
    ):
        pass_(network)
        network.keep_needed()
    return network


def _only_reader(network: Network) -> dict[int, Node]:
    """Value -> the node that alone reads it, once, where that is so and no output of the network is it."""
    return {v: nodes[0] for v, nodes in network.readers().items() if len(nodes) == 1 and v not in network.outputs}


def _absorb(network: Network, node: Node, following: Node) -> None:
    """`node` computes what `following` did, which goes."""
    node.outputs = following.outputs
    node.name = node.name or following.name
    network.nodes.remove(following)


def drop_identities(network: Network) -> None:
    """Adaptive poolings whose windows are single cells, as that of a VGG at the size it was trained for."""
    shapes = shapes_of(network, network.input_shapes)
    for node in list(network.nodes):
        if node.op != "pool" or not node.words["output"] or node.words["kind"] not in ("max", "min", "average"):
            continue
        same = shapes[node.inputs[0]] == shapes[node.output] and not node.words["divisor"]
        if same and node.output not in network.outputs:
            network.replace(node.output, node.inputs[0])


def merge_reshapes(network: Network) -> None:
    """Of reshapes in a row the last one counts, and one that changes nothing none at all."""
    shapes, makers = shapes_of(network, network.input_shapes), network.makers()
    for node in list(network.nodes):
        if node.op != "reshape":
            continue
        while (maker := makers.get(node.inputs[0])) is not None and maker.op == "reshape":
            node.inputs = maker.inputs
        if shapes[node.inputs[0]] == shapes[node.output] and node.output not in network.outputs:
            network.replace(node.output, node.inputs[0])


def merge_scale_shifts(network: Network) -> None:
    """Two scales and shifts in a row are one."""
    for node in list(network.nodes):
        while node.op == "scale_shift" and node in network.nodes:
            following = _only_reader(network).get(node.output)
            if following is None or following.op != "scale_shift" or following.words["axis"] != node.words["axis"]:
                break
            factor = following.arrays["scale"]
            shift = node.arrays["shift"] * factor + following.arrays["shift"]
            node.arrays = {"scale": node.arrays["scale"] * factor, "shift": shift}
            _absorb(network, node, following)


def fold_scale_shifts(network: Network) -> None:
    """A scale and shift of the channels that a convolution or dense layer gives goes into its weights: batch
    normalisation at test time (see `nn.fold_weights`), or a constant factor."""
    for node in list(network.nodes):
        if node.op not in _WEIGHTED or node.words["activation"] != "none" or len(node.inputs) > 1:
            continue
        following = _only_reader(network).get(node.output)
        if following is None or following.op != "scale_shift" or following.words["axis"] != _channel_axis(node):
            continue
        scale, shift = following.arrays["scale"], following.arrays["shift"]
        w = np.asarray(node.arrays["w"], np.float64)
        if node.op == "conv_transpose":  # (k, c / groups, ...): the second axis is written, group by group
            groups = node.words["groups"]
            apart = w.reshape(groups, -1, *w.shape[1:]) * scale.reshape(groups, 1, -1, *(1,) * (w.ndim - 2))
            w = apart.reshape(w.shape)
        else:
            w = w * scale.reshape(-1, *(1,) * (w.ndim - 1))
        bias = np.asarray(node.arrays["bias"], np.float64) if "bias" in node.arrays else 0.0
        node.arrays = {"w": w, "bias": bias * scale + shift}
        _absorb(network, node, following)


def _channel_axis(node: Node) -> int:
    """The axis of the channels that a layer with weights gives; 0, which no scale has, where it is the last."""
    return 0 if node.words.get("layout") == "nhwc" else 1


def merge_pads(network: Network) -> None:
    """Zeros around the planes that a convolution alone reads are its own padding."""
    makers = network.makers()
    for node in network.nodes:
        pad = makers.get(node.inputs[0]) if node.op == "conv" else None
        if pad is None or pad.op != "pad" or _only_reader(network).get(pad.output) is not node:
            continue
        channels, *widths = pad.words["widths"] if node.words["layout"] == "nchw" else pad.words["widths"][::-1]
        widths = widths if node.words["layout"] == "nchw" else widths[::-1]
        own = node.words["pad_begin"] + node.words["pad_end"]
        constant = node.words["pad_value"] if node.words["padding_mode"] == "constant" else 0.0
        if any(channels) or node.words["padding_mode"] not in ("zeros", "constant"):
            continue
        if any(own) and pad.words["value"] != constant:
            continue
        node.words["padding_mode"] = "zeros" if pad.words["value"] == 0 else "constant"
        node.words["pad_value"] = pad.words["value"]
        for side, key in enumerate(("pad_begin", "pad_end")):
            node.words[key] = [n + w[side] for n, w in zip(node.words[key], widths, strict=True)]
        node.inputs = (pad.inputs[0], *node.inputs[1:])


def fuse_residuals(network: Network) -> None:
    """x + conv(...) is a convolution with a residual. Of two convolutions the later one takes the sum: what it needs is
    there by then."""
    for node in list(network.nodes):
        if node.op != "binary" or node.words["op"] != "add" or node.inputs[0] == node.inputs[1]:
            continue
        makers, alone = network.makers(), _only_reader(network)
        found = [
            maker
            for maker in map(makers.get, node.inputs)
            if maker is not None
            and maker.op == "conv"
            and len(maker.inputs) == 1
            and maker.words["activation"] == "none"
            and alone.get(maker.output) is node
        ]
        if not found:
            continue
        conv = max(found, key=network.nodes.index)
        other = next(v for v in node.inputs if v != conv.output)
        network.nodes.remove(conv)
        network.nodes.insert(network.nodes.index(node), conv)
        conv.inputs = (*conv.inputs, other)
        conv.words["activation"], conv.words["alpha"] = node.words["activation"], node.words["alpha"]
        _absorb(network, conv, node)


def fuse_activations(network: Network) -> None:
    """An activation runs in the kernel of what it follows."""
    for node in list(network.nodes):
        if node.op not in _ACTIVATED or node.words["activation"] != "none":
            continue
        following = _only_reader(network).get(node.output)
        if following is not None and following.op == "activation":
            node.words["activation"], node.words["alpha"] = following.words["kind"], following.words["alpha"]
            _absorb(network, node, following)
