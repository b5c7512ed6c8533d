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


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a program chooses at its base point.

    Attributes:
        values: Of the choices that are held.
        outputs: Of the program itself.
        near: Names of the ops that may have an input at a kink.
    """

    values: list[Any]
    outputs: list[Any]
    near: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A program with its choices held, but for those of some ops."""

    whole: Branches
    held: HeldProgram
    sampled: Program
    base: Runner


_ALL: frozenset[str] = frozenset()


def choices(
    point: Point,
    key: Any,
    program: Program,
    names: Sequence[str],
    values: Sequence[Any],
    without: frozenset[str] = _ALL,
) -> Choices | None:
    """Run a program in float64 at its base point; None where it chooses nothing.

    Args:
        point: Where.
        key: What tells the program from others of the same function.
        program: In float64.
        names: The arguments that move.
        values: Of all its arguments, by their positions.
        without: Names of ops that are not to be held.
    """
    made = _made(point, key, program, names, without)
    if not made.whole.names:
        return None
    known = dict(zip((a.name for a in program.main.args), values, strict=True))
    point.evaluations += 1
    found = made.base.run([known.get(a.name) for a in made.base.program.main.args])
    count, outputs = len(made.held.sources), len(program.main.returns)
    near = dict(zip(made.whole.near, found[count + outputs :], strict=True))
    return Choices(
        values=found[:count],
        outputs=found[count : count + outputs],
        near=frozenset(n for n in made.whole.names if near.get(n, True)),
    )


def branch_at(
    point: Point, key: Any, program: Program, names: Sequence[str], values: Sequence[Any], directions: Sequence[Any],
    found: Choices | None,
) -> Branch:  # fmt: skip
    """Hold the choices of a program, but for those of ops with an input at a kink.

    Args:
        point, key, program, names, values: As those of `choices`.
        directions: For each of the arguments that move, a random direction in which to look for kinks at the point.
        found: What `choices` gave.
    """
    without = _ALL
    while found is not None:
        made = _made(point, key, program, names, without)
        known = dict(zip((a.name for a in program.main.args), values, strict=True))
        held = dict(zip(made.held.names, found.values, strict=True))
        known.update(held)
        known.update({f"direction_{k}": d for k, d in enumerate(directions)})
        try:
            kinked = _kinked(point, key, made, names, without, found.near, known)
        except RUN_ERRORS:  # an assertion, say, that holds at the point only
            break
        if not kinked:
            return Branch(program=made.sampled, values=held, key=without)
        without |= kinked
        found = choices(point, key, program, names, values, without)
    return Branch(program=program, values={}, key=None)


def _kinked(
    point: Point, key: Any, made: _Held, names: Sequence[str], without: frozenset[str], near: frozenset[str],
    known: Mapping[str, Any],
) -> set[str]:  # fmt: skip
    """Of ops that may have an input at a kink, those that leave their branch at once when the arguments move."""
    if not near:
        return set()

    def make() -> Runner:
        after, first = made.held.program.main, len(made.sampled.main.returns)
        differs = zip(made.whole.names, after.returns[first:], strict=True)
        returns = tuple(r for name, r in differs if name in near)
        moving = move_along(returning(made.held.program, replace(after, returns=returns), names), names)
        return Runner(moving.program, alive=point.traced.graph)

    tested: Runner = point.made(("kinked", key, without, near), make)
    arguments = [known.get(a.name) for a in tested.program.main.args]
    point.evaluations += 2
    differs = tested.run_batch({DISTANCE: np.array([-_TINY, _TINY])}, arguments)
    ordered = [name for name in made.whole.names if name in near]
    return {name for name, found in zip(ordered, differs, strict=True) if np.any(found)}


def _made(point: Point, key: Any, program: Program, names: Sequence[str], without: frozenset[str]) -> _Held:
    made: _Held = point.made(("branch", key, without), partial(_held, point, program, names, without))
    return made


def _held(point: Point, program: Program, names: Sequence[str], without: frozenset[str]) -> _Held:
    whole = branches(program, without)
    outputs = whole.program.main.returns
    main = replace(whole.program.main, returns=(*outputs, *whole.differs))
    held = hold(replace(whole.program, main=main), names, [c.ref for c in whole.choices], stem="choice")
    after = held.program.main
    asked = (*held.sources, *outputs, *whole.near.values())
    return _Held(
        whole=whole,
        held=held,
        sampled=returning(held.program, replace(after, returns=after.returns[: len(outputs)]), names),
        base=Runner(returning(whole.program, replace(whole.program.main, returns=asked)), alive=point.traced.graph),
    )
