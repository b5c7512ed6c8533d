"""Recorded steps that wait to be written: at most so many of them, and at most so long."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable


class Queue:
    """How many recorded steps wait, and when they are written: together, since that costs each of them less.

    May be used by several threads. At the end of the process what waits is written.

    Args:
        most: How many wait at most.
        millis: How long they wait at most, in milliseconds.
        write: Writes all that wait.

    Attributes:
        most: As given, or less.
    """

    def __init__(self, most: int, millis: int, write: Callable[[], None]) -> None:
        self.most = most
        self._seconds = millis / 1000
        self._write = write
        self._waiting = 0
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()
        _QUEUES.add(self)

    def add(self) -> None:
        """One more step waits."""
        self._waiting += 1
        if self._waiting >= self.most:
            self.empty()
        elif self._timer is None:
            self._timer = threading.Timer(self._seconds, self._late)
            self._timer.daemon = True
            self._timer.start()

    def empty(self) -> None:
        """Write what waits."""
        with self._lock:
            self._waiting = 0
            self._write()

    def end(self) -> None:
        """Write what waits; after that nothing will."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self.empty()

    def _late(self) -> None:
        """In a thread of its own, which also keeps the writer until all is written."""
        self._timer = None
        if self._waiting:
            self.empty()


_QUEUES: weakref.WeakSet[Queue] = weakref.WeakSet()


@atexit.register
def _at_exit() -> None:
    for queue in list(_QUEUES):
        queue.end()
