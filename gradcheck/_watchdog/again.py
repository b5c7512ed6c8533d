"""A step that tripped, run again to find the op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradcheck._bundle.writing import write_bundle
from gradcheck._diagnose.nonfinite import report_on
from gradcheck._errors import BundleNotWritten
from gradcheck._graph.kernels import KernelState
from gradcheck._graph.rerun import of_concrete
from gradcheck._report.nonfinite import NonfiniteReport

_FINITE = (
    "run again op by op, the step was finite: it draws random numbers that cannot be repeated, or TensorFlow "
    "computes it differently where ops are fused"
)


@dataclass(frozen=True, slots=True)
class Again:
    """What running a step again told.

    Attributes:
        nonfinite: The op, or None.
        notes: Why there is none, or no bundle.
        bundle: The folder with what the step was given, if it was asked for.
    """

    nonfinite: NonfiniteReport | None = None
    notes: tuple[str, ...] = ()
    bundle: str | None = None


def again(
    function: Any,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any],
    number: int,
    dump_dir: str | None,
    kernels: Sequence[KernelState] = (),
) -> Again:
    """Find the op where a concrete function is not finite, at the state that variables have now, and write it down."""
    try:
        rerun = of_concrete(function, list(arguments), keywords, None, kernels)
        found = report_on(rerun, tests=True)
    except Exception as error:  # whatever goes wrong in looking closer must not hide the trip
        return Again(None, (f"the op could not be located: {type(error).__name__}: {first_line(error)}",))
    nonfinite, notes = (None, (_FINITE,)) if found.ok else (found, ())
    if dump_dir is None:
        return Again(nonfinite, notes)
    try:
        return Again(nonfinite, notes, str(write_bundle(dump_dir, rerun, found, step=number)))
    except BundleNotWritten as error:
        return Again(nonfinite, (*notes, str(error)))


def first_line(error: Exception) -> str:
    """The beginning of what an exception says."""
    return str(error).strip().partition("\n")[0][:200]
