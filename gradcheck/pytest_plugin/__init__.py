"""The pytest plugin: the fixtures `gradcheck` and `no_nans`, their markers, and what the run says of the checks.

Loading it imports neither TensorFlow nor NumPy; a project that does not use it sees nothing of it.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any

import pytest

from gradcheck.pytest_plugin._checker import Checker
from gradcheck.pytest_plugin._explain import reports_of, shorten, tripped, without_text
from gradcheck.pytest_plugin._records import ATTRIBUTE, TRIP, attach, plain_reports, record
from gradcheck.pytest_plugin._session import Session
from gradcheck.pytest_plugin._settings import MARKER, Settings, add_options, marked, settings_of

_SETTINGS = pytest.StashKey[Settings]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the options, and watch the run."""
    config.addinivalue_line("markers", MARKER)
    config.addinivalue_line("markers", "no_nans: the test runs under a watchdog, and fails by a NaN")
    settings = settings_of(config)
    config.stash[_SETTINGS] = settings
    config.pluginmanager.register(Session(config, settings), "gradcheck-session")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, pytest.CollectReport, Any]:
    """A marker that cannot be used is an error of the file that it is in."""
    report = yield
    if report.outcome == "passed":
        wrong = []
        for node in report.result:
            if isinstance(node, pytest.Item):
                try:
                    marked(node)
                except (TypeError, ValueError) as error:
                    wrong.append(f"{node.nodeid}: {error}")
        if wrong:
            report.outcome, report.result, report.longrepr = "failed", [], "\n".join(wrong)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the reports that a test fails by, and hand on what its checks found."""
    report = yield
    shown = reports_of(call.excinfo)
    shorten(report.longrepr, shown)
    if call.excinfo is not None and tripped(call.excinfo.value):
        report.longrepr = str(call.excinfo.value)
        report.sections = list(without_text(report.sections, report.longrepr))
        setattr(report, TRIP, str(call.excinfo.value).split("\n", 1)[0])
    for failed in shown:
        if hasattr(failed, "findings"):
            record(item, failed)
    found = plain_reports(item) if call.when == "call" else []
    if found:
        attach(item)
        setattr(report, ATTRIBUTE, found)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Put a marked test under watch."""
    if item.get_closest_marker("no_nans") is not None:
        _watch(item)


def _watch(item: Any) -> Any:
    """A watchdog, under which the body of a test runs as a step of a training would."""
    watchdog = Checker({}, item.config.stash[_SETTINGS], lambda report: None).watchdog(action="raise")
    from gradcheck.pytest_plugin._tapes import with_guarded_tapes

    item.obj = watchdog.watch(with_guarded_tapes(item.obj, watchdog))
    return watchdog


@pytest.fixture
def no_nans(request: pytest.FixtureRequest) -> Any:
    """The watchdog under which the test runs: it fails with its report where something is not finite.

    That is what the test writes into variables, and what it differentiates with a `tf.GradientTape` in Python, or gets
    as a gradient; nothing that it wrote is left then. The marker of the same name does so for a test, a class or a
    module.
    """
    return _watch(request.node)


@pytest.fixture
def gradcheck(request: pytest.FixtureRequest) -> Checker:
    """Checks gradients: `gradcheck(fn, inputs)` fails with the report unless they are right.

    `.check` returns the report; `.tf_gradients` and `.model` fail as the call does; `.find_nonfinite`, `.watchdog` and
    `.compare_optimizers` are the functions of the same names. In a unittest.TestCase that has
    `@pytest.mark.usefixtures("gradcheck")` it is `self.gradcheck`.
    """
    settings = request.config.stash[_SETTINGS]
    checker = Checker(
        {**settings.defaults(), **marked(request.node)}, settings, lambda report: record(request.node, report)
    )
    unittest = sys.modules.get("unittest")  # not imported for those who do not use it
    if unittest is not None and isinstance(request.instance, unittest.TestCase):
        request.instance.gradcheck = checker
    return checker
