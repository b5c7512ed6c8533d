"""What happened so far in a watched training, and what follows from the next trip."""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from gradcheck._errors import NonfiniteTrip
from gradcheck._report.trip import Step, TripReport
from gradcheck._watchdog.early import EarlyWarnings
from gradcheck._watchdog.policy import Policy, require_action
from gradcheck.tensorboard._reports import trip_values
from gradcheck.tensorboard._sink import EventFile

LOGGER = logging.getLogger("gradcheck")
LOGGER.addHandler(logging.NullHandler())  # without a handler of the user's, nothing is printed
KEPT = 20  # steps
LOCATED_IN_A_ROW = 3  # trips; running a step again takes a while, and the next ones rarely tell something new


class Waiting(Protocol):
    """Something that sees steps and cannot tell by itself what it finds."""

    def look(self) -> None:
        """Tell what was found since the last look."""

    def forget(self) -> None:
        """Begin anew."""

    def stop(self) -> None:
        """Hold further steps back."""


class Ledger:
    """Counts steps and trips of one watchdog, and keeps the last steps. Threads may share it.

    Attributes:
        trips: How many steps have tripped.
        in_a_row: How many of them just now, without a healthy one between.
        last: The last report, or None.
        stopped: Whether training was told to stop.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.lock = threading.RLock()
        self._running: Counter[str] = Counter()  # Python functions in the graphs of watched steps that run just now
        self._sink = None if policy.logdir is None else EventFile(policy.logdir)
        self._early = EarlyWarnings() if policy.early_warnings else None
        self._shared: dict[Any, Waiting] = {}
        self.reset()

    def reset(self) -> None:
        """Forget everything, as if no step had been seen."""
        with self.lock:
            self.steps = self.trips = self.in_a_row = 0
            self.last: TripReport | None = None
            self.stopped = False
            # Steps are described when somebody looks at them: that takes longer than keeping their tensors.
            self._history: deque[Callable[[], Step]] = deque(maxlen=KEPT)
            self._unraised: NonfiniteTrip | None = None
            for waiting in self._shared.values():
                waiting.forget()

    def shared(self, key: Any, make: Callable[[], Waiting]) -> Any:
        """What guards in graphs tell, shared by all traces of one of them; made by the first, and looked into since."""
        with self.lock:
            if key not in self._shared:
                self._shared[key] = make()
            return self._shared[key]

    def look(self, *, raises: bool = False) -> None:
        """See what could not be told.

        Raises:
            NonfiniteTrip: If that is what follows from it, and `raises`.
        """
        with self.lock:
            for waiting in self._shared.values():
                try:
                    waiting.look()
                except NonfiniteTrip as error:
                    self._unraised = error
            pending = self._unraised
            if raises and pending is not None:
                self._unraised = None
                raise pending

    def begin(self) -> int:
        """The number of the step that begins now.

        Raises:
            NonfiniteTrip: If training was told to stop.
        """
        if self._shared:
            self.look(raises=True)
        with self.lock:
            self.require_going_on()
            self.steps += 1
            return self.steps

    def require_going_on(self) -> None:
        """Raise where training was told to stop.

        Raises:
            NonfiniteTrip: The last trip.
        """
        if self.stopped and self.last is not None:
            raise NonfiniteTrip(self.last)

    def catch_up(self, number: int, described: Sequence[Callable[[], Step]]) -> None:
        """Take note of steps that were counted elsewhere, up to the one before `number`."""
        with self.lock:
            if self.last is None or number > self.last.step + self.policy.every:
                self.in_a_row = 0
            self.steps = max(self.steps, number)
            self._history = deque(described, maxlen=KEPT)

    @contextmanager
    def step_running(self, called: Collection[str]) -> Iterator[None]:
        """A scope in which a watched step runs whose graph calls Python functions of some tokens."""
        with self.lock:
            self._running.update(called)
        try:
            yield
        finally:
            with self.lock:
                self._running.subtract(called)

    def is_running(self, token: str) -> bool:
        """Whether a watched step runs whose graph calls a Python function."""
        return self._running[token] > 0

    @property
    def locates(self) -> bool:
        """Whether the next trip is worth running the step again."""
        return self.in_a_row < LOCATED_IN_A_ROW

    def history(self) -> tuple[Step, ...]:
        """The last steps, oldest first."""
        with self.lock:
            return tuple(describe() for describe in self._history)

    def healthy(self, describe: Callable[[], Step], units: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Take note of a step that was finite; `units` tells, by rectifier, which of its units gave something."""
        with self.lock:
            self.in_a_row = 0
            self._history.append(describe)
            if self._early is not None:
                for warning in self._early.look(describe(), units()):
                    LOGGER.warning(warning)

    def trip(
        self, report: TripReport, describe: Callable[[], Step], dumped: Callable[[TripReport], TripReport] | None = None
    ) -> TripReport:
        """Take note of a trip, write it down, decide, and log it.

        Args:
            report: What is known of the trip.
            describe: Describes its step.
            dumped: Writes the report down and gives it back with what came of that.

        Raises:
            NonfiniteTrip: If that is the action, or more than `max_skips` steps in a row have tripped.
        """
        asked = self.policy.action
        with self.lock:
            self.trips += 1
            self.in_a_row += 1
            self._history.append(describe)
            report = replace(report, in_a_row=self.in_a_row, history=self.history())
            report = self._followed_by("undecided" if callable(asked) else asked, report)
            if dumped is not None:
                report = dumped(report)
            elif self.policy.dump_dir is not None:
                report = replace(report, notes=(*report.notes, f"no bundle was written: {report.name} sees no batch"))
            if callable(asked):
                chosen = asked(report)
                action = "skip" if chosen is None else require_action(chosen, "or None, from a callable action")
                report = self._followed_by(action, report)
            self.last = report
            self.stopped = report.action == "stop"
            if self.stopped:
                for waiting in self._shared.values():
                    waiting.stop()
        _log(report)
        if self._sink is not None:
            self._sink.write(report.step, trip_values(report))
        if report.action == "raise":
            raise NonfiniteTrip(report)
        return report

    def _followed_by(self, action: str, report: TripReport) -> TripReport:
        """The report with what follows, which is an error after too many skips."""
        if action in ("skip", "rollback") and self.in_a_row > self.policy.max_skips:
            note = f"{self.in_a_row} steps in a row have tripped, more than max_skips={self.policy.max_skips}"
            return replace(report, action="raise", notes=(*report.notes, note))
        return replace(report, action=action)


def _log(report: TripReport) -> None:
    found = report.nonfinite  # whose truth is whether all is finite
    op, where = (None, None) if found is None else (found.op, found.where)
    LOGGER.log(
        logging.ERROR if report.action in ("raise", "stop") else logging.WARNING,
        "trip step=%d name=%s action=%s in_a_row=%d op=%s where=%s\n%s",
        report.step, report.name, report.action, report.in_a_row, op, where, report,
    )  # fmt: skip
