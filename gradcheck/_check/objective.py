"""What is differentiated of a Keras model: its loss where there are targets, else its outputs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from gradcheck._graph import structure
from gradcheck._graph.raised import add_note, raised_at

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # Keras prints the heads of its messages bold


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A function of a model's inputs, and the variables that it is differentiated with respect to."""

    name: str
    fn: Callable[[Any], Any]
    variables: Callable[[], Sequence[Any]]  # asked after fn was traced, which builds the model


def objective(model: Any, x: Any, y: Any, *, loss: Any, training: Any, sample_weight: Any, wrt: Any) -> Objective:
    """What a check of a model differentiates.

    Raises:
        TypeError, ValueError: If the arguments do not fit together; the text says what to write instead.
    """
    _validate(model, x, y, loss, training, sample_weight)

    def outputs(x: Any) -> Any:
        with _explained(f"{model.name} cannot be called on x ({_shown(x)})"):
            return _call(model, x, training)

    computed = None if y is None else _loss_of(model, loss)

    def total(x: Any) -> Any:
        found = outputs(x)
        with _explained(
            f"the loss of {model.name} cannot be computed from y ({_shown(y)}) and outputs {_shown(found)}"
        ):
            return computed(x, y, found, sample_weight, training)  # type: ignore[misc]

    def variables() -> Sequence[Any]:
        found: Sequence[Any] = model.trainable_variables
        if not found and wrt is None:
            raise ValueError(
                f'{model.name} has no trainable variable to differentiate with respect to; pass wrt="inputs", or '
                "the paths of frozen variables"
            )
        return found

    if computed is None:
        return Objective(name=model.name, fn=outputs, variables=variables)
    return Objective(name=f"loss of {model.name}", fn=total, variables=variables)


def _validate(model: Any, x: Any, y: Any, loss: Any, training: Any, sample_weight: Any) -> None:
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(
            f"model must be a Keras 3 model or layer, got {type(model).__name__}; any other callable is checked by "
            "check_gradients(fn, inputs)"
        )
    if isinstance(x, (str, bytes)) or x is None:
        raise TypeError(f"x must be one batch of inputs, arrays or tensors; got {type(x).__name__}")
    if isinstance(x, tf.data.Dataset):
        raise TypeError("x must be one batch of inputs, got a Dataset; write x, y = next(iter(dataset))")
    if not isinstance(training, bool):
        raise TypeError(f"training must be True or False; got training={training!r}")
    for key, value in (("loss", loss), ("sample_weight", sample_weight)):
        if y is None and value is not None:
            raise ValueError(
                f"{key} was given without y, the targets to compute a loss from; pass y, or leave {key} out"
            )
    if y is not None and loss is None and not getattr(model, "compiled", False):
        several = "" if hasattr(model, "compile") else "; for a layer of two arguments write check_model(layer, [x, y])"
        instead = "pass loss=..." if several else "pass loss=..., or call model.compile(loss=...)"
        raise ValueError(
            f"y was given, and there is no loss to compute from it: {model.name} is not compiled; {instead}{several}"
        )


def _call(model: Any, x: Any, training: bool) -> Any:
    """Call the model on its inputs; a layer that takes several arguments gets them one by one."""
    parameters = inspect.signature(model.call).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if sum(p.default is p.empty for p in positional) > 1:
        if isinstance(x, Mapping):
            return model(**x, training=training)
        if isinstance(x, (list, tuple)):
            return model(*x, training=training)
    return model(x, training=training)


def _loss_of(model: Any, loss: Any) -> Callable[..., Any]:
    if loss is None:
        takes_training = "training" in inspect.signature(model.compute_loss).parameters

        def compiled(x: Any, y: Any, outputs: Any, weight: Any, training: bool) -> Any:
            more = {"training": training} if takes_training else {}
            return model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=weight, **more)

        return compiled
    # Keras' own reading of names, functions and structures of losses, without touching what the user compiled.
    reader = keras.Model(name="gradcheck_loss")
    reader.output_names = getattr(model, "output_names", None)
    reader.compile(keras.optimizers.SGD(name="gradcheck_unused"), loss=loss, jit_compile=False)

    def given(x: Any, y: Any, outputs: Any, weight: Any, training: bool) -> Any:
        del x, training
        value = reader.compute_loss(y=y, y_pred=outputs, sample_weight=weight)
        return tf.add_n([value, *(tf.cast(tf.reduce_sum(part), value.dtype) for part in model.losses)])

    return given


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """A scope that says of misuse what was being done; what cannot be traced keeps its own words."""
    try:
        yield
    except tf.errors.OperatorNotAllowedInGraphError:
        raise
    except (TypeError, ValueError, KeyError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        said = " ".join(_ESCAPES.sub("", str(error)).split())
        explained = kind(f"{what}: {said[:400]}")
        place = raised_at(error)
        if place.file is not None:  # a line of the user's own layer, say, and not of Keras
            add_note(explained, str(place.function), place)
        raise explained from error


def _shown(value: Any) -> str:
    """The dtypes and shapes of a structure."""
    return ", ".join(
        f"{structure.dtype_name(leaf.value)} {list(leaf.value.shape)}"
        if hasattr(leaf.value, "shape")
        else type(leaf.value).__name__
        for leaf in structure.leaves(value, "")
    )


@contextmanager
def losses_kept(model: Any) -> Iterator[None]:
    """A scope that takes back the losses that layers collect when they are called; those of a trace belong to it."""
    kept = [(layer, list(layer._losses), set(layer._loss_ids)) for layer in model._flatten_layers()]
    try:
        yield
    finally:
        model._clear_losses()
        for layer, losses, ids in kept:
            layer._losses[:] = losses
            layer._loss_ids.update(ids)
