"""The function of a mover on the branch on which the base point lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gradcheck._derivatives.point import Point
from gradcheck._graph.branches import Branches, branches
from gradcheck._graph.evaluate import RUN_ERRORS, Runner, returning
from gradcheck._graph.held import HeldProgram, hold
from gradcheck._graph.moves import DISTANCE, move_along
from gradcheck._graph.program import Program

_TINY = 2.0**-40  # of the scale: a kink that is met so close lies at the point itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A program with its choices held, the values of those, and what tells it from others of the same function."""

    program: Program
    values: Mapping[str, Any]
    key: Any


def branch_at(
    point: Point, key: Any, program: Program, names: Sequence[str], values: Mapping[str, Any], directions: Sequence[Any]
) -> Branch:
    """Hold the choices of a program, but for those of ops with an input at a kink.

    Args:
        point: Where.
        key: What tells the program from others of the same function.
        program: In float64.
        names: The arguments that move.
        values: Of all its arguments.
        directions: For each of those that move, a random direction in which to look for kinks at the point.
    """
    without: frozenset[str] = frozenset()
    while True:
        make = partial(_held, point, program, names, without)
        whole, held, sampled, base, tested = point.made(("branch", key, without), make)
        if not whole.names:
            return Branch(program=program, values={}, key=None)
        point.evaluations += 3
        choices = base.run([values.get(a.name) for a in base.program.main.args])
        known = {**values, **dict(zip(held.names, choices, strict=True))}
        known.update({f"direction_{k}": d for k, d in enumerate(directions)})
        arguments = [known.get(a.name) for a in tested.program.main.args]
        try:
            differs = tested.run_batch({DISTANCE: np.array([-_TINY, _TINY])}, arguments)
        except RUN_ERRORS:  # an assertion, say, that holds at the point only
            return Branch(program=program, values={}, key=None)
        kinked = {name for name, found in zip(whole.names, differs, strict=True) if np.any(found)}
        if not kinked:
            return Branch(program=sampled, values=dict(zip(held.names, choices, strict=True)), key=without)
        without |= kinked


def _held(
    point: Point, program: Program, names: Sequence[str], without: frozenset[str]
) -> tuple[Branches, HeldProgram, Program, Runner, Runner]:
    whole = branches(program, without)
    outputs = whole.program.main.returns
    main = replace(whole.program.main, returns=(*outputs, *whole.differs))
    held = hold(replace(whole.program, main=main), names, [c.ref for c in whole.choices], stem="choice")
    graph = point.traced.graph
    after = held.program.main
    base = Runner(returning(whole.program, replace(whole.program.main, returns=held.sources)), alive=graph)
    sampled = returning(held.program, replace(after, returns=after.returns[: len(outputs)]), names)
    moving = move_along(returning(held.program, replace(after, returns=after.returns[len(outputs) :]), names), names)
    return whole, held, sampled, base, Runner(moving.program, alive=graph)
