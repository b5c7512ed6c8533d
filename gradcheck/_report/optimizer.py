"""The report of a comparison of optimizers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gradcheck._report.plain import FORMAT, fields_of, from_plain, require_format, to_plain
from gradcheck._report.plot import plot_trajectories
from gradcheck._results import Explanation, VariableDifference

_WIDTH = 12


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OptimizerReport:
    """How an optimizer compares with its reference, step by step.

    `bool(report)` is `report.ok`, and `repr(report)` is its text, so that a bare
    `assert compare_optimizers(...)` explains itself.
    """

    optimizer: str
    reference: str
    steps: int  # that were compared
    variables: tuple[VariableDifference, ...]
    explanations: tuple[Explanation, ...] = ()  # that account for every step to rounding; they give the same numbers
    nearest: Explanation | None = None  # where none does
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether both agree to rounding in every variable at every step."""
        return self.first_apart is None

    @property
    def first_apart(self) -> int | None:
        """The first step, from 1, that is apart beyond rounding in any variable; None where there is none."""
        return min((v.first_apart for v in self.variables if v.first_apart is not None), default=None)

    @property
    def worst(self) -> VariableDifference:
        """The variable that is furthest apart in units of what is allowed."""
        return max(self.variables, key=lambda v: (v.excess, v.largest))

    @property
    def explanation(self) -> Explanation | None:
        """The simplest that accounts for every step; None where there is nothing to explain, or nothing explains it."""
        return self.explanations[0] if self.explanations else None

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def __repr__(self) -> str:
        return str(self)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw both trajectories of the variables, and their difference on a log axis, into a picture file.

        Args:
            path: Where to; the ending, such as .png or .svg, says in which format.

        Raises:
            ImportError: If matplotlib is not there; it says what to install.
            ValueError: If the ending is none that matplotlib knows.
        """
        plot_trajectories(self, path)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers: what `json.dumps` takes; NaN and infinities as strings."""
        return {"format": FORMAT, "ok": self.ok, **to_plain(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OptimizerReport:
        """The report that `to_dict` wrote.

        Raises:
            ValueError: If a field is missing, unknown or of the wrong kind, or `ok` contradicts the variables.
        """
        fields = dict(fields_of(data, "report"))
        require_format(fields, "report")
        stated = fields.pop("ok", None)
        report: OptimizerReport = from_plain(cls, fields, "report")
        if stated is not report.ok:
            raise ValueError(f"report.ok: {stated!r} contradicts the variables, which say {report.ok}")
        return report


def _lines(report: OptimizerReport) -> Iterator[str]:
    pair, worst = f"{report.optimizer} and {report.reference}", report.worst
    if report.ok:
        yield f"ok: {pair} agree to rounding over {_steps(report.steps)}"
        of_allowed = f"{worst.excess:.2g} of what is allowed"
        if worst.in_float64:
            yield _labelled("largest", _far(max(report.variables, key=lambda v: v.units)))
            yield _labelled("in float64", f"{max(worst.differences):.1e} in {worst.variable}, {of_allowed}")
        else:
            yield _labelled("largest", f"{_far(worst)}, {of_allowed}")
    else:
        first = next(v for v in report.variables if v.first_apart == report.first_apart)
        step = first.first_apart or 0
        yield f"OptimizerMismatch: {pair} part at step {step} of {report.steps}"
        where = " in float64" if first.in_float64 else ""
        allowed = f"{first.differences[step - 1]:.1e}{where}, allowed {first.allowed[step - 1]:.1e}"
        yield _labelled("first apart", f"{first.variable} at step {step}: {allowed}")
        yield _labelled("largest", _far(max(report.variables, key=lambda v: v.largest)))
        yield from _explained(report)
    for note in report.notes:
        yield _labelled("note", note)


def _explained(report: OptimizerReport) -> Iterator[str]:
    if report.explanation:
        yield _labelled("explained", f"{report.explanation.text}: accounts for all {_steps(report.steps)} to rounding")
        yield _labelled("the rule", report.explanation.rule)
        for other in report.explanations[1:]:
            yield _labelled("or", f"{other.text}, which gives the same numbers")
    elif report.nearest:
        yield _labelled("explained", "by nothing that was tried")
        left = f"{report.nearest.excess:.2g} times what is allowed is left"
        yield _labelled("nearest", f"{report.nearest.text}: accounts for {_steps(report.nearest.steps)}; {left}")


def _far(v: VariableDifference) -> str:
    where = f"{v.variable}{list(v.index) if v.index else ''} at step {v.step}"
    return f"{v.largest:.1e} in {where} ({v.units:.2g} units of rounding)"


def _steps(count: int) -> str:
    return f"{count} step{'' if count == 1 else 's'}"


def _labelled(label: str, text: str) -> str:
    return f"  {label:<{_WIDTH - 1}} {text}"
