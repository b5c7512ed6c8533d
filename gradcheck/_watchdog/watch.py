"""One line around a training: a model or a step, put under watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from gradcheck._calls import explained
from gradcheck._report.trip import TripReport
from gradcheck._watchdog.fit import WatchedModel
from gradcheck._watchdog.steps import WatchedStep
from gradcheck._watchdog.watchdog import Watchdog


@explained()
def watch(
    model_or_step: Any,
    *,
    action: str | Callable[[TripReport], str | None] = "raise",
    every: int = 1,
    max_skips: int = 10,
    snapshot_every: int = 100,
    dump_dir: Any = None,
    logdir: Any = None,
    early_warnings: bool = False,
    layer_outputs: bool = False,
) -> WatchedModel | WatchedStep:
    """Put a Keras model or a training step under watch, within a `with`.

    Args:
        model_or_step: A Keras model: `fit` and `train_on_batch` run guarded within the scope, without subclassing, and
            the model is as before behind it; the `with` gives the `Watchdog`. Or a step, as `Watchdog.watch` takes it;
            the `with` gives the watched step, whose `watchdog` has the report.
        action: What follows from a trip: "raise", "skip", "rollback", "stop" (which sets the model's `stop_training`),
            "log", or a callable that gets the `TripReport` and returns one of them; see `Watchdog`.
        every: Look at each N-th step only; the others run as they are.
        max_skips: So many trips in a row are skipped or rolled back; the next one raises.
        snapshot_every: A state is kept for "rollback" every N healthy steps.
        dump_dir: A directory for one folder per trip, with what is needed to repeat it.
        logdir: A directory for TensorBoard: each trip is written there, a text with the table of the last steps.
        early_warnings: Also log signs of a training that goes wrong: exploding, vanishing, unchanged, dead units.
        layer_outputs: Look also at what each Keras layer gives.

    Raises:
        TypeError, ValueError: For misuse, before anything is changed.

    Example:
        >>> import gradcheck, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> x = np.array([[1.0, 2.0], [np.inf, 3.0]], "float32")
        >>> with gradcheck.watch(model, action="skip") as watchdog:
        ...     history = model.fit(x, x[:, :1], batch_size=1, epochs=2, shuffle=False, verbose=0)
        >>> watchdog.steps, watchdog.trips
        (4, 2)
    """
    watchdog = Watchdog(
        action, every=every, max_skips=max_skips, snapshot_every=snapshot_every, dump_dir=dump_dir, logdir=logdir,
        early_warnings=early_warnings, layer_outputs=layer_outputs,
    )  # fmt: skip
    if isinstance(model_or_step, keras.Model):
        return watchdog.fit(model_or_step)
    if not callable(model_or_step):
        raise TypeError(
            f"model_or_step must be a Keras model or a callable training step, got {type(model_or_step).__name__}"
        )
    return watchdog.watch(model_or_step)
