"""A training step that records at some of its calls, and on the others is as if it recorded nothing."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from gradcheck.tensorboard._transport import variants


class RecordedStep:
    """A training step in two variants; made by `SummaryWriter.record`.

    Attributes:
        __wrapped__: The step itself.
    """

    def __init__(self, writer: Any, step: Any, first: int) -> None:
        self.__wrapped__ = step
        self._writer = writer
        self._number = first
        self._on, self._off = variants(step)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step once.

        Raises:
            ValueError: If it is called while a `tf.function` is traced, which happens once for many runs.
        """
        if not tf.executing_eagerly():
            raise ValueError(
                "a recorded step was called within a tf.function, where Python does not run at each step; record the "
                "outer function: outer = writer.record(outer), which calls the step itself"
            )
        number = self._number
        self._number += 1
        writer = self._writer
        due = number % writer.every == 0
        apart = self._on is not self._off
        with writer.choosing(due, apart=apart):
            if not due or not apart:
                return self._off(*args, **kwargs)
            output, left = self._on(*args, **kwargs)
            writer.take(left)
            return output
