"""What a benchmark found: a table, a line that sums it up, and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one benchmark found.

    Attributes:
        name: Of the benchmark.
        columns, rows: The table.
        summary: One line.
        ok: Whether every bound was kept; speed has none.
        figures: The numbers behind the summary.
        details: Each failure, with what repeats it.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    summary: str
    ok: bool
    figures: Mapping[str, Any] = field(default_factory=dict)
    details: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `json.dumps` takes them."""
        return {
            "name": self.name,
            "ok": self.ok,
            "summary": self.summary,
            "figures": dict(self.figures),
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
            "details": list(self.details),
        }


def text_of(outcome: Outcome) -> str:
    """The table, the failures and the summary."""
    cells = [outcome.columns, *([cell(value) for value in row] for row in outcome.rows)]
    return "\n".join([f"== {outcome.name} ==", *_aligned(cells), *outcome.details, outcome.summary])


def cell(value: Any) -> str:
    """A value as a table shows it: three digits of a float, yes or NO, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def first_lines(text: str, count: int = 7) -> str:
    """The beginning of a report, indented."""
    return "\n".join(f"    {line}" for line in text.splitlines()[:count])
