"""A session's training with its gradients recorded at every so many steps."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from gradcheck._graph.before import fetched_ops, ops_before
from gradcheck.tensorboard._recording import Recording
from gradcheck.tensorboard._sink import EventFile
from gradcheck.tensorboard._writer import whole
from gradcheck.tensorboard.v1 import graph_items, present

_v1 = tf.compat.v1


class GradientSummaryHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]  # TensorFlow carries no types
    """Records the gradients of a session's training for TensorBoard, at every so many steps.

    A step is a run that computes the gradients. What is recorded is what `SummaryWriter.gradients` records, with the
    norm of each variable's change over that of its value. In the runs between, nothing is added to what is fetched.
    Steps go on from the global step, where the graph has one.

    Args:
        logdir: A directory; made if it is not there.
        gradients: What `tf.gradients` gives, or the pairs that `compute_gradients` does.
        variables: One per gradient: variables, or strings to name gradients by. None for pairs.
        every: Gradients are recorded at the steps that it divides.
        histograms: Whether histograms of the gradients are written.
        weights: Whether histograms of the variables are written.
        on_error: "log" a disk that fails, once, and go on training without; or "raise" it.

    Raises:
        TypeError, ValueError: If an argument is of the wrong type or out of range.

    Example:
        >>> import tempfile, gradcheck, tensorflow as tf
        >>> logdir = tempfile.mkdtemp()
        >>> with tf.Graph().as_default():
        ...     w = tf.compat.v1.get_variable("w", initializer=[3.0, 4.0])
        ...     optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.5)
        ...     pairs = optimizer.compute_gradients(tf.reduce_sum(w**2) / 2)
        ...     train = optimizer.apply_gradients(pairs)
        ...     hook = gradcheck.hooks.GradientSummaryHook(logdir, pairs, every=2)
        ...     with tf.compat.v1.train.MonitoredSession(hooks=[hook]) as session:
        ...         for _ in range(3):
        ...             session.run(train)
        >>> found = gradcheck.tensorboard.read_events(logdir).scalars["gradient_norm/w"]
        >>> found.steps, found.values
        ((0, 2), (5.0, 1.25))
    """

    def __init__(
        self,
        logdir: str | os.PathLike[str],
        gradients: Any,
        variables: Any = None,
        *,
        every: int = 100,
        histograms: bool = True,
        weights: bool = False,
        on_error: str = "log",
    ) -> None:
        self._file = EventFile(logdir, on_error=on_error)
        self._every = whole("every", every, least=1)
        self._items = graph_items(gradients, variables)
        self._recording = Recording(self._items, histograms=histograms, weights=weights)
        self._step = 0
        self._before: list[Any] = []  # the weights before the step that is recorded
        self._concerned: dict[frozenset[Any], bool] = {}

    def begin(self) -> None:
        """Add to the graph what is fetched."""
        with _v1.name_scope("gradcheck"), tf.control_dependencies(None):
            self._tensors = self._recording.tensors(present(self._items))
            self._values = self._recording.read()

    def after_create_session(self, session: Any, coord: Any) -> None:
        """Go on from the global step."""
        global_step = _v1.train.get_global_step()
        if global_step is not None:
            self._step = int(session.run(global_step))

    def before_run(self, run_context: Any) -> Any:
        """Ask for the gradients, in a run that is due and computes the gradients."""
        self._due = False
        if not self._concerns(run_context.original_args.fetches):
            return None
        self._due = self._step % self._every == 0
        self._step += 1
        if not self._due:
            return None
        self._before = run_context.session.run(self._values)
        return _v1.train.SessionRunArgs(self._tensors)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """Write them."""
        if not self._due:
            return
        after = run_context.session.run(self._values)
        values = [*self._recording.values(run_values.results), *self._recording.ratios([*self._before, *after])]
        self._file.write(self._step - 1, values)

    def end(self, session: Any) -> None:
        """Close the file."""
        self._file.close()

    def _concerns(self, fetches: Any) -> bool:
        ops = fetched_ops(_v1.get_default_graph(), tf.nest.flatten(fetches))
        if ops not in self._concerned:
            tensors = [g.values if isinstance(g, tf.IndexedSlices) else g for g in present(self._items)]
            self._concerned[ops] = {t.op for t in tensors} <= ops_before(ops)
        return self._concerned[ops]
