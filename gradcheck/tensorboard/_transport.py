"""The ways of numbers out of a graph: more outputs, a call of Python while it runs, a variable that is read afterwards.

What recording needs of TensorFlow that TensorFlow does not promise is here.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.ops import control_flow_util, summary_ops_v2
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from gradcheck._graph.gates import hold_writes

_LOGGER = logging.getLogger("gradcheck")
_KEPT = 32  # vectors that wait in a variable
_ROOM = 1 << 24  # bytes that what waits takes at most, but for one
_LEAVING = "gradcheck_leaving"  # the collection of a graph of what leaves it as outputs
_HEAD = ("number", "step")  # before each of them


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
    """Two of a `tf.function`, to be traced apart; any other callable twice.

    The first returns what the step does, and what `leave` was given while it was traced.
    """
    clone = getattr(step, "_clone", None)
    if clone is None:
        return step, step

    def with_more(*args: Any, **kwargs: Any) -> Any:
        output = with_more.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]  # as AutoGraph has converted it
        return output, dict(tf.compat.v1.get_default_graph().get_collection(_LEAVING))

    more = tf.__internal__.decorator.make_decorator(step.python_function, with_more)
    return without_warning(clone(more)), without_warning(clone(None))


def leave(name: str, tensors: Sequence[Any]) -> None:
    """Have tensors of the graph that is being built leave it with the outputs of its function, as `variants` says."""
    tf.compat.v1.get_default_graph().get_collection_ref(_LEAVING).append((name, list(tensors)))
    _before_writes(tensors)


@functools.cache
def takes_subnormal_for_zero() -> bool:
    """Whether TensorFlow's ops do, wherever they may run: they do on CPUs."""
    with tf.init_scope(), tf.device("CPU:0"):
        zero = tf.executing_eagerly() and bool(tf.equal(tf.constant(1e-40), 0.0))
    return zero and all(device.device_type == "CPU" for device in tf.config.list_logical_devices())


def default_writer() -> Any:
    """The default `tf.summary` writer of this thread, or None."""
    return summary_ops_v2._summary_state.writer


def as_default(writer: Any) -> AbstractContextManager[Any]:
    """A scope in which that is the default writer, in a thread that may have another one."""
    scope: AbstractContextManager[Any] = nullcontext() if writer is None else writer.as_default()
    return scope


class Leaving(NamedTuple):
    """What is to leave the graph that is being built, and what becomes of it.

    Attributes:
        tensors: Of any dtypes and shapes.
        seen: Gives of these, or of arrays of them, what is kept until it is written.
        values: Gives of what is kept of some steps the summary values of each.
        nbytes: What is kept takes, about.
    """

    tensors: Sequence[Any]
    seen: Callable[[Sequence[Any]], Any]
    values: Callable[[Sequence[Any]], Iterator[Iterable[Any]]]
    nbytes: int


class Steps(NamedTuple):
    """What has left a graph.

    Attributes:
        numbers: Of the steps.
        times: When each was, in seconds since the epoch.
        seen: What is kept of each.
    """

    numbers: Sequence[int]
    times: Sequence[float]
    seen: Sequence[Any]


class Waiting:
    """Steps whose tensors are outputs of a function, until they are written."""

    def __init__(self) -> None:
        self._steps: deque[tuple[Any, float, Any]] = deque()  # emptied in another thread

    def add(self, number: Any, when: float, seen: Any) -> None:
        """One more step waits; its number is a tensor."""
        self._steps.append((number, when, seen))

    def empty(self, now: float) -> Steps:
        """What has arrived since."""
        found = [self._steps.popleft() for _ in range(len(self._steps))]
        numbers, times, seen = zip(*found, strict=True) if found else ((), (), ())
        return Steps([int(number) for number in numbers], times, seen)


def called(arrived: Callable[[Any, Sequence[NDArray[Any]]], None], step: Any, tensors: Sequence[Any]) -> None:
    """Have Python called with the step and tensors each time the graph runs."""

    def tell(number: Any, *arrays: Any) -> None:
        arrived(number, arrays)

    tf.numpy_function(tell, [step, *tensors], [])
    _before_writes(tensors)


def _before_writes(tensors: Sequence[Any]) -> None:
    """Have these computed before variables are written: whose value somebody holds is copied then."""
    if not compiled_by_xla():
        hold_writes(tf.group(*tensors))


def steps_with_room(nbytes: int) -> int:
    """How many steps may wait, of which each takes so much memory."""
    return max(_ROOM // max(nbytes, 1), 1)


class Mailbox:
    """A variable into which a graph that XLA compiles puts vectors, the last few of them, and which Python empties.

    Args:
        width: Of the vectors.
    """

    def __init__(self, width: int) -> None:
        columns = len(_HEAD) + width
        self._kept = min(_KEPT, steps_with_room(columns * tf.float64.size))
        self._taken = 0
        with tf.init_scope(), tf.device("CPU:0"):  # not tf.Variable, which only a first trace may make
            self._count = ResourceVariable(tf.zeros([], tf.int64), trainable=False, name="gradcheck_count")
            empty = tf.zeros([self._kept, columns], tf.float64)
            self._table = ResourceVariable(empty, trainable=False, name="gradcheck_table")

    def put(self, step: Any, row: Any) -> None:
        """Add ops that put a vector in."""
        number = self._count.assign_add(1, read_value=True)
        head = tf.stack([tf.cast(number, tf.float64), tf.cast(step, tf.float64)])
        whole = tf.ensure_shape(tf.concat([head, row], 0), self._table.shape[1:])
        if self._kept == 1:
            self._table.assign(whole[None], read_value=False)
        else:
            tf.raw_ops.ResourceScatterUpdate(resource=self._table.handle, indices=number % self._kept, updates=whole)

    def forget(self) -> None:
        """Take what has arrived so far for nothing."""
        self._taken = int(self._seen()[:, 0].max())

    def empty(self, now: float) -> Steps:
        """What has arrived since, as if it were made now: XLA knows no time."""
        table = self._seen()
        last = int(table[:, 0].max())
        taken, self._taken = self._taken, last
        first = max(taken, last - self._kept)
        if first > taken:
            _LOGGER.warning(
                "%d steps of a compiled function were not recorded: only the last %d wait until the writer is flushed; "
                "write step = writer.record(step), which takes each", first - taken, self._kept,
            )  # fmt: skip
        found = table[np.arange(first + 1, last + 1) % self._kept]
        numbers = found[:, _HEAD.index("step")].astype(np.int64).tolist()
        return Steps(numbers, [now] * len(numbers), list(found[:, len(_HEAD) :]))

    def _seen(self) -> NDArray[Any]:
        """The table, not copied: nothing that is written meanwhile is written there."""
        table = tf.raw_ops.ReadVariableOp(resource=self._table.handle, dtype=tf.float64)
        return np.asarray(memoryview(table))
