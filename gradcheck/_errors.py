"""The exceptions that gradcheck raises: data first, then text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradcheck._report.gradient import GradientReport
    from gradcheck._report.trip import TripReport


class GradientMismatch(AssertionError):
    """A gradient check that did not come out ok.

    Attributes:
        report: The `GradientReport` with every finding; `str(error)` is its text.
    """

    ag_pass_through = True  # where a tf.function is traced, AutoGraph raises it as it is

    def __init__(self, report: GradientReport) -> None:
        super().__init__(str(report))
        self.report = report


class NonfiniteTrip(FloatingPointError):
    """A training step in which something became NaN or infinite, and that wrote nothing.

    Attributes:
        report: The `TripReport`; `str(error)` is its text.
    """

    ag_pass_through = True  # where a tf.function is traced, AutoGraph raises it as it is

    def __init__(self, report: TripReport) -> None:
        super().__init__(str(report))
        self.report = report


class GraphUnavailable(RuntimeError):
    """A question that cannot be answered from where it was asked; the text says what to call instead."""

    ag_pass_through = True  # where a tf.function is traced, AutoGraph raises it as it is


class ExecutorFailed(RuntimeError):
    """Workers of an executor that do not do what they are given; the text says what, and what to change."""

    ag_pass_through = True  # where a tf.function is traced, AutoGraph raises it as it is


class BundleNotWritten(RuntimeError):
    """A bundle that could not be written, and of which nothing is left; the text says why."""


class BundleDamaged(ValueError):
    """A bundle that is not whole, or is none, or asks for more than to be computed again; the text says what."""
