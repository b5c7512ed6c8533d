"""One check at work: the point, its cotangents, its gradients, and the movers that measure it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gradcheck._check.options import Options
from gradcheck._derivatives.analytic import Gradient, analytic
from gradcheck._derivatives.compressed import Plan, plan
from gradcheck._derivatives.freeing import mover
from gradcheck._derivatives.numeric import Mover
from gradcheck._derivatives.point import Point, Reals, as_reals
from gradcheck._derivatives.python_inside import coarse_python
from gradcheck._graph.cost import entries_computed
from gradcheck._graph.program import prune
from gradcheck._graph.regions import has_custom_gradient
from gradcheck._graph.rounding import coarsest_spacing, coefficients
from gradcheck._graph.trace import Traced
from gradcheck._numerics.directions import blocks, rademacher

_PER_OP = 2000  # entries that could be computed while an op is started
_TERMS = 4  # coefficients, in a function that may be a series,
_OF_SERIES = 64.0  # and units of rounding by which its derivative may be off: 31 and 33 were seen
_EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "complex64": 2.0**-23}


def eps_of(dtype: str) -> float:
    """The spacing of numbers around 1 in a dtype."""
    return _EPS.get(dtype, 2.0**-52)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cotangents:
    """Cotangents of one output and the gradients for them.

    Attributes:
        weights: [c, m]; the first is the user's, where one was given.
        native: Per x, gradients in the function's own dtype, for `weights`.
        again: The same for the first cotangent, computed once more; None where it was not.
        wide: Per x, gradients in the float64 twin, for `weights`; the native ones where nothing is narrower.
        combined: The factors of the linear combination of weights that was tried besides.
        tried: Per x, gradients for `weights` and then for that combination; None where there is no gradient. Wide ones,
            but for large inputs of float32, where each costs much.
        tried_eps: The spacing of the dtype in which these round.
        given: Whether the user gave the first one.
    """

    weights: Reals
    native: list[Gradient]
    again: list[Gradient] | None
    wide: list[Gradient]
    combined: Reals
    tried: list[Reals | None]
    tried_eps: float
    given: bool


@dataclass(slots=True)
class Work:
    """Everything that is known while a check runs."""

    point: Point
    options: Options
    rng: np.random.Generator
    movers: list[Mover]
    values: list[Reals]  # per output, its base value as reals, in float64
    native_values: list[Reals]  # the same, as computed in the function's own dtype
    shapes: list[list[tuple[int, ...]]]  # per output, the shapes of its tensors
    cotangents: list[Cotangents] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    roundings: dict[int, list[Reals | None]] = field(default_factory=dict)  # per output, see `scatter`
    reaches: dict[int, Reals] = field(default_factory=dict)
    departures: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict)  # see `quality`
    plans: dict[int, Plan] = field(default_factory=dict)  # per x, which entries move together

    @property
    def traced(self) -> Traced:
        """The function."""
        return self.point.traced

    @property
    def gradient_eps(self) -> float:
        """The spacing of the dtype in which the wide gradients round."""
        return 2.0**-23 if self.point.unpromoted else 2.0**-52

    @property
    def effort(self) -> float:
        """What an evaluation costs: the entries that it computes, and for each op what starting it costs in those."""
        each: float = self.point.made("entries", lambda: entries_computed(self.traced.graph))
        return each + _PER_OP * len(self.traced.program.main.nodes)

    def dtype(self, x: int) -> str:
        """The dtype of the gradient with respect to an x."""
        return str(self.traced.sources[x].dtype.name)

    def mover_of(self, x: int) -> tuple[Mover, int] | None:
        """The mover that can move an x, and its place there; None where nothing depends on it."""
        for one in self.movers:
            if x in one.xs:
                return one, one.xs.index(x)
        return None

    def span(self, a: int) -> tuple[int, int]:
        """Where the reals of an output begin and end among all outputs."""
        ends = np.cumsum([0, *(v.size for v in self.values)])
        return int(ends[a]), int(ends[a + 1])

    def reach(self, a: int) -> Reals:
        """Per cotangent, the Euclidean size of all x_i g_i: what rounding of the arguments does to the output, in eps.

        Rounding inside a function is of this size even where all samples happen to round alike and show none.
        """
        if a not in self.reaches:
            total = np.zeros(len(self.cotangents[a].weights))
            for one in self.movers:
                for x, base in zip(one.xs, one.base, strict=True):
                    gradient = self.cotangents[a].wide[x].value
                    if gradient is not None:
                        for part in blocks(base.size):
                            total += np.square(gradient[:, part] * base[part]).sum(axis=1)
            self.reaches[a] = np.sqrt(total)
        return self.reaches[a]

    @property
    def spacing(self) -> float:
        """The spacing of numbers around 1 in the narrowest dtype inside of the function."""
        found: float = self.point.made("spacing", lambda: coarsest_spacing(self.point.program(wide=True)))
        return found

    @property
    def narrowest(self) -> str:
        """The narrowest dtype inside of the function."""
        return next((name for name, eps in _EPS.items() if eps == self.spacing), "float64")

    @property
    def is_series(self) -> bool:
        """Whether it may be a series, by its coefficients, with a `tf.custom_gradient` that is not made from it."""

        def seems() -> bool:
            return has_custom_gradient(self.traced.program) and coefficients(self.point.program(wide=True)) >= _TERMS

        found: bool = self.point.made("series", seems)
        return found

    def coarse(self, x: int) -> float:
        """Relative rounding of single entries of a gradient in a narrow dtype, whose constants are rounded too.

        A function written for a narrow dtype may be a series or a polynomial that is as good as that dtype and no
        better, which the twin shows in its derivative; a gradient by another formula is then the better one.
        """
        eps = eps_of(self.dtype(x))
        return (_OF_SERIES if eps < 1e-6 and self.is_series else 4.0) * eps if self.point.narrow else 0.0

    def plan(self, mover: Mover, place: int) -> Plan:
        """Which entries of an x move together; remembered for the same function at the same point."""
        x = mover.xs[place]
        if x not in self.plans:
            kept = self.traced.compiled.get(("plan", x, self.options.seed))
            if kept is not None and all(map(np.array_equal, kept[0], (*mover.base, mover.outputs))):
                self.plans[x] = kept[1]
                self.point.evaluations += kept[2]  # the same check gives the same report, remembered or not
            else:
                before = self.point.evaluations
                # Random numbers of its own, so that what is remembered does not change what is drawn after it.
                self.plans[x] = plan(mover, place, np.random.default_rng([self.options.seed, x]))
                found = ((*mover.base, mover.outputs), self.plans[x], self.point.evaluations - before)
                self.traced.compiled["plan", x, self.options.seed] = found
        return self.plans[x]

    def full_weights(self, a: int) -> Reals:
        """The cotangents of one output as weights over the reals of all outputs, [c, m_all]."""
        first, last = self.span(a)
        weights = np.zeros((len(self.cotangents[a].weights), sum(v.size for v in self.values)))
        weights[:, first:last] = self.cotangents[a].weights
        return weights


def begin(traced: Traced, options: Options) -> Work:
    """Run the function at its base point."""
    point = Point(traced)
    rng = np.random.default_rng(options.seed)
    native: list[list[Any]] | None = None
    if traced.program.main.kept or point.narrow:
        native = point.outputs_at_base(wide=False)  # also where the function's own assertions speak
    outer = [k for k, s in enumerate(traced.sources) if s.argument is not None]
    read = point.made("read", lambda: _read_refs(traced))
    inner = [k for k, s in enumerate(traced.sources) if s.ref is not None and s.ref in read]
    movers = [mover(point, outer)] if outer else []
    movers += [mover(point, [k]) for k in inner]
    if movers:
        reals, shapes = _measured_outputs(traced, movers[0])
    else:
        wide = point.outputs_at_base(wide=True)
        reals = [np.concatenate([as_reals(v) for v in vs]) for vs in wide]
        shapes = [[np.asarray(v).shape for v in vs] for vs in wide]
    if not point.narrow:
        point.unpromoted += coarse_python(traced.program, movers)
    own = reals if native is None else [np.concatenate([as_reals(v) for v in vs]) for vs in native]
    work = Work(
        point=point, options=options, rng=rng, movers=movers, values=reals, native_values=own, shapes=shapes
    )  # fmt: skip
    if native is not None and point.narrow and not any(one.jitter.any() for one in movers):
        _note_lost_value(work, native)
    return work


def _read_refs(traced: Traced) -> set[str]:
    """What the outputs depend on, as references."""
    main = traced.program.main
    positions = [p for o in traced.outputs for p in o.returns]
    pruned = prune(replace(main, returns=tuple(main.returns[p] for p in positions), kept=()))
    return {i for node in pruned.nodes for i in node.input} | {r.ref for r in pruned.returns}


def _measured_outputs(traced: Traced, one: Mover) -> tuple[list[Reals], list[list[tuple[int, ...]]]]:
    """Values and shapes of all outputs, from the run that a mover made at the base point."""
    spans, shapes = iter(one.spans), iter(one.shapes)
    values, found = [], []
    for output in traced.outputs:
        own = [next(spans) for _ in output.returns]
        values.append(one.outputs[own[0][0] : own[-1][1]])
        found.append([next(shapes) for _ in output.returns])
    return values, found


def _note_lost_value(work: Work, native: list[list[Any]]) -> None:
    for output, ours, exact in zip(work.traced.outputs, native, work.values, strict=True):
        own = np.concatenate([as_reals(v) for v in ours])
        with np.errstate(invalid="ignore", over="ignore"):
            size = np.linalg.norm(exact)
            gap = np.linalg.norm(own - exact)
        dtype = max(str(np.asarray(ours[0]).dtype.name), work.narrowest, key=eps_of)
        eps = eps_of(dtype)
        if np.isfinite(gap) and gap > np.sqrt(eps) * size:
            work.notes.append(
                f"the value of {output.path} itself differs from its float64 twin by "
                f"{gap / size if size else np.inf:.1e}, relative: more than half of its digits are lost in {dtype}"
            )


def differentiate_outputs(work: Work) -> None:
    """Draw cotangents for every output and compute the gradients for them."""
    for a, (value, shapes) in enumerate(zip(work.values, work.shapes, strict=True)):
        weights, given = _weights(work, a, value.size, shapes)
        # None is 1 or -1, and the first is negative: a gradient that looks at the sign of the upstream one shows.
        factors = np.array([-0.75, work.rng.choice([0.5, 1.25, -2.0])])[: len(weights)]
        c = len(weights)
        combined = (factors @ weights)[None]
        large = work.point.narrow and _is_large_float32(work)
        widely = work.point.narrow and not large
        # Linearity is tried where the numbers are precise, but not for a large model, of which each gradient costs
        # much; there it also tells whether another run gives the same.
        asked = [weights, *([] if widely else [combined]), *([] if large else [weights[:1]])]
        native = analytic(work.point, a, np.concatenate(asked), shapes, wide=False)
        again = None if large else _rows(native, slice(-1, None))
        wide = tried = native
        if work.point.narrow:
            wide = analytic(
                work.point, a, np.concatenate([weights, combined] if widely else [weights]), shapes, wide=True
            )
            tried = wide if widely else native
        work.cotangents.append(
            Cotangents(
                weights=weights,
                native=_rows(native, slice(c)),
                again=again,
                wide=_rows(wide, slice(c)),
                combined=factors,
                tried=[g.value for g in _rows(tried, slice(c + 1))],
                tried_eps=work.gradient_eps if widely or not work.point.narrow else eps_of("float32"),
                given=given,
            )
        )


def _rows(gradients: list[Gradient], some: slice) -> list[Gradient]:
    return [replace(g, value=None if g.value is None else g.value[some]) for g in gradients]


def once_more(work: Work, a: int, *, wide: bool = False) -> list[Gradient]:
    """The gradients of one output for its first cotangent, computed again, in the function's own dtype or `wide`."""
    return analytic(work.point, a, work.cotangents[a].weights[:1], work.shapes[a], wide=wide)


def _is_large_float32(work: Work) -> bool:
    floats = all(s.dtype.name == "float32" for s in work.traced.sources)
    return floats and any(one.large for one in work.movers) and work.spacing <= eps_of("float32")


def _weights(work: Work, a: int, m: int, shapes: list[tuple[int, ...]]) -> tuple[Reals, bool]:
    """The user's cotangent, or ones where `tf.gradients` means ones; then random signs; a scalar needs one only."""
    output = work.traced.outputs[a]
    # Sizes differ, for with equal ones sums like that of a softmax are constant; eighths keep them short in print.
    random = rademacher(work.rng, (2, m)) * work.rng.integers(4, 13, (2, m)) / 8.0
    given = any(g is not None for g in output.given)
    if given or len(shapes) > 1:
        parts = []
        for g, position, shape in zip(output.given, output.returns, shapes, strict=True):
            ones = np.ones(shape, work.traced.graph.outputs[position].dtype.as_numpy_dtype)
            parts.append(as_reals(ones if g is None else np.broadcast_to(g, shape)))
        return np.concatenate([np.concatenate(parts)[None], random[1:] if m > 1 else random[:0]]), given
    if m == 1:
        return np.ones((1, 1)), False
    return random, False
