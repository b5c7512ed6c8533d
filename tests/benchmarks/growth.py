"""How checking grows with the number of parameters: time, evaluations and memory, from 1e3 to 1e8 float64 entries.

Other checkers are asked until they take more than 60 seconds, and all until ten times the memory that they took is more
than there is. What has to hold is that the directional mode finds the right gradient right at every size, with
evaluations that do not grow.
"""

from __future__ import annotations

import os
from typing import Any

from .beside.libraries import MARK, absent, ways
from .outcome import Outcome
from .outcome import text_of as text_of
from .progress import progress

OURS = "gradcheck directional"
LIMIT = 60.0  # seconds that others may take at a size
LARGE = 10**7  # entries from which on a process is ended after it has answered, because it keeps its memory


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """All sizes; with `quick` up to 1e5."""
    rows: list[tuple[Any, ...]] = []
    figures: dict[str, list[dict[str, Any]]] = {}
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
    powers = range(3, 6 if quick else 9)
    with ways() as every:
        given_up: dict[str, str] = {}
        for power in powers:
            for way in every:
                if way.name in given_up:
                    continue
                limit = float("inf") if way.name.startswith(MARK) else LIMIT
                try:
                    found = way.ask("grow", limit=limit, entries=10**power, seed=seed)
                    took = f"> {LIMIT:g}"
                except RuntimeError:  # the system ended it, as it does where memory is out
                    found, took = None, "ended"
                    way.end()
                if found is None:
                    rows.append((f"1e{power}", way.name, took, None, None, ""))
                    given_up[way.name] = f"{way.name} at 1e{power}"
                    continue
                progress(f"growth: 1e{power}, {way.name}, {found['seconds']:.1f} s, {found['megabytes']} MB")
                figures.setdefault(way.name, []).append({"entries": 10**power, **found})
                rows.append((f"1e{power}", way.name, found["seconds"], found["evaluations"], found["megabytes"],
                             "right" if found["ok"] else "WRONG"))  # fmt: skip
                if found["megabytes"] * 10 > memory and power < powers[-1]:
                    given_up[way.name] = f"{way.name} for memory from 1e{power + 1} on"
                if 10**power >= LARGE:
                    way.end()
    ours = figures[OURS]
    evaluations = [one["evaluations"] for one in ours]
    return Outcome(
        name="growth",
        columns=("entries", "by", "seconds", "evaluations", "MB", "says"),
        rows=tuple(rows),
        summary=f"growth: {OURS} with {', '.join(map(str, evaluations))} evaluations; "
        f"given up: {', '.join(given_up.values()) or 'none'}; {absent()}",
        ok=all(one["ok"] for one in ours) and max(evaluations) <= evaluations[0] and len(ours) == len(powers),
        figures=figures,
    )
