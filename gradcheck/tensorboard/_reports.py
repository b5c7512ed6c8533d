"""Check reports, trips and comparisons of optimizers, as summary values."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from gradcheck._report.gradient import GradientReport
from gradcheck._report.markdown import (
    figures_markdown,
    gradient_markdown,
    indented,
    optimizer_markdown,
    text_markdown,
    trip_markdown,
)
from gradcheck._report.nonfinite import NonfiniteReport
from gradcheck._report.optimizer import OptimizerReport
from gradcheck._report.outcomes import Outcome
from gradcheck._report.plot import plot_taylor, plot_trajectories
from gradcheck._report.precision import PrecisionReport
from gradcheck._report.trip import TripReport
from gradcheck.tensorboard._pages import hparams
from gradcheck.tensorboard._pictures import draw_map, plotted
from gradcheck.tensorboard._sink import EventFile
from gradcheck.tensorboard._values import image, text
from gradcheck.tensorboard._wire import scalar

Report = GradientReport | NonfiniteReport | OptimizerReport | PrecisionReport | TripReport


def report_values(report: Report) -> list[Any]:
    """What TensorBoard shows of a report.

    Of a `GradientReport` the scalars `checks/worst_error/NAME` (in units of what is allowed: above 1 is wrong; NaN
    where nothing could be compared), `checks/evaluations/NAME` and `checks/seconds/NAME`, the text
    `checks/report/NAME`, and the pictures `checks/error_map/NAME/X` and `checks/taylor/NAME`. Of an `OptimizerReport`
    `optimizers/worst_error`, `optimizers/first_apart` (0 where never), `optimizers/report`, `optimizers/trajectories`
    and HParams. Of the others the text: `nonfinite/NAME`, `precision/NAME`, `trips/NAME`.

    Raises:
        TypeError: If it is no report.
    """
    if isinstance(report, GradientReport):
        return list(_gradient(report, report.name))
    if isinstance(report, OptimizerReport):
        return list(_optimizer(report))
    if isinstance(report, TripReport):
        return [text(f"trips/{report.name}", trip_markdown(report))]
    if isinstance(report, NonfiniteReport):
        return [text(f"nonfinite/{report.name}", text_markdown(report.name, str(report)))]
    if isinstance(report, PrecisionReport):
        return [text(f"precision/{report.name}", text_markdown(report.name, str(report)))]
    raise TypeError(f"report must be a report of gradcheck; got {type(report).__name__}")


def trip_values(report: TripReport) -> list[Any]:
    """What TensorBoard shows of a trip: the text `trips/NAME`, with the table of the last steps.

    Raises:
        TypeError: If it is no `TripReport`.
    """
    if not isinstance(report, TripReport):
        raise TypeError(f"report must be a TripReport; got {type(report).__name__}")
    return report_values(report)


def write_comparison(report: OptimizerReport, logdir: str | os.PathLike[str]) -> None:
    """Write a comparison of optimizers into a log directory.

    The report is in the directory itself. Runs inside are drawn over each other: "optimizer" and "reference" with the
    scalars `weight/VARIABLE` (the entry furthest apart), "difference" and "allowed" with `difference/VARIABLE`.
    """
    runs = {
        "optimizer": {f"weight/{v.variable}": (0, v.optimizer) for v in report.variables},
        "reference": {f"weight/{v.variable}": (0, v.reference) for v in report.variables},
        "difference": {f"difference/{v.variable}": (1, v.differences) for v in report.variables},
        "allowed": {f"difference/{v.variable}": (1, v.allowed) for v in report.variables},
    }
    for run, series in runs.items():
        sink = EventFile(os.path.join(logdir, run))
        for step in range(report.steps + 1):
            sink.write(
                step,
                [
                    scalar(tag, values[step - first])
                    for tag, (first, values) in series.items()
                    if 0 <= step - first < len(values)
                ],
            )
        sink.close()
    sink = EventFile(logdir)
    sink.write(report.steps, report_values(report))
    sink.close()


def write_outcomes(outcomes: Iterable[Outcome], logdir: str | os.PathLike[str], *, on_error: str = "log") -> None:
    """Write what several checks gave, with the figures of a document where there are any (`checks/figures/NAME`).

    Of several checks with one name, the first is at step 0, the next at step 1.
    """
    sink = EventFile(logdir, on_error=on_error)
    seen: Counter[str] = Counter()
    for outcome in outcomes:
        values = list(_gradient(outcome.report, outcome.name))
        if outcome.figures:
            values.append(text(f"checks/figures/{outcome.name}", figures_markdown(outcome.figures)))
        sink.write(seen[outcome.name], values)
        seen[outcome.name] += 1
    sink.close()


def _gradient(report: GradientReport, name: str) -> Iterator[Any]:
    excesses = [excess for finding in report.findings if (excess := finding.excess) is not None]
    yield scalar(f"checks/worst_error/{name}", max(excesses, default=float("nan")))
    yield scalar(f"checks/evaluations/{name}", report.cost.evaluations)
    yield scalar(f"checks/seconds/{name}", report.cost.seconds)
    several = len({finding.y for finding in report.findings}) > 1
    for finding in report.findings:
        if finding.map is not None:
            y = f"{finding.y}/" if several else ""
            yield image(f"checks/error_map/{name}/{y}{finding.x}", draw_map(finding.map))
    markdown = gradient_markdown(report)
    if report.taylor is not None:
        drawn = plotted(plot_taylor, report.taylor)
        if isinstance(drawn, bytes):
            yield image(f"checks/taylor/{name}", drawn)
        else:
            markdown += f"\n\n{indented(drawn)}"
    yield text(f"checks/report/{name}", markdown)


def _optimizer(report: OptimizerReport) -> Iterator[Any]:
    yield scalar("optimizers/worst_error", report.worst.excess)
    yield scalar("optimizers/first_apart", report.first_apart or 0)
    markdown = optimizer_markdown(report)
    drawn = plotted(plot_trajectories, report)
    if isinstance(drawn, bytes):
        yield image("optimizers/trajectories", drawn)
    else:
        markdown += f"\n\n{indented(drawn)}"
    yield text("optimizers/report", markdown)
    tried: dict[str, bool | float | str] = {
        "optimizer": report.optimizer,
        "reference": report.reference,
        "steps": report.steps,
    }
    yield from hparams(tried, ["optimizers/worst_error", "optimizers/first_apart"])
