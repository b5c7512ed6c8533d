"""How often the true derivative lies within 10 x the stated error of the numeric one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gradcheck._check.entries import compare_entries
from gradcheck._check.options import SAFETY, options
from gradcheck._check.work import Work, begin, differentiate_outputs
from gradcheck._graph.functions import trace_function
from gradcheck._numerics.directions import rademacher

from .exact import arithmetic, real, reals
from .outcome import Outcome
from .outcome import text_of as text_of
from .smooth import COUPLED, SMOOTH, Coupled, Smooth, points

LEAST_SHARE = 0.999
MEDIAN = 1e-13
_DTYPES = (np.float64, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Numeric derivatives beside true ones, entry by entry."""

    name: str
    kind: str  # "scalar", "array", "direction"
    dtype: str
    seed: int
    x: Any
    numeric: Any
    error: Any
    true: Any
    evaluations: int

    @property
    def ratio(self) -> Any:
        """The distance to the truth in units of the stated error; inf where an error of 0 is wrong or unknown."""
        distance = np.abs(self.numeric - self.true)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(distance > 0, distance / self.error, 0.0)
        return np.where(np.isfinite(self.error) & np.isfinite(ratio), ratio, np.inf)

    @property
    def relative(self) -> Any:
        """Relative errors, where the truth is not 0."""
        some = self.true != 0
        return np.abs(self.numeric - self.true)[some] / np.abs(self.true[some])


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """Measure all functions: 30 points each and 30 arrays of 5 to 200 entries, or a tenth of that."""
    count = 3 if quick else 30
    found = list(_all(count, seed))
    rows = []
    for kind in ("scalar", "array", "direction"):
        for dtype in _DTYPES:
            some = [m for m in found if m.kind == kind and m.dtype == dtype.__name__]
            rows.append((kind, dtype.__name__, *_summed(some).values()))
    whole = _summed(found)
    missed = [(float(r), m, int(k)) for m in found for k, r in enumerate(m.ratio) if r > SAFETY]
    ok = whole["share"] >= LEAST_SHARE
    return Outcome(
        name="truth",
        columns=("inputs", "dtype", "functions", "derivatives", "share", "median", "p99", "worst ratio", "evaluations"),
        rows=tuple(rows),
        summary=f"truth: {100 * whole['share']:.3f} % of {whole['derivatives']} derivatives of "
        f"{whole['functions']} functions "
        f"within {SAFETY:g} x error (bound {100 * LEAST_SHARE:g} %), median relative error {whole['median']:.1e} "
        f"(target {MEDIAN:g}), worst {whole['worst ratio']:.2g} x error",
        ok=ok,
        figures=whole,
        details=tuple(_miss(*one) for one in sorted(missed, key=lambda m: -m[0])[:40]),
    )


def _summed(found: list[Measured]) -> dict[str, Any]:
    ratio = np.concatenate([m.ratio for m in found])
    relative = np.concatenate([m.relative for m in found])
    return {
        "functions": len({m.name for m in found}),
        "derivatives": len(ratio),
        "share": float(np.mean(ratio <= SAFETY)),
        "median": float(np.median(relative)),
        "p99": float(np.quantile(relative, 0.99)),
        "worst ratio": float(ratio.max()),
        "evaluations": float(np.median([m.evaluations for m in found])),
    }


def _miss(ratio: float, m: Measured, k: int) -> str:
    at = m.x[k].item().hex() if m.kind != "direction" else f"direction {k}"
    return (
        f"  missed: {m.name}, {m.kind} of {m.dtype}, seed {m.seed}, entry {k} of {len(m.true)}, x = {at}: "
        f"true {m.true[k]!r}, numeric {m.numeric[k]!r} ± {m.error[k]:.1e}: {ratio:.1f} x error"
    )


