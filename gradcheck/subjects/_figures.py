"""Numbers that the document prints, beside the same numbers computed here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gradcheck._results import Figure

# The document prints the shortest decimals that give back a float32, so half a unit off at most; its products, sums
# and squares round once each, and need not do so in the order of today's kernels.
_ROUNDINGS = 4
_EPS = 2.0**-23


def figure(label: str, printed: float, computed: Any, *, allowed: float | None = None) -> Figure:
    """A figure that is met to `allowed`, by default float32 rounding of the printed number: a zero by zero alone."""
    value, allowed = float(computed), _ROUNDINGS * _EPS * abs(printed) if allowed is None else allowed
    return Figure(label=label, printed=printed, computed=value, ok=abs(value - printed) <= allowed)


def figures(labels: Iterable[str], printed: Iterable[float], computed: Iterable[Any]) -> tuple[Figure, ...]:
    """One figure per label."""
    return tuple(figure(*row) for row in zip(labels, printed, computed, strict=True))


def vector_figures(
    labels: Iterable[str], printed: Iterable[Sequence[float]], computed: Iterable[Any]
) -> tuple[Figure, ...]:
    """One figure per entry of vectors, each vector with its label."""
    return tuple(
        figure(f"{label}[{k}]", *pair)
        for label, numbers, entries in zip(labels, printed, computed, strict=True)
        for k, pair in enumerate(zip(numbers, entries, strict=True))
    )
