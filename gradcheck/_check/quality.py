"""What else a gradient must be: repeatable, linear in the cotangent, and precise in its own dtype."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck._check import entries
from gradcheck._check.findings import finding, position
from gradcheck._check.scatter import native_errors, nearby_runs, rounded_off, rounded_runs, rounding_of_gradients
from gradcheck._check.work import Work, eps_of, once_more
from gradcheck._derivatives.analytic import Gradient
from gradcheck._derivatives.point import Reals, from_reals
from gradcheck._numerics.directions import blocks
from gradcheck._results import Finding, Verdict

Pair = tuple[int, int]
_NARROW_NOISE = 0.5  # of a gradient's size: what a narrower dtype inside may do to it
_SAMPLES = 8  # runs from which a gradient's own rounding, or its conditioning, is measured
_PLAIN, _PLAIN_ENTRY = 2.0**-6, 2.0**-3  # of a large gradient; of an entry, which one rectifier may turn
_FITTING = 256.0  # roundings: what is further apart may differ from run to run
_STEADY = 3.0  # standard deviations of eight errors; of rounding alone, one mean in 10,000 is so far from 0
_LUCK = 1e-3  # of what rounding may do to a gradient: what is off by less was not rounded so
_NOISE_FACTOR = 8.0  # times the largest scatter among them


def unstable(work: Work, findings: dict[Pair, Finding]) -> None:
    """Outputs or gradients that differ between two runs at the same point."""
    jitter = work.movers[0].jitter if work.movers else np.zeros(sum(v.size for v in work.values))
    for a, cotangents in enumerate(work.cotangents):
        first, last = work.span(a)
        moved = float(np.max(jitter[first:last], initial=0.0))
        size = float(np.max(np.abs(work.values[a]), initial=0.0))
        eps = eps_of(work.traced.graph.outputs[work.traced.outputs[a].returns[0]].dtype.name)
        again = cotangents.again
        if again is None and not all(_is_plainly_linear(work, a, x) for x in range(len(cotangents.native))):
            again = once_more(work, a)
        precise: list[Gradient] | None = None
        for x, gradient in enumerate(cotangents.native):
            if (a, x) in findings:
                continue
            other = None if again is None else again[x].value
            gap, scale = (0.0, 0.0) if gradient.value is None or other is None else _apart(gradient.value[0], other[0])
            apart = gap > 1e3 * eps_of(work.dtype(x)) * scale
            if apart and precise is None:
                precise = once_more(work, a, wide=True)
            if moved > 1e3 * eps * size:
                findings[a, x] = _differs(
                    work, a, x, f"two runs of the function at the same point differ by {moved:.1e}"
                )
            elif apart and precise is not None and not _is_cancelled(work, a, x, precise[x].value):
                findings[a, x] = _differs(work, a, x, f"two runs of the gradient at the same point differ by {gap:.1e}")
            elif moved or gap:
                work.notes.append(
                    f"two runs differ by {max(moved, gap):.1e}, which is rounding: sums are taken in varying order"
                )


def _is_cancelled(work: Work, a: int, x: int, again: Reals | None) -> bool:
    """Whether two runs of a gradient in float64 differ by no more than rounding of what cancels on the way to it.

    Such is the gradient of a bias before a batch normalization: it is 0, and sums of large terms show the order in
    which threads took them.
    """
    first = work.cotangents[a].wide[x].value
    if first is None or again is None:
        return False
    gap = float(np.max(np.abs(again[0] - first[0]) * _scale(work, x), initial=0.0))
    return gap <= 1e3 * eps_of("float64") * (_magnitude(work, a) + float(np.max(work.reach(a))))


def _is_plainly_linear(work: Work, a: int, x: int) -> bool:
    """Whether runs with different cotangents fit together: then runs with the same one do."""
    gap, own = _departed(work, a, x)
    return gap <= _FITTING * work.cotangents[a].tried_eps * own


def _apart(one: Reals, other: Reals) -> tuple[float, float]:
    """How far two vectors are apart, and how large the first is, at most."""
    gap = scale = 0.0
    for part in blocks(one.size):
        gap = max(gap, float(np.max(np.abs(other[part] - one[part]))))
        scale = max(scale, float(np.max(np.abs(one[part]))))
    return gap, scale


def _differs(work: Work, a: int, x: int, reason: str) -> Finding:
    return finding(
        work, a, x, Verdict.NONDETERMINISTIC, reason=reason,
        advice="make the function repeatable: pass seeds, draw random numbers with TensorFlow's ops (those are held), "
        "keep Python state out of tf.py_function and tf.numpy_function",
    )  # fmt: skip


def nonlinear(work: Work, findings: dict[Pair, Finding]) -> None:
    """Gradients that are not linear in the cotangent, such as one that forgot its upstream factor."""
    for a, cotangents in enumerate(work.cotangents):
        c = len(cotangents.weights)
        for x, values in enumerate(cotangents.tried):
            if (a, x) in findings or values is None or not values.size:
                continue
            eps = cotangents.tried_eps
            gap, own = _departed(work, a, x)
            # A gradient that is truly zero is rounding alone, of the size of what was cancelled on the way to it.
            cancelled = 1e3 * eps * (_magnitude(work, a) + float(np.max(work.reach(a))))
            if gap > max(np.sqrt(eps) * own, cancelled) and gap > 1e3 * eps * _swing(work, a, x):
                expected = cotangents.combined @ values[:c]
                terms = np.abs(cotangents.combined) @ np.abs(values[:c])
                entry = _least_explained(work, a, x, np.abs(values[c] - expected))
                if entry is None:
                    continue
                index, part = position(work, x, entry)
                factors = ", ".join(f"{f:g}" for f in cotangents.combined)
                findings[a, x] = finding(
                    work, a, x, Verdict.MISMATCH, index=index, part=part, analytic=float(values[c][entry]),
                    numeric=float(expected[entry]),
                    allowed=float(np.sqrt(eps) * np.max(terms)),
                    reason="the gradient is not linear in the cotangent (grad_ys): for the combination "
                    f"({factors}) of cotangents it is not that combination of gradients; "
                    "what linearity asks for is another value",
                    hint="the upstream gradient is ignored, or used other than as a factor",
                )  # fmt: skip


def _departed(work: Work, a: int, x: int) -> tuple[float, float]:
    """How far a gradient is from linear in the cotangent, and the size of what is combined, at most."""
    if (a, x) not in work.departures:
        values, found = work.cotangents[a].tried[x], (0.0, 0.0)
        if values is not None and values.size:
            found = _departure(work.cotangents[a].combined, values, _scale(work, x))
        work.departures[a, x] = found
    return work.departures[a, x]


def _departure(factors: Reals, values: Reals, scale: Reals | float) -> tuple[float, float]:
    """How far the last row is from the combination of the others, and the size of what is combined, at most."""
    gap = own = 0.0
    for part in blocks(values.shape[1]):
        rows, last = values[:-1, part], values[-1, part]
        unit = scale if isinstance(scale, float) else scale[part]
        terms = np.maximum(np.abs(factors) @ np.abs(rows), np.abs(last))
        gap = max(gap, float(np.max(np.abs(last - factors @ rows) * unit)))
        own = max(own, float(np.max(terms * unit)))
    return gap, own


def _least_explained(work: Work, a: int, x: int, gaps: Reals) -> int | None:
    """The entry whose departure from linearity rounding explains least; None where it explains all of them."""
    cotangents = work.cotangents[a]
    combined = (cotangents.combined @ cotangents.weights)[None]
    rounding = rounded_off(work, a, np.concatenate([cotangents.weights, combined]))[x]
    if rounding is None:
        return int(np.argmax(gaps))
    beyond = gaps - np.abs(cotangents.combined) @ rounding[:-1] - rounding[-1]
    return int(np.argmax(beyond)) if beyond.max() > 0 else None


def _swing(work: Work, a: int, x: int) -> float:
    """How far the output swings with an x, for the cotangent that makes most of it: what may cancel inside."""
    found = work.mover_of(x)
    if found is None:
        return 0.0
    mover, place = found
    return float(np.max(np.linalg.norm(work.full_weights(a) * mover.swing(place), axis=1), initial=0.0))


def _scale(work: Work, x: int) -> Reals | float:
    located = work.mover_of(x)
    return located[0].scales[located[1]] if located is not None else 1.0


def _magnitude(work: Work, a: int) -> float:
    return float(np.max(np.linalg.norm(work.cotangents[a].weights * work.values[a], axis=1), initial=0.0))


def cotangent_values(work: Work, a: int) -> dict[str, Any]:
    """The first cotangent of an output as values for the program's arguments."""
    output = work.traced.outputs[a]
    result, first = {}, 0
    for name, shape, r in zip(output.cotangents, work.shapes[a], output.returns, strict=True):
        dtype = work.traced.graph.outputs[r].dtype.as_numpy_dtype
        n = int(np.prod(shape)) * (2 if np.dtype(dtype).kind == "c" else 1)
        result[name] = from_reals(work.cotangents[a].weights[0, first : first + n], shape, dtype)
        first += n
    return result


