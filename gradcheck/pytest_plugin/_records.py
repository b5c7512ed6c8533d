"""What the checks of a test found, carried from the test to the end of the run."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gradcheck._report.gradient import GradientReport

_KEY = pytest.StashKey[list[Any]]()
_HANDED_ON = pytest.StashKey[int]()
ATTRIBUTE = "gradcheck_reports"  # of a pytest report, which pytest-xdist carries from a worker in plain values

TRIP = "gradcheck_trip"  # the first line of what a watchdog said


@dataclass(frozen=True, kw_only=True)
class Record:
    """One check of a test."""

    test: str  # node id
    report: GradientReport

    def again(self) -> str:
        """The command that repeats it."""
        return f"pytest {shlex.quote(self.test)} --gradcheck-seed={self.report.seed}"


def record(item: pytest.Item, report: GradientReport) -> None:
    """Remember a report, once."""
    reports = item.stash.setdefault(_KEY, [])
    if not any(known is report for known in reports):
        reports.append(report)


def attach(item: pytest.Item) -> None:
    """Tell the reports of a test to what reads its properties, such as JUnit files."""
    reports: list[GradientReport] = item.stash.get(_KEY, [])
    if reports and not any(name == "gradcheck_verdict" for name, _ in item.user_properties):
        worst = min(reports, key=lambda report: (report.ok, -_excess(report)))
        item.user_properties.append(("gradcheck_verdict", worst.verdict.name))
        item.user_properties.append(("gradcheck_worst_error", f"{_excess(worst):.3g} of what is allowed"))


def plain_reports(item: pytest.Item) -> list[dict[str, Any]]:
    """The reports of a test, in plain values, those that were not handed on before: each subtest has its own."""
    reports: list[GradientReport] = item.stash.get(_KEY, [])
    new = reports[item.stash.get(_HANDED_ON, 0) :]
    item.stash[_HANDED_ON] = len(reports)
    return [report.to_dict() for report in new]


def read(report: pytest.TestReport) -> Iterable[Record]:
    """The records that `plain_reports` put into the report of a test."""
    for plain in getattr(report, ATTRIBUTE, ()):
        from gradcheck._report.gradient import GradientReport

        yield Record(test=report.nodeid, report=GradientReport.from_dict(plain))


def _excess(report: GradientReport) -> float:
    return max((excess for finding in report.findings if (excess := finding.excess) is not None), default=0.0)


def gravity(record: Record) -> tuple[int, float]:
    """What is worst comes first in a list sorted by this."""
    from gradcheck._results import GRAVEST_FIRST

    return GRAVEST_FIRST.index(record.report.verdict), -_excess(record.report)


def worst_of(record: Record) -> str:
    """The worst finding of a report, in a few words."""
    finding = record.report.worst
    if finding is None:
        return ""
    from gradcheck._report.text import gradient_name

    gradient = gradient_name(finding.y if finding.y != "output" else record.report.name, finding.x)
    at = f" at {list(finding.index)}" if finding.index else ""
    excess = f", {finding.excess:.2g} of what is allowed" if finding.excess is not None else ""
    return f"{gradient}{at}{excess}"
