# SPDX-License-Identifier: Apache-2.0
"""`accelerate`: a PyTorch model whose convolutions, batch norms and pools are ours where a measurement says it pays."""

from __future__ import annotations

import copy
import os
import sys
from typing import Any

import torch

from .. import __version__
from ..bench.measure import cpu_model
from . import measuring
from .measuring import LayerObserver, Settings
from .report import Layer, Report, ReportError
from .swapping import Candidate, Undisturbed, candidates, unwrapped

POLICIES = ("auto", "always")


def accelerate(
    model: Any,
    policy: str = "auto",
    *,
    example: Any = None,
    report: str | os.PathLike[str] | Report | None = None,
    training: bool | None = None,
    rounds: int = Settings.rounds,
    min_sample_s: float = Settings.min_sample_s,
    whole_s: float = Settings.whole_s,
    error_limit: float | None = None,
    reference: bool = False,
) -> Any:
    """Replace the convolutions, transposed convolutions, batch norms and pools of a PyTorch model by ours, in place.

    With "auto" the first input decides (or `example`, at once): every layer is timed on what reaches it there, torch's
    and ours in turn, forward, or forward and backward where the model is training; ours is taken where it is faster and
    agrees. Then the whole model is timed both ways, and unless it is faster so, torch's layers stay; a difference that
    may be noise counts for torch. Layers change their
    class and nothing else: parameters, state_dict, hooks, optimisers and shared modules are what they were. Subclasses
    of torch's layers are left alone.

    The measurement calls the model's forward some thirty times. Gradients, buffers and random numbers are afterwards as
    before; hooks of the modules inside see these calls. What is chosen holds for that mode, input shape and thread
    count: measure training and inference each for itself.

    Args:
        model: a module, also inside of DataParallel, DistributedDataParallel or torch.compile.
        policy: "auto", or "always" for every layer that ours can compute, without a measurement.
        example: an input to measure with now: a tensor, a tuple of arguments, or a dict of named ones. Compiled models
            and deployments need it, or a report.
        report: what another measurement chose, as `Report` or file of its `save`: nothing is measured.
        training: measure a step, or the forward pass; None: a step where the model is training and gradients are on.
        rounds: samples of each side; of the whole model up to four times as many where they do not tell them apart.
        min_sample_s: how long a layer's sample lasts at least, in seconds.
        whole_s: seconds after which no more samples of the whole model begin; three of each side are always taken.
        error_limit: the largest difference to torch's layer, relative to the largest value, up to which ours is taken;
            None: what rounding explains, 1e-4 for float32.
        reference: measure the errors of both against float64 too; the report has them.

    Returns:
        the model. Its attribute `fastconv_report` is a `Report`: print it, `save` it.

    Raises:
        ReportError: a report that is none, or of another model.
        TypeError: a model that is no torch.nn.Module.
        ValueError: another policy; a compiled model without example and report.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"accelerate: model is a {type(model).__name__}; expected a torch.nn.Module")
    if policy not in POLICIES:
        raise ValueError(f"accelerate: policy is {policy!r}; expected one of {', '.join(map(repr, POLICIES))}")
    inner = unwrapped(model)
    settings = Settings(rounds, min_sample_s, whole_s, error_limit, reference)
    told = Report(policy, about=_about())
    _forget(inner)
    if report is not None:
        _replay(inner, report if isinstance(report, Report) else Report.load(report), told)
    elif policy == "always":
        _always(inner, told)
    elif example is not None:
        args, kwargs = _arguments(example)
        _measure(inner, args, kwargs, training, settings, told)
    else:
        if any("_orig_mod" in m._modules for m in (model, getattr(model, "module", model))):
            raise ValueError("accelerate: the model is compiled; expected example=... or report=... with it")
        told.pending = True
        inner.register_forward_pre_hook(FirstInput(training, settings, told), prepend=True, with_kwargs=True)
    for module in {id(m): m for m in (model, inner)}.values():
        module.fastconv_report = told
    return model


class FirstInput:
    """The hook that waits for a model's first input, measures on it, and is gone."""

    def __init__(self, training: bool | None, settings: Settings, told: Report) -> None:
        self.training, self.settings, self.told = training, settings, told

    def __call__(self, module: Any, args: Any, kwargs: Any) -> None:
        if getattr(module, "_is_replica", False):
            return  # DataParallel's copies for its GPUs live for one call
        # A compiler that looks into this hook must stop here; it is asked only where it is loaded: that takes a second.
        measure = torch.compiler.disable(_measure) if "torch._dynamo" in sys.modules else _measure
        measure(module, args, kwargs, self.training, self.settings, self.told)
        _forget(module)  # not where the model refused this input
        self.told.pending = False


