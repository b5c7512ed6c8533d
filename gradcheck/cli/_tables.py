"""What the command line prints: tables for people, and plain lines where the output goes into a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradcheck._report.outcomes import Outcome
from gradcheck._results import Figure, Verdict

_NEVER_WRAPPED = 100_000  # columns, where no terminal sets a width


def print_outcomes(outcomes: Sequence[Outcome], *, met: bool = False) -> None:
    """One line per subject, the full text of what failed, and the count; with `met`, the figures that are met too."""
    console = _console()
    _print_table(console, ("subject", "verdict", "worst", "figures", "evaluations"), map(_row, outcomes))
    for outcome in outcomes:
        if not outcome.ok or (met and outcome.figures):
            _print_in_full(console, outcome, met)
    failed = sum(not outcome.ok for outcome in outcomes)
    _print(console, Text(f"{len(outcomes) - failed} ok, {failed} failed", style="red" if failed else "green"))


def print_subjects(right: Sequence[Any], wrong: Sequence[Any]) -> None:
    """The bundled subjects, and apart from them those that are wrong on purpose."""
    console = _console()
    _print_table(console, ("subject", "section", "summary"), map(_listed, right))
    if wrong:
        _print(console, Text("\nwrong on purpose, checked only by name:"))
        _print_table(console, ("subject", "section", "summary"), map(_listed, wrong))


def _console() -> Console:
    console = Console(file=sys.stdout)
    return console if console.is_terminal else Console(file=sys.stdout, width=_NEVER_WRAPPED)


def _print_table(console: Console, columns: Sequence[str], rows: Iterable[Sequence[Text]]) -> None:
    table = Table(*columns, box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=console.is_terminal)
    for row in rows:
        table.add_row(*row)
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        _print(console, Text(line.rstrip()))


def _print(console: Console, text: Text) -> None:
    # What the stream's encoding lacks is spelled out: a report must not fail for a letter in a line of source.
    encoding = console.encoding or "utf-8"
    text.plain = text.plain.encode(encoding, "backslashreplace").decode(encoding)
    console.print(text, soft_wrap=True)


def _print_in_full(console: Console, outcome: Outcome, met: bool) -> None:
    _print(console, Text(f"\n{outcome.name}", style="bold"))
    if not outcome.report.ok:
        _print(console, Text(str(outcome.report)))
    for figure in outcome.figures:
        if met or not figure.ok:
            numbers = f"printed {figure.printed:.9g}, computed {figure.computed:.9g}"
            _print(console, Text(f"  {'met' if figure.ok else 'figure':<11} {figure.label}: {numbers}"))


def _row(outcome: Outcome) -> tuple[Text, ...]:
    report = outcome.report
    worst = max((excess for finding in report.findings if (excess := finding.excess) is not None), default=None)
    undecided = report.verdict is Verdict.INCONCLUSIVE
    return (
        Text(outcome.name),
        Text(report.verdict.name, style="green" if report.ok else "yellow" if undecided else "red"),
        Text("-" if worst is None else f"{worst:.2g}"),
        _figures(outcome.figures),
        Text(str(report.cost.evaluations)),
    )


def _figures(figures: Sequence[Figure]) -> Text:
    met = sum(figure.ok for figure in figures)
    return Text(f"{met} of {len(figures)}" if figures else "-", style="" if met == len(figures) else "red")


def _listed(subject: Any) -> tuple[Text, ...]:
    return Text(str(subject.name)), Text(str(subject.section)), Text(str(subject.summary))
