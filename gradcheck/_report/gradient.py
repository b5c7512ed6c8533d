"""The report of a gradient check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradcheck._report.plain import report_from_dict, report_to_dict
from gradcheck._report.text import report_text
from gradcheck._results import GRAVEST_FIRST, Finding, Taylor, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a check took."""

    evaluations: int = 0  # of the function
    gradients: int = 0  # of its gradient
    seconds: float = field(default=0.0, compare=False)  # wall time; not part of equality


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class GradientReport:
    """All findings of one check.

    `bool(report)` is `report.ok`, and `repr(report)` is its text, so that a bare
    `assert check_gradients(f, x)` explains itself.
    """

    name: str  # of the function
    findings: tuple[Finding, ...]
    mode: str  # the mode that ran: "directional", "elementwise" or "jacobian"
    seed: int
    cost: Cost = Cost()
    order: int = 1
    again: str = ""  # a line that repeats the check
    notes: tuple[str, ...] = ()  # what was noticed and does not change the verdict
    skipped: tuple[str, ...] = ()  # inputs that have no derivative, with their dtype
    unpromoted: tuple[str, ...] = ()  # ops that could not run in float64
    taylor: Taylor | None = None  # of the worst finding; None of large inputs that are ok, and of no derivative

    @property
    def ok(self) -> bool:
        """Whether every finding is ok."""
        return all(finding.ok for finding in self.findings)

    @property
    def worst(self) -> Finding | None:
        """The gravest finding, or None where there is none."""
        return min(self.findings, key=gravity, default=None)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that are not ok, gravest first."""
        return tuple(sorted((finding for finding in self.findings if not finding.ok), key=gravity))

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict; UNCONNECTED where there is no finding at all."""
        return self.worst.verdict if self.worst else Verdict.UNCONNECTED

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return report_text(self)

    def __repr__(self) -> str:
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers: what `json.dumps` takes; NaN and infinities as strings."""
        return report_to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GradientReport:
        """The report that `to_dict` wrote.

        Raises:
            ValueError: If a field is missing, unknown or of the wrong kind.
        """
        return report_from_dict(cls, data)


def gravity(finding: Finding) -> tuple[bool, int, float]:
    """What is worst comes first among findings sorted by this."""
    return (finding.ok, GRAVEST_FIRST.index(finding.verdict), -(finding.excess or 0.0))
