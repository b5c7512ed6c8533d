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
from gradcheck._compare.arrays import Array, Replay, eps_of, unit_of
from gradcheck._compare.foreign import is_foreign, value_of
from gradcheck._compare.kept import tensorflow_random_state_kept
from gradcheck._compare.roundings import EPS, FOREIGN, Hyperparameters, Steps, Twin, Units, of_a_step
from gradcheck._compare.translation import rule_of
from gradcheck._compare.watched import float32_seen
from gradcheck._graph.functions import python_state_kept
from gradcheck._graph.reads import kept_variables
from gradcheck._graph.structure import variable_of
from gradcheck.optimizers._rule import Rule

MOST_KEPT = 1_000_000  # numbers per recorded quantity; beyond, a sample of the entries is recorded
_REPEATED = 3  # steps that are run twice
_ROUNDING = 16  # how much more a float64 run may round than the run in the narrow dtype, each in its own units


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
    wide_reference: list[Array] = field(default_factory=list)  # [kept]
    rounding: list[Array] = field(default_factory=list)  # [kept], of the optimizer's weights so far
    floor: list[Array] = field(default_factory=list)  # [kept], rounding of the float64 runs so far
    allowed: list[Array] = field(default_factory=list)  # [kept]
    in_float64: bool = False  # whether the float64 runs of both are what is judged
    exact: bool = True  # whether all that these runs compute with is in float64
    largest: list[list[tuple[float, int]]] = field(default_factory=list)  # per variable, in its dtype: apart, entry
    judged: list[list[tuple[float, float]]] = field(default_factory=list)  # per variable: apart, allowed
    excess: list[list[float]] = field(default_factory=list)  # per variable: largest of apart / allowed
    most: Array = field(default_factory=lambda: np.zeros(0))  # [variables], the largest weight so far
    reference_rounding: list[Array] = field(default_factory=list)  # [kept]
    notes: list[str] = field(default_factory=list)

    def of_the_reference(self) -> Recording:
        """The same with the reference's trajectory in place of the optimizer's."""
        return replace(
            self, weights=self.reference, wide=self.wide_reference, reference=self.weights, wide_reference=self.wide,
            rounding=self.reference_rounding,
        )  # fmt: skip

    def of_variables(self, which: Sequence[int]) -> Recording:
        """The same of some variables only; norms stay those of all, for clipping."""
        here = np.isin(self.layout.leaf[self.layout.kept], which)
        rows: dict[str, Any] = {
            name: [row[here] for row in getattr(self, name)]
            for name in (
                "gradients", "weights", "wide", "reference", "wide_reference", "rounding", "reference_rounding",
                "floor", "allowed",
            )
        }  # fmt: skip
        return replace(self, start=self.start[here], layout=replace(self.layout, kept=self.layout.kept[here]), **rows)


class _Both:
    """An optimizer in its own dtype and, where it can, in float64: a rule as a replay, which needs no TensorFlow."""

    def __init__(self, optimizer: Any, variables: Sequence[Any], layout: Layout, start: Array) -> None:
        self._narrow = runners.start(optimizer, variables, [tf.as_dtype(d) for d in layout.dtypes])
        self._wide: Any = None
        self._replay: Replay | None = None
        if layout.narrow and isinstance(optimizer, Rule):
            self._replay = Replay(rule_of(optimizer, wide=True) or optimizer, start, layout.leaf)
        elif layout.narrow:
            with contextlib.suppress(Exception):
                self._wide = runners.start(optimizer, variables, [tf.float64] * len(variables), wide=True)
        callable_only = not isinstance(optimizer, Rule) and not is_foreign(optimizer)
        self.exact, self._watched = callable_only or runners.is_exact(optimizer), _REPEATED if callable_only else 0
        self.own: Array = np.zeros(0)
        self.rounding: Array = np.zeros(len(layout.leaf))
        self.in_float64: Array | None = None

    def step(self, grads: Sequence[Any], flat: Array, norms: Array) -> None:
        self.current = self._narrow.step(grads)
        self.own = _flat(self.current)
        if self._replay is not None:
            self.in_float64 = self._replay.step(flat, norms)
        elif self._wide is not None:
            try:
                self.in_float64 = self._watch([_cast(g) for g in grads])
            except Exception:  # an optimizer that is bound to its dtype
                self._wide = self.in_float64 = None
        if self.in_float64 is not None:
            with np.errstate(invalid="ignore"):
                apart = abs(self.own - self.in_float64)
            self.rounding = np.maximum(self.rounding, np.nan_to_num(apart, posinf=np.inf))

    def _watch(self, grads: Sequence[Any]) -> Array:
        """A step in float64; a callable is seen to compute in float32, or not, at the first ones."""
        if not self._watched:
            return _flat(self._wide.step(grads))
        self._watched -= 1
        with float32_seen() as seen:
            weights = _flat(self._wide.step(grads))
        self.exact = self.exact and not seen
        return weights


