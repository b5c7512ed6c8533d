"""What gradient checkers catch: gradients that are wrong in known ways, and right ones that must be left in peace.

A checker catches a defect where it says that the gradient is wrong, or ends in an error; either is a false alarm where
nothing is wrong; no answer within 60 seconds counts as failed. All have their own defaults in float64; in narrow dtypes
JAX has defaults by dtype, and the others get steps and tolerances that let plain functions pass
(`tests/benchmarks/beside`). Checkers that look at every entry, as PyTorch's fast mode does where it disagrees, are left
out at 100,000 entries, and at 1,000 of a second derivative; PyTorch's where autograd itself puts a defect right. Each
case is asked of all in turns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .beside.libraries import MARK, Way, absent, ways
from .beside.planted import DEFECTS, FUNCTIONS
from .beside.seeded import CASES, SIZES, UNITS
from .outcome import Outcome
from .outcome import text_of as text_of
from .progress import progress

# Up to how many entries, by order, checkers go that look at every entry; PyTorch's fast mode does where it disagrees.
ENTRYWISE = {
    "tf.test.compute_gradient": {1: 1000, 2: 10},
    "torch gradcheck slow": {1: 1000, 2: 10},
    "torch gradcheck fast": {1: 1000, 2: 10},
}
ROUNDS = 2  # of planted entries, each in all functions
LIMIT = 60.0  # seconds after which a check is stopped and counts as failed
HELD = "stop_gradient, not meant"  # a tf.stop_gradient is held, and listed as held, whatever was meant


@dataclass(frozen=True, slots=True)
class Tried:
    """One case and what one checker said."""

    way: str
    group: str
    kind: str
    entries: int
    dtype: str
    wrong: bool
    flagged: bool
    error: str | None


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """All; with `quick` ten entries in float64 and float32, and the largest planted defects."""
    with ways() as every:
        names = [way.name for way in every]
        tried = [*_seeded(every, seed, quick=quick), *_planted(every, seed, quick=quick)]
    return outcome_of(names, tried)


def outcome_of(names: list[str], tried: list[Tried]) -> Outcome:
    """Counts by kind, then of the seeded set by dtype and size."""
    labelled: dict[str, list[Tried]] = {}
    for t in tried:
        labelled.setdefault(t.kind, []).append(t)
    for t in sorted((t for t in tried if t.group == "seeded"), key=_place):
        whole = f"all kinds, {'wrong' if t.wrong else 'right'}"
        for label in (whole, f"{whole}, {t.dtype}", f"{whole}, {t.dtype}, {t.entries:,} entries"):
            labelled.setdefault(label, []).append(t)
    missed = [t for t in tried if t.way.startswith(MARK) and t.flagged != t.wrong and t.kind != HELD]
    return Outcome(
        name="catches",
        columns=("found wrong", *names),
        rows=tuple(_row(label, those, names) for label, those in labelled.items()),
        summary=f"catches: {'; '.join(_total(tried, name) for name in names)}; {absent()}",
        ok=not missed,
        figures={"tried": [{name: getattr(t, name) for name in Tried.__slots__} for t in tried]},
        details=tuple(f"  {t.way}: {t.kind}, {t.entries} entries, {t.dtype}: {t.error or t.flagged}" for t in missed),
    )


def _place(t: Tried) -> tuple[bool, int, int]:
    return (not t.wrong, list(UNITS).index(t.dtype), t.entries)


def _seeded(every: list[Way], seed: int, *, quick: bool) -> Iterable[Tried]:
    for case in CASES:
        progress(f"catches: {case.name}")
        for entries in (10,) if quick else SIZES:
            for dtype in list(UNITS)[:2] if quick else UNITS:
                if not case.exists(entries, dtype):
                    continue
                for way in every:
                    if way.name == "gradcheck directional" or case.name in way.mended:
                        continue
                    if way.name in ENTRYWISE and entries > ENTRYWISE[way.name][case.order]:
                        continue
                    asked = {"kind": case.name, "entries": entries, "dtype": dtype, "seed": seed}
                    yield _tried(way, "seeded", asked, case.name, entries, dtype, case.wrong)


def _planted(every: list[Way], seed: int, *, quick: bool) -> Iterable[Tried]:
    for dtype, defects in DEFECTS.items():
        for defect in defects[-1:] if quick else (0.0, *defects):
            kind = f"one of 1,000 wrong by {defect:g}, {dtype}" if defect else f"none of 1,000 wrong, {dtype}"
            progress(f"catches: {kind}")
            for k in range(1 if quick else ROUNDS):
                for function in FUNCTIONS:
                    for way in every:
                        asked = {"function": function, "defect": defect, "dtype": dtype, "seed": seed + k}
                        yield _tried(way, "planted", asked, kind, 1000, dtype, bool(defect))


def _tried(way: Way, group: str, asked: dict[str, Any], kind: str, entries: int, dtype: str, wrong: bool) -> Tried:
    said = way.ask(group, limit=LIMIT, **asked) or {"ok": wrong, "error": f"no answer within {LIMIT:g} s"}
    return Tried(way.name, group, kind, entries, dtype, wrong, not said["ok"], said["error"])


def _row(label: str, those: list[Tried], names: list[str]) -> tuple[Any, ...]:
    counts = Counter(t.way for t in those)
    flagged = Counter(t.way for t in those if t.flagged)
    return (label, *(f"{flagged[name]} of {counts[name]}" if counts[name] else "" for name in names))


def _total(tried: list[Tried], name: str) -> str:
    own = [t for t in tried if t.way == name]
    wrong, right = [t for t in own if t.wrong], [t for t in own if not t.wrong]
    return (
        f"{name} caught {sum(t.flagged for t in wrong)} of {len(wrong)}, "
        f"{sum(t.flagged for t in right)} false alarms in {len(right)}"
    )
