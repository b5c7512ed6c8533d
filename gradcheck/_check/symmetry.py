"""The symmetry of second derivatives, which asks for no differences."""

from __future__ import annotations

import numpy as np

from gradcheck._check.options import Options
from gradcheck._check.work import Work, begin
from gradcheck._derivatives.analytic import analytic
from gradcheck._derivatives.point import Reals
from gradcheck._graph.trace import Traced
from gradcheck._results import EVERY_INPUT, Finding, Verdict


def asymmetry(traced: Traced, options: Options) -> Finding | None:
    """A finding where the Hessian H is not symmetric: u.Hv is not v.Hu for two random directions; else None.

    Args:
        traced: A function whose outputs are the gradients with respect to its sources.
        options: Of the check.

    By Schwarz's theorem second derivatives that are continuous do not depend on the order of the variables.
    """
    with np.errstate(all="ignore"):
        work = begin(traced, options)
        belongs = _sources(traced)
        if any(x is None or np.prod(traced.sources[x].shape) == 0 for x in belongs):
            return None
        sizes = [int(np.prod(s.shape)) * (2 if s.dtype.is_complex else 1) for s in traced.sources]
        u, v = ([work.rng.normal(size=n) for n in sizes] for _ in range(2))
        there, terms = _product(work, belongs, u, v)
        back, others = _product(work, belongs, v, u)
    allowed = float(np.sqrt(work.gradient_eps)) * max(terms, others)
    if not np.isfinite(there - back) or abs(there - back) <= allowed:
        return None
    return Finding(
        verdict=Verdict.MISMATCH,
        ok=False,
        y=" and ".join(output.path for output in traced.outputs),
        x=EVERY_INPUT,
        analytic=there,
        numeric=back,
        allowed=allowed,
        dtype=work.dtype(0),
        reason="the second derivatives are not symmetric: for random directions u and v, u.Hv is another number than "
        "v.Hu, which is what is asked for",
    )


def _sources(traced: Traced) -> list[int | None]:
    """For each output, the position of the source that it is the gradient with respect to."""
    at = {source.path: x for x, source in enumerate(traced.sources)}
    return [at.get(output.path.rpartition(" w.r.t. ")[2]) for output in traced.outputs]


def _product(work: Work, belongs: list[int | None], left: list[Reals], right: list[Reals]) -> tuple[float, float]:
    """left.H right, from the gradients of the gradients along `left`; and the size of what is added."""
    total = size = 0.0
    for a, x in enumerate(belongs):
        assert x is not None
        for gradient, along in zip(
            analytic(work.point, a, left[x][None], work.shapes[a], wide=True), right, strict=True
        ):
            if gradient.value is not None:
                total += float(gradient.value[0] @ along)
                size += float(np.abs(gradient.value[0]) @ np.abs(along))
    return total, size
