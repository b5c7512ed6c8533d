"""What the check of one subject gave, and the JSON document that holds many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradcheck._report.gradient import GradientReport
from gradcheck._report.plain import FORMAT, fields_of, from_plain, require_format, to_plain
from gradcheck._results import Figure

_FIELDS = ("name", "ok", "report", "figures")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The report on one subject, and the document's figures beside the computed ones."""

    name: str
    report: GradientReport
    figures: tuple[Figure, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the gradient is right and every figure is met."""
        return self.report.ok and all(figure.ok for figure in self.figures)


def outcomes_to_plain(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The document that `outcomes_from_plain` reads."""
    return {
        "format": FORMAT,
        "subjects": [
            {"name": each.name, "ok": each.ok, "report": each.report.to_dict(), "figures": to_plain(each.figures)}
            for each in outcomes
        ],
    }


def outcomes_from_plain(data: object) -> list[Outcome]:
    """The outcomes in a document; a report on its own, as `GradientReport.to_dict` gives it, is a document of one.

    Raises:
        ValueError: If a field is missing, unknown, of the wrong kind, or contradicts another.
    """
    fields = dict(fields_of(data, "document"))
    if "findings" in fields:
        report = GradientReport.from_dict(fields)
        return [Outcome(name=report.name, report=report)]
    require_format(fields, "document")
    if list(fields) != ["subjects"] or not isinstance(fields["subjects"], list):
        raise ValueError(f"document: expected format and a list of subjects, got {', '.join(fields) or 'neither'}")
    return [_outcome(each, f"subjects[{i}]") for i, each in enumerate(fields["subjects"])]


def _outcome(data: object, path: str) -> Outcome:
    fields: Mapping[str, Any] = fields_of(data, path)
    if set(fields) != set(_FIELDS):
        raise ValueError(f"{path}: expected {', '.join(_FIELDS)}, got {', '.join(fields) or 'nothing'}")
    try:
        report = GradientReport.from_dict(fields["report"])
    except ValueError as error:
        raise ValueError(f"{path}.{error}") from error
    outcome = Outcome(
        name=from_plain(str, fields["name"], f"{path}.name"),
        report=report,
        figures=from_plain(tuple[Figure, ...], fields["figures"], f"{path}.figures"),
    )
    if fields["ok"] is not outcome.ok:
        raise ValueError(f"{path}.ok: {fields['ok']!r} contradicts its report and figures, which say {outcome.ok}")
    return outcome
