"""The object that the fixture `gradcheck` gives to a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gradcheck
from gradcheck._calls import explained
from gradcheck.pytest_plugin._settings import Settings

if TYPE_CHECKING:
    from gradcheck._report.gradient import GradientReport


class Checker:
    """Checks for a test: it fails with the report unless all is well.

    Args:
        defaults: Options of checks, from the command line and from markers.
        settings: Of the run.
        record: Takes every report, for the summary.
    """

    def __init__(
        self, defaults: Mapping[str, Any], settings: Settings, record: Callable[[GradientReport], None]
    ) -> None:
        self._defaults = dict(defaults)
        self._settings = settings
        self._record = record

    def __repr__(self) -> str:
        return f"<checks of gradients, {self._defaults or 'with no defaults of their own'}>"

    @explained("inputs", name="gradcheck")
    def __call__(self, fn: Callable[..., Any], inputs: Any, **options: Any) -> GradientReport:
        """Check as `gradcheck.check_gradients` does, and fail unless the report is ok.

        Args:
            fn: As for `gradcheck.check_gradients`.
            inputs: As there.
            options: As there; they go before those of markers and of the command line.

        Returns:
            The report.

        Raises:
            GradientMismatch: With the report as its text.
        """
        __tracebackhide__ = True
        return _asserted(self.check(fn, inputs, **options))

    @explained("inputs", name="gradcheck.check")
    def check(self, fn: Callable[..., Any], inputs: Any, **options: Any) -> GradientReport:
        """Check as `gradcheck.check_gradients` does, and return the report, ok or not."""
        __tracebackhide__ = True
        return self._recorded(gradcheck.check_gradients(fn, inputs, **{**self._defaults, **options}))

    @explained(name="gradcheck.tf_gradients")
    def tf_gradients(self, ys: Any, xs: Any, grad_ys: Any = None, **options: Any) -> GradientReport:
        """Check as `gradcheck.check_tf_gradients` does, and fail unless the report is ok."""
        __tracebackhide__ = True
        known = {name: value for name, value in self._defaults.items() if name != "forward"}
        return _asserted(self._recorded(gradcheck.check_tf_gradients(ys, xs, grad_ys, **{**known, **options})))

    @explained("x", name="gradcheck.model")
    def model(self, model: Any, x: Any, y: Any = None, **options: Any) -> GradientReport:
        """Check as `gradcheck.check_model` does, and fail unless the report is ok."""
        __tracebackhide__ = True
        check: Any = _named("check_model")
        return _asserted(self._recorded(check(model, x, y, **{**self._defaults, **options})))

    @explained("inputs", name="gradcheck.find_nonfinite")
    def find_nonfinite(self, fn: Callable[..., Any], inputs: Any, **options: Any) -> Any:
        """What `gradcheck.find_nonfinite` returns."""
        return _named("find_nonfinite")(fn, inputs, **options)

    def watchdog(self, **options: Any) -> Any:
        """A `gradcheck.Watchdog`; it dumps where `--gradcheck-dump` says, unless `dump_dir` says otherwise."""
        if self._settings.dump is not None:
            options = {"dump_dir": str(self._settings.dump), **options}
        return _named("Watchdog")(**options)

    def compare_optimizers(self, *arguments: Any, **options: Any) -> Any:
        """What `gradcheck.compare_optimizers` returns."""
        return _named("compare_optimizers")(*arguments, **options)

    def _recorded(self, report: GradientReport) -> GradientReport:
        self._record(report)
        return report


def _named(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(gradcheck, name)
    return found


def _asserted(report: GradientReport) -> GradientReport:
    __tracebackhide__ = True
    if not report.ok:
        raise gradcheck.GradientMismatch(report)
    return report
