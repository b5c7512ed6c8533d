"""Random programs of `gradcheck.strategies`: right ones are ok, wrong ones are caught, and blamed on what is wrong."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

import gradcheck
from gradcheck import strategies

from .outcome import Outcome, first_lines
from .outcome import text_of as text_of

_SHOWN = 5


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """Check 1,000 right and 1,000 wrong programs, of float64 and float32; `quick`: 50 of each."""
    count = 50 if quick else 1000
    verdicts: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    failures: list[str] = []
    found = Counter[str]()

    def check(program: Any, wrong: bool) -> None:
        report = gradcheck.check_gradients(program, program.inputs)
        verdicts[wrong][report.verdict.name] += 1
        found["caught" if wrong else "ok"] += wrong != report.ok
        blamed = wrong and _blames(report, program.wrong)
        found["blamed"] += blamed
        if (wrong == report.ok or wrong != blamed) and len(failures) < _SHOWN:
            failures.append(f"{program}\n{first_lines(str(report))}")

    dtypes = st.sampled_from(["float64", "float32"])
    options = settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    for wrong in (False, True):
        drawn = given(strategies.programs(wrong=wrong, dtype=dtypes), st.just(wrong))
        seeded(seed)(options(drawn(check)))()
    rows = tuple(
        (name, sum(verdicts[wrong].values()), ", ".join(f"{v} {n}" for v, n in verdicts[wrong].most_common()))
        for name, wrong in (("right", False), ("wrong", True))
    )
    right, bad = rows[0][1], rows[1][1]
    return Outcome(
        name="programs",
        columns=("programs", "drawn", "verdicts"),
        rows=rows,
        summary=f"{found['ok']} of {right} right programs ok, {found['caught']} of {bad} wrong ones caught, "
        f"{found['blamed']} of them blamed on the custom gradient that is wrong",
        ok=found["ok"] == right and found["caught"] == found["blamed"] == bad,
        figures={"right": right, "wrong": bad, **found},
        details=tuple(failures),
    )


def _blames(report: gradcheck.GradientReport, helper: str) -> bool:
    """Whether the worst finding names the helper as the op at fault, or as where the gradient ends."""
    worst = report.worst
    places = [worst.blame, worst.cut.place if worst.cut else None] if worst else []
    return any(helper in f"{place.op} {place.source}" for place in places if place is not None)
