"""The report on the digits that a function loses, op by op."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradcheck._report.plain import from_document, to_document
from gradcheck._results import Place

_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What one op loses, beyond what its inputs had lost already.

    Attributes:
        place: The op, with the user's line that made it (for an op of a gradient, that of its forward op).
        digits: Decimal digits lost in this op, in the worst entry that chance does not explain.
        kind: "cancellation", "absorption" (of a term too small to count), "underflow", "saturation" or "rounding".
        dtype: Of the op's output.
        index: The entry of the output where most is lost.
        value: What that entry is, and `exact` what it is in float64.
        inside: The way in, from the outermost call; of the run in which most was lost.
        hint: What to write instead.
    """

    place: Place
    digits: float
    kind: str
    dtype: str
    index: tuple[int, ...]
    value: float
    exact: float
    inside: tuple[str, ...] = ()
    hint: str | None = None

    @property
    def op(self) -> str:
        """The name of the op."""
        return self.place.op

    @property
    def op_type(self) -> str:
        """The type of the op, such as "Sub"."""
        return self.place.op_type

    @property
    def where(self) -> str | None:
        """The user's line as "file:line"."""
        return f"{self.place.file}:{self.place.line}" if self.place.file else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How many digits of an output are right."""

    label: str
    digits: float
    of: float  # how many the dtype has


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PrecisionReport:
    """The digits that a function loses, worst op first; `repr(report)` is its text.

    Attributes:
        name: Of the function.
        losses: The ops that lose digits, worst first.
        outputs: How many digits of each output are right, in the median entry.
        notes: What was noticed besides.
    """

    name: str
    losses: tuple[Loss, ...]
    outputs: tuple[Kept, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no op loses a digit."""
        return not self.losses

    @property
    def worst(self) -> Loss | None:
        """The op that loses most, or None."""
        return self.losses[0] if self.losses else None

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
    def from_dict(cls, data: Mapping[str, Any]) -> PrecisionReport:
        """The report that `to_dict` wrote.

        Raises:
            ValueError: If a field is missing, unknown or of the wrong kind.
        """
        return from_document(cls, data)


def _text(report: PrecisionReport) -> str:
    count = len(report.losses)
    lines = [f"{report.name}: {count} op{'' if count == 1 else 's'} lose{'s' if count == 1 else ''} digits"]
    if not count:
        lines = [f"{report.name}: no op loses digits"]
    for loss in report.losses[:_SHOWN]:
        lines += _loss(loss)
    if count > _SHOWN:
        lines.append(f"  and {count - _SHOWN} more")
    lines += [
        f"  right    {kept.digits:.1f} of {kept.of:.1f} digits of {kept.label}" for kept in report.outputs[:_SHOWN]
    ]
    lines += [f"  note     {note}" for note in report.notes]
    return "\n".join(lines)


def _loss(loss: Loss) -> list[str]:
    inside = f" inside {' > '.join(loss.inside)}" if loss.inside else ""
    lines = [
        f"  {loss.digits:4.1f}     {loss.kind} in {loss.op_type} '{loss.op}'{inside}: {loss.dtype} "
        f"{loss.value:.9g} for {loss.exact:.9g} at {list(loss.index)}"
    ]
    if loss.place.file:
        function = f" in {loss.place.function}" if loss.place.function else ""
        source = f":  {loss.place.source}" if loss.place.source else ""
        lines.append(f"           {loss.where}{function}{source}")
    return lines + ([f"           {loss.hint}"] if loss.hint else [])
