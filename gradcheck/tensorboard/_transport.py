"""The ways of numbers out of a graph: a call of Python while the graph runs, or a variable that is read afterwards.

What recording needs of TensorFlow that TensorFlow does not promise is here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.ops import control_flow_util, summary_ops_v2
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

_LOGGER = logging.getLogger("gradcheck")
_KEPT = 32  # vectors that wait in a variable
_ROOM = 1 << 24  # bytes that they take at most, but for one
_HEAD = ("number", "step", "time")  # before each of them


def compiled_by_xla() -> bool:
    """Whether the graph that is being built is for XLA, from which nothing can be said to Python."""
    return bool(control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


def is_within_another() -> bool:
    """Whether the graph that is being built is within another, which may run it several times, or not at all."""
    return isinstance(tf.compat.v1.get_default_graph().outer_graph, tf.__internal__.FuncGraph)


def replicas() -> int:
    """How many replicas run the code that is being traced, each with gradients of its own."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def speaks_for_all() -> bool:
    """Whether this is the replica that records what all of them have in common."""
    context = tf.distribute.get_replica_context()
    return replicas() == 1 or not tf.get_static_value(context.replica_id_in_sync_group)


def without_warning(function: Any) -> Any:
    """A `tf.function` of which TensorFlow does not say that it is traced often: it is one of many of the same code."""
    function._omit_frequent_tracing_warning = True
    return function


def variants(step: Any) -> tuple[Any, Any]:
    """Two of a `tf.function`, to be traced apart; any other callable twice."""
    clone = getattr(step, "_clone", None)
    if clone is None:
        return step, step
    return without_warning(clone(None)), without_warning(clone(None))


def default_writer() -> Any:
    """The default `tf.summary` writer of this thread, or None."""
    return summary_ops_v2._summary_state.writer


def as_default(writer: Any) -> AbstractContextManager[Any]:
    """A scope in which that is the default writer, in a thread that may have another one."""
    scope: AbstractContextManager[Any] = nullcontext() if writer is None else writer.as_default()
    return scope


class Rows(NamedTuple):
    """Vectors that have left a graph.

    Attributes:
        steps: Of each, a whole number.
        times: When each was made, in seconds since the epoch.
        rows: [vectors, width].
    """

    steps: Sequence[int]
    times: Sequence[float]
    rows: NDArray[Any]


class Source(NamedTuple):
    """Where rows come from.

    Attributes:
        values: Gives the summary values of each.
        writer: The default one of `tf.summary` where the graph was built, if they go there.
    """

    values: Callable[[Any], Iterable[Iterable[Any]]]
    writer: Any


def called(arrived: Callable[[Rows], None], step: Any, parts: Sequence[Any]) -> None:
    """Have Python called with a vector, given in parts, each time the graph runs."""

    def tell(number: Any, row: Any) -> None:
        arrived(Rows([int(number)], [time.time()], row[None]))

    tf.numpy_function(tell, [step, tf.concat(parts, 0)], [])


class Mailbox:
    """A variable into which a graph puts vectors, the last few of them, and which Python empties.

    Args:
        width: Of the vectors.
        kept: How many wait in it, where that is not too much memory.

    Attributes:
        kept: How many do.
    """

    def __init__(self, width: int, kept: int = _KEPT) -> None:
        columns = len(_HEAD) + width
        self.kept = min(kept, max(_ROOM // (columns * tf.float64.size), 1))
        self._taken = 0
        with tf.init_scope(), tf.device("CPU:0"):  # not tf.Variable, which only a first trace may make
            self._count = ResourceVariable(tf.zeros([], tf.int64), trainable=False, name="gradcheck_count")
            empty = tf.zeros([self.kept, columns], tf.float64)
            self._table = ResourceVariable(empty, trainable=False, name="gradcheck_table")

    def put(self, step: Any, parts: Sequence[Any]) -> None:
        """Add ops that put a vector in, given in parts."""
        number = self._count.assign_add(1, read_value=True)
        now = tf.zeros([], tf.float64) if compiled_by_xla() else tf.timestamp()  # XLA knows no time
        head = tf.stack([tf.cast(number, tf.float64), tf.cast(step, tf.float64), now])
        whole = tf.ensure_shape(tf.concat([head, *parts], 0), self._table.shape[1:])
        if self.kept == 1:
            self._table.assign(whole[None], read_value=False)
        else:
            tf.raw_ops.ResourceScatterUpdate(resource=self._table.handle, indices=number % self.kept, updates=whole)

    def forget(self) -> None:
        """Take what has arrived so far for nothing."""
        self._taken = int(self._seen()[:, 0].max())

    def empty(self, now: float) -> Rows:
        """What has arrived since; of what XLA compiled as if it were made now."""
        table = self._seen()
        last = int(table[:, 0].max())
        taken, self._taken = self._taken, last
        first = max(taken, last - self.kept)
        if first > taken:
            _LOGGER.warning(
                "%d steps of a compiled function were not recorded: only the last %d wait until the writer is flushed; "
                "write step = writer.record(step), which takes each", first - taken, self.kept,
            )  # fmt: skip
        found = table[np.arange(first + 1, last + 1) % self.kept]
        _, steps, times = found[:, : len(_HEAD)].T
        return Rows(steps.astype(np.int64).tolist(), [t or now for t in times.tolist()], found[:, len(_HEAD) :])

    def _seen(self) -> NDArray[Any]:
        """The table, not copied: nothing that is written meanwhile is written there."""
        table = tf.raw_ops.ReadVariableOp(resource=self._table.handle, dtype=tf.float64)
        return np.asarray(memoryview(table))
