# SPDX-License-Identifier: Apache-2.0
"""The checks of convolutions and of plans."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from .. import _core
from .._core import ConvProblem, Options
from ..arrays import as_dtype, dtype_word
from ..verify import LAYOUTS, Array, Call
from .calls import Results, Verdict, host, native_at, place_of, present, there, verdict_of, words_of

if TYPE_CHECKING:
    from .sampling import Sampler

_WORDS = {layout: word for word, layout in LAYOUTS.items()}


@dataclass(frozen=True)
class ConvCheck:
    """A convolution, by a plan or not. `contiguous`: the arrays' own strides did not decide the layout."""

    kind: ClassVar[str] = "conv"
    call: Call
    options: Options
    planned: bool
    where: str = "cpu"
    contiguous: bool = True

    @classmethod
    def of(cls, about: Mapping[str, Any], arrays: Mapping[str, Array]) -> "ConvCheck":
        problem = ConvProblem.parse(about["problem"])
        call = Call(problem, arrays, about["alpha"], about["pad_value"])
        return cls(call, Options(**about["options"]), about["planned"], about["where"])

    @property
    def arrays(self) -> Mapping[str, Array]:
        return self.call.arrays

    @property
    def title(self) -> str:
        return str(self.call.problem)

    def judge(self, results: Results) -> Verdict:
        exact = self.call.exact()
        shares = self.call.shares(results[0], exact, self.call.magnitude(), self.error_factor)
        return verdict_of(shares, results[0], exact)

    def again(self) -> Results:
        call = replace(self.call, arrays=there(self.arrays, self.where))
        run = call.run_planned if self.planned else call.run
        return (host(run(self.options, native=native_at(self.where))),)

    def _rows(self) -> list[dict[str, Any]]:
        p, ordinal = self.call.problem, self.where.partition(":")[2]
        rows = _core.device_algorithms(p, self.options, int(ordinal)) if ordinal else _core.algorithms(p, self.options)
        return [row for row in rows if row["supported"]]

    @property
    def algorithm(self) -> str:
        """The one that computes dense arrays."""
        if self.options.algorithm:
            return self.options.algorithm
        p, ordinal = self.call.problem, self.where.partition(":")[2]
        return _core.device_choose(p, self.options, int(ordinal)) if ordinal else _core.choose(p, self.options)

    @property
    def error_factor(self) -> float:
        """Of the algorithm that ran; of the worst that may have run where an array's own strides decide the layout."""
        name = self.algorithm if self.contiguous or self.options.algorithm else None
        return max((row["error_factor"] for row in self._rows() if name in (None, row["name"])), default=1.0)

    def about(self) -> dict[str, Any]:
        return {
            "problem": self.title,
            "alpha": self.call.alpha,
            "pad_value": self.call.pad_value,
            "planned": self.planned,
            "options": {**words_of(self.options), "algorithm": self._tuned() or self.options.algorithm},
        }

    def _tuned(self) -> str | None:
        """Of a tuning, the algorithm that it chose."""
        if self.options.tuning is None or self.options.algorithm is not None:
            return None
        usable = {row["name"] for row in self._rows()}
        label = str(self.options.isa)
        if self.where != "cpu":
            label = f"sm_{_core.device_info(int(self.where.partition(':')[2]))['architecture']}"
        ranking = self.options.tuning.ranking(self.call.problem, label, self.planned)
        return next((name for name in ranking if name in usable), None)

    def lines(self) -> list[str]:
        planned = ", by a plan" if self.planned else ""
        return [f"algorithm  {self.algorithm}{planned}, error factor {self.error_factor:g}"]


def _made(p: ConvProblem, given: dict[str, Any], options: Options, alpha: float = 0.0, pad_value: float = 0.0,
          planned: bool = False) -> ConvCheck | None:  # fmt: skip
    """None: of mixed dtypes, which the native functions have refused or converted."""
    given = {name: a for name, a in given.items() if a is not None}
    if not all(a.dtype == as_dtype(p.dtype) for a in given.values()):
        return None
    contiguous = all(a.flags.c_contiguous for a in given.values())
    where = place_of(next(iter(given.values())))
    return ConvCheck(Call(p, present(**given), alpha, pad_value), options, planned, where, contiguous)


def _problem(pass_: str, x_shape: Any, w_shape: Any, geometry: Any, layout: str, dtype: Any, activation: str,
             has_bias: bool, has_residual: bool) -> ConvProblem:  # fmt: skip
    stride, pad_begin, pad_end, dilation, groups, mode = geometry
    first = layout == "channels_first"
    size, channels = (x_shape[2:], x_shape[1]) if first else (x_shape[1:-1], x_shape[-1])
    return ConvProblem(pass_, x_shape[0], channels, w_shape[0], size, w_shape[2:], stride, pad_begin, pad_end, dilation,
                       groups, _WORDS[layout], dtype_word(dtype), mode, activation, has_bias, has_residual)  # fmt: skip


