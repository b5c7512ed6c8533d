"""Faults planted in trainings, found through the watchdog; and healthy trainings, in which it must be silent.

Of each fault: tripped at the bad step and at no other, the right op, line and cause, and every bit of weights, slots,
metrics and generators as before the step. Of each healthy training: no trip, and no early warning.
"""

from __future__ import annotations

from typing import Any

from tests.watched.faults import PLANTED
from tests.watched.healthy import TRAININGS, health
from tests.watched.planting import answer

from .outcome import Outcome
from .outcome import text_of as text_of

SCORES = ("tripped", "op", "line", "cause", "kept", "hidden")
QUICK = slice(None, None, 6)


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """All faults and trainings, or a sixth of them; nothing depends on the seed."""
    part = QUICK if quick else slice(None)
    answers = [answer(fault) for fault in PLANTED[part]]
    healths = [health(training) for training in TRAININGS[part]]
    rows: list[tuple[Any, ...]] = [
        (score, sum(getattr(a, score) for a in answers), len(answers)) for score in SCORES if score != "hidden"
    ]
    hidden = sum(f.hidden for f in PLANTED[part])
    rows.append(("of them hidden from TerminateOnNaN", hidden, hidden - sum(not a.hidden for a in answers)))
    rows.append(("healthy trainings without a trip", sum(not h.trips for h in healths), len(healths)))
    rows.append(("healthy trainings without a warning", sum(not h.warnings for h in healths), len(healths)))
    failed = [a for a in answers if not a.ok]
    ill = [h for h in healths if not h.ok]
    return Outcome(
        name="watchdog",
        columns=("what", "right", "of"),
        rows=tuple(rows),
        summary=f"watchdog: {len(answers) - len(failed)} of {len(answers)} faults answered right in all respects, "
        f"{len(healths) - len(ill)} of {len(healths)} healthy trainings left in peace",
        ok=not failed and not ill,
        figures={"faults": len(answers), "failed": [a.name for a in failed], "ill": [h.name for h in ill]},
        details=(*(a.text for a in failed), *(str(h) for h in ill)),
    )
