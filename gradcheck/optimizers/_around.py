"""What stands around a rule and changes what it sees or does."""

from __future__ import annotations

from typing import Any

from gradcheck.optimizers._arguments import require_rule
from gradcheck.optimizers._rule import Moment, Rule, Slots


class Around(Rule):
    """A rule made of another one, `rule`; it does as that one does, but for what a subclass says."""

    rule: Any

    def __post_init__(self) -> None:
        require_rule(self.rule, Rule)

    @property
    def learning_rate(self) -> Any:
        return self.rule.learning_rate

    def slots(self) -> dict[str, Any]:
        inner: dict[str, Any] = self.rule.slots()
        return inner

    def prepare(self, grads: list[Any]) -> list[Any]:
        prepared: list[Any] = self.rule.prepare(grads)
        return prepared

    def update(self, moment: Moment, param: Any, gradient: Any, slots: Slots) -> tuple[Any, dict[str, Any]]:
        param, new = self.rule.update(moment, param, gradient, slots)
        return param, new
