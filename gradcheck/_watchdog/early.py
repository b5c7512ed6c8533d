"""Signs that a training is about to go wrong, read from the norms of its last steps."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

import numpy as np

from gradcheck._report.trip import Layer, Step

PATIENCE = 20  # steps in a row
EXPLODING = 1e3  # times the median norm of the steps before, and growing
GROWING = 3  # steps in a row
VANISHING = 1e-12  # change over variable: below half a unit of rounding even in float64 over hundreds of steps
DEAD = 0.5  # of a rectifier's units


class EarlyWarnings:
    """Looks at each step and says once for each variable what it sees.

    Three rules for each variable by itself. *exploding*: its change grew for 3 steps in a row, and is 1000 times
    the median of the 20 steps before. *vanishing*: for 20 steps its change was above zero, and below 1e-12 of its norm.
    *unchanged*: for 20 steps its change was zero, while another variable changed. And one for each rectifier. *dead*:
    at least half of its units gave 0 for all of the batch, in each of 20 steps.
    """

    def __init__(self) -> None:
        self._norms: dict[str, deque[float]] = {}
        self._small: dict[tuple[str, str], int] = {}
        self._silent: dict[str, Any] = {}  # for each unit of a rectifier, how many steps in a row it gave nothing
        self._said: set[tuple[str, str]] = set()

    def look(self, step: Step, units: Mapping[str, Any]) -> list[str]:
        """What is new to say after this step, as lines for a log.

        Args:
            step: The step.
            units: For each rectifier, by its layer, which of its units gave something, bool of shape [units].
        """
        moving = any(layer.norm > 0 for layer in step.layers)
        found = [
            (rule, f"variable={layer.name}", text) for layer in step.layers for rule, text in self._rules(layer, moving)
        ]
        found += [("dead", f"layer={name}", text) for name, gave in units.items() for text in self._dead(name, gave)]
        lines = []
        for rule, whose, text in found:
            if (rule, whose) not in self._said:
                self._said.add((rule, whose))
                lines.append(f"early warning rule={rule} step={step.number} {whose}: {text}")
        return lines

    def _dead(self, name: str, gave: Any) -> Iterator[str]:
        self._silent[name] = silent = np.where(gave, 0, self._silent.get(name, 0) + 1)
        dead = int(np.sum(silent >= PATIENCE))
        if dead >= DEAD * silent.size:
            yield f"{dead} of its {silent.size} units have given 0 for all of each batch, for {PATIENCE} steps"

    def _rules(self, layer: Layer, moving: bool) -> Iterator[tuple[str, str]]:
        norms = self._norms.setdefault(layer.name, deque(maxlen=PATIENCE + GROWING))
        norms.append(layer.norm)
        before, last = list(norms)[:-GROWING], list(norms)[-GROWING - 1 :]
        usual = median(before) if len(before) == PATIENCE else math.inf
        if usual > 0 and layer.norm > EXPLODING * usual and all(a < b for a, b in itertools.pairwise(last)):
            yield "exploding", f"its change is {layer.norm:.3g}, {layer.norm / usual:.0f} times the usual {usual:.3g}"
        vanishes = layer.ratio is not None and 0 < layer.ratio < VANISHING
        if self._lasts("vanishing", layer, vanishes):
            yield "vanishing", f"its change is {layer.ratio:.3g} of its norm, for {PATIENCE} steps"
        if self._lasts("unchanged", layer, moving and layer.norm == 0):
            yield "unchanged", f"it has not changed for {PATIENCE} steps"

    def _lasts(self, rule: str, layer: Layer, seen: bool) -> bool:
        count = self._small.get((rule, layer.name), 0) + 1 if seen else 0
        self._small[rule, layer.name] = count
        return count >= PATIENCE