def _forget(module: Any) -> None:
    """Without the hook of an earlier call that still waits."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, FirstInput):
            del module._forward_pre_hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)


def _arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, dict):
        return (), example
    return (tuple(example), {}) if isinstance(example, tuple | list) else ((example,), {})


def _measure(model: Any, args: Any, kwargs: Any, training: bool | None, settings: Settings, told: Report) -> None:
    """Choose by measuring, and leave the model so."""
    if training is None:
        training = model.training and torch.is_grad_enabled()
    told.training = training
    found = candidates(model)
    for candidate in found:
        candidate.use(False)
    observer = LayerObserver(found, training, settings)
    with Undisturbed(model), torch.set_grad_enabled(training or torch.is_grad_enabled()):
        _observed(model, args, kwargs, found, observer)
    chosen = []
    for candidate in found:
        layer = _judged(candidate, observer)
        told.layers.append(layer)
        chosen += [candidate] if layer.replaced else []
    if not chosen:
        return
    try:
        told.stock_s, told.ours_s, ratio = measuring.whole(model, args, kwargs, training, chosen, settings)
        faster = ratio.low > measuring.LEAST_GAIN
        told.note = "" if faster else f"torch's layers stay: the whole was {ratio} times as fast"
    except Exception as error:  # the call that follows raises it again, if it was the model's
        faster = False
        told.note = f"torch's layers stay: the whole could not be measured ({str(error).splitlines()[0]})"
    for candidate, layer in zip(found, told.layers, strict=True):
        layer.replaced = layer.replaced and faster
        candidate.use(layer.replaced)


def _observed(model: Any, args: Any, kwargs: Any, found: list[Candidate], observer: LayerObserver) -> None:
    """One forward pass, in which the observer sees what reaches each layer."""
    handles = [c.module.register_forward_pre_hook(observer, with_kwargs=True) for c in found if c.module is not model]
    try:
        if len(handles) < len(found):  # the model is itself a layer, and about to be called
            observer(model, args, kwargs)
        else:
            model.forward(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()


def _judged(candidate: Candidate, observer: LayerObserver) -> Layer:
    """The layer with all its calls, and whether ours is better over all of them."""
    seen = observer.calls[id(candidate.module)]
    layer = Layer(candidate.name, candidate.text, candidate.dtype, False, "the input did not reach it")
    layer.calls = [compared.call for compared in seen]
    if refusals := [compared.refusal for compared in seen if compared.refusal]:
        layer.reason = refusals[0]
    elif seen:
        ratio = measuring.gain(seen)
        layer.replaced = ratio.low > 1  # noise should not decide
        layer.reason = f"{ratio} times as fast"
    return layer


def _always(model: Any, told: Report) -> None:
    told.note = "not measured"
    for candidate in candidates(model):
        refusal = candidate.refusal()
        candidate.use(refusal is None)
        reason = "always" if refusal is None else refusal
        told.layers.append(Layer(candidate.name, candidate.text, candidate.dtype, refusal is None, reason))


def _replay(model: Any, made: Report, told: Report) -> None:
    """Do what a report says, to a model with the same layers."""
    if made.pending:
        raise ReportError("accelerate: the report waits for its own model's first input; expected a finished one")
    found = candidates(model)
    wanted = {layer.name: layer for layer in made.layers}
    for candidate in found:
        layer = wanted.pop(candidate.name, None)
        if layer is None:
            raise ReportError(
                f"accelerate: the model has a layer {candidate.name!r} that the report does not know, {candidate.text}"
            )
        if (layer.module, layer.dtype) != (candidate.text, candidate.dtype):
            raise ReportError(
                f"accelerate: layer {candidate.name!r} is {candidate.text} of {candidate.dtype}; "
                f"expected, after the report, {layer.module} of {layer.dtype}"
            )
    if wanted:
        raise ReportError(f"accelerate: the model has no layer {next(iter(wanted))!r}, which the report knows")
    for candidate in found:
        candidate.use(next(layer.replaced for layer in made.layers if layer.name == candidate.name))
    told.__dict__.update(copy.deepcopy(made.__dict__))


def _about() -> dict[str, Any]:
    return {
        "torch": str(torch.__version__),
        "fastconv": __version__,
        "threads": torch.get_num_threads(),
        "cpu": cpu_model(),
    }
