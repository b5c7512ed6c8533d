"""Keras callbacks: a training under watch, and gradients checked or recorded while it goes on."""

from __future__ import annotations

import itertools
import logging
import numbers
from collections.abc import Callable, Iterator
from typing import Any

import keras

from gradcheck._check.model import check_model
from gradcheck._check.options import options
from gradcheck._errors import GradientMismatch
from gradcheck._report.gradient import GradientReport
from gradcheck._report.trip import TripReport
from gradcheck._watchdog.fit import WatchedModel
from gradcheck._watchdog.watchdog import Watchdog
from gradcheck.tensorboard._fit import GradientSummaryCallback as GradientSummaryCallback

__all__ = ["GradientCheckCallback", "GradientSummaryCallback", "WatchdogCallback"]

_LOGGER = logging.getLogger("gradcheck")


class WatchdogCallback(keras.callbacks.Callback):  # type: ignore[misc]  # Keras carries no types
    """`gradcheck.watch(model)` as a callback: `fit` writes nothing that is not finite.

    The model is as before when training ends, and also where a step raises. Put it first in the list, so that what the
    others see is what stays.

    Args:
        action, every, max_skips, snapshot_every, dump_dir, logdir, early_warnings, layer_outputs: As for `Watchdog`.

    Attributes:
        watchdog: The `Watchdog`, with `report`, `history`, `steps` and `trips`.

    Raises:
        TypeError, ValueError: If an argument is of the wrong type or out of range.

    Example:
        >>> import gradcheck, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x = np.array([[1.0, 2.0], [np.nan, 3.0]], "float32")
        >>> callback = gradcheck.callbacks.WatchdogCallback(action="skip")
        >>> history = model.fit(x, x[:, :1], batch_size=1, verbose=0, callbacks=[callback])
        >>> callback.watchdog.trips, bool(np.isfinite(model.get_weights()[0]).all())
        (1, True)
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
        super().__init__()
        self.watchdog = Watchdog(
            action, every=every, max_skips=max_skips, snapshot_every=snapshot_every, dump_dir=dump_dir,
            logdir=logdir, early_warnings=early_warnings, layer_outputs=layer_outputs,
        )  # fmt: skip
        self._watched: WatchedModel | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Put the model under watch."""
        self.on_train_end()
        self._watched = self.watchdog.fit(self.model)
        self._watched.install()
        train = self.model.make_train_function()

        def guarded(iterator: Iterator[Any]) -> Any:
            try:
                return train(iterator)
            except StopIteration:
                raise
            except BaseException:
                self.on_train_end()  # which Keras does not call then
                raise

        self.model.__dict__["train_function"] = guarded

    def on_train_end(self, logs: Any = None) -> None:
        """Give the model back."""
        if self._watched is not None:
            self._watched.remove()
            self._watched = None


class GradientCheckCallback(keras.callbacks.Callback):  # type: ignore[misc]  # Keras carries no types
    """Checks the gradients of the loss on the batch at hand, every so many steps, along random directions.

    The check runs before the step is taken, on the whole batch, with the model in inference mode, so that nothing
    is drawn at random, by `check_model`. It changes neither the model nor what training does.

    Args:
        every: Check before each N-th batch, the first one included.
        action: What follows from a report that is not ok: "raise" a `GradientMismatch`, "stop" training, or "log" it.
        rtol, directions, seed: As for `check_model`.

    Attributes:
        report: The last report, or None.
        checks: How many checks have run.

    Raises:
        TypeError, ValueError: If an argument is of the wrong type or out of range.

    Example:
        >>> import gradcheck, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> callback = gradcheck.callbacks.GradientCheckCallback(every=2)
        >>> x = np.ones((4, 2), "float32")
        >>> history = model.fit(x, x[:, :1], batch_size=1, verbose=0, callbacks=[callback])
        >>> callback.checks, callback.report.ok
        (2, True)
    """

    def __init__(
        self, every: int = 1000, *, action: str = "raise", rtol: float | None = None, directions: int = 4, seed: int = 0
    ) -> None:
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, numbers.Integral):
            raise TypeError(f"every must be a whole number; got every={every!r}")
        if every < 1:
            raise ValueError(f"every must be at least 1; got every={every!r}")
        if action not in ("raise", "stop", "log"):
            raise ValueError(f"action must be one of 'raise', 'stop', 'log'; got action={action!r}")
        options(mode="directional", rtol=rtol, directions=directions, seed=seed)
        self._every: int = int(every)
        self._action: str = action
        self._options: dict[str, Any] = {"rtol": rtol, "directions": directions, "seed": seed}
        self._batches: int = 0
        self._train: Any = None
        self.report: GradientReport | None = None
        self.checks: int = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """See the batches that training takes."""
        self.on_train_end()
        self._train = train = self.model.train_function

        def seen(iterator: Iterator[Any]) -> Any:
            batches = []
            for _ in range(self.model.steps_per_execution):
                batch = next(iterator, None)
                if batch is None:
                    break
                self._batches += 1
                batches.append(batch)
                if self._batches % self._every == 1 % self._every:
                    self._check(batch)
            if not batches:
                raise StopIteration
            return train(itertools.chain(batches))

        self.model.__dict__["train_function"] = seen

    def on_train_end(self, logs: Any = None) -> None:
        """Give the model back."""
        if self._train is not None:
            self.model.__dict__["train_function"] = self._train
            self._train = None

    def _check(self, batch: Any) -> None:
        report = _checked(self.model, batch, self._options)
        self.checks += 1
        self.report = report
        if report.ok:
            _LOGGER.info("gradients ok batch=%d\n%s", self._batches, report)
            return
        _LOGGER.log(
            logging.WARNING if self._action == "log" else logging.ERROR,
            "gradients verdict=%s batch=%d action=%s\n%s", report.verdict.name, self._batches, self._action, report,
        )  # fmt: skip
        if self._action == "stop":
            self.model.stop_training = True
        elif self._action == "raise":
            self.on_train_end()
            raise GradientMismatch(report)


def _checked(model: Any, batch: Any, chosen: dict[str, Any]) -> GradientReport:
    """A directional check of the compiled loss on a batch, with respect to every trainable variable."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    return check_model(model, x, y, sample_weight=sample_weight, mode="directional", name="loss", **chosen)
