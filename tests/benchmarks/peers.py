"""Other gradient checkers on the same functions: time, evaluations, memory, and what each catches.

Each library runs in a process of its own, one after the other; `pip install --group peers` brings those that gradcheck
does not need. One that is not installed is left out and said so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .outcome import Outcome
from .outcome import text_of as text_of

ROOT = Path(__file__).parents[2]
_PEERS = {"tensorflow": "of_tensorflow", "torch": "of_torch", "jax": "of_jax"}
_OURS = "gradcheck auto"


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """Five functions at three sizes, then defects of several sizes; with `quick` the small ones and the largest."""
    speed: list[dict[str, Any]] = []
    power: list[dict[str, Any]] = []
    absent = []
    for library, module in _PEERS.items():
        if find_spec(library) is None:
            absent.append(library)
            continue
        found = _measured(module, seed, quick=quick)
        speed += found["speed"]
        power += found["power"]
    rows = [_speed_row(row, speed) for row in sorted(speed, key=lambda r: (r["problem"], r["entries"]))]
    rows += [_power_row(row) for row in sorted(power, key=lambda r: (r["dtype"], r["defect"]))]
    ours = [row for row in power if row["way"].startswith("gradcheck")]
    ok = all(row["not_ok"] == (row["tries"] if row["defect"] else 0) for row in ours)
    return Outcome(
        name="peers",
        columns=("function", "by", "cold s", "warm s", "warm, of ours", "evaluations", "MB", "not ok"),
        rows=tuple(rows),
        summary="peers: " + "; ".join(_summary(power)) + f"; left out, not installed: {', '.join(absent) or 'none'}",
        ok=ok,
        figures={"speed": speed, "power": power, "absent": absent},
    )


def _measured(module: str, seed: int, *, quick: bool) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.beside.{module}", str(seed), str(quick)],
        cwd=ROOT, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True, check=False,
        timeout=7200,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{module}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _speed_row(row: dict[str, Any], every: list[dict[str, Any]]) -> tuple[Any, ...]:
    ours = next(r for r in every if (r["problem"], r["size"], r["way"]) == (row["problem"], row["size"], _OURS))
    return (
        f"{row['problem']}, {row['entries']} entries", row["way"], row["cold"], row["warm"], row["warm"] / ours["warm"],
        row["evaluations"], row["megabytes"], "" if row["ok"] else "NOT OK",
    )  # fmt: skip


def _power_row(row: dict[str, Any]) -> tuple[Any, ...]:
    what = f"1 of 1000 entries wrong by {row['defect']:g}" if row["defect"] else "nothing wrong"
    return (f"{what}, {row['dtype']}", row["way"], "", "", "", "", "", f"{row['not_ok']} of {row['tries']}")


def _summary(power: list[dict[str, Any]]) -> list[str]:
    found = []
    for way in dict.fromkeys(row["way"] for row in power):
        of = [row for row in power if row["way"] == way]
        caught = [row for row in of if row["defect"]]
        alarms = [row for row in of if not row["defect"]]
        found.append(
            f"{way} {sum(r['not_ok'] for r in caught)} of {sum(r['tries'] for r in caught)} defects, "
            f"{sum(r['not_ok'] for r in alarms)} false alarms in {sum(r['tries'] for r in alarms)}"
        )
    return found
