"""Pictures of reports, drawn by matplotlib."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradcheck._report.optimizer import OptimizerReport

_MOST_VARIABLES = 6  # drawn; those furthest apart in units of what is allowed


def plot_trajectories(report: OptimizerReport, path: str | os.PathLike[str]) -> None:
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
        if any(number > 0 for number in (*v.differences, *v.allowed)):
            right.set_yscale("log")
        right.set(title=f"{v.variable}: difference", xlabel="step")
        right.legend()
    figure.savefig(path)


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
