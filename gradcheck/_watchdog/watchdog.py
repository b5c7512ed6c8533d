"""The watchdog: one object that watches a training, however the training runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from gradcheck._calls import explained
from gradcheck._graph.evaluate import unconverted
from gradcheck._report.trip import Step, TripReport
from gradcheck._watchdog.fit import WatchedModel
from gradcheck._watchdog.guard import apply, guard
from gradcheck._watchdog.ledger import Ledger
from gradcheck._watchdog.policy import policy
from gradcheck._watchdog.steps import WatchedStep


class Watchdog:
    """Sees that nothing non-finite is written in training, and tells where it was born.

    Example:
        >>> import gradcheck, tensorflow as tf
        >>> w = tf.Variable([1.0, 4.0])
        >>> @tf.function
        ... def step(x):
        ...     with tf.GradientTape() as tape:
        ...         loss = tf.reduce_sum(tf.sqrt(w * x))
        ...     w.assign_sub(0.1 * tape.gradient(loss, w))
        ...     return loss
        >>> watched = gradcheck.Watchdog(action="skip").watch(step)
        >>> _ = watched(tf.constant([1.0, 1.0]))
        >>> before = w.numpy()
        >>> _ = watched(tf.constant([1.0, 0.0]))  # the gradient of the root of 0 is infinite
        >>> bool((w.numpy() == before).all())
        True
    """

    def __init__(
        self,
        action: str | Callable[[TripReport], str | None] = "raise",
        *,
        every: int = 1,
        max_skips: int = 10,
        snapshot_every: int = 100,
        dump_dir: Any = None,
        logdir: Any = None,
        early_warnings: bool = False,
        layer_outputs: bool = False,
    ) -> None:
        """Nothing is watched yet.

        Args:
            action: What follows from a trip. In each case nothing that the step wrote is left. "raise": a
                `NonfiniteTrip`. "skip": training goes on with the next step. "rollback": everything is put back to
                the last good state. "stop": training stops (`stopped` is True, Keras' `fit` ends, and a further
                watched step raises). "log": like "skip", without a limit. A callable gets the `TripReport` and
                returns one of these, or None for "skip".
            every: Look at each N-th step only; the others run as they are.
            max_skips: So many trips in a row are skipped or rolled back; the next one raises.
            snapshot_every: A state is kept for "rollback" every N healthy steps.
            dump_dir: A directory for one folder per trip, with what is needed to repeat it.
            logdir: A directory for TensorBoard: each trip is written there, a text with the table of the last steps.
            early_warnings: Also log signs of a training that goes wrong: exploding, vanishing, unchanged, dead units.
            layer_outputs: Look also at what each Keras layer gives: a step in which that is not finite trips, even if
                nothing that it returns or writes is bad.

        Raises:
            TypeError, ValueError: If an argument is of the wrong type or out of range.
        """
        self._ledger = Ledger(
            policy(
                action=action, every=every, max_skips=max_skips, snapshot_every=snapshot_every, dump_dir=dump_dir,
                logdir=logdir, early_warnings=early_warnings, layer_outputs=layer_outputs,
            )
        )  # fmt: skip

    @property
    def report(self) -> TripReport | None:
        """The last trip, or None."""
        return self._seen().last

    @property
    def history(self) -> tuple[Step, ...]:
        """What was seen in the last 20 steps, oldest first."""
        return self._seen().history()

    @property
    def steps(self) -> int:
        """How many steps have run."""
        return self._seen().steps

    @property
    def trips(self) -> int:
        """How many of them have tripped."""
        return self._seen().trips

    @property
    def stopped(self) -> bool:
        """Whether a trip has stopped the training."""
        return self._seen().stopped

    def _seen(self) -> Ledger:
        """The ledger, up to date."""
        if tf.executing_eagerly():
            self._ledger.look()
        return self._ledger

    def raise_if_tripped(self) -> None:
        """Raise what `guard` or `apply` could not raise themselves, in a `tf.function` with `jit_compile=True`.

        Raises:
            NonfiniteTrip: If a step has tripped since, and the action says so. `reset()` lets training go on.
        """
        self._ledger.look(raises=True)

    def reset(self) -> None:
        """Forget all steps and trips; a training that was stopped may go on."""
        self._ledger.reset()

    @unconverted
    @explained()
    def guard(
        self, grads: Any, *, loss: Any = None, outputs: Any = None, variables: Sequence[Any] | None = None
    ) -> Any:
        """The gradients, where they, the loss and the outputs are finite: one test, to be put before the update.

        Where they are not, "raise" raises before the gradients are handed on; from inside a `tf.function`, TensorFlow
        wraps what is raised into a `tf.errors.OpError` with the same text, and what the function writes behind `guard`
        is not written, an optimizer's count of its steps neither. With any other action zeros are returned in their
        place: `guard` has returned when the update runs, and cannot hold it back. Zeros leave weights as they are under
        plain gradient descent; an optimizer with momentum, decay or a count of its steps still moves by itself. `apply`
        holds the update back to the last bit, and `watch` the whole step, with what the forward pass wrote.

        With `jit_compile=True` nothing can be said to Python while the function runs: from the first trip on each step
        gets zeros (but for "skip", within `max_skips`, and "log"), and the trip is told where Python looks next:
        `report`, `trips`, `stopped`, `raise_if_tripped()`. In one of several replicas all decide alike, and each
        replica's gradients are looked at.

        Args:
            grads: What `tape.gradient` gives: tensors, `tf.IndexedSlices` (tested by their values) and None, in any
                structure, before they are clipped.
            loss: A tensor or a structure of them, tested too.
            outputs: Outputs of layers, or whatever else is to be tested, in any structure.
            variables: One per gradient, to name them by.

        Returns:
            `grads`, or zeros in their structure.

        Raises:
            NonfiniteTrip: As the watchdog's action says.
            TypeError: If `grads` holds something else.
            ValueError: If there are not as many variables as gradients; or if it is called with `jit_compile=True` in
                one of several replicas, not under watch.

        Example:
            >>> import gradcheck, tensorflow as tf
            >>> x = tf.constant([4.0, 0.0])
            >>> with tf.GradientTape() as tape:
            ...     tape.watch(x)
            ...     y = tf.sqrt(x)
            >>> watchdog = gradcheck.Watchdog(action="skip")
            >>> watchdog.guard([tape.gradient(y, x)])[0].numpy()
            array([0., 0.], dtype=float32)
            >>> [found.posinf for found in watchdog.report.found]
            [1]
        """
        return guard(self._ledger, grads, loss, outputs, variables)

    @unconverted
    @explained()
    def apply(
        self,
        optimizer: Any,
        grads: Sequence[Any],
        variables: Sequence[Any],
        *,
        loss: Any = None,
        outputs: Any = None,
    ) -> None:
        """Apply gradients where they, the loss and the outputs are finite; where not, nothing is written.

        Weights, slots and the optimizer's count of its steps are then to the bit what they were. What the forward
        pass has written already, such as moving averages and states of random generators, stays written: where that
        must not be, put the step under `watch`.

        Args:
            optimizer: A Keras optimizer; or a callable that takes the gradients and the variables, and updates.
            grads: One per variable, as `tape.gradient` gives them.
            variables: The variables to update.
            loss: As for `guard`, and so is `outputs`.

        Raises:
            NonfiniteTrip: As the watchdog's action says; see `guard` for what becomes of it inside a `tf.function`.
            TypeError: If `optimizer` is none, or `grads` holds something else than gradients.
            ValueError: If there are not as many variables as gradients; if `optimizer` is a LossScaleOptimizer, which
                skips steps by itself; or as for `guard`.

        Example:
            >>> import gradcheck, keras, tensorflow as tf
            >>> w, optimizer = tf.Variable([1.0, 4.0]), keras.optimizers.Adam(0.1)
            >>> watchdog = gradcheck.Watchdog(action="skip")
            >>> @tf.function
            ... def step(x):
            ...     with tf.GradientTape() as tape:
            ...         loss = tf.reduce_sum(tf.sqrt(w * x))
            ...     watchdog.apply(optimizer, tape.gradient(loss, [w]), [w], loss=loss)
            >>> step(tf.constant([1.0, 1.0])), step(tf.constant([1.0, 0.0]))
            (None, None)
            >>> int(optimizer.iterations), watchdog.trips
            (1, 1)
        """
        apply(self._ledger, optimizer, grads, variables, loss, outputs)

    def watch(self, step: Callable[..., Any], *, variables: Sequence[Any] | None = None) -> WatchedStep:
        """A training step that writes to variables only where everything it computes is finite.

        Of a `tf.function`, also one that was traced before or is compiled by XLA, the graph is run with its writes
        made conditional on one test of the scalars that it returns and of what it would write: weights, slots, moving
        averages, states of random generators. A Python function is called as it is: the variables that it can reach
        are read before, looked at behind, and given back.

        Not taken back is what is no variable: a batch taken from an iterator, what is printed, and the state that
        `tf.random.uniform` and its like keep inside a `tf.function`.

        Args:
            step: A `tf.function`, a ConcreteFunction, or any callable. With a distribution strategy: the function
                that calls `strategy.run`.
            variables: For a Python function, what it changes: variables, models, optimizers. Default: all that can be
                reached from its closure, its globals, the object that it is bound to, and its arguments.

        Returns:
            A callable that takes and returns what the step does.

        Raises:
            TypeError: If step cannot be called.
        """
        if not callable(step):
            raise TypeError(f"step must be callable, got {type(step).__name__}; write wd.watch(train_step)")
        return WatchedStep(step, self._ledger, None if variables is None else lambda: variables, self)

    def fit(self, model: Any) -> WatchedModel:
        """A scope in which a Keras model trains under this watchdog; `gradcheck.watch(model)` in one line.

        Args:
            model: A Keras model, compiled now or later.

        Raises:
            TypeError: If model is no Keras model.
        """
        if not isinstance(model, keras.Model):
            raise TypeError(f"model must be a Keras model, got {type(model).__name__}; for a step write wd.watch(step)")
        return WatchedModel(model, self._ledger, self)
