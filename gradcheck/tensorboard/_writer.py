"""The writer that a user holds: gradients, reports and trips into a log directory."""

from __future__ import annotations

import itertools
import numbers
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import tensorflow as tf

from gradcheck._graph.evaluate import unconverted
from gradcheck._report.trip import TripReport
from gradcheck.tensorboard._queue import Queue
from gradcheck.tensorboard._recorded import RecordedStep
from gradcheck.tensorboard._recording import Item, Recording, items
from gradcheck.tensorboard._reports import Report, report_values, trip_values
from gradcheck.tensorboard._sink import FAILURES, DefaultWriter, Entry, EventFile, Sink
from gradcheck.tensorboard._transport import (
    Leaving,
    Mailbox,
    Steps,
    Waiting,
    as_default,
    called,
    compiled_by_xla,
    default_writer,
    is_within_another,
    leave,
    replicas,
    speaks_for_all,
    steps_with_room,
)


class SummaryWriter:
    """Writes gradients as training used them, check reports and trips, for TensorBoard.

    It needs TensorFlow alone; the package tensorboard only to look at what was written, and for the layout of the page
    CUSTOM SCALARS. Used in a `with`, it is closed at the end.

    Args:
        logdir: A directory; made if it is not there. None: the default writer of `tf.summary`, where there is one.
        every: Gradients are recorded at the steps that it divides.
        histograms: Whether a histogram of each gradient is written, too.
        weights: Whether a histogram of each variable is written, too.
        on_error: "log" a disk that fails, once, and go on training without; or "raise" it.
        max_queue: Under `record`, how many steps wait at most before they are written together. 1: each is on disk
            before the call returns.
        flush_millis: How many milliseconds they wait at most.

    Raises:
        TypeError, ValueError: If an argument is of the wrong type or out of range.

    Example:
        >>> import tempfile, gradcheck, tensorflow as tf
        >>> logdir = tempfile.mkdtemp()
        >>> w = tf.Variable([3.0, 4.0], name="w")
        >>> with gradcheck.tensorboard.SummaryWriter(logdir) as writer:
        ...     for step in range(2):
        ...         with tf.GradientTape() as tape:
        ...             loss = tf.reduce_sum(w**2) / 2
        ...         gradient = tape.gradient(loss, w)
        ...         with writer.gradients(step, [gradient], [w]):
        ...             _ = w.assign_sub(0.5 * gradient)
        >>> gradcheck.tensorboard.read_events(logdir).scalars["gradient_norm/w"].values
        (5.0, 2.5)
    """

    def __init__(
        self,
        logdir: str | os.PathLike[str] | None = None,
        *,
        every: int = 1,
        histograms: bool = True,
        weights: bool = False,
        on_error: str = "log",
        max_queue: int = 32,
        flush_millis: int = 1000,
    ) -> None:
        self.every = whole("every", every, least=1)
        for name, value in (("histograms", histograms), ("weights", weights)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False; got {name}={value!r}")
        self._sink: Sink = DefaultWriter(on_error=on_error) if logdir is None else EventFile(logdir, on_error=on_error)
        self._options = {"histograms": histograms, "weights": weights}
        self._recordings: dict[Any, Recording] = {}
        self._waiting: list[tuple[Source, Mailbox]] = []  # of compiled functions, until the writer is flushed
        self._taken: list[tuple[Source, Mailbox]] = []  # of steps that the host chooses, until the step has run
        self._queued: dict[str, tuple[Source, Waiting]] = {}  # of outputs of these, until the queue is emptied
        most = whole("max_queue", max_queue, least=1)
        millis = whole("flush_millis", flush_millis, least=1)
        own = isinstance(self._sink, EventFile)  # another writer may be closed before it is given what waits
        self._queue = Queue(most if own else 1, millis, lambda: self._empty(self._queued.values()))
        self._closed = False
        self._failure: Exception | None = None  # to write what a chosen step recorded
        self._chosen: bool | None = None  # by the host, for the step that runs or is traced
        self._apart = False  # whether that step has a variant for each choice

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @unconverted
    def gradients(self, step: Any, gradients: Any, variables: Any) -> AbstractContextManager[Any]:
        """Record gradients: norm, largest, exact counts and a histogram of each; norms of variables, layers and all.

        To be called between the tape and the optimizer: eagerly, in a `tf.function`, or in one with
        `jit_compile=True`, whose steps are written when the writer is flushed or, under `record`, as others are. In
        replicas of a distribution strategy, gradients are added up over them.

        Args:
            step: The step, a whole number: of Python, a tensor or a variable such as `optimizer.iterations`. A number
                of Python in a `tf.function` stays what it was when the function was traced.
            gradients: Tensors, `tf.IndexedSlices` (by the rows that occur, those of one index added up) and None, in
                any structure, floating or complex (whose parts count as two numbers). Of any shape, also without
                entries.
            variables: One per gradient: variables, or strings to name gradients by.

        Returns:
            A scope: with the update in a `with` of it, the norm of each variable's change over that of its value
            (`update_ratio/...`) is recorded, too.

        Raises:
            TypeError, ValueError: If gradients and variables do not belong together, or step is no whole number; or
                if the default graph is not that of a `tf.function` (for that, see `gradcheck.tensorboard.v1`).
        """
        if self._chosen is False:
            return nullcontext()
        number = _step(step)
        if not tf.executing_eagerly():
            return self._in_graph(number, items(gradients, variables))
        if self._chosen is None and int(number) % self.every:
            return nullcontext()
        found = items(gradients, variables)
        self.flush()
        recording = self._recording(found)
        present = [item.gradient for item in found if item.gradient is not None]
        self._sink.write(int(number), recording.values([t.numpy() for t in recording.tensors(present)]))
        return self._eager_update(int(number), recording)

    def record(self, step: Callable[..., Any], *, first_step: int = 0) -> Callable[..., Any]:
        """A training step that records on each `every`-th call, and on the others is as if it recorded nothing.

        A `tf.function` is traced twice, once with `gradients` inside it and once without, and Python chooses between
        the two: nothing is left of it in the calls between. What `every` divides is the number of the call.

        What is recorded waits, to be written together with that of other steps: until `max_queue` steps wait, one has
        waited for `flush_millis`, a step raises, the writer is flushed or closed, or Python ends. A process that is
        killed loses what waits.

        Args:
            step: A `tf.function`, or any callable, that calls `gradients` of this writer.
            first_step: The number of the first call, where a run is resumed.

        Returns:
            A callable that takes and returns what `step` does.

        Raises:
            TypeError, ValueError: If step cannot be called, or was traced already as a ConcreteFunction.
        """
        if not callable(step):
            raise TypeError(f"step must be callable, got {type(step).__name__}; write writer.record(train_step)")
        if hasattr(step, "captured_inputs"):
            raise TypeError("step was traced already; give writer.record the tf.function, not its ConcreteFunction")
        return RecordedStep(self, step, whole("first_step", first_step, least=0))

    def report(self, report: Report, step: int) -> None:
        """Write a report of gradcheck: scalars, text and pictures, as far as it has them.

        Args:
            report: What a check, `find_nonfinite`, `profile_precision`, `compare_optimizers` or a watchdog gave.
            step: Where it is shown.

        Raises:
            TypeError, ValueError: If it is no report, or step is no whole number.
        """
        self._sink.write(whole("step", step, least=0), report_values(report))

    def trip(self, report: TripReport, step: int) -> None:
        """Write a watchdog's trip: a text with the table of the last steps.

        Args:
            report: A `TripReport`.
            step: Where it is shown.

        Raises:
            TypeError, ValueError: If it is no trip, or step is no whole number.
        """
        self._sink.write(whole("step", step, least=0), trip_values(report))

    def flush(self) -> None:
        """Write what waits, also in compiled functions, and bring everything to where readers see it."""
        if self._queued:
            self._queue.empty()
        self._empty(self._waiting)
        self._sink.flush()
        self._fail()

    def close(self) -> None:
        """Flush, and write nothing more."""
        try:
            self._queue.end()
            self.flush()
        finally:
            self._closed = True
            self._sink.close()

    @contextmanager
    def choosing(self, recorded: bool | None, *, apart: bool = False) -> Iterator[None]:
        """A scope in which `gradients` records, or does nothing, whatever the step.

        Args:
            recorded: Which of both; None: as the step says.
            apart: Whether what runs in it is traced for this choice alone, and what it leaves is given to `take`.
        """
        outer, self._chosen, self._apart = (self._chosen, self._apart), recorded, apart
        if recorded:
            for _, mailbox in self._taken:  # what a function within a step that is not recorded has left
                mailbox.forget()
        try:
            try:
                yield
            finally:
                if recorded:
                    self._empty(self._taken)
        except BaseException:
            self._queue.empty()  # what led to it is looked for
            raise
        finally:
            self._chosen, self._apart = outer
        if recorded:
            self._fail()

    def take(self, left: Mapping[str, Sequence[Any]]) -> None:
        """Take in what a chosen step has left with its outputs."""
        if self._closed or not left:
            return
        when = time.time()
        for name, (number, *tensors) in left.items():
            source, waiting = self._queued[name]
            waiting.add(number, when, source.seen(tensors))
        self._queue.add()

    def _fail(self) -> None:
        """Raise what kept a recorded step from being written."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _recording(self, found: Sequence[Item]) -> Recording:
        key = tuple((i.name, None if i.gradient is None else i.gradient.dtype, id(i.variable)) for i in found)
        if key not in self._recordings:
            self._recordings[key] = Recording(found, **self._options)
        return self._recordings[key]

    @contextmanager
    def _eager_update(self, step: int, recording: Recording) -> Iterator[None]:
        before = [t.numpy() for t in recording.read()]
        yield
        self._sink.write(step, recording.ratios([*before, *(t.numpy() for t in recording.read())]))

    def _in_graph(self, step: Any, found: Sequence[Item]) -> AbstractContextManager[Any]:
        if not isinstance(tf.compat.v1.get_default_graph(), tf.__internal__.FuncGraph):
            raise ValueError(
                "gradients was called in a graph of TensorFlow 1, which runs in a session; write "
                "gradcheck.tensorboard.v1.gradient_summaries(gradients, variables), which merge_all merges"
            )
        present = [item.gradient for item in found if item.gradient is not None]
        if replicas() > 1 and present:
            context = tf.distribute.get_replica_context()
            present = list(context.all_reduce(tf.distribute.ReduceOp.SUM, present))
        if not speaks_for_all():
            return nullcontext()
        recording = self._recording(found)
        unconditional = self._chosen or self.every == 1
        due = tf.constant(True) if unconditional else tf.equal(step % self.every, 0)

        def where_due(then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
            return then() if unconditional else tf.cond(due, then, otherwise)

        chosen = bool(self._chosen)
        once = chosen and self._apart and not is_within_another()  # in each step that is recorded, and in no other

        def go(leaving: Callable[[], Leaving], width: int) -> None:
            """Have what is made by `leaving` leave the graph; by XLA it is made as one vector of this width."""
            if not compiled_by_xla() and not once:
                where_due(lambda: self._call(leaving(), step, chosen), lambda: None)
            elif once:
                made, name = leaving(), str(len(self._queued))
                self._queued[name] = self._source(made), Waiting()
                self._queue.most = min(self._queue.most, steps_with_room(made.nbytes))
                leave(name, [step, *made.tensors])
            else:
                mailbox = Mailbox(width)

                def put() -> None:
                    made = leaving()
                    (self._taken if chosen else self._waiting).append((self._source(made), mailbox))
                    mailbox.put(step, made.tensors[0])

                where_due(put, lambda: None)

        xla = compiled_by_xla()
        go(lambda: (recording.packed if xla else recording.leaving)(present), recording.width)

        @contextmanager
        def update() -> Iterator[None]:
            before = where_due(
                recording.read, lambda: [tf.zeros([0], v.dtype.base_dtype.real_dtype) for v in recording.variables]
            )
            yield
            changes = recording.packed_changes if xla else recording.leaving_changes
            go(lambda: changes(before), 2 * len(recording.variables))

        return update()

    def _source(self, made: Leaving) -> Source:
        return Source(made.seen, made.values, default_writer() if isinstance(self._sink, DefaultWriter) else None)

    def _call(self, made: Leaving, step: Any, chosen: bool) -> None:
        """Have Python take in what leaves the graph that is being built."""
        source = self._source(made)

        def arrived(number: Any, arrays: Sequence[Any]) -> None:
            if chosen and not self._chosen:  # a function within a step that is not recorded
                return
            try:
                self._write([(source, Steps([int(number)], [time.time()], [source.seen(arrays)]))])
            except FAILURES as error:
                if not chosen:
                    raise
                self._failure = error  # after the step, and as it is: a graph would make another error of it

        called(arrived, step, made.tensors)

    def _empty(self, waiting: Iterable[tuple[Source, Mailbox | Waiting]]) -> None:
        """Write what waits."""
        now = time.time()
        try:
            self._write([(source, one.empty(now)) for source, one in list(waiting)])
        except FAILURES as error:  # perhaps in a thread of its own
            self._failure = error

    def _write(self, found: Iterable[tuple[Source, Steps]]) -> None:
        """Write what has left graphs, in the order in which it was recorded."""
        if self._closed:  # a step that outlives the writer goes on
            return
        entries = [
            (source.writer, Entry(when, step, values))
            for source, steps in found
            if steps.numbers
            for when, step, values in zip(steps.times, steps.numbers, source.values(steps.seen), strict=True)
        ]
        entries.sort(key=lambda one: one[1][:2])
        for writer, some in itertools.groupby(entries, lambda one: one[0]):
            with as_default(writer):  # Python may be called in another thread
                self._sink.write_all([entry for _, entry in some])


class Source(NamedTuple):
    """Where recorded steps come from.

    Attributes:
        seen, values: As those of `Leaving`.
        writer: The default one of `tf.summary` where the graph was built, if they go there.
    """

    seen: Callable[[Sequence[Any]], Any]
    values: Callable[[Sequence[Any]], Iterator[Iterable[Any]]]
    writer: Any


def whole(name: str, value: Any, *, least: int) -> int:
    """The argument as an int, or an error that says what was wrong."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number; got {name}={value!r}")
    if int(value) < least:
        raise ValueError(f"{name} must be at least {least}; got {name}={value!r}")
    return int(value)


def _step(step: Any) -> Any:
    """The step as an int or as an int64 tensor."""
    if step is None:
        step = tf.summary.experimental.get_step()
        if step is None:
            raise ValueError("step is None, and tf.summary has no default step; write writer.gradients(step, ...)")
    if isinstance(step, numbers.Integral) and not isinstance(step, bool):
        return int(step) if tf.executing_eagerly() else tf.constant(int(step), tf.int64)
    dtype = getattr(step, "dtype", None)
    if dtype is None or not tf.as_dtype(dtype).is_integer or len(step.shape):
        raise TypeError(f"step must be a whole number, or a scalar tensor or variable of them; got {step!r}")
    return tf.cast(tf.convert_to_tensor(step), tf.int64)
