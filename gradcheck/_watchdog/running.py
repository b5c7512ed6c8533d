"""Which watched step the present thread is in: what it calls leaves decisions to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gradcheck._report.nonfinite import Range


class _Running(threading.local):
    """What is going on in one thread.

    Attributes:
        step: What `guard` found within the step that runs in Python; None where none does.
        tracing: Whether a step is being traced for a watch.
    """

    step: list[Range] | None = None
    tracing = False


RUNNING = _Running()


@contextmanager
def running() -> Iterator[list[Range]]:
    """A scope for calling a step in Python; gives what `guard` finds inside."""
    outer, found = RUNNING.step, list[Range]()
    RUNNING.step = found
    try:
        yield found
    finally:
        RUNNING.step = outer


@contextmanager
def tracing() -> Iterator[None]:
    """A scope for tracing a step that is going to be guarded."""
    outer = RUNNING.tracing
    RUNNING.tracing = True
    try:
        yield
    finally:
        RUNNING.tracing = outer
