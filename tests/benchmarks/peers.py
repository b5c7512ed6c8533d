"""Other gradient checkers on the same functions: time, evaluations and memory.

Each library runs in a process of its own and is asked in turns. Time decides nothing; what has to hold is that every
checker finds these right gradients right.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from .beside.libraries import OURS, absent, ways
from .beside.problems import SIZES, problems
from .outcome import Outcome
from .outcome import text_of as text_of

WARM = 5
LONG = 20.0  # seconds after which a check is not repeated


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """Five functions at three sizes; with `quick` the small ones."""
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    with ways() as every:
        for problem in problems(seed, SIZES[:1] if quick else SIZES):
            asked = {"problem": problem.name, "size": problem.size, "seed": seed}
            taken = found[problem.name, problem.size] = {way.name: way.ask("time", **asked) for way in every}
            seconds: dict[str, list[float]] = {}
            for _ in range(1 if quick else WARM):
                for way in every:
                    if taken[way.name]["seconds"] < LONG:
                        seconds.setdefault(way.name, []).append(way.ask("time", **asked)["seconds"])
            for name, one in taken.items():
                one["warm"] = median(seconds.get(name, [one["seconds"]]))
    rows = [_row(name, way, taken) for (name, _), taken in sorted(found.items()) for way in taken]
    wrong = [f"{name}, {size}, by {way}" for (name, size), t in found.items() for way in t if not t[way]["ok"]]
    return Outcome(
        name="peers",
        columns=("function", "entries", "by", "cold s", "of ours", "warm s", "of ours", "evaluations", "MB"),
        rows=tuple(rows),
        summary=f"peers: {_ratios(list(found.values()))}; found wrong: {', '.join(wrong) or 'none'}; {absent()}",
        ok=not any("gradcheck auto" in w or "gradcheck directional" in w for w in wrong),
        figures={f"{name}, {size}": taken for (name, size), taken in found.items()},
    )


def _row(name: str, way: str, taken: dict[str, dict[str, Any]]) -> tuple[Any, ...]:
    one, ours = taken[way], taken[OURS]
    return (name, one["entries"], way, one["seconds"], one["seconds"] / ours["seconds"], one["warm"],
            one["warm"] / ours["warm"], one["evaluations"], one["megabytes"])  # fmt: skip


def _ratios(found: list[dict[str, dict[str, Any]]]) -> str:
    """Medians over the functions."""
    said = []
    for way in found[0]:
        if way != OURS:
            cold, warm = (median(t[way][what] / t[OURS][what] for t in found) for what in ("seconds", "warm"))
            said.append(f"{way} {cold:.2g} cold, {warm:.2g} warm")
    return f"time of {OURS} is 1 beside {', '.join(said)} (medians)"
