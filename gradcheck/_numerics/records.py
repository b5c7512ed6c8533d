"""The best intervals found so far, one per open problem."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

AGREE = 2.0  # intervals agree if their centres are this many half-widths apart at most


@dataclass(slots=True, kw_only=True)
class Records:
    """Intervals with what is known of their making; an infinite error where there is none."""

    value: Floats
    error: Floats
    step: Floats
    noise: Floats
    order: Integers

    @classmethod
    def unknown(cls, size: int) -> Records:
        """Records of which none is known."""
        return cls(
            value=np.zeros(size),
            error=np.full(size, np.inf),
            step=np.full(size, np.inf),
            noise=np.zeros(size),
            order=np.zeros(size, np.int64),
        )

    def merge(
        self, at: Integers, value: Floats, error: Floats, step: Floats, noise: Floats, order: Integers
    ) -> tuple[Bools, Bools]:
        """Keep the narrower of two intervals that agree; of two that do not, the one from the smaller step.

        Args:
            at: Positions, each at most once, shape [n]; all that follow have the same shape.

        Returns:
            Where the new one was taken, and where both are known and disagree.
        """
        known, fresh = np.isfinite(self.error[at]), np.isfinite(error)
        clash = known & fresh & ~(np.abs(value - self.value[at]) <= AGREE * (error + self.error[at]))
        take = fresh & (~known | np.where(clash, step < self.step[at], error < self.error[at]))
        to = at[take]
        self.value[to], self.error[to], self.step[to] = value[take], error[take], step[take]
        self.noise[to], self.order[to] = noise[take], order[take]
        return take, clash


def choose(first: Bools, one: Records, other: Records) -> Records:
    """Records of `one` where `first`, else of `other`."""
    return Records(
        value=np.where(first, one.value, other.value),
        error=np.where(first, one.error, other.error),
        step=np.where(first, one.step, other.step),
        noise=np.where(first, one.noise, other.noise),
        order=np.where(first, one.order, other.order),
    )