class _Pair:
    """What the float64 runs of both may be apart, in the recorded entries.

    Each rounds, as its run in the narrow dtype shows; hyperparameters may be off by a few units of float32, for one
    may hold them so, and be it only the decimals that were typed.
    """

    def __init__(self, rule: Rule, recording: Recording) -> None:
        layout = recording.layout
        self._kept, leaf = layout.kept, layout.leaf[layout.kept]
        self._units, self._steps = Units(rule, recording.start, leaf), Steps(rule)
        self.optimizer = self.reference = recording.start
        self._scale = _ROUNDING * EPS / np.array([eps_of(dtype) for dtype in layout.dtypes])[leaf]
        self.off, self.floor = np.zeros(len(leaf)), np.zeros(len(leaf))

    def step(self, gradient: Array, norms: Array, mine: _Both, theirs: _Both) -> bool:
        """Whether there are two runs in float64."""
        if mine.in_float64 is None or theirs.in_float64 is None:
            return False
        self._units.step(gradient, norms)
        before, self.optimizer = self.reference, mine.in_float64[self._kept]
        self.reference = theirs.in_float64[self._kept]
        self.off, self.floor = self._units.off, self._scale * (mine.rounding + theirs.rounding)[self._kept]
        self._steps.step(self.reference - before)
        if not (mine.exact and theirs.exact):
            self.floor = self.floor + self._steps.off
        return True


