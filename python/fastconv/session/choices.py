# SPDX-License-Identifier: Apache-2.0
"""Which algorithm computes each convolution of a network, recorded in its words."""

from .. import _core
from ..options import Settings, native, settings
from .network import Network
from .operators import conv_problem, shapes_of

WEIGHTED = ("conv", "conv_transpose", "dense")
ANY_PRECISION = 1e9  # above every error factor: a recorded choice is not judged again, as when a file is loaded


def choose(network: Network, tune_s: float | None) -> None:
    """Write down an algorithm for every node with weights that has none: by the tuning or the estimates of the options
    in force, or after timing those that come into question for at most `tune_s` seconds in all."""
    shapes = shapes_of(network, network.input_shapes)
    open_ = [node for node in network.nodes if node.op in WEIGHTED and "algorithm" not in node.words]
    problems = [conv_problem(node, shapes[node.inputs[0]], network.dtype) for node in open_]
    in_force: Settings = settings()
    if tune_s is not None:
        from ..tuning.measure import tune

        in_force = in_force._replace(tuning=tune(problems, tune_s, kinds="planned"))
    for node, problem in zip(open_, problems, strict=True):
        node.words["algorithm"] = _core.planned(problem, native(in_force))[0]


def options_for(kept: Settings, algorithm: str | None) -> _core.Options:
    """The native options that held when the session was made, for a choice that has been made."""
    return native(kept._replace(algorithm=algorithm, tuning=None, precision=ANY_PRECISION))
