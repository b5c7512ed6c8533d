"""The planted faults of `watchdog` under a watchdog, `tf.debugging.enable_check_numerics`, and `TerminateOnNaN`.

Of each: whether the bad step is noticed, whether an op that may be named is named, and whether weights, slots and
metrics have the bits of before. `TerminateOnNaN` looks at the loss that a step returns, as it does in `fit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.watched.faults import PLANTED
from tests.watched.planting import Planted, answer, bits

from .outcome import Outcome
from .outcome import text_of as text_of

QUICK = slice(None, None, 6)
COLUMNS = ("by", "bad step noticed, no healthy one", "op named", "weights, slots, metrics kept")


@dataclass(frozen=True, slots=True)
class Found:
    """What one guard made of one fault."""

    noticed: bool
    named: bool
    kept: bool


def run(*, quick: bool = False, seed: int = 0) -> Outcome:
    """All faults, or a sixth of them; nothing depends on the seed."""
    faults = PLANTED[QUICK] if quick else PLANTED
    found = {by: [guard(fault) for fault in faults] for by, guard in GUARDS.items()}
    rows = [
        (by, *(f"{sum(getattr(one, name) for one in of)} of {len(of)}" for name in Found.__slots__))
        for by, of in found.items()
    ]
    ours = found["gradcheck Watchdog"]
    return Outcome(
        name="trips",
        columns=COLUMNS,
        rows=tuple(rows),
        summary="trips: " + "; ".join(f"{row[0]} noticed {row[1]}, named {row[2]}, kept {row[3]}" for row in rows),
        ok=all(one == Found(True, True, True) for one in ours),
        figures={by: [one.noticed for one in of] for by, of in found.items()},
    )


def _watchdog(fault: Planted) -> Found:
    said = answer(fault)
    return Found(said.tripped, said.op, said.kept)


def _check_numerics(fault: Planted) -> Found:
    return _tried(fault, _with_checks)


def _terminate(fault: Planted) -> Found:
    return _tried(fault, lambda step: "" if _is_finite(step()) else "Invalid loss, terminating training")


def _is_finite(loss: Any) -> bool:
    """Whether all numbers that a step returns are finite; of a step in replicas, those of each."""
    parts = [part for part in tf.nest.flatten(loss, expand_composites=True) if isinstance(part, tf.Tensor)]
    return all(bool(np.isfinite(part.numpy()).all()) for part in parts if part.dtype.is_floating)


def _with_checks(step: Callable[[], object]) -> str:
    tf.debugging.enable_check_numerics()
    try:
        step()
    except Exception as error:  # where it cannot put what it found into words, it ends in an error of another kind
        return f"{type(error).__name__}: {error}"
    finally:
        tf.debugging.disable_check_numerics()
    return ""


def _tried(fault: Planted, guarded: Callable[[Callable[[], Any]], str]) -> Found:
    """Two healthy steps and the bad one, each run by `guarded`, which gives what is said of it."""
    keras.utils.set_random_seed(1)
    trial = fault.make()
    early = [guarded(lambda: trial.step(*trial.good)) for _ in range(2)]
    state = [each for each in trial.state if not isinstance(each, tf.random.Generator)]
    before = bits(state)
    said = guarded(lambda: trial.step(*trial.bad))
    named = any(f'"{op}"' in said for op in fault.ops)
    return Found(bool(said) and not any(early), named, bits(state) == before)


GUARDS: dict[str, Callable[[Planted], Found]] = {
    "gradcheck Watchdog": _watchdog,
    "enable_check_numerics": _check_numerics,
    "TerminateOnNaN": _terminate,
}
