"""The order of a check: run, differentiate, measure, compare, name what is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from gradcheck._check import directional, quality, thorough
from gradcheck._check.blame import blame
from gradcheck._check.findings import finding, position
from gradcheck._check.options import Options
from gradcheck._check.pictures import remainders
from gradcheck._check.unconnected import without_gradient, zero_where_it_moves
from gradcheck._check.work import Work, begin, differentiate_outputs
from gradcheck._derivatives.point import as_reals
from gradcheck._diagnose.nonfinite import of_values
from gradcheck._graph.evaluate import offering_batches
from gradcheck._graph.functions import python_state_kept
from gradcheck._graph.provenance import place_of
from gradcheck._graph.raised import lines_noted
from gradcheck._graph.trace import Traced
from gradcheck._report.nonfinite import NonfiniteReport
from gradcheck._results import Finding, Taylor, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What came out of one check."""

    findings: tuple[Finding, ...]
    mode: str
    notes: tuple[str, ...]
    unpromoted: tuple[str, ...]
    evaluations: int
    gradients: int
    taylor: Taylor | None = None


def run(traced: Traced, options: Options, *, blaming: bool = True) -> Checked:
    """Check every pair of output and x of a traced function, and name the op at fault if `blaming`."""
    with np.errstate(all="ignore"), python_state_kept(), lines_noted(traced.graph, traced.name):
        return _run(traced, options, blaming)


def _alone(traced: Traced, options: Options) -> tuple[Finding, ...]:
    return run(traced, options, blaming=False).findings


def _run(traced: Traced, options: Options, blaming: bool) -> Checked:
    _refuse_nonfinite_inputs(traced)
    work = begin(traced, options)
    findings: dict[tuple[int, int], Finding] = {}
    pairs = [(a, x) for a in range(len(traced.outputs)) for x in range(len(traced.sources))]
    _nonfinite_outputs(work, findings)
    mode = options.mode
    if len(findings) < len(pairs):
        differentiate_outputs(work)
        _faults(work, findings)
        quality.unstable(work, findings)
        quality.nonlinear(work, findings)
        for a, x in pairs:
            if (a, x) not in findings:
                absent = without_gradient(work, a, x)
                if absent is not None:
                    findings[a, x] = absent
        rest = [p for p in pairs if p not in findings]
        mode = thorough.choose_mode(work, rest)
        if mode != "jacobian":
            directional.check(work, rest, findings, mode)
        if mode != "directional":
            thorough.check(work, rest, findings, mode)
        for pair in rest:
            findings[pair] = zero_where_it_moves(work, *pair, findings[pair])
        quality.rounded_away(
            work, [p for p in rest if findings[p].ok or findings[p].verdict is Verdict.INCONCLUSIVE], findings
        )
    elif mode == "auto":
        mode = "directional"
    taylor = None
    if blaming:
        with offering_batches(None):  # ops alone are small: sending them away costs more than running them
            blame(traced, options, findings, _alone)
            taylor = remainders(work, findings)
    return Checked(
        findings=tuple(findings[p] for p in pairs),
        mode=mode,
        notes=(*traced.notes, *dict.fromkeys(work.notes)),
        unpromoted=work.point.unpromoted,
        evaluations=work.point.evaluations,
        gradients=work.point.gradients,
        taylor=taylor,
    )


def _refuse_nonfinite_inputs(traced: Traced) -> None:
    names = {s.argument: s.path for s in traced.sources if s.argument is not None}
    for argument, value in traced.values.items():
        dtype = getattr(value, "dtype", None)
        if dtype is None or getattr(dtype, "name", str(dtype)) in ("resource", "variant", "string"):
            continue
        array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
        if argument not in names or array.dtype.kind in "iub" or (array.dtype.kind == "f" and np.isfinite(array).all()):
            continue
        finite = np.isfinite(as_reals(array))
        if not finite.all():
            raise ValueError(
                f"{names[argument]} must be finite where a gradient is checked; found NaN or infinity in "
                f"{int(np.sum(~finite))} of {finite.size} entries; pass a point at which the function has a derivative"
            )


def _nonfinite_outputs(work: Work, findings: dict[tuple[int, int], Finding]) -> None:
    for a, (value, own) in enumerate(zip(work.values, work.native_values, strict=True)):
        bad = int(np.sum(~np.isfinite(value) | ~np.isfinite(own)))
        if bad:
            output = work.traced.outputs[a]
            born = of_values(work.traced, output.returns, [output.path] * len(output.returns), {})
            for x in range(len(work.traced.sources)):
                findings[a, x] = _nonfinite(
                    work, a, x, f"{bad} of {value.size} values of {output.path} are NaN or infinite", born
                )


def _nonfinite(work: Work, a: int, x: int, reason: str, born: NonfiniteReport) -> Finding:
    return finding(work, a, x, Verdict.NONFINITE, reason=reason, blame=born.place, hint=born.hint)


def _faults(work: Work, findings: dict[tuple[int, int], Finding]) -> None:
    """Gradients of a wrong shape or dtype, and gradients that are not finite."""
    for a, cotangents in enumerate(work.cotangents):
        output = work.traced.outputs[a]
        for x, gradient in enumerate(cotangents.native):
            if (a, x) in findings:
                continue
            if gradient.fault is not None:
                fault = output.faults.get(x)
                blame = place_of(fault.op, fault.op.name) if fault else None
                findings[a, x] = finding(work, a, x, Verdict.MISMATCH, reason=gradient.fault, blame=blame)
            elif gradient.value is not None and not np.all(np.isfinite(gradient.value)):
                bad = np.flatnonzero(~np.isfinite(gradient.value).all(axis=0))
                values = quality.cotangent_values(work, a)
                positions = output.sliced[x] or ()
                born = of_values(work.traced, positions, ["gradient"] * len(positions), values)
                entries = gradient.value.shape[1]
                reason = f"{len(bad)} of {entries} entries of the gradient are NaN or infinite; the output is finite"
                index, part = position(work, x, int(bad[0]))
                value = float(gradient.value[~np.isfinite(gradient.value[:, bad[0]]), bad[0]][0])
                value = (
                    math.nan if math.isnan(value) else value
                )  # one object, so that findings stay equal to themselves
                findings[a, x] = replace(_nonfinite(work, a, x, reason, born), index=index, part=part, analytic=value)