def sampled(native: Any, sampler: "Sampler") -> dict[str, Callable[..., Any]]:
    """What takes the place of the convolutions and plans of `native`, by their names and with their arguments."""
    forward, backward_data, backward_filter, native_plan = (
        getattr(native, name) for name in ("conv_forward", "conv_backward_data", "conv_backward_filter", "Plan")
    )

    def conv_forward(x: Any, w: Any, bias: Any, residual: Any, stride: Any, pad_begin: Any, pad_end: Any, dilation: Any,
                     groups: Any, padding_mode: Any, pad_value: Any, activation: Any, alpha: Any, layout: Any,
                     options: Any, out: Any) -> Any:  # fmt: skip
        geometry = (stride, pad_begin, pad_end, dilation, groups, padding_mode)
        y = forward(x, w, bias, residual, *geometry, pad_value, activation, alpha, layout, options, out)

        def made() -> ConvCheck | None:
            p = _problem("fwd", x.shape, w.shape, geometry, layout, x.dtype, activation, bias is not None,
                         residual is not None)  # fmt: skip
            return _made(p, {"x": x, "w": w, "bias": bias, "residual": residual}, options, alpha, pad_value)

        sampler.look_at(made, lambda: (host(y),))
        return y

    def conv_backward_data(dy: Any, w: Any, x_shape: Any, stride: Any, pad_begin: Any, pad_end: Any, dilation: Any,
                           groups: Any, padding_mode: Any, layout: Any, options: Any, out: Any, bias: Any = None,
                           activation: Any = "none", alpha: Any = 0.0) -> Any:  # fmt: skip
        geometry = (stride, pad_begin, pad_end, dilation, groups, padding_mode)
        dx = backward_data(dy, w, x_shape, *geometry, layout, options, out, bias, activation, alpha)

        def made() -> ConvCheck | None:
            p = _problem("bwd_data", x_shape, w.shape, geometry, layout, dy.dtype, activation, bias is not None, False)
            return _made(p, {"dy": dy, "w": w, "bias": bias}, options, alpha)

        sampler.look_at(made, lambda: (host(dx),))
        return dx

    def conv_backward_filter(dy: Any, x: Any, w_shape: Any, stride: Any, pad_begin: Any, pad_end: Any, dilation: Any,
                             groups: Any, padding_mode: Any, pad_value: Any, layout: Any, options: Any,
                             out: Any) -> Any:  # fmt: skip
        geometry = (stride, pad_begin, pad_end, dilation, groups, padding_mode)
        dw = backward_filter(dy, x, w_shape, *geometry, pad_value, layout, options, out)

        def made() -> ConvCheck | None:
            p = _problem("bwd_filter", x.shape, w_shape, geometry, layout, dy.dtype, "none", False, False)
            return _made(p, {"dy": dy, "x": x}, options, pad_value=pad_value)

        sampler.look_at(made, lambda: (host(dw),))
        return dw

    def plan(problem: ConvProblem, w: Any, bias: Any, alpha: float, pad_value: float, options: Options,
             *layout: str) -> CheckedPlan:  # fmt: skip
        return CheckedPlan(native_plan(problem, w, bias, alpha, pad_value, options, *layout), sampler, w, bias, alpha,
                           pad_value, options)  # fmt: skip

    found: dict[str, Callable[..., Any]] = {
        "conv_forward": conv_forward,
        "conv_backward_data": conv_backward_data,
        "conv_backward_filter": conv_backward_filter,
        "Plan": plan,
    }
    return found if not hasattr(native, "ConvAt") else {**found, "ConvAt": lambda *_: _not_by_address}


def _not_by_address(*_: int) -> None:
    """No call at addresses: a check needs the arrays, with which the caller goes on."""


class CheckedPlan:
    """A plan, one call in so many of which is checked against the weights it was made with."""

    def __init__(self, native: Any, sampler: "Sampler", w: Any, bias: Any, alpha: float, pad_value: float,
                 options: Options) -> None:  # fmt: skip
        self._native, self._sampler, self._scalars, self._options = native, sampler, (alpha, pad_value), options
        self._lock = threading.Lock()
        self._weights = _copies(w, bias)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    at = staticmethod(_not_by_address)

    def __call__(self, x: Any, residual: Any = None, out: Any = None) -> Any:
        weights = self._weights
        y = self._native(x, residual, out)

        def made() -> ConvCheck | None:
            p = self._native.problem.with_n(x.shape[0])
            # Weights that another thread has just replaced may be either.
            if weights is not self._weights or p.has_residual != (residual is not None):
                return None
            options = Options(**{**words_of(self._options), "algorithm": self._native.algorithm})
            return _made(p, {"x": x, **weights, "residual": residual}, options, *self._scalars, planned=True)

        self._sampler.look_at(made, lambda: (host(y),))
        return y

    def update(self, w: Any, bias: Any = None) -> None:
        with self._lock:
            self._weights = {}
            self._native.update(w, bias)
            self._weights = _copies(w, bias)


def _copies(w: Any, bias: Any) -> dict[str, Any]:
    return {"w": w.copy(), **({} if bias is None else {"bias": bias.copy()})}
