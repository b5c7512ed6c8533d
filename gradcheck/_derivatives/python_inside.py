"""Whether what runs inside of a float64 program as Python rounds as float32 does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradcheck._derivatives.numeric import Mover
from gradcheck._graph.evaluate import RUN_ERRORS
from gradcheck._graph.program import Program
from gradcheck._numerics.directions import rademacher

_FAR, _NEAR = 2.0**-18, 2.0**-36  # of the scale of the inputs: more than a rounding in float32, and less
_SEEN = 2.0**-28  # of an output: a change that rounding in float64 does not make
_PART = 2.0**-3  # of what an output should change by


def coarse_python(program: Program, movers: Sequence[Mover]) -> tuple[str, ...]:
    """The ops of a float64 program that run Python, where some of it rounds as float32 does; else none.

    No dtype tells in what Python computes. But its results then stand still, or jump by a rounding, where inputs move
    by less than one.
    """
    bodies = (program.main, *program.functions.values())
    found = sorted({f"{n.op} '{n.name}'" for body in bodies for n in body.nodes if "PyFunc" in n.op})
    return tuple(found) if found and any(map(_is_coarse, movers)) else ()


def _is_coarse(mover: Mover) -> bool:
    rng = np.random.default_rng(0)
    directions = [s * rademacher(rng, np.size(b)) for s, b in zip(mover.scales, mover.base, strict=True)]
    try:
        far, near = mover.along(directions, np.array([_FAR, _NEAR]))
    except RUN_ERRORS:
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        moves = (np.abs(far) > _SEEN * np.abs(mover.outputs)) & (mover.jitter == 0)  # what draws numbers jumps, too
        return bool(np.any(moves & (np.abs(near * (_FAR / _NEAR) - far) > _PART * np.abs(far))))
