# SPDX-License-Identifier: Apache-2.0
"""The checks of poolings and their gradients."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .._core import Options, PoolProblem
from ..verify import Array
from ..verify_pool import PoolCall
from .calls import Results, Verdict, host, native_at, place_of, present, there, verdict_of, words_of

if TYPE_CHECKING:
    from .sampling import Sampler


@dataclass(frozen=True)
class PoolCheck:
    """A pooling. winners: "indices" or "offsets" where it gives, or its gradient goes by, those of an extreme."""

    kind: ClassVar[str] = "pool"
    call: PoolCall
    options: Options
    winners: str = ""
    where: str = "cpu"

    @classmethod
    def of(cls, about: Mapping[str, Any], arrays: Mapping[str, Array]) -> "PoolCheck":
        problem = PoolProblem(x_shape=about["x_shape"], **about["windows"])
        call = PoolCall(problem, arrays, about["norm"])
        return cls(call, Options(**about["options"]), about["winners"], about["where"])

    @property
    def arrays(self) -> Mapping[str, Array]:
        return self.call.arrays

    @property
    def title(self) -> str:
        words = self.call.problem.words
        windows = {"kind": "", "layout": "", **({} if words["output"] else {"output": ""})}
        shown = [f"{key} {'x'.join(map(str, value))}" for key, value in words.items()
                 if key not in windows and isinstance(value, tuple) and value]  # fmt: skip
        norm = f" of order {self.call.norm:g}" if words["kind"].endswith("lp") else ""
        gradient = "gradient of " if self.call.backward else ""
        shape = "x".join(map(str, self.call.problem.x_shape))
        return f"{gradient}{words['kind']} pooling{norm} of {shape} {words['layout']}, {', '.join(shown)}"

    def judge(self, results: Results) -> Verdict:
        exact = self.call.exact()
        verdict = verdict_of(self.call.shares(results[0], exact), results[0], exact)
        if not verdict.right or len(results) < 2:
            return verdict
        found = self.call.positions(results[1]) if self.winners == "offsets" else results[1]
        return max(verdict, verdict_of(self.call.shares_of_winners(results[1]), found, self.call.winners()[1],
                                       "error of the positions"), key=lambda v: v.worst)  # fmt: skip

    def again(self) -> Results:
        a, native, p = there(self.arrays, self.where), native_at(self.where), self.call.problem
        if self.call.backward:
            if self.winners:
                return (host(native.pool_backward_offsets(p, a["dy"], a["offsets"], self.options)),)
            return (host(native.pool_backward(p, a["dy"], a.get("x"), a.get("y"), self.call.norm, self.options)),)
        if self.winners == "offsets":
            return _on_host(native.pool_forward_offsets(p, a["x"], self.options))
        return _on_host(native.pool_forward(p, a["x"], self.call.norm, self.winners == "indices", self.options))

    def about(self) -> dict[str, Any]:
        p = self.call.problem
        return {"x_shape": p.x_shape, "windows": p.words, "norm": self.call.norm, "winners": self.winners,
                "options": {**words_of(self.options), "algorithm": None}}  # fmt: skip

    def lines(self) -> list[str]:
        return []


def _on_host(results: tuple[Any, ...]) -> Results:
    return tuple(host(a) for a in results if a is not None)


def sampled(native: Any, sampler: "Sampler") -> dict[str, Callable[..., Any]]:
    """What takes the place of the poolings of `native`, by their names and with their arguments."""
    names = ("pool_forward", "pool_forward_offsets", "pool_backward", "pool_backward_offsets")
    forward, forward_offsets, backward, backward_offsets = (getattr(native, name) for name in names)

    def look(results: tuple[Any, ...], problem: PoolProblem, options: Options, norm: float = 1.0, winners: str = "",
             **arrays: Any) -> None:  # fmt: skip
        def made() -> PoolCheck | None:
            call = PoolCall(problem, present(**arrays), norm)
            where = place_of(next(iter(arrays.values())))
            return PoolCheck(call, options, winners, where) if call.has_reference else None

        sampler.look_at(made, lambda: _on_host(results))

    def pool_forward(problem: Any, x: Any, norm: Any, return_indices: Any, options: Any) -> Any:
        results = forward(problem, x, norm, return_indices, options)
        look(results, problem, options, norm, "" if results[1] is None else "indices", x=x)
        return results

    def pool_forward_offsets(problem: Any, x: Any, options: Any) -> Any:
        results = forward_offsets(problem, x, options)
        look(results, problem, options, winners="offsets", x=x)
        return results

    def pool_backward(problem: Any, dy: Any, x: Any, y: Any, norm: Any, options: Any) -> Any:
        dx = backward(problem, dy, x, y, norm, options)
        norms = {"x": x, "y": y} if problem.kind != "average" else {}
        look((dx,), problem, options, norm, dy=dy, **norms)
        return dx

    def pool_backward_offsets(problem: Any, dy: Any, offsets: Any, options: Any) -> Any:
        dx = backward_offsets(problem, dy, offsets, options)
        look((dx,), problem, options, winners="offsets", dy=dy, offsets=offsets)
        return dx

    return dict(zip(names, (pool_forward, pool_forward_offsets, pool_backward, pool_backward_offsets), strict=True))
