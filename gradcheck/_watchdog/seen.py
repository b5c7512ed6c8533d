"""What one run of a watched step showed, in whichever way it ran."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradcheck._report.nonfinite import Range
from gradcheck._report.trip import Layer, Step
from gradcheck._watchdog.again import Again


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one run showed.

    Attributes:
        result: What the step returned.
        healthy: Whether everything was finite. If not, nothing that the step wrote is left.
        describe: Describes the step, when asked.
        found: What was not finite.
        again: Runs the step again to find the op.
        units: For each rectifier, by its layer, which of its units gave something; nothing where that is not known.
        scale: The scale of a LossScaleOptimizer behind the step, if there is one.
    """

    result: Any
    healthy: bool
    describe: Callable[[], Step]
    found: Callable[[], tuple[Range, ...]]
    again: Callable[[], Again]
    units: Callable[[], Mapping[str, Any]] = dict
    scale: Sequence[float] = ()


def layer(name: str, norm: float, low: float, high: float, size: float) -> Layer:
    """The change of a variable whose norm was `size` before."""
    return Layer(name=name, norm=norm, low=low, high=high, ratio=norm / size if size > 0 else math.inf)


def scalar(value: Any) -> float:
    """A NumPy scalar as a float; of a complex one the magnitude."""
    return float(abs(value)) if value.dtype.kind == "c" else float(value)
