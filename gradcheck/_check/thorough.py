"""The thorough checks: every entry of every input, against one gradient or the whole Jacobian."""

from __future__ import annotations

from collections.abc import Sequence

from gradcheck._check import entries
from gradcheck._check.jacobian import analytic_rows, check_jacobian, row_reach
from gradcheck._check.naming import conclude
from gradcheck._check.work import Work
from gradcheck._results import Finding, Verdict

Pair = tuple[int, int]
_BUDGET = 1.0e9  # entries computed by all samples of an automatic check, about two seconds of one core
_MATRIX = 2**22  # entries of a Jacobian that an automatic check computes


def choose_mode(work: Work, pairs: Sequence[Pair]) -> str:
    """The mode asked for or, for "auto", the most thorough one that fits the budget.

    The budget counts entries and ops, not seconds, so that the same check chooses the same mode everywhere.
    """
    if work.options.mode != "auto":
        return work.options.mode
    xs = sorted({x for _, x in pairs})
    found = [one for one in map(work.mover_of, xs) if one is not None]
    if not found:
        return "elementwise"
    allowed = _BUDGET / work.effort
    n, m = sum(mover.base[place].size for mover, place in found), found[0][0].outputs.size
    groups = 0
    for mover, place in found:
        # Finding out which entries move together costs an evaluation per slice.
        if 8 * groups > allowed or (m > 1 and sum(work.traced.sources[mover.xs[place]].shape) > allowed):
            return "directional"
        groups += work.plan(mover, place).groups
    if 8 * groups > allowed:
        return "directional"
    return "jacobian" if m * n <= _MATRIX and 8 * groups + 3 * m <= allowed else "elementwise"


def check(work: Work, pairs: Sequence[Pair], findings: dict[Pair, Finding], mode: str) -> None:
    """Check every entry; findings already there are replaced where the thorough check says more."""
    for a in sorted({p[0] for p in pairs}):
        xs = [p[1] for p in pairs if p[0] == a]
        if mode == "jacobian":
            matrices = analytic_rows(work, a)
            reach = row_reach(work, matrices)
            findings.update({(a, x): check_jacobian(work, a, x, matrices[x], reach) for x in xs})
            continue
        for x in xs:
            scheme = work.plan(*entries.located(work, x))
            fine = conclude(work, a, x, 0, entries.compare_entries(work, a, x, 0, scheme))
            findings[a, x] = fine if work.point.narrow else _graver(findings[a, x], fine)


def _graver(coarse: Finding, fine: Finding) -> Finding:
    """The fine finding, unless the coarse one saw a disagreement that no single entry shows.

    A kink met along a random direction is many kinks at once; entry by entry is what counts there.
    """
    return coarse if coarse.verdict is Verdict.MISMATCH and fine.ok else fine
