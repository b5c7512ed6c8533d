"""A rule one of whose slots starts elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradcheck.optimizers._arguments import require_choice, require_number
from gradcheck.optimizers._around import Around


@dataclass(frozen=True, repr=False)
class Started(Around):
    """A rule whose slot of a name, such as "velocity" or "v", starts at a value and not where the rule has it start.

    Raises:
        TypeError, ValueError: If the rule is none, or has no such slot, or the value is no number of at least 0.

    Example:
        >>> from gradcheck.optimizers import Momentum, Started
        >>> rule = Started(Momentum(0.5, 0.5), "velocity", 1.0)
        >>> float(rule.step(1.0, 0.0, rule.init(1.0))[0])
        0.5
    """

    rule: Any
    slot: str
    value: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        names = list(self.rule.slots())
        if not names:
            raise TypeError(f"{self.rule!r} has no slots")
        require_choice("slot", self.slot, names)
        require_number("value", self.value)

    def slots(self) -> dict[str, Any]:
        return {**super().slots(), self.slot: self.value}
