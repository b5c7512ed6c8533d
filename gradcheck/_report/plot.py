"""Pictures of reports, drawn by matplotlib."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from gradcheck._report.optimizer import OptimizerReport
    from gradcheck._results import Taylor

Target = str | os.PathLike[str] | BinaryIO  # a file that opens for writing takes a PNG
_MOST_VARIABLES = 6  # drawn; those furthest apart in units of what is allowed


def plot_trajectories(report: OptimizerReport, target: Target) -> None:
    """A row of two axes per variable: the two trajectories of one entry, and how far the variable is apart."""
    figure_class = _matplotlib()
    drawn = sorted(report.variables, key=lambda v: -v.excess)[:_MOST_VARIABLES]
    figure = figure_class(figsize=(10.0, 0.6 + 2.8 * len(drawn)), layout="constrained")
    figure.suptitle("\n".join(_shortened(name) for name in (report.optimizer, report.reference)), fontsize="medium")
    axes = figure.subplots(len(drawn), 2, squeeze=False)
    for v, (left, right) in zip(drawn, axes, strict=True):
        left.plot(range(len(v.optimizer)), v.optimizer, label="optimizer")
        left.plot(range(len(v.reference)), v.reference, "--", label="reference")
        left.set(title=v.variable, xlabel="step", ylabel="weight")
        left.legend()
        steps = range(1, len(v.differences) + 1)
        right.plot(steps, v.differences, label="largest difference")
        right.plot(steps, v.allowed, ":", label="allowed by rounding")
        if _has_logarithms((*v.differences, *v.allowed)):
            right.set_yscale("log")
        right.set(title=f"{v.variable}: difference{' in float64' if v.in_float64 else ''}", xlabel="step")
        right.legend()
    figure.savefig(target)


def plot_taylor(taylor: Taylor, target: Target) -> None:
    """The effect of a step and what the gradient leaves of it, by the size of the step, beside slopes 1 and 2."""
    figure = _matplotlib()(figsize=(6.0, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(taylor.steps, taylor.change, "o-", label="change of the output")
    axes.plot(taylor.steps, taylor.remainder, "s-", label="remainder: without the gradient's share")
    axes.set_xscale("log")
    if _has_logarithms((*taylor.change, *taylor.remainder)):
        axes.set_yscale("log")
    largest = max(range(len(taylor.steps)), key=taylor.steps.__getitem__)
    start, first = taylor.steps[largest], taylor.remainder[largest]
    if math.isfinite(first) and first > 0:
        for power, style in ((1, ":"), (2, "--")):
            line = [first * (step / start) ** power for step in taylor.steps]
            axes.plot(taylor.steps, line, style, color="gray", label=f"shrinks as step^{power}")
    axes.set(title=_shortened(f"d {taylor.y} / d {taylor.x}"), xlabel="step, in units of the scale of the input")
    axes.legend()
    figure.savefig(target)


def _has_logarithms(numbers: Iterable[float]) -> bool:
    return any(0.0 < number < math.inf for number in numbers)


def _matplotlib() -> Any:
    try:
        from matplotlib.figure import Figure  # drawn without pyplot, which would open a backend
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise ImportError(
            "a plot needs matplotlib, and there is none in this environment. Type\n"
            '  pip install "gradcheck[plots]"\n'
            "or install matplotlib itself.",
            name="matplotlib",
        ) from error
    return Figure


def _shortened(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:97]}..."
