"""What a run says of its checks: the header, the summary, and the JSON document."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from gradcheck.pytest_plugin._explain import explain
from gradcheck.pytest_plugin._records import TRIP, Record, gravity, read, worst_of
from gradcheck.pytest_plugin._settings import OF_RUN, Settings

if TYPE_CHECKING:
    from pathlib import Path

    from _pytest.terminal import TerminalReporter

    from gradcheck._report.outcomes import Outcome


class Session:
    """Collects the records of all tests, those of pytest-xdist's workers too, in the process that they report to."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._settings = settings
        self._is_worker = hasattr(config, "workerinput")
        self._verbose = config.get_verbosity() > 0
        self._records: list[Record] = []
        self._trips: list[str] = []

    def pytest_report_header(self) -> str | None:
        """The seed, where it was drawn."""
        drawn = self._settings.drawn and not self._is_worker
        return f"gradcheck: --gradcheck-seed={self._settings.seed} repeats this run" if drawn else None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker of pytest-xdist the seed: it reads the command line itself, and would draw another."""
        node.workerinput[OF_RUN] = self._settings.seed

    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        """Let what a test fails by show its report, before pytest reads it, and after unittest told it."""
        explain(call.excinfo)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test found."""
        if not self._is_worker:
            self._records += read(report)
            if hasattr(report, TRIP):
                self._trips.append(f"NONFINITE  {getattr(report, TRIP)}: pytest {shlex.quote(report.nodeid)}")

    def pytest_sessionfinish(self) -> None:
        """Write the JSON document, and what TensorBoard shows."""
        if not self._is_worker and self._settings.json is not None:
            self._write_json(self._settings.json)
        if not self._is_worker and self._settings.logdir is not None and self._records:
            from gradcheck.tensorboard._reports import write_outcomes  # imports TensorFlow

            write_outcomes(self._outcomes(), self._settings.logdir)

    def _outcomes(self) -> list[Outcome]:
        from gradcheck._report.outcomes import Outcome

        return [Outcome(name=each.test, report=each.report) for each in sorted(self._records, key=_by_test)]

    def _write_json(self, path: Path) -> None:
        from gradcheck._report.outcomes import outcomes_to_plain

        path.parent.mkdir(parents=True, exist_ok=True)
        document = outcomes_to_plain(self._outcomes())
        path.write_text(json.dumps(document, allow_nan=False, indent=2), encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """What failed, worst first, and what the checks cost."""
        if self._settings.logdir is not None and self._records:
            terminalreporter.line(f"gradcheck: tensorboard --logdir {shlex.quote(str(self._settings.logdir))}")
        failed = sorted((each for each in self._records if not each.report.ok), key=gravity)
        if failed:
            terminalreporter.section(f"gradcheck: {len(failed)} of {len(self._records)} checks are not ok", red=True)
            for each in failed:
                terminalreporter.line(f"{each.report.verdict.name}  {worst_of(each)}: {each.again()}")
        if self._trips:
            terminalreporter.section(f"gradcheck: a watchdog failed {len(self._trips)} tests", red=True)
            for line in self._trips:
                terminalreporter.line(line)
        costs = sorted(self._records, key=lambda each: -each.report.cost.seconds)
        if not self._verbose:
            costs = costs[: self._settings.durations]
        if costs:
            slowest = f"the slowest {len(costs)} of {len(self._records)} checks"
            terminalreporter.section(f"gradcheck: {'what checks cost' if self._verbose else slowest}")
            for each in costs:
                cost = each.report.cost
                terminalreporter.line(
                    f"{cost.seconds:7.2f} s  {cost.evaluations:6} evaluations  {cost.gradients:4} gradients  "
                    f"{each.report.verdict.name:<16} {each.test} ({each.report.name})"
                )


def _by_test(record: Record) -> str:
    return record.test
