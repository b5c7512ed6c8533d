"""Assertions on reports, told by the report in place of its escaped repr."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

_FRAMES = 3  # unittest asserts in functions of its own
_NOT_THE_USERS = (str(Path(__file__).parents[1]), str(Path("tensorflow", "python", "autograph")))


def explain(excinfo: pytest.ExceptionInfo[BaseException] | None) -> None:
    """Make an exception that is about reports show them, and the user's frames only."""
    reports = reports_of(excinfo)
    if excinfo is None or not reports:
        return
    if hasattr(excinfo.value, "report"):
        _cut_off(excinfo)
    else:
        said = _said(excinfo.value.args[0], reports[0])
        excinfo.value.args = ("\n".join([*said, *map(str, reports)]), *excinfo.value.args[1:])


def reports_of(excinfo: pytest.ExceptionInfo[BaseException] | None) -> list[Any]:
    """The reports that an exception is about.

    Returns:
        Reports that are not ok: the one that a GradientMismatch carries, or those that an assertion looked at.
    """
    if excinfo is None:
        return []
    error = excinfo.value
    carried = getattr(error, "report", None)
    if _is_failure(carried):
        return [carried]
    if not isinstance(error, AssertionError) or not error.args or not isinstance(error.args[0], str):
        return []
    return [report for report in _in_frame(excinfo) if _shows(error.args[0], report)]


def _said(message: str, report: Any) -> list[str]:
    """What the test itself has to say: before what pytest makes of an assertion, behind what unittest does."""
    of_pytest, found, _ = message.partition("\nassert ")
    if found:
        return [of_pytest]
    behind = message.removeprefix(repr(report))
    return [behind.partition(" : ")[2]] if behind != message and " : " in behind else []


def _cut_off(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Take the frames below the user's off a traceback: pytest's own filters go back to what it holds."""
    frame: Any = excinfo.tb
    last: Any = None
    while frame is not None:
        if not any(part in frame.tb_frame.f_code.co_filename for part in _NOT_THE_USERS):
            last = frame
        frame = frame.tb_next
    if last is not None:
        last.tb_next = None
        excinfo.traceback = type(excinfo.traceback)(excinfo.tb)


def _in_frame(excinfo: pytest.ExceptionInfo[BaseException]) -> Iterator[Any]:
    """Failed reports among the values where it was raised, those that an assertion computes among them."""
    seen: set[int] = set()
    for entry in list(excinfo.traceback)[-_FRAMES:]:
        for value in entry.frame.f_locals.values():
            if id(value) not in seen and _is_failure(value):
                seen.add(id(value))
                yield value


def _is_failure(value: Any) -> bool:
    ours = type(value).__module__.startswith("gradcheck.") and type(value).__name__.endswith("Report")
    return ours and getattr(value, "ok", None) is False


def _shows(message: str, report: Any) -> bool:
    """Whether the message that pytest made of an assertion holds the beginning of the report's repr."""
    return repr(report).split("\n", 1)[0][:40] in message


def shorten(longrepr: Any, shown: list[Any]) -> None:
    """Take the exception's name, which the report begins with anyway, off what pytest shows; the summary too."""
    crash = getattr(longrepr, "reprcrash", None)
    for report in shown:
        first = str(report).split("\n", 1)[0]
        for entry in getattr(getattr(longrepr, "reprtraceback", None), "reprentries", ()):
            entry.lines[:] = [_without_name(line, first) for line in entry.lines]
        if crash is not None and first in crash.message:
            crash.message = str(report)


def tripped(error: BaseException) -> bool:
    """Whether a watchdog raised the error; none of the frames that led there is the user's."""
    return type(error).__name__ == "NonfiniteTrip" and hasattr(error, "report")


def without_text(sections: Iterable[tuple[str, str]], text: str) -> Iterator[tuple[str, str]]:
    """Captured sections without the records of a log that say the same once more, and without what is empty then."""
    record = re.compile(rf"^\w+ +gradcheck:.*\n{re.escape(text)}\n?", re.MULTILINE)
    for name, content in sections:
        if left := record.sub("", content):
            yield name, left


def _without_name(line: str, first: str) -> str:
    told = line.startswith("E ") and line.endswith(f": {first}")
    return f"{line[: len(line) - len(line[1:].lstrip())]}{first}" if told else line