# ---------------------------------------------------------------------------------- in the function's own dtype


def rounded_away(work: Work, pairs: Sequence[Pair], findings: dict[Pair, Finding]) -> None:
    """Compare each gradient in its own narrow dtype with the one of the float64 twin, entry by entry.

    The twin's gradient agreed with the numeric one; what is left between the two must be rounding. That is measured, by
    a twin that rounds at random, and so scatters where the narrow gradient is imprecise; a defect does not scatter.
    """
    if not work.point.narrow:
        return
    for a in sorted({p[0] for p in pairs}):
        xs = [p[1] for p in pairs if p[0] == a and not _is_plainly_rounding(work, *p)]
        xs = _beyond_narrow_noise(work, a, xs)
        gaps = {x: _gap(work, a, x) for x in xs}
        if not any((gap > allowed).any() for gap, allowed in gaps.values()):
            continue
        rounding, conditioning = _rounding(work, a), _conditioning(work, a)
        for x in xs:
            own, exact = rounding[x], conditioning[x]
            if own is not None and exact is not None:
                found = _beyond_rounding(work, a, x, *gaps[x], own, exact)
                if found is not None:
                    findings[a, x] = found


def _is_plainly_rounding(work: Work, a: int, x: int) -> bool:
    """Whether a large gradient is so near to that of the twin that what is left need not be measured.

    Measuring takes sixteen more gradients. In deep networks rounding also decides some rectifiers otherwise.
    """
    located = work.mover_of(x)
    native, wide = work.cotangents[a].native[x].value, work.cotangents[a].wide[x].value
    if located is None or not located[0].large or native is None or wide is None or not wide.size:
        return False
    cancelled = 64 * eps_of(work.dtype(x)) * (_magnitude(work, a) + float(np.max(work.reach(a))))
    typical, scales = entries.rms(wide[0]), located[0].scales[located[1]]
    apart = allowed = 0.0
    for part in blocks(wide.shape[1]):
        gap, size, unit = np.abs(native[0, part] - wide[0, part]), np.abs(wide[0, part]), cancelled / scales[part]
        if not np.all(gap <= np.maximum(_PLAIN_ENTRY * np.maximum(size, typical), unit)):
            return False
        apart += float(np.sum(np.square(gap)))
        allowed += float(np.sum(np.square(np.maximum(_PLAIN * size, unit))))
    return apart <= allowed


