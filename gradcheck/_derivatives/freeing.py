"""Sources set free to move, in a program run at its base point with all that is stopped held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradcheck._derivatives.branch import choices
from gradcheck._derivatives.numeric import LARGE, Mover
from gradcheck._derivatives.point import Point, as_reals
from gradcheck._graph.evaluate import Runner, returning
from gradcheck._graph.held import HeldProgram, hold
from gradcheck._numerics.directions import power_of_two_scale


def mover(point: Point, xs: Sequence[int], outputs: Sequence[int] | None = None) -> Mover:
    """Free some sources to move; every stop, and every other inner x that is stopped, is held.

    Args:
        point: Where.
        xs: Positions of sources: any number that are arguments, or a single inner tensor.
        outputs: Which outputs to evaluate; default all.
    """
    chosen = tuple(range(len(point.traced.outputs)) if outputs is None else outputs)
    made = point.made(("mover", tuple(xs), chosen), lambda: _freed(point, tuple(xs), chosen))
    return _settled(point, tuple(xs), made)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Freed:
    """A program in which some sources move and stops are held, ready to run."""

    held: HeldProgram
    names: list[str]  # arguments of the moving sources
    runner: Runner
    base: Runner | None  # gives the values of what is held


def _freed(point: Point, xs: tuple[int, ...], chosen: tuple[int, ...]) -> _Freed:
    traced = point.traced
    wide = point.program(wide=True)
    positions = [p for a in chosen for p in traced.outputs[a].returns]
    returns = wide.main.returns
    sources = [traced.sources[x] for x in xs]
    refs = {s.ref: returns[point.returned(s.ref)].ref for s in sources if s.ref is not None}
    own = {s.argument for s in sources} | set(refs.values())
    stops = [returns[point.returned(ref)].ref for ref in traced.stops]
    arguments = {a.name for a in wide.main.args}
    inner_stops = [ref for ref in dict.fromkeys(stops) if ref not in own and ref not in arguments]
    moving = [s.argument for s in sources if s.argument is not None] + list(refs.values())
    outputs = tuple(returns[p] for p in positions)
    program = returning(wide, replace(wide.main, returns=outputs, kept=()), moving)
    held = hold(program, moving, [*refs.values(), *inner_stops])
    kept = [s.argument for s in sources if s.argument is not None] + list(held.names)
    where = {s.ref: name for s, name in reversed(list(zip(held.sources, held.names, strict=True)))}  # held before base
    return _Freed(
        held=held,
        names=[s.argument if s.argument is not None else where[refs[str(s.ref)]] for s in sources],
        runner=Runner(returning(held.program, held.program.main, kept), alive=traced.graph),
        base=Runner(returning(wide, replace(wide.main, returns=held.sources)), alive=traced.graph)
        if held.sources
        else None,
    )


def _settled(point: Point, xs: tuple[int, ...], freed: _Freed) -> Mover:
    """Run a freed program twice at the base point: a large one once so, and once with all that it chooses."""
    runner, program, names = freed.runner, freed.runner.program, freed.names
    extra: dict[str, Any] = {}
    if freed.base is not None:
        point.evaluations += 1
        held = freed.base.run(point.values(freed.base.program, wide=True))
        extra = dict(zip(freed.held.names, held, strict=True))
    values = point.values(program, wide=True, extra=extra)
    arguments = [a.name for a in program.main.args]
    arrays = []
    for name in names:
        k = arguments.index(name)
        values[k] = np.asarray(values[k].numpy() if hasattr(values[k], "numpy") else values[k])
        arrays.append(values[k])
    base = [as_reals(a) for a in arrays]
    found = None
    if not arrays or sum(a.size for a in arrays) > LARGE:
        one = runner.run(values)
        found = choices(point, (xs, len(one)), program, names, values) if arrays else None
        same = found is not None and all(map(np.array_equal, one, found.outputs))
        flat = [np.stack(pair) for pair in zip(one, one if same else runner.run(values), strict=True)]
        point.evaluations += 1 if same else 2
    else:
        point.evaluations += 2
        flat = runner.run_batch({n: np.stack([a, a]) for n, a in zip(names, arrays, strict=True)}, values)
    reals = [as_reals(v, lead=1) for v in flat]
    both = np.concatenate(reals, axis=1) if reals else np.zeros((2, 0))
    ends = np.cumsum([0, *(r.shape[1] for r in reals)])
    with np.errstate(invalid="ignore"):
        jitter = np.abs(both[0] - both[1])
    return Mover(
        point=point,
        xs=xs,
        base=base,
        scales=[power_of_two_scale(b) for b in base],
        outputs=both[0],
        spans=[(int(ends[k]), int(ends[k + 1])) for k in range(len(reals))],
        jitter=jitter,
        shapes=[v.shape[1:] for v in flat],
        held=freed.held,
        _runner=runner,
        _values=values,
        _names=names,
        _choices=found,
    )
