"""Hints at what is wrong in a gradient, measured on the Jacobian of the op at fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._check import entries
from gradcheck._check.jacobian import analytic_rows, measure, row_reach
from gradcheck._check.options import SAFETY, Options, verdict_only
from gradcheck._check.work import Work, begin, differentiate_outputs
from gradcheck._derivatives.analytic import analytic
from gradcheck._derivatives.point import Reals
from gradcheck._diagnose.jacobians import Block
from gradcheck._diagnose.likeness import Likeness, likenesses
from gradcheck._graph.before import ops_before
from gradcheck._graph.graphs import trace_tensors
from gradcheck._graph.provenance import place_of
from gradcheck._graph.questions import plain_name
from gradcheck._graph.randomness import RANDOM
from gradcheck._graph.structure import CONTINUOUS
from gradcheck._graph.trace import Traced
from gradcheck._graph.units import Frame, Unit
from gradcheck._numerics.directions import rademacher
from gradcheck._results import Finding, Verdict

_MATRIX = 2**18  # entries of the Jacobians that are measured for a hint
_BUDGET = 3.0e8  # entries computed by all runs of the op
_EACH = 18  # runs per group of entries that are moved together
_ENTRIES = 2**12  # of an x of which only the gradients for single cotangents are
_SIZES = np.array([0.25, 1.0, 1.0, 4.0, 16.0])  # of cotangents that show a bound
_ROUNDING = 64.0  # units of rounding that an analytic entry may be off by
_INSIDE = 64  # ops inside of a custom gradient that is looked into
_TERMS = 12  # tensors inside of a custom gradient that are tried as constants
_REDUCTIONS = ("Mean", "Sum", "Max", "Min", "Prod", "EuclideanNorm")
_FACTORS = ("Mul", "MatMul", "BatchMatMul", "RealDiv", "Einsum", "Conv", "Pow")  # ops with a product rule
_LEVELS = ("FakeQuantWithMinMax", "QuantizeAndDequantize")
_BETWEEN_LEVELS = (
    "the function stands still between its levels, and its gradient is that of clipping: a straight-through "
    "estimator; if it is meant, say so by check_gradients(..., surrogate=lambda x: tf.clip_by_value(x, min, max))"
)

Check = Callable[[Traced, Options], Sequence[Finding]]


def hints_of_unit(unit: Unit, frame: Frame, options: Options, check: Check, xs: set[str]) -> dict[str, Likeness]:
    """What explains all that is wrong in the gradients of a unit, by the names of its xs; empty where nothing does.

    Args:
        unit: The op or custom gradient.
        frame: Where it is wrong.
        options: Of the check.
        check: What checks a unit.
        xs: Names of those of its xs whose gradient is wrong.
    """
    arguments = [plain_name(t) for t in unit.inputs]
    called = {name: f"argument {k}" for k, name in reversed(list(enumerate(arguments)))}
    called |= {(name := plain_name(x)): f"variable {name}" for x in unit.xs if plain_name(x) not in called}
    found: dict[str, Likeness] = {}
    anew = drawn_anew(unit)
    if anew is not None:
        return dict.fromkeys(xs, anew)
    if unit.region is None and unit.op.type.startswith(_LEVELS):
        return dict.fromkeys(xs, Likeness(f"in {unit.op.type}: {_BETWEEN_LEVELS}"))
    for of_all in (True, False):  # an op that has a gradient for some inputs may have none for others
        if not found:
            with suppress(Exception):
                found = hints_of(trace_tensors(unit.question(frame, of_all=of_all), unit.name), options, 0, called)
    vague = {x for x in xs if x not in found or found[x].plain}
    if vague and _is_small(unit):
        found |= _missing_terms(unit, frame, options, check, vague)
    of = (unit.region.name if unit.region is not None else None) or unit.op.type
    where = {x: f"in {of}, for its {called[x]}" if len(called) > 1 else f"in {of}" for x in called}
    return {x: replace(each, text=f"{where[x]}: {each.text}") for x, each in found.items()}


def hints_of(traced: Traced, options: Options, a: int, called: Mapping[str, str]) -> dict[str, Likeness]:
    """What explains all that is wrong in the gradients of one output, by the paths of the xs; called so in texts."""
    try:
        work = begin(traced, replace(options, mode="jacobian", order=1, forward=False))
        differentiate_outputs(work)
        return _hints(_Asked(work, a, called))
    except Exception:  # a hint that cannot be had must not cost the report
        return {}


@dataclass(frozen=True, slots=True)
class _Asked:
    """One output of a check, and what to call the xs."""

    work: Work
    a: int
    called: Mapping[str, str]

    def path(self, x: int) -> str:
        return self.work.traced.sources[x].path

    def size(self, x: int) -> int:
        return int(np.prod(self.work.traced.sources[x].shape)) * (
            2 if self.work.traced.sources[x].dtype.is_complex else 1
        )

    def groups(self, x: int, runs: float) -> int:
        """How many groups of entries are moved one after the other."""
        if sum(self.work.traced.sources[x].shape) > runs / _EACH:  # finding out takes a run per slice
            return self.size(x)
        return self.work.plan(*entries.located(self.work, x)).groups

    @property
    def outputs(self) -> int:
        return int(self.work.values[self.a].size)


def _hints(asked: _Asked) -> dict[str, Likeness]:
    work = asked.work
    xs = [x for x in range(len(work.traced.sources)) if work.mover_of(x) is not None]
    if any(work.cotangents[asked.a].wide[x].fault is not None for x in xs):
        return {}
    runs = _BUDGET / work.effort
    xs = [x for x in xs if asked.groups(x, runs) <= runs / _EACH]
    if asked.outputs * sum(asked.size(x) for x in range(len(work.traced.sources))) <= _MATRIX and asked.outputs <= runs:
        return _of_jacobians(asked, xs)
    return _likely(asked, {x: _by_cotangents(asked, x) for x in xs if asked.size(x) <= _ENTRIES})


def _likely(asked: _Asked, blocks: Mapping[int, Block]) -> dict[str, Likeness]:
    found = likenesses({x: (asked.called[asked.path(x)], block) for x, block in blocks.items()})
    return {asked.path(x): each for x, each in found.items()}


def _of_jacobians(asked: _Asked, xs: Sequence[int]) -> dict[str, Likeness]:
    work, a = asked.work, asked.a
    rows = analytic_rows(work, a)
    reach = row_reach(work, rows)
    weights = rademacher(work.rng, (len(_SIZES), asked.outputs)) * _SIZES[:, None]
    gradients = analytic(work.point, a, weights, work.shapes[a], wide=True)
    linear, odd, ignored = {}, {}, {}
    for x in xs:
        block = _jacobian(asked, x, rows[x], reach)
        value = gradients[x].value
        own = np.zeros((len(weights), asked.size(x))) if value is None else value
        slack = np.abs(weights) @ block.allowed
        rounding = 1e-6 * np.max(np.abs(weights) @ np.abs(block.analytic), initial=0.0)
        if np.all(np.abs(own - weights @ block.analytic) <= slack + rounding):
            linear[x] = block
            continue
        odd[x] = replace(block, analytic=own, numeric=weights @ block.numeric, allowed=slack, combined=True)
        if np.all(np.abs(own - own[:1]) <= block.allowed.sum(axis=0)):
            ignored[asked.path(x)] = _ignored(own[0], block)
    return {**_likely(asked, linear), **_likely(asked, odd), **ignored}


def _ignored(gradient: Reals, jacobian: Block) -> Likeness:
    """The hint at a gradient that is the same for every cotangent."""
    of_ones = np.all(np.abs(jacobian.numeric.sum(axis=0) - gradient) <= jacobian.allowed.sum(axis=0))
    whose = ": it is the one for an upstream of ones" if of_ones else ""
    return Likeness(f"the upstream gradient is ignored{whose}, whatever comes in")


def _jacobian(asked: _Asked, x: int, matrix: Reals | None, reach: Reals) -> Block:
    """The Jacobian of one x, all of it."""
    mover, place = entries.located(asked.work, x)
    own = np.zeros((asked.outputs, mover.base[place].size)) if matrix is None else matrix
    found = measure(asked.work, asked.a, x, own, reach)
    numeric, error = np.zeros(own.shape), np.zeros(own.shape)
    unit = mover.scales[place][found.columns]
    numeric[found.rows, found.columns] = found.numeric.value[0] / unit
    error[found.rows, found.columns] = found.numeric.error[0] / unit
    undecided = np.zeros(own.shape, bool)
    undecided[found.rows, found.columns] = (found.numeric.kink | found.numeric.jump | found.numeric.nonfinite)[0]
    return _block(asked, x, own, np.where(undecided, own, numeric), np.where(undecided, np.inf, SAFETY * error))


def _by_cotangents(asked: _Asked, x: int) -> Block:
    """The gradients of one x for the cotangents of the check."""
    work, a = asked.work, asked.a
    mover, place = entries.located(work, x)
    scheme, unit = work.plan(mover, place), mover.scales[place]
    rows = [entries.compare_entries(work, a, x, c, scheme) for c in range(len(work.cotangents[a].weights))]
    own, numeric, error = (
        np.concatenate([getattr(row, part) for row in rows]) / unit for part in ("analytic", "numeric", "error")
    )
    return replace(_block(asked, x, own, numeric, SAFETY * error), combined=True)


def _block(asked: _Asked, x: int, own: Reals, numeric: Reals, error: Reals) -> Block:
    work = asked.work
    mover, place = entries.located(work, x)
    source, returns = work.traced.sources[x], work.traced.outputs[asked.a].returns
    one = len(returns) == 1
    rounding = _ROUNDING * work.gradient_eps * (entries.rms(own) + entries.rms(numeric) + np.abs(numeric))
    return Block(
        analytic=own,
        numeric=numeric,
        allowed=error + rounding + work.coarse(x) * np.abs(own),
        base=mover.base[place],
        shape=source.shape,
        y_shape=work.shapes[asked.a][0] if one else None,
        paired=(one and work.traced.graph.outputs[returns[0]].dtype.is_complex, source.dtype.is_complex),
    )


def drawn_anew(unit: Unit) -> Likeness | None:
    """The hint at numbers that tf.recompute_grad draws from a state, which has gone on when it runs again."""
    if unit.region is None or unit.region.name != "recompute_grad":
        return None
    own = ops_before(t.op for t in unit.region.results) - ops_before(t.op for t in unit.region.arguments)
    for op in sorted(own, key=lambda each: each._id):
        stateful = op.op_def.is_stateful or any(t.dtype == tf.resource for o in ops_before([op]) for t in o.inputs)
        if op.type in RANDOM and stateful:
            made = place_of(op, op.name)
            line = f" (line {made.line}, `{made.source}`)" if made.source else ""
            return Likeness(
                f"recompute_grad runs the function again for its gradient, and {op.type} '{made.op}'{line} then draws "
                "other numbers: give it a seed of its own, as tf.random.stateless_uniform takes it"
            )
    return None


# ------------------------------------------------------------------------------------------------ missing terms


def _missing_terms(unit: Unit, frame: Frame, options: Options, check: Check, xs: set[str]) -> dict[str, Likeness]:
    """Wrong gradients of a custom gradient that are right as soon as one tensor inside of it is held.

    Args:
        unit: The custom gradient.
        frame: Where it is wrong.
        options: Of the check.
        check: What checks a unit.
        xs: Names of those of its xs whose gradient is wrong.
    """
    own = verdict_only(options)
    asked, found = unit.question(frame), dict[str, Likeness]()
    for held in _terms(unit):
        try:
            findings = check(trace_tensors(replace(asked, stops=held), unit.name), own)
        except Exception:  # what cannot be held says nothing
            continue
        right = {f.x for f in findings if f.verdict is Verdict.MATCH} & xs - set(found)
        found.update(dict.fromkeys(right, _term(unit, held)))
        if len(found) == len(xs):
            break
    return found


def _is_small(unit: Unit) -> bool:
    """Whether a unit is a custom gradient of few ops, so that checking it time and again costs little."""
    types = [unit.op.graph.get_operation_by_name(name).type for name in unit.inside]
    return unit.region is not None and len(types) <= _INSIDE and not any(each.endswith("While") for each in types)


def _terms(unit: Unit) -> list[tuple[Any, ...]]:
    """What may have been taken for constant inside of a custom gradient: each tensor, the last first; all reductions.

    A normalization whose gradient takes its statistics for constants leaves out several.
    """
    assert unit.region is not None
    ops = [unit.op.graph.get_operation_by_name(name) for name in unit.region.inside]
    ends = {t.name for t in (*unit.region.results, *unit.region.arguments)}
    made = sorted((op for op in ops if op.type != "Identity"), key=lambda op: -op._id)
    inner = [t for op in made for t in op.outputs if t.name not in ends and t.dtype in CONTINUOUS]
    reductions = tuple(t for t in inner if t.op.type in _REDUCTIONS)
    return [(t,) for t in inner[:_TERMS]] + ([reductions] if len(reductions) > 1 else [])


def _term(unit: Unit, held: tuple[Any, ...]) -> Likeness:
    assert unit.region is not None
    made = [place_of(t.op, t.op.name) for t in held]
    shown = [f"{m.op_type} '{m.op}'" + (f" (line {m.line}, `{m.source}`)" if m.source else "") for m in made]
    product = any(op.type.startswith(_FACTORS) and op.name in unit.region.inside for op in held[0].consumers())
    what = "one term of a product is missing" if product and len(held) == 1 else "a term is missing"
    return Likeness(f"{what}: the gradient treats as constant what {' and '.join(shown)} give{'s' * (len(held) == 1)}")