def _beyond_narrow_noise(work: Work, a: int, xs: Sequence[int]) -> list[int]:
    """Those of some xs whose gradient is off by more than what becomes of it in a dtype narrower than its own.

    In mixed precision sums are taken in the narrow dtype, absorb terms, and decide maxima otherwise: that changes
    entries as a defect would, and no other formula for the gradient would help. Only its size tells.
    """
    rest, worst = [], (0.0, -1)
    for x in xs:
        native, wide = work.cotangents[a].native[x].value, work.cotangents[a].wide[x].value
        if work.spacing <= eps_of(work.dtype(x)) or native is None or wide is None:
            rest.append(x)
            continue
        size, gap = float(np.linalg.norm(wide[0])), float(np.linalg.norm(native[0] - wide[0]))
        cancelled = 8 * work.spacing * (_magnitude(work, a) + float(np.max(work.reach(a))))
        if gap > _NARROW_NOISE * size and float(np.linalg.norm((native[0] - wide[0]) * _scale(work, x))) > cancelled:
            rest.append(x)
        elif size:
            worst = max(worst, (gap / size, x))
    if worst[0] > work.spacing:
        work.notes.append(
            f"inside, the function computes in {work.narrowest}: that puts gradients off by up to {worst[0]:.2g} of "
            f"their size (of {work.traced.sources[worst[1]].path})"
        )
    return rest


