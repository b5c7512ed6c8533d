"""Hooks for `tf.compat.v1.train.MonitoredTrainingSession`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import tensorflow as tf

from gradcheck._report.trip import TripReport
from gradcheck._watchdog.ledger import Ledger
from gradcheck._watchdog.policy import policy
from gradcheck._watchdog.session import SessionStates, SessionWatch
from gradcheck.tensorboard._hook import GradientSummaryHook as GradientSummaryHook

__all__ = ["GradientSummaryHook", "NonfiniteHook"]


class NonfiniteHook(tf.compat.v1.train.SessionRunHook):  # type: ignore[misc]  # TensorFlow carries no types
    """Watches tensors of a training graph: where one is NaN or infinite, the step writes nothing.

    The updates of that step do not run, so that weights, slots and the global step stay, and a checkpoint that is
    saved then holds a good state. What waits for an update, as under `tf.control_dependencies([train_op])`, goes on
    without it. Only what an assignment to a variable without a resource gives has no value in such a step.

    Args:
        loss: A tensor or a list of tensors, of any shape.
        gradients: Gradients as `tf.gradients` gives them, or pairs of gradient and variable as `compute_gradients`
            does; None among them is passed over.
        action: "raise" a `NonfiniteTrip`; "stop" training, by the session's `should_stop`; "skip" or "log" and go on;
            "rollback" to the last good values of all global variables, the global step among them; or a callable that
            takes the `TripReport` and returns one of these, or None for "skip".
        every: Look at each N-th run only. Updates are held back in all.
        max_skips: So many trips in a row are skipped or rolled back; the next one raises.
        snapshot_every: Values are kept for "rollback" every N healthy runs, on the host.
        dump_dir: A directory for one folder per trip, as for `Watchdog`.

    Attributes:
        report: The last `TripReport`, or None.

    Raises:
        TypeError, ValueError: If an argument is of the wrong type or out of range.

    Example:
        >>> import gradcheck, tensorflow as tf
        >>> with tf.Graph().as_default():
        ...     x = tf.compat.v1.placeholder(tf.float32, [])
        ...     w = tf.compat.v1.get_variable("w", initializer=2.0)
        ...     loss = tf.math.log(w * x)
        ...     optimizer = tf.compat.v1.train.GradientDescentOptimizer(0.1)
        ...     gradients = optimizer.compute_gradients(loss)
        ...     train = optimizer.apply_gradients(gradients)
        ...     hook = gradcheck.hooks.NonfiniteHook(loss, gradients, action="skip")
        ...     with tf.compat.v1.train.MonitoredSession(hooks=[hook]) as session:
        ...         _ = session.run(train, {x: 0.0})
        ...         print(session.run(w), hook.report.nonfinite.op_type)
        2.0 Log
    """

    def __init__(
        self,
        loss: Any,
        gradients: Sequence[Any] = (),
        *,
        action: str | Callable[[TripReport], str | None] = "raise",
        every: int = 1,
        max_skips: int = 10,
        snapshot_every: int = 100,
        dump_dir: Any = None,
    ) -> None:
        self._ledger = Ledger(
            policy(
                action=action, every=every, max_skips=max_skips, snapshot_every=snapshot_every, dump_dir=dump_dir,
                early_warnings=False,
            )
        )  # fmt: skip
        losses = _losses(loss)
        self._named, self._losses = [*losses, *_gradients(gradients)], len(losses)
        self._watch: SessionWatch | None = None
        self._states: SessionStates | None = None
        self._number = 0

    @property
    def report(self) -> TripReport | None:
        """The last trip, or None."""
        return self._ledger.last

    def begin(self) -> None:
        """Add the test to the graph."""
        self._watch = SessionWatch(self._named, self._losses)
        if self._ledger.policy.may_roll_back:
            self._states = SessionStates(tf.compat.v1.get_default_graph())

    def before_run(self, run_context: Any) -> Any:
        """Ask for the test, in a run that computes what is tested."""
        if self._watch is None or not self._watch.concerns(run_context.original_args.fetches):
            return None
        self._number = self._ledger.begin()
        if self._number % self._ledger.policy.every:
            return None
        if self._states is not None:
            self._states.keep(run_context.session, self._ledger.policy.snapshot_every)
        return tf.compat.v1.train.SessionRunArgs([self._watch.amounts, self._watch.counts, self._watch.drawn])

    def after_run(self, run_context: Any, run_values: Any) -> None:
        """See what it said."""
        watch = self._watch
        if run_values.results is None or watch is None:
            return
        amounts, counts, drawn = run_values.results
        step = partial(watch.looked.step, self._number, amounts)
        found = watch.looked.found(counts)
        if not found:
            self._ledger.healthy(step)
            if self._states is not None:
                self._states.healthy()
            return
        again = watch.again(run_context.session, run_context.original_args.feed_dict, drawn)
        report = TripReport(
            name=watch.looked.caller, step=self._number, action="raise", found=found,
            nonfinite=again.nonfinite, notes=again.notes,
        )  # fmt: skip
        report = self._ledger.trip(report, step, partial(again.dumped, self._ledger.policy.dump_dir))
        if report.action == "stop":
            run_context.request_stop()
        elif report.action == "rollback" and self._states is not None:
            self._states.restore(run_context.session)


def _losses(loss: Any) -> list[tuple[str, Any]]:
    losses = loss if isinstance(loss, (list, tuple)) else [loss]
    return [(_tensor("loss", t).name, t) for t in losses]


def _gradients(gradients: Sequence[Any]) -> list[tuple[str, Any]]:
    if not isinstance(gradients, (list, tuple)):
        raise TypeError(f"gradients must be a list of tensors, or of pairs with variables; got {_kind(gradients)}")
    named = []
    for each in gradients:
        gradient, variable = each if isinstance(each, tuple) and len(each) == 2 else (each, None)
        if gradient is not None:
            tensor = _tensor("gradients", gradient)
            owner = tensor.name if variable is None else f"gradient of {variable.name.removesuffix(':0')}"
            named.append((owner, gradient))
    return named


def _tensor(argument: str, value: Any) -> Any:
    values = value.values if isinstance(value, tf.IndexedSlices) else value
    if not isinstance(values, tf.Tensor) or not hasattr(values, "op") or tf.executing_eagerly():
        raise TypeError(
            f"{argument} must hold tensors of a tf.Graph that is built within `with graph.as_default():`; found "
            f"{_kind(value)}"
        )
    if not (values.dtype.is_floating or values.dtype.is_complex):
        raise TypeError(f"{argument} must be floating or complex; found {values.name!r} of dtype {values.dtype.name}")
    return values


def _kind(value: object) -> str:
    return type(value).__name__
