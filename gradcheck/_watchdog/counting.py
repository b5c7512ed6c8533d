"""Steps that guards count and keep within graphs, which call Python only where something is found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from gradcheck._graph.together import Together
from gradcheck._report.trip import Step
from gradcheck._watchdog.ledger import KEPT, Ledger
from gradcheck._watchdog.looked import Looked

_STOPPED = np.iinfo(np.int64).min // 2  # as the number of a step: below zero for as long as anything counts


class Counting:
    """The count of one watchdog, on which each new trace of a step goes on.

    Args:
        ledger: Of the watchdog.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._counts: dict[int, Any] = {}
        self._rings: dict[Any, Ring] = {}

    def number(self, replica: int) -> Any:
        """In a graph: the number of the step that runs, below zero where training was told to stop."""
        if replica not in self._counts:
            with tf.init_scope():  # a graph holds its variables weakly
                self._counts[replica] = _variable(tf.constant(self._ledger.steps, tf.int64), "gradcheck_steps")
        return self._counts[replica].assign_add(1, read_value=True)

    def ring(self, looked: Looked, together: Together) -> Ring:
        """Where the last steps of a guard are kept."""
        key = (looked.caller, looked.names, together.layout)
        if key not in self._rings:
            with tf.init_scope():
                self._rings[key] = Ring(looked, together)
        return self._rings[key]

    def look(self) -> None:
        """Tell the ledger how many steps there were."""
        number = int(self._counts[0]) if 0 in self._counts else 0
        if number > self._ledger.steps:
            steps = sorted((each for ring in self._rings.values() for each in ring.steps(number)), key=_number)
            self._ledger.catch_up(number, [describe for _, describe in steps])

    def forget(self) -> None:
        """Begin anew."""
        for count in self._counts.values():
            count.assign(0)
        for ring in self._rings.values():
            ring.forget()

    def stop(self) -> None:
        """Hold further steps back."""
        for count in self._counts.values():
            count.assign(_STOPPED)


class Ring:
    """What the last steps of one guard showed."""

    def __init__(self, looked: Looked, together: Together) -> None:
        self._looked = looked
        self._together = together
        self._numbers = _variable(tf.zeros([KEPT], tf.int64), "gradcheck_numbers")
        self._rows = [_variable(tf.zeros([KEPT, *row.shape], row.dtype), "gradcheck_norms") for row in together.rows]

    def keep(self, number: Any, together: Together) -> list[Any]:
        """In a graph: the ops that keep a step."""
        pairs = zip([self._numbers, *self._rows], [number, *together.rows], strict=True)
        at = number % KEPT
        return [tf.raw_ops.ResourceScatterUpdate(resource=v.handle, indices=at, updates=row) for v, row in pairs]

    def steps(self, last: int) -> list[tuple[int, Callable[[], Step]]]:
        """The steps that are kept, up to the given one, by their numbers."""
        rows = [row.numpy() for row in self._rows]
        numbers = sorted(n for n in self._numbers.numpy().tolist() if max(0, last - KEPT) < n <= last)
        return [(n, partial(self._described, n, [row[n % KEPT] for row in rows])) for n in numbers]

    def forget(self) -> None:
        """Begin anew."""
        self._numbers.assign(tf.zeros_like(self._numbers))

    def _described(self, number: int, rows: list[Any]) -> Step:
        return self._looked.step(number, self._together.amounts(rows))


def _number(kept: tuple[int, Any]) -> int:
    return kept[0]


def _variable(value: Any, name: str) -> Any:
    # Not tf.Variable, which a tf.function lets itself make in its first trace only.
    return ResourceVariable(value, trainable=False, name=name)
