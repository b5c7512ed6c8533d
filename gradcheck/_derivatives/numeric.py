"""Numeric derivatives: differences of the function along directions, all samples in one call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gradcheck._derivatives.branch import Branch, Choices, branch_at, choices
from gradcheck._derivatives.point import Point, Reals, as_reals, from_reals
from gradcheck._derivatives.waves import unmasked
from gradcheck._graph.evaluate import RUN_ERRORS, Runner, ShapeChanged
from gradcheck._graph.held import HeldProgram
from gradcheck._graph.moves import DISTANCE, Moving, move_along
from gradcheck._graph.program import Program
from gradcheck._graph.rounding import with_rounding, with_rounding_by_value
from gradcheck._numerics.directions import BLOCK, blocks, eighths, rademacher
from gradcheck._numerics.intervals import Derivatives, differentiate
from gradcheck._numerics.stencils import NINE

MEMORY_BUDGET = 2**28  # bytes of perturbed inputs and of outputs that one call may hold
LARGE = 2**15  # entries per point from which on points are made inside the program
FIRST_STEP = {True: 2.0**-5, False: 2.0**-9}  # by whether some op still rounds in a narrow dtype

_SWING = np.array([0.25, -0.5, 1.0, -2.0])  # in units of the scale
_SWING_DIRECTIONS, _SWING_OF_MANY, _MANY = 8, 2, 4096  # of many entries, some move either way in any direction
# Points, in units of the first step, at which rounding is heard; in no pattern that roundings could follow.
_LISTENING = (0.2873, -0.3671, 0.4517, -0.5393, 0.6299, -0.7213, 0.8837, -0.9631)
_MOVING = 4  # so many of them at least must differ, or else rounding hides the function's movement
_NOISE_RUNS = 6  # runs with random rounding
_NO_ROUNDING = 1e3  # times the rounding that was heard: more is none
_COARSER = 8.0  # than the arithmetic itself, which would round the factors away
SECOND_WITNESS = 0.77  # no ratio of small integers to the first step


@dataclass(slots=True)
class Mover:
    """The function with some inputs free to move and the rest held.

    Attributes:
        point: Where.
        xs: Positions of the sources that may move.
        base: Base values of the moving sources, as reals.
        scales: The natural step scale of every entry, powers of two.
        outputs: Base values of all outputs, as reals, one after the other.
        spans, shapes: For each tensor of the outputs, where its reals begin and end, and its shape.
        jitter: The difference between two runs at the base point, per real.
    """

    point: Point
    xs: tuple[int, ...]
    base: list[Reals]
    scales: list[Reals]
    outputs: Reals
    spans: list[tuple[int, int]]
    jitter: Reals
    shapes: list[tuple[int, ...]]
    held: HeldProgram
    _runner: Runner
    _values: list[Any]
    _names: list[str]
    _choices: Choices | None = None
    _swings: dict[tuple[int, ...], Reals] = field(default_factory=dict)
    _runs: Reals | None = None
    _at: Branch | None = None

    @property
    def eps(self) -> float:
        """The unit roundoff in which samples are computed."""
        return float(np.finfo(np.float32).eps if self.point.unpromoted else np.finfo(np.float64).eps)

    @property
    def large(self) -> bool:
        """Whether points are so large that each is made inside the program, and branches are held."""
        return sum(b.size for b in self.base) + self.outputs.size > LARGE

    @property
    def first_step(self) -> float:
        """The step to begin with, in units of the scale of the inputs."""
        return FIRST_STEP[bool(self.point.unpromoted)]

    def swing(self, *places: int) -> Reals:
        """How far each output moves while some sources move by a good part of their scale, [m].

        It shows the size of what a function adds up inside, and so how much can hide in its rounding.
        """
        if places not in self._swings:
            rng = np.random.default_rng(places)
            total = np.zeros(self.outputs.size)
            n = sum(self.base[k].size for k in places)
            for _ in range(_SWING_DIRECTIONS if n < _MANY else _SWING_OF_MANY):
                try:
                    moved = self.along(self._anywhere(rng, places), _SWING)
                except RUN_ERRORS:
                    continue
                total = np.maximum(total, np.max(np.abs(np.nan_to_num(moved, nan=0.0, posinf=0.0, neginf=0.0)), axis=0))
            self._swings[places] = total
        return self._swings[places]

    def _anywhere(self, rng: np.random.Generator, places: Collection[int]) -> list[Reals | None]:
        """A random direction in some sources, in units of their scales."""
        if self.large:  # the same numbers over and over: drawing millions takes longer than a run
            drawn = eighths(rng, BLOCK) / 8
            return [_times(s, drawn) if k in places else None for k, s in enumerate(self.scales)]
        return [
            s * rademacher(rng, s.size) * rng.uniform(0.5, 1.0, s.size) if k in places else None
            for k, s in enumerate(self.scales)
        ]

    def rounding_noise(
        self, directions: Callable[[NDArray[np.int64]], list[Reals | None]], groups: int, *,
        reduce: Callable[[Reals, NDArray[np.int64]], Reals],
    ) -> Reals:  # fmt: skip
        """What rounding inside the function does to its samples along directions, [groups, channels].

        Samples that round alike do not show it. Here every op is made to round at random, as its value says, and what
        that changes is compared among points nearby; where the function hardly moves at all, among runs at its base.
        Arguments are those of `derivatives`, but that all groups are reduced alike.
        """
        where = np.arange(groups), np.full(groups, self.first_step), _LISTENING, directions, reduce
        plain = self._sample(*where)
        try:
            rounded = self._sample(*where, rounded=True)
        except RUN_ERRORS:  # rounding may change a number that decides a shape
            return np.zeros(plain.shape[1:])
        with np.errstate(invalid="ignore", over="ignore"):
            scatter = np.std(rounded - plain, axis=0, ddof=1)
            still = (np.diff(np.sort(plain, axis=0), axis=0) > 0).sum(axis=0) < _MOVING
            if still.any():
                at_base = reduce(self._rounded_runs()[:, None], where[0][:1])
                scatter = np.where(still, np.maximum(scatter, np.std(at_base, axis=0, ddof=1)), scatter)
        noise: Reals = np.nan_to_num(scatter, nan=0.0, posinf=0.0) / (2 * _COARSER)
        return noise

    def _rounded_runs(self) -> Reals:
        """Outputs minus their base values in runs that each round otherwise, [runs, m]."""
        if self._runs is None:
            runs = [np.zeros(self.outputs.size)]
            program = self._runner.program
            # In a loop of control flow v1 no op can read an argument that did not enter the loop.
            apart = program.functions or any(node.op == "Enter" for node in program.main.nodes)
            one = None if apart else self._coarsely(None)
            for seed in range(_NOISE_RUNS):
                try:
                    if one is not None:
                        flat = one.run([*self._values, np.array(seed, np.int32)])
                    else:
                        flat = self._coarsely(seed).run(self._values)
                except RUN_ERRORS:
                    continue
                self.point.evaluations += 1
                runs.append(np.concatenate([as_reals(v) for v in flat]) - self.outputs)
            self._runs = np.stack(runs)
        return self._runs

    def _coarsely(self, seed: int | None) -> Runner:
        coarse = with_rounding(self._runner.program, seed, unit=_COARSER * self.eps)
        return Runner(coarse, alive=self.point.traced.graph)

    @property
    def _opaque(self) -> bool:
        """Whether Python functions run inside, whose rounding is not heard."""
        program = self._runner.program
        return any("PyFunc" in node.op for b in (program.main, *program.functions.values()) for node in b.nodes)

    def _running(self, rounded: bool) -> Runner:
        if not rounded:
            return self._runner
        key = ("rounded", self.xs, len(self.spans))
        return cast(Runner, self.point.made(key, self._rounded))

    def _rounded(self) -> Runner:
        coarse = with_rounding_by_value(self._runner.program, _COARSER * self.eps)
        return Runner(coarse, alive=self.point.traced.graph)

    def witness_step(self, place: int, slopes: Any) -> Any:
        """A first step for a second look at derivatives that the analytic side says are `slopes`, [.., m].

        It has no simple ratio to the usual one, and it resolves a function that swings as the slopes say.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            pace = np.max(np.nan_to_num(np.abs(slopes) / self.swing(place), nan=0.0, posinf=0.0), axis=-1, initial=0.0)
            resolving = np.where(pace > 0, 0.05 / pace, np.inf)
        return np.clip(resolving, 2.0**-45, SECOND_WITNESS * self.first_step)

    def at(self, moves: Sequence[Reals | None], *, rounded: bool = False) -> Reals:
        """Outputs minus their base values at many points.

        Args:
            moves: For each moving source, what is added to it at each point, [points, n], or None; overwritten.
            rounded: Whether every op rounds at random besides.

        Returns:
            [points, m].
        """
        points = len(next(m for m in moves if m is not None))
        self.point.evaluations += points
        stacked = {}
        for name, x, base, move in zip(self._names, self.xs, self.base, moves, strict=True):
            if move is not None:
                source = self.point.traced.sources[x]
                value = self._values[self._position(name)]
                move += base  # in place: new memory costs more than the sum
                stacked[name] = from_reals(move, source.shape, value.dtype, lead=1)
        return self._moved(_run(self._running(rounded), stacked, self._values))

    def _moved(self, flat: list[Any]) -> Reals:
        """How far the outputs of a batch are from their base values, [points, m]."""
        reals = [as_reals(v, lead=1) for v in flat]
        return (reals[0] if len(reals) == 1 else np.concatenate(reals, axis=1)) - self.outputs

    def _position(self, name: str) -> int:
        return next(i for i, a in enumerate(self._runner.program.main.args) if a.name == name)

    def derivatives(
        self, directions: Callable[[NDArray[np.int64]], list[Reals | None]], groups: int, *,
        reduce: Callable[[Reals, NDArray[np.int64]], Reals], target: Any, argument_noise: Any = 0.0,
        step: Any = None, grain: Any = None, begin: tuple[int, ...] = NINE,
    ) -> Derivatives:  # fmt: skip
        """Derivatives along directions, with their errors.

        Args:
            directions: Gives, for group numbers [q], the direction in each moving source, [q, n] or None.
            groups: How many groups there are.
            reduce: Turns samples [grid, q, m] of groups [q] into channels [grid, q, c].
            target: The absolute error wanted.
            argument_noise: Rounding of the function's value that its samples need not show.
            step: The first step, of all groups or per group; default as the dtype asks for.
            grain: Where `argument_noise` is what `rounding_noise` gave: what rounding inside of ops may do besides.
            begin: Where to sample first; see `gradcheck._numerics.intervals.differentiate`.
        """

        def sample(index: NDArray[np.int64], steps: Reals, grid: tuple[int, ...]) -> Reals:
            return self._sample(index, steps, grid, directions, reduce)

        first = self.first_step if step is None else step
        options: dict[str, Any] = {"eps": self.eps, "target": target, "argument_noise": argument_noise}
        known = grain is not None and not self._opaque
        options["loudest"] = _NO_ROUNDING * np.maximum(argument_noise, grain) if known else np.inf
        return unmasked(sample, differentiate(sample, groups, step=first, begin=begin, **options), first, options)

    def _sample(
        self, index: NDArray[np.int64], steps: Reals, grid: tuple[float, ...],
        directions: Callable[[NDArray[np.int64]], list[Reals | None]],
        reduce: Callable[[Reals, NDArray[np.int64]], Reals], *, rounded: bool = False,
    ) -> Reals:  # fmt: skip
        offsets = np.array([t for t in grid if t != 0], dtype=np.float64)
        entries = sum(b.size for b in self.base) + self.outputs.size
        chunk = 1 if self.large else max(1, int(MEMORY_BUDGET // (8 * max(1, entries) * len(offsets))))
        parts = []
        for first in range(0, len(index), chunk):
            some = index[first : first + chunk]
            along = directions(some)
            t = offsets[:, None] * steps[None, first : first + chunk]
            if self.large:
                one = [None if d is None else d[0] for d in along]
                moved = self.along(one, t[:, 0], rounded=rounded, on_branch=True)[:, None]
            else:
                moves = [None if d is None else (t[:, :, None] * d[None]).reshape(-1, d.shape[1]) for d in along]
                moved = self.at(moves, rounded=rounded).reshape(len(offsets), len(some), -1)
            full = np.zeros((len(grid), *moved.shape[1:]))
            full[[k for k, g in enumerate(grid) if g != 0]] = moved
            parts.append(reduce(full, some))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def along(
        self, directions: Sequence[Reals | None], distances: Reals, *, rounded: bool = False, on_branch: bool = False
    ) -> Reals:
        """Outputs minus their base values at points along one direction, [points, m]; for large inputs.

        Args:
            directions: For each moving source, its direction [n], or None.
            distances: How far to go, [points].
            rounded: Whether every op rounds at random besides.
            on_branch: Go on along the branches on which the base point lies; see `gradcheck._graph.branches`.
        """
        names = [n for n, d in zip(self._names, directions, strict=True) if d is not None]
        program, known, key = self._runner.program, self._known(), None
        if on_branch:
            branch = self._branch()
            program, known, key = branch.program, {**known, **branch.values}, branch.key
        whole_key = ("along", self.xs, tuple(names), len(self.spans), rounded, key)
        moving, runner = self.point.made(whole_key, lambda: self._moving(program, names, rounded))
        for name, x, d in zip(self._names, self.xs, directions, strict=True):
            if d is not None:
                shape = self.point.traced.sources[x].shape
                known[moving.directions[names.index(name)]] = from_reals(d, shape, known[name].dtype)
        self.point.evaluations += len(distances)
        values = [known.get(a.name) for a in runner.program.main.args]
        pieces = []
        most = max(1, int(MEMORY_BUDGET // (8 * max(1, self.outputs.size))))
        for first in range(0, len(distances), most):
            flat = _run(runner, {DISTANCE: distances[first : first + most]}, values)
            pieces.append(self._moved(flat))
        return np.concatenate(pieces)

    def _known(self) -> dict[str, Any]:
        """The values of all arguments, by name."""
        return dict(zip((a.name for a in self._runner.program.main.args), self._values, strict=True))

    def _moving(self, program: Program, names: Sequence[str], rounded: bool) -> tuple[Moving, Runner]:
        moving = move_along(with_rounding_by_value(program, _COARSER * self.eps) if rounded else program, names)
        return moving, Runner(moving.program, alive=self.point.traced.graph)

    def _branch(self) -> Branch:
        if self._at is None:
            known = self._known()
            somewhere = self._anywhere(np.random.default_rng(0), range(len(self.base)))
            directions = [
                from_reals(d, known[name].shape, known[name].dtype)
                for name, d in zip(self._names, somewhere, strict=True)
                if d is not None
            ]
            which = self.point, (self.xs, len(self.spans)), self._runner.program, self._names, self._values
            self._at = branch_at(*which, directions, self._choices or choices(*which))
        return self._at


def _times(scales: Reals, drawn: Reals) -> Reals:
    """The scales by numbers that recur, block after block."""
    result = np.empty_like(scales)
    for part in blocks(scales.size):
        some = scales[part]
        np.multiply(some, drawn[: some.size], out=result[part])
    return result


def _run(runner: Runner, stacked: dict[str, Any], values: list[Any]) -> list[Any]:
    """Run at many points; where a point is refused, by an assertion or the range of an index, its values are NaN."""
    try:
        return runner.run_batch(stacked, values)
    except ShapeChanged:
        raise
    except RUN_ERRORS:
        points = len(next(iter(stacked.values())))
        runs: list[list[Any] | None] = []
        for k in range(points):
            try:
                runs.append(runner.run_batch({n: v[k : k + 1] for n, v in stacked.items()}, values))
            except RUN_ERRORS:
                runs.append(None)
        whole = next((run for run in runs if run is not None), None)
        if whole is None:
            raise
        refused = [np.full(v.shape, np.nan, v.dtype) for v in whole]
        return [np.concatenate(parts) for parts in zip(*(refused if r is None else r for r in runs), strict=True)]
