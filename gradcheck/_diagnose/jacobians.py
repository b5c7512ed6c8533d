"""Analytic derivatives beside numeric ones, and the factor between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
FEW = 2  # wrong entries from which something common to them may be said


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Derivatives with respect to one x, analytic beside numeric.

    Attributes:
        analytic, numeric: [k, n]; a row per real of the output or, of an output that is `combined`, per cotangent.
        allowed: How far apart they may be, [k, n].
        base: The values of x, [n].
        shape: Of x.
        y_shape: Of the output; None where it is several tensors.
        combined: Whether rows belong to cotangents.
        paired: Whether the reals are those of complex entries, of x and of the output.
    """

    analytic: Reals
    numeric: Reals
    allowed: Reals
    base: Reals
    shape: tuple[int, ...]
    y_shape: tuple[int, ...] | None
    combined: bool = False
    paired: tuple[bool, bool] = (False, False)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Where the two are further apart than allowed."""
        found: NDArray[np.bool_] = np.abs(self.analytic - self.numeric) > self.allowed
        return found

    @property
    def reached(self) -> NDArray[np.bool_]:
        """Which entries the output is made of."""
        found: NDArray[np.bool_] = np.abs(self.numeric) > self.allowed
        return found

    def is_like(self, other: Reals, allowed: Reals) -> bool:
        """Whether the analytic side is another matrix throughout, and that is not the numeric one too."""
        reach = np.maximum(allowed, self.allowed)
        same = bool(np.all(np.abs(self.analytic - other) <= reach))
        return same and int(np.sum(np.abs(other - self.numeric) > reach)) >= FEW


def factor_of(block: Block) -> float | None:
    """The one factor between analytic and numeric in all wrong entries, or None."""
    wrong = block.wrong
    analytic, numeric, allowed = block.analytic[wrong], block.numeric[wrong], block.allowed[wrong]
    if len(analytic) < FEW or np.any(np.abs(numeric) <= allowed):
        return None
    factor = float(np.median(analytic / numeric))
    if np.any(np.abs(analytic - factor * numeric) > allowed * max(1.0, abs(factor))):
        return None
    return 0.0 if np.all(np.abs(analytic) <= allowed) else factor


def shown(factor: float) -> str:
    """A factor, with as many digits as tell it from 1."""
    off = factor - 1
    return f"{factor:.6g}" if abs(off) > 1e-4 else f"(1 {'-' if off < 0 else '+'} {abs(off):.2g})"


def is_about(value: float, wanted: float) -> bool:
    """Whether a measured factor is a given one, to more digits than an accident would give."""
    return abs(value - wanted) <= 1e-5 * abs(wanted)


def is_everywhere(block: Block) -> bool:
    """Whether all entries that are not zero are wrong."""
    return bool(np.all(block.wrong | (np.abs(block.numeric) <= block.allowed)))
