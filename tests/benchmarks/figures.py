"""Every number that the document prints, beside the one computed here."""

from __future__ import annotations

from typing import Any

from gradcheck import subjects

from .outcome import Outcome
from .outcome import text_of as text_of


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """Check every bundled subject; `quick` changes nothing, there are few."""
    del quick
    rows: list[tuple[Any, ...]] = []
    details = []
    for name in subjects.names():
        result = subjects.get(name).check(seed=seed)
        verdict = result.report.verdict.name
        rows += [(name, verdict, f.label, f.printed, f.computed, f.ok) for f in result.figures]
        if not result.figures:
            rows.append((name, verdict, "(prints none)", "", "", result.ok))
        if not result.report.ok:
            details.append(str(result.report))
    met = sum(bool(row[-1]) for row in rows)
    return Outcome(
        name="figures",
        columns=("subject", "verdict", "figure", "printed", "computed", "ok"),
        rows=tuple(rows),
        summary=f"figures: {met} of {len(rows)} as the document prints them; {len(details)} subjects not ok",
        ok=met == len(rows) and not details,
        figures={"rows": len(rows), "met": met, "subjects_not_ok": len(details)},
        details=tuple(details),
    )