def _all(count: int, seed: int) -> Iterator[Measured]:
    for number, row in enumerate(SMOOTH):
        for dtype in _DTYPES:
            rng = np.random.default_rng([seed, number, 0])
            for k, x in enumerate(points(row, count, rng, dtype)):
                yield from _of_smooth(row, x, k, "scalar", rng)
            for k in range(count):
                yield from _of_smooth(row, points(row, _length(rng), rng, dtype), k, "array", rng)
    for number, coupled in enumerate(COUPLED):
        for dtype in _DTYPES:
            rng = np.random.default_rng([seed, number, 1])
            for k in range(count):
                yield from _of_coupled(coupled, rng.uniform(*coupled.domain, _length(rng)).astype(dtype), k, rng)


def _length(rng: np.random.Generator) -> int:
    return round(float(np.exp(rng.uniform(np.log(5), np.log(200)))))


def _weights(shape: Any, dtype: Any, rng: np.random.Generator) -> Any:
    return (rng.uniform(0.5, 2.0, shape) * rng.choice([-1.0, 1.0], shape)).astype(dtype)


def _of_smooth(row: Smooth, x: Any, seed: int, kind: str, rng: np.random.Generator) -> Iterator[Measured]:
    m, flat = arithmetic(), np.atleast_1d(x)
    weights = _weights(np.shape(x), x.dtype, rng)
    rounded = [real(np.asarray(c, x.dtype)) for c in row.constants]
    true = [w * row.derivative(m, v, *rounded) for v, w in zip(reals(flat), reals(np.atleast_1d(weights)), strict=True)]
    fn = _with_constants(row)
    yield from measure(row.name, fn, x, weights, true, seed, kind)


@cache  # the same function object again is not traced and compiled again
def _with_constants(row: Smooth) -> Callable[[Any], Any]:
    return lambda x: row.fn(x, *row.constants)


def _of_coupled(row: Coupled, x: Any, seed: int, rng: np.random.Generator) -> Iterator[Measured]:
    weights = _weights(() if row.scalar else x.shape, x.dtype, rng)
    true = row.gradient(arithmetic(), reals(x), reals(np.atleast_1d(weights)))
    yield from measure(row.name, row.fn, x, weights, true, seed, "array")


def measure(
    name: str, fn: Callable[[Any], Any], x: Any, weights: Any, true: Any, seed: int, kind: str
) -> Iterator[Measured]:
    """The library's own numeric side, entry by entry and, for an array, along four random directions."""
    work = begin(trace_function(fn, [np.asarray(x)], grad_ys=weights, name=name), options(seed=seed))
    differentiate_outputs(work)
    located = work.mover_of(0)
    if located is None:
        raise ValueError(f"{name} does not depend on its input")
    mover, place = located
    scales, shared = mover.scales[place], {"name": name, "dtype": x.dtype.name, "seed": seed, "x": np.atleast_1d(x)}
    before = work.point.evaluations
    entries = compare_entries(work, 0, 0, 0, work.plan(mover, place))
    yield Measured(
        **shared, kind=kind, numeric=entries.numeric[0] / scales, error=entries.error[0] / scales,
        true=np.array([float(t) for t in true]), evaluations=work.point.evaluations - before,
    )  # fmt: skip
    if kind == "array":
        yield _along(work, shared, true)


def _along(work: Work, shared: dict[str, Any], true: Any) -> Measured:
    mover, place = work.mover_of(0) or (work.movers[0], 0)
    gradient, weights = work.cotangents[0].wide[0].value, work.full_weights(0)[0]
    moved = rademacher(np.random.default_rng(shared["seed"]), (4, mover.base[place].size)) * mover.scales[place]
    size = float(np.linalg.norm(gradient[0] * mover.scales[place]))
    magnitude = float(np.linalg.norm(weights * mover.outputs))
    before = work.point.evaluations
    found = mover.derivatives(
        lambda groups: [moved[groups]], 4, reduce=lambda samples, _: (samples @ weights)[:, :, None],
        target=1e-12 * size, argument_noise=0.5 * mover.eps * (magnitude + float(work.reach(0)[0])),
    )  # fmt: skip
    sums = [float(sum(t * step for t, step in zip(true, reals(row), strict=True))) for row in moved]
    return Measured(
        **shared, kind="direction", numeric=found.value[:, 0], error=found.error[:, 0], true=np.array(sums),
        evaluations=work.point.evaluations - before,
    )  # fmt: skip
