"""The report on a trip: what a watchdog found in one step, where it was born, and the steps before."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradcheck._report.nonfinite import NonfiniteReport, Range, counts_text
from gradcheck._report.plain import FORMAT, fields_of, from_plain, require_format, to_plain

_SHOWN = 3  # values that the text names
_COLUMNS = 2  # variables in the table
_WIDEST = 24  # characters of a name above a column
MEANING = {
    "raise": "nothing was written, and the step is raised as an error",
    "skip": "nothing was written, and training goes on with the next step",
    "rollback": "everything was put back to the last good state, and training goes on from there",
    "stop": "nothing was written, and training stops",
    "log": "nothing was written, and training goes on",
    "undecided": "nothing was written, and a callable is to decide what follows",
}
_OF_ZEROS = {
    "raise": "the step is raised as an error",
    "stop": "zeros took the place of its gradients, and training stops",
} | dict.fromkeys(
    ("skip", "rollback", "log", "undecided"), "zeros took the place of its gradients, and training goes on"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One variable in one step: what was added to it, or the gradient for it.

    Attributes:
        name: Of the variable.
        norm: Euclidean norm of the change (of the gradient, where a gradient was handed to `guard`).
        low, high: Its smallest and largest entry (of magnitudes, if complex).
        ratio: The norm of the change over the norm of the variable before; inf where that is zero.
    """

    name: str
    norm: float
    low: float | None = None
    high: float | None = None
    ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What was seen in one step: the scalars that it returned, and its variables."""

    number: int
    outputs: tuple[tuple[str, float], ...] = ()
    layers: tuple[Layer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TripReport:
    """A step in which something became NaN or infinite.

    Attributes:
        name: Of the step.
        step: Which step of this watchdog, counted from 1.
        action: What followed: "raise", "skip", "rollback", "stop" or "log"; "undecided" in what a callable is given.
        found: What was not finite: outputs of the step, gradients, what was to be written to variables.
        nonfinite: The op where it was born, from a second run of the step; None where that is not known.
        in_a_row: How many steps in a row have tripped, this one included.
        history: The steps before, oldest first, and this one.
        notes: What was noticed besides.
        bundle: The folder that the trip was written to, if any.
        zeros: Whether the update was not held back, but given zeros for gradients: by `Watchdog.guard`.
    """

    name: str
    step: int
    action: str
    found: tuple[Range, ...]
    nonfinite: NonfiniteReport | None = None
    in_a_row: int = 1
    history: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    bundle: str | None = None
    zeros: bool = False

    @property
    def ok(self) -> bool:
        """False: there is a report only where something was found."""
        return False

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return _text(self)

    def __repr__(self) -> str:
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers: what `json.dumps` takes; NaN and infinities as strings."""
        return {"format": FORMAT, **to_plain(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TripReport:
        """The report that `to_dict` wrote.

        Raises:
            ValueError: If a field is missing, unknown or of the wrong kind.
        """
        fields = dict(fields_of(data, "report"))
        require_format(fields, "report")
        report: TripReport = from_plain(cls, fields, "report")
        return report


def _text(report: TripReport) -> str:
    table = step_table(report.history)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    ]
    return "\n".join([what_was_found(report), *lines])


def what_was_found(report: TripReport) -> str:
    """The text of a trip without its table of steps."""
    row = f", {report.in_a_row} in a row" if report.in_a_row > 1 else ""
    meaning = (_OF_ZEROS if report.zeros else MEANING)[report.action]
    lines = [f"step {report.step} of {report.name} is not finite{row}: {meaning}"]
    lines += [f"  found    {r.name} {r.dtype}{list(r.shape)}: {counts_text(r)}" for r in report.found[:_SHOWN]]
    if len(report.found) > _SHOWN:
        lines.append(f"  and {len(report.found) - _SHOWN} more")
    if report.nonfinite is not None:
        lines += [f"  {line}" for line in str(report.nonfinite).split("\n")]
    lines += [f"  note     {note}" for note in report.notes]
    lines += [f"  bundle   {report.bundle}"] if report.bundle else []
    return "\n".join(lines)


def step_table(history: Sequence[Step]) -> list[list[str]]:
    """The last steps: what the step returned, and the variables that changed most in comparison to themselves.

    Rows of cells, heads first; empty where there is no step.
    """
    if not history:
        return []
    names = [name for name, _ in history[-1].outputs][:_SHOWN]
    shown = _most_moved(history)
    heads = ["step", *names, *(head for name in shown for head in (_short(name), "ratio", "min", "max"))]
    rows = []
    for step in history:
        outputs, layers = dict(step.outputs), {layer.name: layer for layer in step.layers}
        cells = [str(step.number), *(_number(outputs.get(name)) for name in names)]
        for name in shown:
            at = layers.get(name)
            cells += [_number(getattr(at, field, None)) for field in ("norm", "ratio", "low", "high")]
        rows.append(cells)
    return [heads, *rows]


def _most_moved(history: Sequence[Step]) -> list[str]:
    ranked = [
        (not math.isfinite(layer.norm), layer.norm if layer.ratio is None else layer.ratio, layer.name)
        for layer in history[-1].layers
    ]
    largest_first = sorted(ranked, key=lambda r: (r[0], r[1] if math.isfinite(r[1]) else 0.0), reverse=True)
    return [name for *_, name in largest_first][:_COLUMNS]


def _short(name: str) -> str:
    return name if len(name) <= _WIDEST else f"...{name[3 - _WIDEST :]}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
