"""Reports as Markdown, in the subset that TensorBoard's page TEXT draws: headings, tables, indented blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gradcheck._report.trip import step_table, what_was_found

if TYPE_CHECKING:
    from gradcheck._report.gradient import GradientReport
    from gradcheck._report.optimizer import OptimizerReport
    from gradcheck._report.trip import TripReport
    from gradcheck._results import Figure, Finding, VariableDifference

_MOST_ROWS = 50  # of a table
_MEANING = {**{c: f"\\{c}" for c in "\\`*_{}[]#|"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"}


def gradient_markdown(report: GradientReport) -> str:
    """A gradient check: its verdict, its text, a table of the findings, gravest first, and its cost."""
    cost = report.cost
    spent = f"{cost.evaluations} evaluations, {cost.gradients} gradients, {cost.seconds:.3g} s"
    head = ("output", "input", "verdict", "at", "analytic", "numeric", "error", "difference", "allowed")
    found = [*report.failures, *(finding for finding in report.findings if finding.ok)]
    return _joined(
        f"### {_plain(report.name)}: {report.verdict.name}",
        indented(str(report)),
        table(head, map(_finding_row, found[:_MOST_ROWS])),
        _more(len(found)),
        f"mode {report.mode}, seed {report.seed}, {spent}",
    )


def optimizer_markdown(report: OptimizerReport) -> str:
    """A comparison of optimizers: its text, and a table of the variables, furthest apart first."""
    head = ("variable", "first apart", "largest difference", "at step", "units of rounding", "in units of allowed")
    found = sorted(report.variables, key=lambda v: -v.excess)
    return _joined(
        f"### {_plain(report.optimizer)} beside {_plain(report.reference)}",
        indented(str(report)),
        table(head, map(_variable_row, found[:_MOST_ROWS])),
        _more(len(found)),
    )


def trip_markdown(report: TripReport) -> str:
    """A trip: what was found, where it was born, and a table of the last steps."""
    head, *rows = step_table(report.history) or [[]]
    return _joined(
        f"### {_plain(report.name)}: step {report.step} is not finite",
        indented(what_was_found(report)),
        table(head, rows) if rows else "",
    )


def figures_markdown(figures: Iterable[Figure]) -> str:
    """The numbers that a document prints beside the computed ones."""
    rows = [(f.label, _number(f.printed, 9), _number(f.computed, 9), "met" if f.ok else "MISSED") for f in figures]
    return _joined(table(("figure", "printed", "computed", ""), rows[:_MOST_ROWS]), _more(len(rows)))


def text_markdown(title: str, text: str) -> str:
    """Any other report: its text under a title."""
    return _joined(f"### {_plain(title)}", indented(text))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose cells are shown as they are."""
    lines = [_line(map(_plain, head)), _line(["---"] * len(head)), *(_line(map(_plain, row)) for row in rows)]
    return "\n".join(lines)


def indented(text: str) -> str:
    """A block whose lines are shown as they are."""
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _finding_row(finding: Finding) -> Sequence[str]:
    index = str(list(finding.index)) if finding.index else ""
    numbers = (finding.analytic, finding.numeric, finding.error, finding.difference, finding.allowed)
    digits = (7, 7, 2, 2, 2)
    cells = [_number(number, n) for number, n in zip(numbers, digits, strict=True)]
    return finding.y, finding.x, finding.verdict.name, index, *cells


def _variable_row(v: VariableDifference) -> Sequence[str]:
    first = "never" if v.first_apart is None else str(v.first_apart)
    return v.variable, first, _number(v.largest, 2), str(v.step), _number(v.units, 2), _number(v.excess, 2)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _more(rows: int) -> str:
    return f"and {rows - _MOST_ROWS} more" if rows > _MOST_ROWS else ""


def _plain(text: str) -> str:
    """Text whose characters mean nothing to Markdown."""
    return "".join(_MEANING.get(c, c) for c in " ".join(text.split()))


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)
