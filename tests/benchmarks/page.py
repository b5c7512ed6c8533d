"""The page of the documentation that shows what the benchmarks found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .outcome import Outcome, cell

# What the page shows, the longest last: each is written when it has ended.
SHOWN = ("watch", "trips", "farm", "peers", "growth", "catches", "tensorboard")
HEAD = """# Benchmarks

Written by `python -m tests.benchmarks --page docs/benchmarks.md`, all of it in one run of about 40 minutes on two
cores; with a NAME after `benchmarks`, that section alone. Above each table stands the command that prints it. A
benchmark says what has to hold and ends with 1 where it does not; time decides nothing, and is shown in ratios taken in
turns in one run. `pip install --group peers` (pip 25.1 or later) brings the libraries that are compared with.
"""
_SECTION = re.compile(r"^## (\w+)$", re.MULTILINE)


def write(page: Path, found: list[tuple[Outcome, str]], where: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Put the sections of these outcomes, each with what its module is about, in their places; others stay."""
    sections = _sections(page.read_text(encoding="utf-8")) if page.exists() else {}
    sections.update({outcome.name: _section(outcome, about, where) for outcome, about in found})
    text = "\n".join([HEAD, *(f"## {name}\n\n{sections[name]}" for name in names if name in sections)])
    page.write_text(text.rstrip() + "\n", encoding="utf-8")


def _sections(text: str) -> dict[str, str]:
    _, *parts = _SECTION.split(text)
    return {name: body.strip() + "\n" for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _section(outcome: Outcome, about: str, where: Mapping[str, Any]) -> str:
    command = f"python -m tests.benchmarks {outcome.name}" + (" --quick" if where["quick"] else "")
    on = ", ".join(f"{name} {value}" for name, value in where.items() if name != "quick")
    table = [_line(outcome.columns), _line(["---"] * len(outcome.columns)), *map(_line, outcome.rows)]
    said = outcome.summary.partition(": ")[2]
    return "\n".join([about.strip(), "", f"`{command}`, {on}:", "", *table, "", f"In short: {said}.", ""])


def _line(values: Any) -> str:
    return f"| {' | '.join(cell(value).replace('|', '&#124;') for value in values)} |"
