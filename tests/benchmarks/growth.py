"""How checking grows with the number of parameters: time, evaluations and memory, from 1e3 to 1e8 float64 entries.

A checker is left out from the size on that it would take too long for. What has to hold is that the directional mode
finds the right gradient right at every size, with evaluations that do not grow.
"""

from __future__ import annotations

from typing import Any

from .beside.libraries import absent, ways
from .outcome import Outcome
from .outcome import text_of as text_of

OURS = "gradcheck directional"
LONG = 15.0  # seconds at a size, after which larger ones, ten times as long, are left out
LARGE = 1500.0  # megabytes likewise


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """All sizes; with `quick` up to 1e5."""
    rows: list[tuple[Any, ...]] = []
    figures: dict[str, list[dict[str, Any]]] = {}
    with ways() as every:
        given_up: dict[str, str] = {}
        for power in range(3, 6 if quick else 9):
            for way in every:
                if way.name in given_up:
                    continue
                found = way.ask("grow", entries=10**power, seed=seed)
                figures.setdefault(way.name, []).append({"entries": 10**power, **found})
                rows.append((f"1e{power}", way.name, found["seconds"], found["evaluations"], found["megabytes"],
                             "right" if found["ok"] else "WRONG"))  # fmt: skip
                if found["seconds"] > LONG or found["megabytes"] > LARGE:
                    given_up[way.name] = f"{way.name} from 1e{power + 1} on"
    ours = figures[OURS]
    evaluations = [one["evaluations"] for one in ours]
    return Outcome(
        name="growth",
        columns=("entries", "by", "seconds", "evaluations", "MB", "says"),
        rows=tuple(rows),
        summary=f"growth: {OURS} with {', '.join(map(str, evaluations))} evaluations; "
        f"left out for time or memory: {', '.join(given_up.values()) or 'none'}; {absent()}",
        ok=all(one["ok"] for one in ours) and max(evaluations) <= evaluations[0],
        figures=figures,
    )
