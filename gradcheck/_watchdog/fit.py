"""Keras' `fit` under watch: a model's own training step, run guarded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow.trainer import reduce_per_replica

from gradcheck._graph.evaluate import unconverted
from gradcheck._watchdog.ledger import Ledger
from gradcheck._watchdog.steps import WatchedStep

_ABSENT = object()
_ABSENT_PART, _WHOLE = "no such part", "no parts"  # in the place of what a batch does not have
_NAMES = ("train_function", "make_train_function")


class WatchedModel:
    """A scope in which a Keras model trains under watch.

    `fit` and `train_on_batch` run the model's own `train_step`, under its distribution strategy, eagerly or compiled
    as it was asked to; only around it something else decides what stays. On leaving the scope the model is as before.

    Args:
        model: A Keras model.
        ledger: Of the watchdog.
        given: What `__enter__` gives.
    """

    def __init__(self, model: Any, ledger: Ledger, given: Any = None) -> None:
        self._model = model
        self._ledger = ledger
        self._given = given
        self._saved: dict[str, Any] | None = None
        self._optimizer: Any = None

    def __enter__(self) -> Any:
        self.install()
        return self._given

    def __exit__(self, *error: object) -> None:
        self.remove()

    def install(self) -> None:
        """Put the watch in the place of what runs training steps.

        Raises:
            ValueError: If the model is under watch already.
        """
        model = self._model
        if isinstance(model.__dict__.get("make_train_function"), _Maker):
            raise ValueError(f"the model {model.name!r} is under watch already; leave that scope first")
        self._saved = {name: model.__dict__.get(name, _ABSENT) for name in _NAMES}
        self._optimizer = getattr(model, "optimizer", None)
        # Not by setattr, which would make them parts of the model that are saved.
        model.__dict__["make_train_function"] = _Maker(self)
        model.__dict__["train_function"] = None

    def remove(self) -> None:
        """Put everything back; a second time does nothing."""
        saved, self._saved = self._saved, None
        if saved is None:
            return
        attributes = self._model.__dict__
        if getattr(self._model, "optimizer", None) is not self._optimizer:
            saved["train_function"] = None  # compiled anew since
        for name, value in saved.items():
            if value is _ABSENT:
                attributes.pop(name, None)
            else:
                attributes[name] = value

    def train_function(self) -> Callable[[Any], Any]:
        """What `fit` calls with an iterator over batches, for one or, by `steps_per_execution`, several steps."""
        model = self._model

        def variables() -> list[Any]:  # some are made in the first step
            return [*model.variables, *model.optimizer.variables, *model.metrics_variables]

        step = WatchedStep(_one_step(model), self._ledger, variables)
        step.__name__ = "train_step"

        def train(iterator: Iterator[Any]) -> Any:
            outputs: Any = _ABSENT
            for _ in range(model.steps_per_execution):
                data = next(iterator, _ABSENT)
                if data is _ABSENT:
                    break
                trips = self._ledger.trips
                outputs = step(*_in_parts(data))
                if self._ledger.trips > trips:  # what the step returned was computed with what was taken back
                    outputs = _metrics_instead(model, outputs)
                if self._ledger.stopped:
                    model.stop_training = True
                    break
            if outputs is _ABSENT:
                raise StopIteration
            return outputs

        return train


def _metrics_instead(model: Any, outputs: Any) -> Any:
    """What the model's metrics say now, where that is what its step returns."""
    kept = model.get_metrics_result()
    return kept if isinstance(outputs, dict) and outputs.keys() == kept.keys() else outputs


class _Maker:
    """What stands for the `make_train_function` of a model under watch."""

    def __init__(self, watched: WatchedModel) -> None:
        self._watched = watched

    def __call__(self, force: bool = False) -> Any:
        model = self._watched._model
        if model.train_function is None or force:
            model.__dict__["train_function"] = self._watched.train_function()
        return model.train_function


def _in_parts(data: Any) -> tuple[Any, ...]:
    """A batch as arguments of a step, which a report then calls x, y and sample_weight."""
    return data if type(data) is tuple and 0 < len(data) <= 3 else (data, _WHOLE)


def _one_step(model: Any) -> Callable[[Any], Any]:
    """One step on one batch, as Keras has it."""

    @unconverted
    def train_step(x: Any, y: Any = _ABSENT_PART, sample_weight: Any = _ABSENT_PART) -> Any:
        given = tuple(part for part in (x, y, sample_weight) if not isinstance(part, str))
        data = x if isinstance(y, str) and y == _WHOLE else given
        data = keras.tree.map_structure(lambda x: None if isinstance(x, tf.experimental.Optional) else x, data)
        strategy = model.distribute_strategy
        outputs = strategy.run(model.train_step, args=(data,))
        return reduce_per_replica(outputs, strategy, reduction="auto")

    if model.run_eagerly:
        return train_step
    traced: Callable[[Any], Any] = tf.function(train_step, reduce_retracing=True, jit_compile=model.jit_compile)
    return traced
