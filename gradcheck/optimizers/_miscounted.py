"""A rule that counts its steps from another number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradcheck.optimizers._around import Around
from gradcheck.optimizers._rule import Moment, Slots


@dataclass(frozen=True, repr=False)
class Miscounted(Around):
    """A rule for which the first step is step 1 + `by`: its schedules and bias corrections run ahead, or behind.

    Behind by one, the bias corrections of Adam divide by 0 at the first step.

    Raises:
        TypeError, ValueError: If the rule is none, or `by` neither 1 nor -1.

    Example:
        >>> from gradcheck.optimizers import ExponentialDecay, GradientDescent, Miscounted
        >>> rule = Miscounted(GradientDescent(ExponentialDecay(1.0, 0.5)), by=1)
        >>> float(rule.step(1.0, 1.0, rule.init(1.0))[0])
        0.5
    """

    rule: Any
    by: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.by not in (1, -1):
            raise ValueError(f"by must be 1 or -1, a step; got by={self.by!r}")

    def update(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> tuple[Any, dict[str, Any]]:
        return super().update(moment.counting(moment.count + self.by), param, gradient, slots)
