"""The finding on a pair that disagrees: which entries are wrong, and by how much."""

from __future__ import annotations

import numpy as np

from gradcheck._check import entries
from gradcheck._check.entries import Wrong
from gradcheck._check.findings import from_comparison
from gradcheck._check.judge import Comparison, Outcome, constant_factor
from gradcheck._check.pictures import with_map
from gradcheck._check.work import Work
from gradcheck._results import Finding

_ONE_BY_ONE = 2048  # so many groups are measured one by one; more entries are found by halving
_AT_ONCE = 5e7  # entries computed when each group is moved once: some seconds in all
_SAMPLE = 32  # entries, looked at first where all cost more


def name_wrong(work: Work, a: int, x: int, c: int) -> Finding | None:
    """Search one x for wrong entries; None where each entry alone is right."""
    located = work.mover_of(x)
    if located is None:
        return None
    if not work.options.all_named and (apart := entries.clearly_apart(work, a, x, c)) is not None:
        return from_comparison(work, a, x, apart, (0, 0))
    mover, place = located
    scheme = work.plan(mover, place)
    if scheme.groups * work.effort > _AT_ONCE:
        sample = entries.mostly_wrong(work, a, x, c, _SAMPLE)
        if sample is not None:
            return report_wrong(work, a, x, c, sample)
    if scheme.groups <= _ONE_BY_ONE:
        return conclude(work, a, x, c, entries.compare_entries(work, a, x, c, scheme))
    wrong = entries.halve(work, a, x, c)
    if wrong is None:
        return None
    return with_map(report_wrong(work, a, x, c, wrong), work, x, wrong.entries, wrong.comparison)


def name_beside_kinks(work: Work, a: int, x: int, c: int) -> Finding | None:
    """Wrong entries that a kink along all directions hid: those where the function is smooth; None where none are."""
    if work.mover_of(x) is None:
        return None
    wrong = entries.halve(work, a, x, c, smooth=True)
    if wrong is None:
        return None
    return with_map(report_wrong(work, a, x, c, wrong), work, x, wrong.entries, wrong.comparison)


def conclude(work: Work, a: int, x: int, c: int, comparison: Comparison) -> Finding:
    """The finding from a comparison of all entries, shape [1, n]."""
    wrong = np.flatnonzero(comparison.outcome[0] == Outcome.APART)
    if wrong.size:
        found = report_wrong(work, a, x, c, Wrong(entries=wrong, comparison=comparison.columns(wrong)))
    else:
        at = comparison.worst()
        found = _at(work, a, x, c, comparison, at, at[1])
    return with_map(found, work, x, np.arange(comparison.outcome.size), comparison)


def report_wrong(work: Work, a: int, x: int, c: int, wrong: Wrong) -> Finding:
    """The finding that names the worst of some wrong entries."""
    at = wrong.comparison.worst()
    entry = int(wrong.entries[at[1]])
    if wrong.comparison.outcome[at] == Outcome.KINK_WITHIN:
        return _at(work, a, x, c, wrong.comparison, at, entry)
    return _at(
        work, a, x, c, wrong.comparison, at, entry, wrong=len(wrong.entries), more_wrong=wrong.more,
        hint=constant_factor(wrong.comparison, single=work.traced.sources[x].shape in ((), (1,))),
    )  # fmt: skip


def _at(
    work: Work, a: int, x: int, c: int, comparison: Comparison, at: tuple[int, ...], entry: int, *, wrong: int = 0,
    more_wrong: bool = False, hint: str | None = None,
) -> Finding:  # fmt: skip
    mover, place = entries.located(work, x)
    native = work.cotangents[a].native[x].value
    return from_comparison(
        work, a, x, comparison, at, entry=entry, unit=float(mover.scales[place][entry]),
        native=float(native[c][entry]) if native is not None and work.point.narrow else None,
        wrong=wrong, more_wrong=more_wrong, hint=hint,
    )  # fmt: skip
