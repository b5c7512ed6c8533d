"""A step that tripped, run again to find the op."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradcheck._bundle.writing import write_bundle
from gradcheck._diagnose.nonfinite import report_on
from gradcheck._errors import BundleNotWritten
from gradcheck._graph.kernels import KernelState
from gradcheck._graph.raised import raised_at
from gradcheck._graph.rerun import Rerun, of_concrete
from gradcheck._report.nonfinite import NonfiniteReport
from gradcheck._report.trip import TripReport

_CONVERTED = "in user code:"  # how AutoGraph begins what it adds to an exception
_FINITE = (
    "run again op by op, the step was finite: it draws random numbers that cannot be repeated, or TensorFlow "
    "computes it differently where ops are fused"
)


@dataclass(frozen=True, slots=True)
class Again:
    """What running a step again told.

    Attributes:
        nonfinite: The op, or None.
        notes: Why there is none.
        write: Writes a bundle with what is said of the trip into a directory, and gives its path; None where nothing
            can be written.
    """

    nonfinite: NonfiniteReport | None = None
    notes: tuple[str, ...] = ()
    write: Callable[[str, TripReport], Path] | None = None

    def dumped(self, dump_dir: str | None, trip: TripReport) -> TripReport:
        """The report, with the bundle that it was written to or why there is none."""
        if dump_dir is None or self.write is None:
            return trip
        try:
            return replace(trip, bundle=str(self.write(dump_dir, trip)))
        except BundleNotWritten as error:
            return replace(trip, notes=(*trip.notes, str(error)))


def again(
    function: Any,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    *,
    kernels: Sequence[KernelState] = (),
    drawn: Mapping[str, Any] | None = None,
    anywhere: bool = False,
) -> Again:
    """Find the op where a concrete function is not finite, at the state that variables have now.

    Args:
        function: The ConcreteFunction.
        arguments, keywords: Of the call.
        kernels: The states of its random kernels.
        drawn: What it took from outside, by reference.
        anywhere: Look also at what it neither returns nor writes.
    """
    try:
        rerun = of_concrete(function, list(arguments), keywords, None, kernels, drawn)
    except Exception as error:  # whatever goes wrong in looking closer must not hide the trip
        return _failed(error)
    return again_of(rerun, anywhere=anywhere)


def again_of(rerun: Rerun, *, anywhere: bool = False) -> Again:
    """The same for what is ready to run."""
    try:
        found = report_on(rerun, tests=True, anywhere=anywhere)
    except Exception as error:  # as above
        return _failed(error)
    nonfinite, notes = (None, (_FINITE,)) if found.ok else (found, ())

    def write(dump_dir: str, trip: TripReport) -> Path:
        return write_bundle(dump_dir, rerun, found, trip=trip, step=trip.step)

    return Again(nonfinite, notes, write)


def _failed(error: Exception) -> Again:
    return Again(notes=(f"the op could not be located: {said(error)}",))


def said(error: Exception) -> str:
    """The kind of an exception, the user's line that raised it, and the beginning of what it says."""
    name, text = type(error).__name__, str(error).strip()
    if not text.startswith(_CONVERTED):
        place = raised_at(error)
        where = "" if place.file is None else f" at {Path(place.file).name}:{place.line}"
        return f"{name}{where}: {first_line(error)}"
    files = re.findall(r'File "(.*)", line (\d+), in .*  \*$', text, re.MULTILINE)
    where = f" at {Path(files[-1][0]).name}:{files[-1][1]}" if files else ""
    own = text.rpartition(f"    {name}: ")[2].strip().partition("\n")[0]
    return f"{name}{where}: {textwrap.shorten(own, 120, placeholder=' ...')}"


def first_line(error: Exception) -> str:
    """The beginning of what an exception says."""
    return str(error).strip().partition("\n")[0][:200]
