"""The report on the op where a NaN or an infinity was born."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradcheck._report.plain import from_document, to_document
from gradcheck._results import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What a tensor held."""

    name: str  # "node:output", or the path of an input or variable
    dtype: str
    shape: tuple[int, ...]
    low: float | None = None  # smallest and largest of the finite entries (of magnitudes, if complex); None without any
    high: float | None = None
    nan: int = 0  # how many entries are NaN, +Inf, -Inf
    posinf: int = 0
    neginf: int = 0
    there: str | None = None  # the entry where the op's output is not finite, if shapes tell which


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class NonfiniteReport:
    """The first op with finite inputs and an output that is not, or that there is none.

    `bool(report)` is `report.ok`, and `repr(report)` is its text.

    Attributes:
        name: Of the function that was run.
        ok: Whether every output and every gradient is finite.
        place: The op, with the user's line that made it.
        forward: Where the op belongs to a gradient: the op that it differentiates, with its line.
        kind: "NaN", "+Inf" or "-Inf": the first such entry of the op's output.
        cause: "overflow" (too large for the dtype), "lost precision" (finite in float64, where the inputs were not
            rounded to a singular point), "singularity" (of the function itself) or "input" (it came from outside);
            None in a Python function.
        hint: What to write at that line.
        output: What the op gave; its name is "op:output".
        index: The first entry that is not finite.
        inputs: What the op was given.
        inside: The way in, from the outermost call: "while (iteration 3)", "cond (else branch)".
        layer: Path of the Keras layer that made the op.
        reaches: The outputs, gradients and variables that are not finite because of it.
        notes: What was noticed besides.
    """

    name: str
    ok: bool
    place: Place | None = None
    forward: Place | None = None
    kind: str | None = None
    cause: str | None = None
    hint: str | None = None
    output: Range | None = None
    index: tuple[int, ...] | None = None
    inputs: tuple[Range, ...] = ()
    inside: tuple[str, ...] = ()
    layer: str | None = None
    reaches: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def op(self) -> str | None:
        """The name of the op; None where all is finite."""
        return self.place.op if self.place else None

    @property
    def op_type(self) -> str | None:
        """The type of the op, such as "Log"."""
        return self.place.op_type if self.place else None

    @property
    def where(self) -> str | None:
        """The user's line as "file:line": the one that made the op or, for an op of a gradient, its forward op."""
        place = self.forward if self.forward and self.forward.file else self.place
        return f"{place.file}:{place.line}" if place and place.file else None

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return _text(self)

    def __repr__(self) -> str:
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers: what `json.dumps` takes; NaN and infinities as strings."""
        return to_document(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NonfiniteReport:
        """The report that `to_dict` wrote.

        Raises:
            ValueError: If a field is missing, unknown or of the wrong kind.
        """
        return from_document(cls, data)


_CAUSES = {
    "overflow": "too large for {dtype}",
    "lost precision": "finite if all is computed in float64; rounding on the way made it singular",
    "singularity": "not finite there, however exactly it is computed",
    "input": "it was not finite when it came in",
}


def _text(report: NonfiniteReport) -> str:
    if report.ok or report.place is None or report.output is None:
        return f"{report.name}: {'all values and gradients are finite' if report.ok else 'not finite'}" + _notes(report)
    output = report.output
    index = list(report.index or ())
    own = output.name.partition(":")[0]  # without the calls around it, which "inside" tells
    born = f"{report.place.op_type} '{own}' gives {report.kind} at {index}"
    lines = [f"{report.name}: {born}", f"  output   {_range(output)}; {counts_text(output)}"]
    lines += [f"  input    {_range(each)}" for each in report.inputs[:3]]
    lines += [f"  inside   {' > '.join(report.inside)}"] if report.inside else []
    lines += [f"  layer    {report.layer}"] if report.layer else []
    lines += [f"  forward  {report.forward.op_type} '{report.forward.op}'"] if report.forward else []
    shown = report.forward if report.forward and report.forward.file else report.place
    lines += [f"  where    {_line(shown)}"] if shown.file else []
    if report.cause:
        lines.append(f"  cause    {report.cause}: {_CAUSES.get(report.cause, '').format(dtype=output.dtype)}")
    lines += [f"  hint     {report.hint}"] if report.hint else []
    if report.reaches:
        more = f" and {len(report.reaches) - 3} more" if len(report.reaches) > 3 else ""
        lines.append(f"  reaches  {', '.join(report.reaches[:3])}{more}")
    return "\n".join(lines) + _notes(report)


def _notes(report: NonfiniteReport) -> str:
    return "".join(f"\n  note     {note}" for note in report.notes)


def _line(place: Place) -> str:
    inside = f" in {place.function}" if place.function else ""
    return f"{place.file}:{place.line}{inside}" + (f":  {place.source}" if place.source else "")


def _range(found: Range) -> str:
    shape = f"{found.dtype}{list(found.shape)}"
    there = f", there {found.there}" if found.there is not None else ""
    if found.low is None or found.high is None:
        return f"{found.name} {shape}{there}"
    return f"{found.name} {shape} in [{found.low:.6g}, {found.high:.6g}]{there}"


def counts_text(found: Range) -> str:
    """How many entries are NaN, +Inf and -Inf, of how many."""
    counts = [(found.nan, "NaN"), (found.posinf, "+Inf"), (found.neginf, "-Inf")]
    size = 1
    for length in found.shape:
        size *= length
    return f"{', '.join(f'{n} {what}' for n, what in counts if n)} of {size}"
