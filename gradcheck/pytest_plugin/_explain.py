"""Assertions on reports, told by the report in place of its escaped repr."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

_FRAMES = 3  # unittest asserts in functions of its own


def explain(excinfo: pytest.ExceptionInfo[BaseException] | None) -> list[Any]:
    """The reports that an exception is about; a bare assertion on one is made to show it.

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
    looked_at = [report for report in _in_frame(excinfo) if _shows(error.args[0], report)]
    if looked_at:
        error.args = ("\n".join(map(str, looked_at)), *error.args[1:])
    return looked_at


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


def _without_name(line: str, first: str) -> str:
    told = line.startswith("E ") and line.endswith(f": {first}")
    return f"{line[: len(line) - len(line[1:].lstrip())]}{first}" if told else line
