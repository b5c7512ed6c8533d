"""Keras' `fit` with its gradients recorded, as the optimizer got them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from gradcheck._graph.evaluate import unconverted
from gradcheck.tensorboard._sink import EventFile
from gradcheck.tensorboard._transport import speaks_for_all
from gradcheck.tensorboard._wire import scalar
from gradcheck.tensorboard._writer import SummaryWriter

_ENDS = (StopIteration, tf.errors.OutOfRangeError)  # of the data, which `fit` expects
_ABSENT = object()


class GradientSummaryCallback(keras.callbacks.Callback):  # type: ignore[misc]  # Keras carries no types
    """Records the gradients of `fit` for TensorBoard: what `write_grads` was, from the step that trains.

    There is no second backward pass, and between the recorded steps Keras' own training function runs. Gradients are
    those that the optimizer gets: not clipped yet, and without the factor of a loss scale. Each is recorded with its
    variable as `SummaryWriter.gradients` does: norms by variable, layer and in all, counts, histograms, and the norm
    of each update over that of the weights. Steps go on from `optimizer.iterations`, so that a run that was restored
    from a checkpoint continues its curves. When training ends, the model is as before.

    Args:
        logdir: A directory. As Keras' own callback does, it writes to "train" in it, and to "validation".
        every: Gradients are recorded at the steps that it divides.
        histograms: Whether histograms of the gradients are written.
        weights: Whether histograms of the variables are written.
        metrics: Whether the metrics of each epoch are written, under the tags of Keras' own callback.
        on_error: "log" a disk that fails, once, and go on training without; or "raise" it.

    Raises:
        TypeError, ValueError: If an argument is of the wrong type or out of range; from `fit`, if the model has no
            optimizer.

    Example:
        >>> import tempfile, gradcheck, keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="dense")], name="net")
        >>> model.compile("sgd", "mse")
        >>> logdir, x = tempfile.mkdtemp(), np.ones((6, 2), "float32")
        >>> callback = gradcheck.callbacks.GradientSummaryCallback(logdir, every=2)
        >>> history = model.fit(x, x[:, :1], batch_size=1, verbose=0, callbacks=[callback])
        >>> gradcheck.tensorboard.read_events(logdir).runs["train"].scalars["gradient_norm/net/dense/kernel"].steps
        (0, 2, 4)
    """

    def __init__(
        self,
        logdir: str | os.PathLike[str],
        every: int = 100,
        *,
        histograms: bool = True,
        weights: bool = True,
        metrics: bool = True,
        on_error: str = "log",
    ) -> None:
        super().__init__()
        if not isinstance(metrics, bool):
            raise TypeError(f"metrics must be True or False; got metrics={metrics!r}")
        self._writes: dict[str, Any] = {
            "every": every,
            "histograms": histograms,
            "weights": weights,
            "on_error": on_error,
        }
        self._metrics = metrics
        self._logdir = EventFile(logdir).logdir
        SummaryWriter(**self._writes)  # says what is wrong with them
        self._writer: SummaryWriter | None = None
        self._runs: dict[str, EventFile] = {}
        self._step = self._epoch = 0
        self._plain: Any = None
        self._begun = False

    def on_train_begin(self, logs: Any = None) -> None:
        """Stand between `fit` and its training function."""
        self.on_train_end()
        model = self.model
        if getattr(model, "optimizer", None) is None:
            raise ValueError(f"the model {model.name!r} has no optimizer; compile it before fit")
        self._step = self._taken()
        self._writer = SummaryWriter(os.path.join(self._logdir, "train"), **self._writes)
        self._plain = model.train_function
        model.make_train_function(force=True)
        model.__dict__["train_function"] = self._choosing(self._plain, model.train_function, self._writer)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Batches are counted within an epoch."""
        if self.model.steps_per_execution > 1:  # Keras counts steps at its end for which there was no data
            self._step = self._taken()
        self._epoch = self._step

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """What follows is a step of the training that has this callback."""
        self._begun = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """One step, or several by `steps_per_execution`, have been taken."""
        self._step = self._epoch + batch + 1

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write the metrics."""
        if not self._metrics:
            return
        for run, found in _by_run(logs or {}):
            if run not in self._runs:
                self._runs[run] = EventFile(os.path.join(self._logdir, run), on_error=self._writes["on_error"])
            self._runs[run].write(epoch, [scalar(f"epoch_{name}", value) for name, value in found.items()])

    def on_train_end(self, logs: Any = None) -> None:
        """Give the model back, and close the files."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        self.model.__dict__["train_function"], self._plain = self._plain, None
        writer.close()
        for run in self._runs.values():
            run.close()
        self._runs.clear()

    def _taken(self) -> int:
        """How many steps the optimizer has taken."""
        return int(tf.convert_to_tensor(self.model.optimizer.iterations))

    def _choosing(self, plain: Any, recorded: Any, writer: SummaryWriter) -> Callable[[Any], Any]:
        """The training function: the recorded one where a step is due."""
        model, optimizer = self.model, self.model.optimizer
        counter = ResourceVariable(0, dtype=tf.int64, trainable=False, name="gradcheck_step")

        def train(iterator: Iterator[Any]) -> Any:
            begun, self._begun = self._begun, False
            if self._writer is not writer or not begun:  # left by a training that has ended, or broken off elsewhere
                self.on_train_end()
                model.__dict__["train_function"] = plain
                return plain(iterator)
            steps = model.steps_per_execution
            if -self._step % writer.every >= steps:
                return plain(iterator)
            counter.assign(self._step)
            chosen = True if steps == 1 else None  # of several, the graph chooses
            try:
                with _applying(optimizer, _recorded(optimizer, writer, counter)), writer.choosing(chosen):
                    outputs = recorded(iterator)
                if steps > 1:
                    writer.flush()
            except _ENDS:
                raise
            except BaseException:
                self.on_train_end()  # which Keras does not call then
                raise
            return outputs

        return train


