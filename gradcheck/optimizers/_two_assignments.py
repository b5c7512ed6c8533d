"""A rule as two assignments, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradcheck.optimizers._arguments import require_choice, require_rule
from gradcheck.optimizers._around import Around
from gradcheck.optimizers._rule import Assignments, Moment, Slots

FIRST = ("state", "params")


@dataclass(frozen=True, repr=False)
class TwoAssignments(Around):
    """A rule written by hand as two assignments, the state's and the params', in an order to choose.

    With the "state" first, say v <- μ v + η g and then w <- w - v, it is the rule itself. With the "params" first
    they are moved by the state of the step before: momentum stands still at its first step and lags behind ever
    after, and Adagrad with its accumulator still at 0 divides by ε. In a TensorFlow graph the trap is `tf.group`,
    which runs both assignments in no order at all: run them one after the other, or by `tf.control_dependencies`.

    Raises:
        TypeError, ValueError: If the rule is none of the plain ones, or `first` unknown.

    Example:
        >>> from gradcheck.optimizers import Momentum, TwoAssignments
        >>> by_hand = TwoAssignments(Momentum(0.5, 0.5))
        >>> trapped = TwoAssignments(Momentum(0.5, 0.5), first="params")
        >>> [float(rule.step(2.0, -2.0, rule.init(2.0))[0]) for rule in (by_hand, trapped)]
        [3.0, 2.0]
    """

    rule: Any
    first: str = "state"

    def __post_init__(self) -> None:
        require_rule(self.rule, Assignments)
        require_choice("first", self.first, FIRST)

    def update(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> tuple[Any, dict[str, Any]]:
        new: dict[str, Any] = self.rule.accumulate(moment, gradient, slots)
        moved_by = new if self.first == "state" else slots
        return self.rule.descend(moment, param, gradient, moved_by), new
