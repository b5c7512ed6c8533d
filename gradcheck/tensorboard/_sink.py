"""Where summary values go: an event file of our own, or TensorFlow's default summary writer."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from gradcheck.tensorboard._wire import Encoded, encoded, event, summary

LOGGER = logging.getLogger("gradcheck")
LOGGER.addHandler(logging.NullHandler())  # without a handler of the user's, nothing is printed
FAILURES: tuple[type[Exception], ...] = (tf.errors.OpError, OSError)
_VERSION = "brain.Event:2"  # without which TensorBoard takes the file for one of another format
_PAUSE = 60.0  # seconds between a failure and the next attempt
_NUMBERS = itertools.count()
ON_ERROR = ("log", "raise")


class Entry(NamedTuple):
    """What is written of one step.

    Attributes:
        time: When it was recorded, in seconds since the epoch.
        step: Where it is shown.
        values: Of its summary.
    """

    time: float
    step: int
    values: Iterable[Any]


class Sink(ABC):
    """What takes the values of steps."""

    def write(self, step: int, values: Iterable[Any]) -> None:
        """Put the values of one step down, which was recorded now."""
        self.write_all([Entry(time.time(), int(step), values)])

    @abstractmethod
    def write_all(self, entries: Iterable[Entry]) -> None:
        """Put the values down; once it returns they can be read, also if the process is killed."""

    @abstractmethod
    def flush(self) -> None:
        """Bring everything to where readers see it."""

    @abstractmethod
    def close(self) -> None:
        """The end; nothing can be written afterwards."""


class EventFile(Sink):
    """An event file in a log directory, made at the first write.

    Steps are handed to the operating system before `write` returns, so that a killed process loses none. Where the
    disk fails, the logger "gradcheck" says so once, what is written is lost, and after a minute a fresh file is tried,
    for in the old one nothing could be read behind a record that was cut off. May be used by several threads, and by
    the side of other writers in the same directory.

    Args:
        logdir: The directory; made if it is not there. Any file system that TensorFlow knows.
        on_error: "log" a failure to write, or "raise" it.

    Raises:
        TypeError, ValueError: If an argument is of the wrong type or out of range.
    """

    def __init__(self, logdir: str | os.PathLike[str], *, on_error: str = "log") -> None:
        if not isinstance(logdir, (str, os.PathLike)):
            raise TypeError(f"logdir must be a path; got logdir={logdir!r}")
        self.logdir = os.fspath(logdir)
        self._on_error = checked_on_error(on_error)
        self._lock = threading.RLock()
        self._file: Any = None
        self._described: set[Hashable] = set()  # whose metadata the file holds
        self._pause_ends = 0.0
        self._failed = False
        self._lost = 0
        self._closed = False

    def write_all(self, entries: Iterable[Entry]) -> None:
        """Append the values of some steps, one after the other.

        Raises:
            ValueError: If the writer was closed.
        """
        found = [(one.time, one.step, [encoded(value) for value in one.values]) for one in entries]
        found = [one for one in found if one[-1]]
        with self._lock:
            if self._closed:
                raise ValueError(f"the writer to {self.logdir} was closed; make a new one")
            if not found:
                return
            if time.monotonic() < self._pause_ends:
                self._lost += len(found)
                return
            try:
                self._append(found)
            except FAILURES as error:
                self._drop(error, len(found))
            else:
                self._recovered()

    def flush(self) -> None:
        """Nothing is left to do: `write` has done it."""

    def close(self) -> None:
        """Close the file; once is enough."""
        with self._lock:
            self._closed = True
            file, self._file = self._file, None
            if file is not None:
                try:
                    file.close()
                except FAILURES as error:
                    self._drop(error, 1)

    def _append(self, found: Sequence[tuple[float, int, Sequence[Encoded]]]) -> None:
        if self._file is None:
            self._described.clear()
            self._file = self._fresh()
            self._file.write(tf.compat.v1.Event(wall_time=found[0][0], file_version=_VERSION).SerializeToString())
        for when, step, values in found:
            self._file.write(event(when, step, summary(values, self._described)))
            self._described.update([value.key for value in values])
        self._file.flush()

    def _fresh(self) -> Any:
        tf.io.gfile.makedirs(self.logdir)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}.v2"
        return tf.io.TFRecordWriter(os.path.join(self.logdir, name))

    def _drop(self, error: Exception, lost: int) -> None:
        self._file, file = None, self._file
        if file is not None:
            with contextlib.suppress(*FAILURES):
                file.close()
        self._lost += lost
        if self._on_error == "raise":
            raise error
        self._pause_ends = time.monotonic() + _PAUSE
        if not self._failed:
            self._failed = True
            LOGGER.warning("cannot write to %s: %s; training goes on without", self.logdir, said(error))

    def _recovered(self) -> None:
        if self._failed:
            LOGGER.warning("writing to %s again; steps lost: %d", self.logdir, self._lost)
            self._failed, self._lost = False, 0


class DefaultWriter(Sink):
    """TensorFlow's default summary writer, as `writer.as_default()` sets it in the calling thread.

    As with `tf.summary` itself, nothing is written where there is none, or where `tf.summary.record_if` says so.

    Args:
        on_error: "log" a failure to write, once, or "raise" it.
    """

    def __init__(self, *, on_error: str = "log") -> None:
        self._on_error = checked_on_error(on_error)
        self._failed = False

    def write_all(self, entries: Iterable[Entry]) -> None:
        """Hand the values of some steps over."""
        for one in entries:
            content = summary(one.values)
            if not content:
                continue
            try:
                tf.summary.experimental.write_raw_pb(content, step=one.step)
            except FAILURES as error:
                if self._on_error == "raise":
                    raise
                if not self._failed:
                    self._failed = True
                    LOGGER.warning("cannot write summaries: %s; training goes on without", said(error))

    def flush(self) -> None:
        """Nothing: the writer's owner flushes it."""

    def close(self) -> None:
        """Nothing: the writer's owner closes it."""


def checked_on_error(on_error: str) -> str:
    """The argument itself, or a ValueError."""
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {', '.join(map(repr, ON_ERROR))}; got on_error={on_error!r}")
    return on_error


@functools.cache
def warn_once(text: str) -> None:
    """Log a warning, the first time in a process."""
    LOGGER.warning("%s", text)


def said(error: Exception) -> str:
    """What an error says, in one line."""
    return str(getattr(error, "message", None) or error).partition("\n")[0]