def record(
    optimizer: Any, reference: Any, rule: Rule | None, loss: Callable[[], Any], variables: Sequence[Any], steps: int
) -> Recording:
    """Run both, and give back what belongs to the user.

    Args:
        optimizer: What is judged.
        reference: What it is judged by.
        rule: One of them as a rule, if it is known: what moves when hyperparameters are rounded.
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
    mine, theirs = (_Both(each, variables, layout, start) for each in (optimizer, reference))
    narrow = rule if layout.narrow else None
    rounded = Hyperparameters(narrow, start, layout.leaf, layout.dtypes) if layout.narrow else None
    twin = Twin(None if layout.narrow else rule, start, layout.leaf)
    pair = _Pair(narrow, recording) if narrow is not None else None
    again = [
        (each, both, runners.start(each, variables, [tf.as_dtype(d) for d in layout.dtypes]))
        for each, both in ((optimizer, mine), (reference, theirs))
        if not isinstance(each, Rule)  # which is pure
    ]
    inner = [variable_of(v) for v in variables]
    floor, before = np.zeros(len(start)), start
    for count in range(1, steps + 1):
        grads = _gradients(loss, inner, count)
        flat, norms = _dense(grads, layout)
        if not np.isfinite(flat).all():
            recording.notes.append(f"stopped before step {count}, where the gradient is not finite")
            break
        mine.step(grads, flat, norms)
        theirs.step(grads, flat, norms)
        if rounded is not None:
            rounded.step(flat, norms, mine.own)
        twin.step(flat, norms)
        if pair is not None and not pair.step(flat[layout.kept], norms, mine, theirs):
            pair = None
        if count <= _REPEATED:
            _refuse_unrepeatable(again, grads)
        moved = mine.own if mine.in_float64 is None else mine.in_float64
        floor, before = floor + of_a_step(moved, before), moved
        off = np.zeros(len(start)) if rounded is None else rounded.off
        _keep(recording, mine, theirs, off, floor + twin.rounding, flat, norms, pair)
        if not np.isfinite(mine.own).all():
            recording.notes.append(f"stopped at step {count}, where a weight is not finite")
            break
        for variable, value in zip(inner, mine.current, strict=True):
            variable.assign(value)
    recording.in_float64, recording.exact = pair is not None, mine.exact and theirs.exact
    _note_missing(recording, mine, theirs, optimizer, reference, known=rule is not None)
    return recording


def _keep(
    recording: Recording, mine: _Both, theirs: _Both, rounded: Array, floor: Array, flat: Array, norms: Array,
    pair: _Pair | None,
) -> None:  # fmt: skip
    layout, kept = recording.layout, recording.layout.kept
    rounding = _rounding_of(mine, theirs, layout)
    allowed = rounding + theirs.rounding + 2 * rounded + floor
    apart = _apart(mine.own, theirs.own)
    judged, bounds, floor = apart.copy(), allowed, floor[kept]
    if pair is not None:
        floor = floor + pair.floor
        bounds[kept] = floor + pair.off
        judged[kept] = np.maximum(_apart(pair.optimizer, pair.reference), np.where(np.isinf(apart[kept]), np.inf, 0.0))
    ratios = np.divide(judged, bounds, out=np.where(judged > 0, np.inf, 0.0), where=np.isfinite(judged) & (bounds > 0))
    largest, rows, excess = [], [], []
    for start, stop in layout.ends:
        far, worst = (start + int(np.argmax(each[start:stop])) for each in (apart, ratios))
        largest.append((float(apart[far]), far - start))
        rows.append((float(judged[worst]), float(bounds[worst])))
        excess.append(float(ratios[worst]))
    sizes = np.nan_to_num(abs(mine.own), posinf=0.0)
    recording.most = np.maximum(recording.most, [sizes[start:stop].max() for start, stop in layout.ends])
    recording.largest.append(largest)
    recording.judged.append(rows)
    recording.excess.append(excess)
    recording.gradients.append(flat[kept])
    recording.norms.append(norms)
    recording.weights.append(mine.own[kept])
    recording.wide.append((mine.own if mine.in_float64 is None else mine.in_float64)[kept])
    recording.reference.append(theirs.own[kept])
    recording.wide_reference.append((theirs.own if theirs.in_float64 is None else theirs.in_float64)[kept])
    recording.rounding.append(rounding[kept])
    recording.reference_rounding.append(theirs.rounding[kept])
    recording.floor.append(floor)
    recording.allowed.append(bounds[kept])


def _apart(one: Array, other: Array) -> Array:
    """The distance; inf where only one is finite."""
    with np.errstate(invalid="ignore"):
        apart = abs(one - other)
    return np.where(np.isfinite(one) == np.isfinite(other), np.nan_to_num(apart, nan=0.0), np.inf)


def _rounding_of(mine: _Both, theirs: _Both, layout: Layout) -> Array:
    """The optimizer's rounding, measured; else a multiple of the reference's, and a rounding of each weight."""
    if mine.in_float64 is not None or not layout.narrow:
        return mine.rounding
    return FOREIGN * theirs.rounding + _unit(mine.own, layout)


def _unit(weights: Array, layout: Layout) -> Array:
    """The distance from each weight to the next number of its dtype."""
    eps = np.array([eps_of(dtype) for dtype in layout.dtypes])[layout.leaf]
    return unit_of(weights, eps)


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


def _refuse_unrepeatable(again: Sequence[tuple[Any, _Both, runners.Runner]], grads: Sequence[Any]) -> None:
    for optimizer, both, runner in again:
        for one, other in zip(runner.step(grads), both.current, strict=True):
            if one.tobytes() != other.tobytes():
                raise ValueError(
                    f"{runners.name_of(optimizer)} does not give the same weights twice from the same start and the "
                    "same gradients: it keeps state outside its variables, or draws random numbers; hold state in "
                    "variables (a callable: in the state that it is given and gives)"
                )


def _note_missing(
    recording: Recording, mine: _Both, theirs: _Both, optimizer: Any, reference: Any, *, known: bool
) -> None:
    if recording.in_float64 or not recording.layout.narrow or not recording.weights:
        return
    unable = [
        runners.name_of(each) for both, each in ((mine, optimizer), (theirs, reference)) if both.in_float64 is None
    ]
    if len(unable) == 1:
        recording.notes.append(f"{unable[0]} could not be run in float64: its rounding is taken from the other's")
    elif unable:
        recording.notes.append("neither could be run in float64")
    why = "" if unable or known else "neither is known as a rule, nor what rounding its hyperparameters moves: "
    recording.notes.append(f"{why}judged were the runs in the variables' own dtype, which show less")