def _gap(work: Work, a: int, x: int) -> tuple[Reals, Reals]:
    """How far the native gradient is from the twin's, and what plain rounding allows, per entry."""
    native, wide = work.cotangents[a].native[x].value, work.cotangents[a].wide[x].value
    if native is None or wide is None or not wide.size:
        return np.zeros(0), np.zeros(0)
    eps = eps_of(work.dtype(x))
    typical = float(np.sqrt(np.mean(wide[0] ** 2)))
    relative = work.options.rtol or 4 * eps
    smallest = 0.0 if work.dtype(x) in ("float64", "complex128") else float(tiny(work.dtype(x)))
    return np.abs(native[0] - wide[0]), relative * np.abs(wide[0]) + 4 * eps * typical + smallest


def tiny(dtype: str) -> float:
    """The least normal number of a dtype: results below it have lost digits to underflow."""
    return {"float16": 2.0**-14, "bfloat16": 2.0**-126}.get(dtype, 2.0**-126)


def _rounding(work: Work, a: int) -> list[Reals | None]:
    """Per x, how far the gradient scatters when every op rounds at random as its own dtype would, per entry."""
    seeds = range(work.options.seed, work.options.seed + _SAMPLES)
    runs = rounded_runs(work, a, work.cotangents[a].weights[:1], seeds)
    return _spread_of(work, a, [[None if g.value is None else g.value[0] for g in run] for run in runs])


def _conditioning(work: Work, a: int) -> list[Reals | None]:
    """Per x, how far the exact gradient moves among points a few units of rounding away, per entry."""
    rng = np.random.default_rng(work.options.seed)
    runs = nearby_runs(work, a, work.cotangents[a].weights[:1], rng, _SAMPLES)
    return _spread_of(work, a, [[None if g.value is None else g.value[0] for g in run] for run in runs])


def _spread_of(work: Work, a: int, runs: list[list[Reals | None]]) -> list[Reals | None]:
    spreads: list[Reals | None] = []
    for x, base in enumerate(work.cotangents[a].wide):
        gaps = [np.abs(run[x] - base.value[0]) for run in runs if run[x] is not None and base.value is not None]
        spreads.append(np.max(gaps, axis=0) if gaps else None)
    return spreads


def _is_steady(work: Work, a: int, x: int, size: int) -> NDArray[np.bool_]:
    """Per entry, whether a native gradient is off by the same at points nearby.

    A defect is; what kernels round inside, where a sum of thousands of terms cancels, is another error at each. Twins
    that round at random do not hear that.
    """
    errors = native_errors(work, a, work.cotangents[a].weights[:1], _SAMPLES)[x]
    if errors is None:  # none could be compared
        return np.ones(size, np.bool_)
    center, spread = errors[:, 0].mean(0), errors[:, 0].std(0, ddof=1)
    steady: NDArray[np.bool_] = np.abs(center) > _STEADY * spread
    return steady


