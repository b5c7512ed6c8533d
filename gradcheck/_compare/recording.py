"""An optimizer and its reference, run side by side on the same gradients: in their own dtype and in float64."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._compare import runners
from gradcheck._compare.arrays import PLACES, Array, Replay, eps_of, nudged_in
from gradcheck._compare.foreign import value_of
from gradcheck._compare.kept import tensorflow_random_state_kept
from gradcheck._graph.functions import python_state_kept
from gradcheck._graph.reads import kept_variables
from gradcheck._graph.structure import variable_of
from gradcheck.optimizers._rule import Rule

MOST_KEPT = 1_000_000  # numbers per recorded quantity; beyond, a sample of the entries is recorded
_REPEATED = 3  # steps that are run twice
_ROUNDINGS_PER_STEP = 8  # of float64, of a weight and of its step
_FOREIGN_ROUNDING = 8  # how much more an optimizer may round than the reference, where only the reference is measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The variables laid end to end, and which of their entries are recorded."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]  # NumPy's, of each variable
    leaf: Array  # for each entry its variable
    kept: Array  # positions of the recorded entries

    @property
    def ends(self) -> list[tuple[int, int]]:
        """Where each variable begins and ends."""
        stops = np.cumsum([0, *(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes)])
        return [(int(start), int(stop)) for start, stop in itertools.pairwise(stops)]

    @property
    def narrow(self) -> bool:
        """Whether any variable has room for a float64 run to show its rounding."""
        return any(dtype != np.float64 for dtype in self.dtypes)


@dataclass(slots=True, kw_only=True)
class Recording:
    """What was seen, a row for each step; the first axis of `per_variable` arrays is the step too."""

    layout: Layout
    start: Array  # [kept]
    gradients: list[Array] = field(default_factory=list)  # [kept], zero where there was none
    norms: list[Array] = field(default_factory=list)  # [variables], NaN where there was no gradient
    weights: list[Array] = field(default_factory=list)  # [kept], the optimizer's in its own dtype
    wide: list[Array] = field(default_factory=list)  # [kept], in float64 where it could be run there
    reference: list[Array] = field(default_factory=list)  # [kept]
    rounding: list[Array] = field(default_factory=list)  # [kept], of the optimizer's weights so far
    floor: list[Array] = field(default_factory=list)  # [kept], rounding of the float64 runs so far
    allowed: list[Array] = field(default_factory=list)  # [kept]
    largest: list[list[tuple[float, float, int]]] = field(default_factory=list)  # per variable: apart, allowed, entry
    excess: list[list[float]] = field(default_factory=list)  # per variable: largest of apart / allowed
    most: Array = field(default_factory=lambda: np.zeros(0))  # [variables], the largest weight so far
    reference_rounding: list[Array] = field(default_factory=list)  # [kept]
    notes: list[str] = field(default_factory=list)

    def of_the_reference(self) -> Recording:
        """The same with the reference's trajectory in place of the optimizer's."""
        return replace(self, weights=self.reference, wide=self.reference, rounding=self.reference_rounding)

    def of_variables(self, which: Sequence[int]) -> Recording:
        """The same of some variables only; norms stay those of all, for clipping."""
        here = np.isin(self.layout.leaf[self.layout.kept], which)
        rows: dict[str, Any] = {
            name: [row[here] for row in getattr(self, name)]
            for name in (
                "gradients", "weights", "wide", "reference", "rounding", "reference_rounding", "floor", "allowed"
            )
        }  # fmt: skip
        return replace(self, start=self.start[here], layout=replace(self.layout, kept=self.layout.kept[here]), **rows)


class _Both:
    """An optimizer in its own dtype and, where it can, in float64."""

    def __init__(self, optimizer: Any, variables: Sequence[Any], layout: Layout) -> None:
        self._narrow = runners.start(optimizer, variables, [tf.as_dtype(d) for d in layout.dtypes])
        self._wide: Any = None
        if layout.narrow:
            with contextlib.suppress(Exception):
                self._wide = runners.start(optimizer, variables, [tf.float64] * len(variables))
        self.own: Array = np.zeros(0)
        self.rounding: Array = np.zeros(len(layout.leaf))
        self.in_float64: Array | None = None

    def step(self, grads: Sequence[Any]) -> None:
        self.current = self._narrow.step(grads)
        self.own = _flat(self.current)
        if self._wide is not None:
            try:
                self.in_float64 = _flat(self._wide.step([_cast(g) for g in grads]))
            except Exception:  # an optimizer that is bound to its dtype
                self._wide = self.in_float64 = None
        if self.in_float64 is not None:
            with np.errstate(invalid="ignore"):
                apart = abs(self.own - self.in_float64)
            self.rounding = np.maximum(self.rounding, np.nan_to_num(apart, posinf=np.inf))


class _Hyperparameters:
    """How far a rule moves when its hyperparameters are rounded to the narrowest dtype of the variables."""

    def __init__(self, rule: Rule | None, start: Array, layout: Layout) -> None:
        self.off = np.zeros(len(start))
        self._exact: Replay | None = None
        if rule is not None and layout.narrow:
            by = nudged_in(max(layout.dtypes, key=eps_of))
            self._exact = Replay(rule, start, layout.leaf)
            self._nudged = [Replay(rule, start, layout.leaf, adjusted=[place], by=by) for place in PLACES]

    def step(self, gradient: Array, norms: Array) -> None:
        if self._exact is not None:
            exact = self._exact.step(gradient, norms)
            apart = sum(abs(replay.step(gradient, norms) - exact) for replay in self._nudged)
            self.off = np.maximum(self.off, np.nan_to_num(apart))


class _Twin:
    """The rounding of float64 runs, where a wider dtype to see it in is missing: that of float32, scaled."""

    def __init__(self, rule: Rule | None, start: Array, layout: Layout) -> None:
        self.rounding = np.zeros(len(start))
        self._pair: tuple[Replay, Replay] | None = None
        if rule is not None and not layout.narrow:
            self._pair = Replay(rule, start, layout.leaf, np.float32), Replay(rule, start, layout.leaf)

    def step(self, gradient: Array, norms: Array) -> None:
        if self._pair is not None:
            narrow, wide = (replay.step(gradient, norms) for replay in self._pair)
            scaled = _FOREIGN_ROUNDING * np.finfo(np.float64).eps / np.finfo(np.float32).eps * abs(narrow - wide)
            self.rounding = np.maximum(self.rounding, np.nan_to_num(scaled))


def record(
    optimizer: Any, reference: Any, rule: Rule | None, loss: Callable[[], Any], variables: Sequence[Any], steps: int
) -> Recording:
    """Run both, and give back what belongs to the user.

    Args:
        optimizer: What is judged.
        reference: What it is judged by.
        rule: The reference as a rule, if it is known.
        loss: Gives the loss, whose gradient is taken at the optimizer's weights.
        variables: What it depends on; their values are the start.
        steps: How many.

    Raises:
        ValueError: If the loss does not depend on the variables, or the optimizer is no function of what it is given.
    """
    with _given_back(loss, variables):
        return _record(optimizer, reference, rule, loss, variables, steps)


def _record(
    optimizer: Any, reference: Any, rule: Rule | None, loss: Callable[[], Any], variables: Sequence[Any], steps: int
) -> Recording:
    layout = layout_of(variables, steps)
    start = _flat([value_of(v).numpy() for v in variables])
    recording = Recording(layout=layout, start=start[layout.kept], most=np.zeros(len(layout.names)))
    mine, theirs = _Both(optimizer, variables, layout), _Both(reference, variables, layout)
    rounded, twin = _Hyperparameters(rule, start, layout), _Twin(rule, start, layout)
    again = [runners.start(each, variables, [tf.as_dtype(d) for d in layout.dtypes]) for each in (optimizer, reference)]
    inner = [variable_of(v) for v in variables]
    floor, before, seen = np.zeros(len(start)), start, []
    for count in range(1, steps + 1):
        grads = _gradients(loss, inner, count)
        flat, norms = _dense(grads, layout)
        if not np.isfinite(flat).all():
            recording.notes.append(f"stopped before step {count}, where the gradient is not finite")
            break
        mine.step(grads)
        theirs.step(grads)
        rounded.step(flat, norms)
        twin.step(flat, norms)
        if count <= _REPEATED:
            seen.append((mine.current, theirs.current))
            _refuse_unrepeatable(again, (optimizer, reference), grads, seen[-1])
        moved = mine.own if mine.in_float64 is None else mine.in_float64
        with np.errstate(invalid="ignore"):
            roundings = _ROUNDINGS_PER_STEP * np.finfo(np.float64).eps * (abs(moved) + abs(moved - before))
        floor, before = floor + np.nan_to_num(roundings, posinf=np.inf), moved
        _keep(recording, mine, theirs, rounded.off, floor + twin.rounding, flat, norms)
        if not np.isfinite(mine.own).all():
            recording.notes.append(f"stopped at step {count}, where a weight is not finite")
            break
        for variable, value in zip(inner, mine.current, strict=True):
            variable.assign(value)
    _note_missing(recording, mine, theirs, optimizer, reference)
    return recording


def _keep(
    recording: Recording, mine: _Both, theirs: _Both, rounded: Array, floor: Array, flat: Array, norms: Array
) -> None:  # fmt: skip
    layout, kept = recording.layout, recording.layout.kept
    rounding = _rounding_of(mine, theirs, layout)
    allowed = rounding + theirs.rounding + 2 * rounded + floor
    with np.errstate(invalid="ignore"):
        apart = abs(mine.own - theirs.own)
    apart = np.where(np.isfinite(mine.own) == np.isfinite(theirs.own), np.nan_to_num(apart, nan=0.0), np.inf)
    ratios = np.divide(apart, allowed, out=np.where(apart > 0, np.inf, 0.0), where=np.isfinite(apart) & (allowed > 0))
    rows, excess = [], []
    for start, stop in layout.ends:
        worst = start + int(np.argmax(apart[start:stop]))
        rows.append((float(apart[worst]), float(allowed[worst]), worst - start))
        excess.append(float(ratios[start:stop].max()))
    sizes = np.nan_to_num(abs(mine.own), posinf=0.0)
    recording.most = np.maximum(recording.most, [sizes[start:stop].max() for start, stop in layout.ends])
    recording.largest.append(rows)
    recording.excess.append(excess)
    recording.gradients.append(flat[kept])
    recording.norms.append(norms)
    recording.weights.append(mine.own[kept])
    recording.wide.append((mine.own if mine.in_float64 is None else mine.in_float64)[kept])
    recording.reference.append(theirs.own[kept])
    recording.rounding.append(rounding[kept])
    recording.reference_rounding.append(theirs.rounding[kept])
    recording.floor.append(floor[kept])
    recording.allowed.append(allowed[kept])


def _rounding_of(mine: _Both, theirs: _Both, layout: Layout) -> Array:
    """The optimizer's rounding, measured; else a multiple of the reference's, and a rounding of each weight."""
    if mine.in_float64 is not None or not layout.narrow:
        return mine.rounding
    return _FOREIGN_ROUNDING * theirs.rounding + _unit(mine.own, layout)


def _unit(weights: Array, layout: Layout) -> Array:
    """The distance from each weight to the next number of its dtype."""
    eps = np.array([eps_of(dtype) for dtype in layout.dtypes])[layout.leaf]
    return unit_of(weights, eps)


def unit_of(weights: Any, eps: Any) -> Array:
    """The distance from weights to the next number of a dtype that has `eps` at 1; that of tiny numbers at 0."""
    sizes = np.maximum(abs(np.nan_to_num(weights)), np.finfo(np.float32).tiny)
    unit: Array = eps * 2.0 ** np.floor(np.log2(sizes))
    return unit


def layout_of(variables: Sequence[Any], steps: int) -> Layout:
    """How the variables are laid end to end, and which entries are recorded."""
    shapes = [tuple(value_of(v).shape) for v in variables]
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
    total, most = sum(sizes), max(1, MOST_KEPT // steps)
    kept = np.arange(total)
    if total > most:
        kept = np.sort(np.random.default_rng(0).choice(total, most, replace=False))
    return Layout(
        names=tuple(_names(variables)),
        shapes=tuple(shapes),
        dtypes=tuple(value_of(v).dtype.as_numpy_dtype for v in variables),
        leaf=np.repeat(np.arange(len(sizes)), sizes),
        kept=kept,
    )


def _names(variables: Sequence[Any]) -> Iterator[str]:
    taken: dict[str, int] = {}
    for variable in variables:
        path = getattr(variable, "path", None)
        name = path if isinstance(path, str) else variable_of(variable).name.partition(":")[0]
        taken[name] = taken.get(name, 0) + 1
        yield name if taken[name] == 1 else f"{name}#{taken[name]}"


@contextlib.contextmanager
def _given_back(loss: Callable[[], Any], variables: Sequence[Any]) -> Iterator[None]:
    saved = [(variable_of(v), value_of(v)) for v in variables]
    with tensorflow_random_state_kept(), python_state_kept(), kept_variables(loss, list(variables)):
        try:
            yield
        finally:
            for variable, value in saved:
                variable.assign(value)


def _gradients(loss: Callable[[], Any], inner: Sequence[Any], count: int) -> list[Any]:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inner)
        value = loss()
    grads: list[Any] = tape.gradient(value, inner) if value is not None else [None] * len(inner)
    if count == 1 and all(g is None for g in grads):
        raise ValueError(
            "loss must depend on the variables; its gradient is None for each of them: it must read the very variables "
            "that are handed over, and compute with TensorFlow"
        )
    return grads


def _dense(grads: Sequence[Any], layout: Layout) -> tuple[Array, Array]:
    dense = [
        np.zeros(shape) if g is None else np.asarray(tf.cast(tf.convert_to_tensor(g), tf.float64))
        for g, shape in zip(grads, layout.shapes, strict=True)
    ]
    return _flat(dense), np.array(
        [np.nan if given is None else np.linalg.norm(g.ravel()) for given, g in zip(grads, dense, strict=True)]
    )


def _cast(gradient: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(tf.cast(gradient.values, tf.float64), gradient.indices, gradient.dense_shape)
    return None if gradient is None else tf.cast(gradient, tf.float64)


def _flat(arrays: Sequence[Any]) -> Array:
    return np.concatenate([np.asarray(array).astype(np.float64).ravel() for array in arrays])


def _refuse_unrepeatable(again: Sequence[Any], both: Sequence[Any], grads: Sequence[Any], first: Any) -> None:
    for runner, optimizer, weights in zip(again, both, first, strict=True):
        for one, other in zip(runner.step(grads), weights, strict=True):
            if one.tobytes() != other.tobytes():
                raise ValueError(
                    f"{runners.name_of(optimizer)} does not give the same weights twice from the same start and the "
                    "same gradients: it keeps state outside its variables, or draws random numbers; hold state in "
                    "variables (a callable: in the state that it is given and gives)"
                )


def _note_missing(recording: Recording, mine: _Both, theirs: _Both, optimizer: Any, reference: Any) -> None:
    for both, each in ((mine, optimizer), (theirs, reference)):
        if recording.layout.narrow and both.in_float64 is None and recording.weights:
            recording.notes.append(
                f"{runners.name_of(each)} could not be run in float64: its rounding is taken from the other's"
            )
