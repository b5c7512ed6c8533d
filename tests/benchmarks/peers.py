"""Other gradient checkers on the same functions: time, evaluations and memory.

Each checker runs in a process of its own and is asked in turns: first with a new function (cold), then with the same
one again (warm: the median of up to five, of as many as take 10 seconds; one that takes longer than that is asked
once, one that takes longer than 60 seconds is stopped). Time decides nothing; what has to hold is that gradcheck finds
these right gradients right.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from .beside.libraries import MARK, OURS, Way, absent, ways
from .beside.problems import SIZES, Problem, problems
from .outcome import Outcome
from .outcome import text_of as text_of
from .progress import progress

WARM, REPEATED = 5, 10.0  # repeats, and seconds that those of one checker may take together
LIMIT = 60.0  # seconds after which a check is stopped


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """Five functions at three sizes; with `quick` the small ones, repeated once."""
    found: list[tuple[Problem, dict[str, dict[str, Any]]]] = []
    with ways() as every:
        for problem in problems(seed, SIZES[:1] if quick else SIZES):
            progress(f"peers: {problem.name}, {problem.size}")
            asked = {"problem": problem.name, "size": problem.size, "seed": seed}
            found.append((problem, _asked(every, asked, 1 if quick else WARM)))
    found.sort(key=lambda one: (one[0].name, one[0].entries))
    rows = [_row(problem, way, taken) for problem, taken in found for way in taken]
    wrong = [f"{p.name}, {p.size}, by {way}" for p, taken in found for way in taken if not taken[way]["ok"]]
    return Outcome(
        name="peers",
        columns=("function", "entries", "by", "cold s", "of ours", "warm s", "of ours", "evaluations", "MB"),
        rows=tuple(rows),
        summary=f"peers: {_ratios([taken for _, taken in found])}; found wrong: {', '.join(wrong) or 'none'}; "
        f"{absent()}",
        ok=not any(f"by {MARK}" in w for w in wrong),
        figures={f"{problem.name}, {problem.size}": taken for problem, taken in found},
    )


def _asked(every: list[Way], asked: dict[str, Any], rounds: int) -> dict[str, dict[str, Any]]:
    """Of each way its first answer, with the median of the seconds of later ones; without seconds if it was stopped."""
    first = {way.name: way.ask("time", limit=LIMIT, **asked) or {"ok": True} for way in every}
    later: dict[str, list[float]] = {name: [] for name in first}
    for k in range(1, rounds + 1):
        for way in every:
            if k * first[way.name].get("seconds", LIMIT) < REPEATED:
                again = way.ask("time", **asked)
                later[way.name] += [] if again is None else [again["seconds"]]
    return {name: {**one, "warm": median(later[name]) if later[name] else None} for name, one in first.items()}


def _row(problem: Problem, way: str, taken: dict[str, dict[str, Any]]) -> tuple[Any, ...]:
    one, ours = taken[way], taken[OURS]
    cold = (one["seconds"], _ratio(one, ours, "seconds")) if "seconds" in one else (f"> {LIMIT:g}", None)
    return (problem.name, problem.entries, way, *cold, one["warm"], _ratio(one, ours, "warm"), one.get("evaluations"),
            one.get("megabytes"))  # fmt: skip


def _ratio(one: dict[str, Any], ours: dict[str, Any], what: str) -> float | None:
    return one[what] / ours[what] if one.get(what) and ours.get(what) else None


def _ratios(found: list[dict[str, dict[str, Any]]]) -> str:
    """Medians over the functions."""
    said = []
    for way in found[0]:
        if way != OURS:
            ratios = [[_ratio(t[way], t[OURS], what) for t in found] for what in ("seconds", "warm")]
            cold, warm = (median(r for r in those if r is not None) for those in ratios)
            said.append(f"{way} {cold:.2g} cold, {warm:.2g} warm")
    return f"time of {OURS} is 1 beside {', '.join(said)} (medians of what was measured)"