def _by_run(logs: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The metrics of an epoch by the run that Keras' own callback writes them to."""
    train = {name: value for name, value in logs.items() if not name.startswith("val_")}
    validation = {name.removeprefix("val_"): value for name, value in logs.items() if name.startswith("val_")}
    yield from ((run, found) for run, found in (("train", train), ("validation", validation)) if found)


@contextmanager
def _applying(optimizer: Any, apply: Callable[..., Any]) -> Iterator[None]:
    """A scope in which an optimizer applies gradients by another function."""
    attributes = optimizer.__dict__  # not by setattr, which may make it a part of what is saved
    before = attributes.get("apply", _ABSENT)
    attributes["apply"] = apply
    try:
        yield
    finally:
        if before is _ABSENT:
            del attributes["apply"]
        else:
            attributes["apply"] = before


def _recorded(optimizer: Any, writer: SummaryWriter, counter: Any) -> Callable[..., Any]:
    """The optimizer's `apply`, with what it is given recorded."""
    original = optimizer.apply

    @unconverted
    def apply(grads: Any, trainable_variables: Any = None) -> Any:
        grads = list(grads)
        variables = optimizer._trainable_variables if trainable_variables is None else list(trainable_variables)
        with writer.gradients(counter, _unscaled(optimizer, grads), variables):
            outputs = original(grads, variables)
        if speaks_for_all():
            counter.assign_add(1)
        return outputs

    return apply


def _unscaled(optimizer: Any, grads: Sequence[Any]) -> list[Any]:
    """Gradients of the loss itself, where the optimizer scales it."""
    scale = getattr(optimizer, "dynamic_scale", None)
    factor = optimizer.loss_scale_factor if scale is None else tf.convert_to_tensor(scale)
    return list(grads) if factor is None else [_divided(g, factor) for g in grads]


def _divided(gradient: Any, factor: Any) -> Any:
    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(_divided(gradient.values, factor), gradient.indices, gradient.dense_shape)
    return gradient / tf.cast(factor, gradient.dtype)
