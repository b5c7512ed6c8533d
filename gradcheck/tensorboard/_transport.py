"""The ways of a vector out of a graph: a call of Python while the graph runs, or a variable that is read afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.ops import control_flow_util, summary_ops_v2
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

_LOGGER = logging.getLogger("gradcheck")
_KEPT = 32  # vectors that wait in a variable

Arrived = Callable[[int, NDArray[Any]], None]


def compiled_by_xla() -> bool:
    """Whether the graph that is being built is for XLA, from which nothing can be said to Python."""
    return bool(control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


def replicas() -> int:
    """How many replicas run the code that is being traced, each with gradients of its own."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def speaks_for_all() -> bool:
    """Whether this is the replica that records what all of them have in common."""
    context = tf.distribute.get_replica_context()
    return replicas() == 1 or not tf.get_static_value(context.replica_id_in_sync_group)


def default_writer() -> Any:
    """The default `tf.summary` writer of this thread, or None."""
    return summary_ops_v2._summary_state.writer


def as_default(writer: Any) -> AbstractContextManager[Any]:
    """A scope in which that is the default writer, in a thread that may have another one."""
    scope: AbstractContextManager[Any] = nullcontext() if writer is None else writer.as_default()
    return scope


def called(arrived: Arrived, step: Any, row: Any) -> None:
    """Have Python called with a vector each time the graph runs."""

    def tell(number: Any, values: Any) -> None:
        arrived(int(number), values)

    tf.numpy_function(tell, [step, row], [])


class Mailbox:
    """A variable into which a graph puts vectors, the last 32 of them, and which Python empties.

    Args:
        width: Of the vectors.
        arrived: Gets each with its step.
    """

    def __init__(self, width: int, arrived: Arrived) -> None:
        self._arrived = arrived
        self._taken = 0
        with tf.init_scope(), tf.device("CPU:0"):  # not tf.Variable, which only a first trace may make
            self._count = ResourceVariable(tf.zeros([], tf.int64), trainable=False, name="gradcheck_rows_count")
            self._steps = ResourceVariable(tf.zeros([_KEPT], tf.int64), trainable=False, name="gradcheck_rows_steps")
            empty = tf.zeros([_KEPT, width], tf.float64)
            self._rows = ResourceVariable(empty, trainable=False, name="gradcheck_rows")

    def put(self, step: Any, row: Any) -> None:
        """Add ops that put a vector in."""
        at = self._count.read_value() % _KEPT
        self._steps.scatter_nd_update([[at]], [step])
        self._rows.scatter_nd_update([[at]], [row])
        self._count.assign_add(1)

    def forget(self) -> None:
        """Take what has arrived so far for nothing."""
        self._taken = int(self._count.read_value())

    def empty(self) -> None:
        """Hand on what has arrived since."""
        for step, row in self._since():
            self._arrived(step, row)

    def _since(self) -> Iterator[tuple[int, NDArray[Any]]]:
        taken, self._taken = self._taken, int(self._count.read_value())
        first = max(taken, self._taken - _KEPT)
        if first > taken:
            _LOGGER.warning(
                "%d steps of a compiled function were not recorded: only the last %d wait until the writer is flushed; "
                "write step = writer.record(step), which takes each", first - taken, _KEPT,
            )  # fmt: skip
        at = [k % _KEPT for k in range(first, self._taken)]
        if at:
            steps, rows = self._steps.sparse_read(at).numpy(), self._rows.sparse_read(at).numpy()
            yield from zip(steps.tolist(), rows, strict=True)