def _least_eps(work: Work) -> float:
    return max(eps_of(s.dtype.name) for s in work.traced.sources)


def _is_nothing(work: Work, a: int, x: int) -> bool:
    """Whether the exact gradient is zero: its terms cancel to what float64 rounds, as those of a narrow one may too."""
    wide, rounding = work.cotangents[a].wide[x].value, rounding_of_gradients(work, a)[x]
    return wide is None or rounding is None or bool(np.linalg.norm(wide[0]) <= np.linalg.norm(rounding[0]))


def _absorbed(work: Work, a: int, x: int) -> Reals | float:
    """Per entry, what rounding inside a fused op may take from a gradient: of the size of what the output swings by.

    The gradient of a cross-entropy, say, is the difference of a probability and 1, and no better than a rounding of 1.
    """
    located = work.mover_of(x)
    if located is None:
        return 0.0
    mover, place = located
    swing = float(np.linalg.norm(work.full_weights(a)[0] * mover.swing(place)))
    absorbed: Reals = 4 * eps_of(work.dtype(x)) * swing / mover.scales[place]
    return absorbed


def _beyond_rounding(
    work: Work, a: int, x: int, gap: Reals, allowed: Reals, own: Reals, exact: Reals
) -> Finding | None:
    """A finding where the gap is more than rounding, or rounding has eaten more than half of the digits."""
    if not gap.size:
        return None
    dtype = work.dtype(x)
    native, wide = work.cotangents[a].native[x].value, work.cotangents[a].wide[x].value
    if native is None or wide is None:
        return None
    absorbed = _absorbed(work, a, x)
    limit = allowed + _NOISE_FACTOR * np.maximum(own, exact) + absorbed
    beyond = np.flatnonzero(gap > limit)
    if beyond.size:
        beyond = beyond[_is_steady(work, a, x, gap.size)[beyond]]
    # Half of the digits of the narrowest dtype inside: more it cannot be asked for.
    size, floor = float(np.linalg.norm(wide[0])), max(eps_of(dtype), work.spacing)
    # What it may be off by, not only what it happens to be off by here.
    seen = np.maximum(np.maximum(gap - absorbed, 0.0), own)
    lost = float(np.linalg.norm(seen))
    cancelled = 64 * floor * (_magnitude(work, a) + float(np.max(work.reach(a))))
    scaled = float(np.linalg.norm(seen * _scale(work, x)))
    eaten = lost > np.sqrt(floor) * size and float(np.linalg.norm(exact)) < 0.1 * lost and scaled > cancelled
    # Where random rounding decides what true rounding does not, such as a floor of whole numbers, it tells of too much.
    eaten = eaten and float(np.linalg.norm(gap)) > _LUCK * lost
    if not beyond.size and (not eaten or _is_nothing(work, a, x)):
        return None
    entry = int(beyond[np.argmax((gap / np.maximum(limit, 1e-300))[beyond])]) if beyond.size else int(np.argmax(gap))
    index, part = position(work, x, entry)
    measured = entries.compare_some(work, a, x, 0, np.array([entry]))
    mover, place = entries.located(work, x)
    unit = float(mover.scales[place][entry])
    reason = (
        f"the gradient is right in float64 and wrong in {dtype}, by more than its rounding"
        if beyond.size
        else f"the gradient has lost more than half of its digits in {dtype}: "
        f"{lost / size if size else np.inf:.1e} of its size, where the function itself is well conditioned"
    )
    return replace(
        finding(work, a, x, Verdict.MISMATCH),
        index=index, part=part, analytic=float(native[0][entry]), numeric=float(measured.numeric[0, 0]) / unit,
        error=float(measured.error[0, 0]) / unit, allowed=float(limit[entry] if beyond.size else allowed[entry]),
        points=int(measured.points[0, 0]), order=int(measured.order[0, 0]), wrong=int(beyond.size) or gap.size,
        reason=reason,
        advice="compute this gradient by a formula without cancellation, or in float64",
    )  # fmt: skip
