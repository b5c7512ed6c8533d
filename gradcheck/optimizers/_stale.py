"""A rule that sees the gradient of the step before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradcheck.optimizers._arguments import require_choice
from gradcheck.optimizers._around import Around
from gradcheck.optimizers._rule import Moment, Slots

FIRST = ("zero", "fresh")


@dataclass(frozen=True, repr=False)
class Stale(Around):
    """A rule that sees, at each step, the gradient of the step before; at the first step zero, or the fresh one.

    Raises:
        TypeError, ValueError: If the rule is none, or `first` unknown.

    Example:
        >>> from gradcheck.optimizers import GradientDescent, Stale
        >>> rule = Stale(GradientDescent(1.0))
        >>> w, state = rule.step(1.0, 0.5, rule.init(1.0))
        >>> float(w)
        1.0
        >>> float(rule.step(w, 7.0, state)[0])
        0.5
    """

    rule: Any
    first: str = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("first", self.first, FIRST)

    def slots(self) -> dict[str, Any]:
        return {**super().slots(), "waiting": 0.0}

    def update(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> tuple[Any, dict[str, Any]]:
        waiting = slots["waiting"]
        seen = moment.at_first(gradient, waiting) if self.first == "fresh" else waiting
        param, new = super().update(moment, param, seen, slots)
        return param, {**new, "waiting": gradient}
