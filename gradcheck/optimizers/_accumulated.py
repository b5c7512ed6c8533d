"""A rule that makes a step of several gradients."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

from gradcheck.optimizers._around import Around
from gradcheck.optimizers._clipped import clips_by_norm
from gradcheck.optimizers._rule import Moment, Slots


@dataclass(frozen=True, repr=False)
class Accumulated(Around):
    """A rule that gathers gradients, and at each n-th step makes one step with their mean; between, nothing moves.

    The rule counts its own steps, for schedules and bias corrections. Keras' `gradient_accumulation_steps` does the
    same, but calls schedules with the number of gradients.

    Args:
        rule: The rule. Clipping by norm inside of it would need the norm of the mean, and is refused.
        steps: n; at least 1.

    Raises:
        TypeError, ValueError: If the rule is none, or clips by norm, or steps is no such number.

    Example:
        >>> from gradcheck.optimizers import Accumulated, GradientDescent
        >>> rule = Accumulated(GradientDescent(0.5), steps=2)
        >>> w, state = rule.step(1.0, 1.0, rule.init(1.0))
        >>> float(w), float(rule.step(w, 3.0, state)[0])  # the second is 1 - 0.5 (1 + 3) / 2
        (1.0, 0.0)
    """

    rule: Any
    steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.steps, bool) or not isinstance(self.steps, numbers.Integral):
            raise TypeError(f"steps must be an integer; got steps={self.steps!r}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1; got steps={self.steps!r}")
        if clips_by_norm(self.rule):
            raise ValueError(
                "Accumulated cannot stand around clipping by a norm; write Clipped(Accumulated(...), ...), which clips "
                "each gradient"
            )

    def slots(self) -> dict[str, Any]:
        return {**super().slots(), "gathered": 0.0}

    def update(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> tuple[Any, dict[str, Any]]:
        gathered = slots["gathered"] + gradient
        own = moment.counting((moment.count + self.steps - 1) // self.steps)
        moved, new = super().update(own, param, gathered / self.steps, slots)

        after = {name: moment.at_each(self.steps, new[name], slots[name]) for name in new}
        after["gathered"] = moment.at_each(self.steps, 0 * gathered, gathered)
        return moment.at_each(self.steps, moved, param), after
