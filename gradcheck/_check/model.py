"""The check of a Keras model's gradients with respect to its variables."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from typing import Any

from gradcheck._calls import explained
from gradcheck._check.gradients import checked, with_notes
from gradcheck._check.objective import losses_kept, objective
from gradcheck._check.options import Options, called, options, required_executor
from gradcheck._farm.spread import spread
from gradcheck._graph.given import arrays
from gradcheck._report.gradient import GradientReport


@explained("x")
def check_model(
    model: Any,
    x: Any,
    y: Any = None,
    *,
    loss: Any = None,
    training: bool = False,
    sample_weight: Any = None,
    grad_ys: Any = None,
    wrt: Any = None,
    mode: str = "auto",
    order: int = 1,
    rtol: float | None = None,
    directions: int = 4,
    seed: int = 0,
    forward: bool = False,
    executor: Executor | None = None,
    name: str | None = None,
) -> GradientReport:
    """Compare the gradients of a Keras 3 model or layer, with respect to its variables, with finite differences.

    With `y` the loss is differentiated, regularizers and `add_loss` included; without it the outputs are, each with
    random cotangents. An unbuilt model is built, as calling it would. Nothing else of the model is changed: weights,
    batch statistics, metrics, the optimizer and the seeds of random layers stay as they are. Dropout is held.

    Args:
        model: A Sequential, functional or subclassed model, or a layer.
        x: One batch of inputs, in the structure that the model takes; for a layer that takes several arguments, such
            as MultiHeadAttention, a list of them, or a dict by their names.
        y: Targets, in the structure of the outputs.
        loss: As for `Model.compile`: a name, a `keras.losses.Loss`, a function of targets and outputs (its values are
            averaged, if it gives more than one), or a structure of these. Default: the loss the model was compiled
            with, as `model.compute_loss` gives it.
        training: What the model is called with.
        sample_weight: Weights for the loss, as `model.compute_loss` takes them.
        grad_ys: Cotangents in the structure of what is differentiated, as for `check_gradients`.
        wrt: None for every trainable variable, by its path, read or not; or "inputs", or paths or variables, frozen
            ones too, one or a list.
        mode, order, rtol, directions, seed, forward, executor: As for `check_gradients`.
        name: What to call the model in the report.

    Returns:
        The report, with one finding per output and variable; paths are those of Keras, such as "dense/kernel".

    Raises:
        TypeError, ValueError: For misuse, before anything is computed; the text says what to write.

    Example:
        >>> import gradcheck, keras, numpy as np
        >>> model = keras.Sequential([keras.layers.Dense(3, activation="tanh", name="dense")])
        >>> report = gradcheck.check_model(model, np.ones((2, 4), "float32"), np.zeros((2, 3)), loss="mse")
        >>> report.ok, len(report.findings)
        (True, 2)

    Reference: Keras 3 API documentation, `Model.compile` and `Model.compute_loss`.
    """
    opts = options(mode=mode, order=order, rtol=rtol, directions=directions, seed=seed, forward=forward)
    required_executor(executor)
    x, y = arrays(x, integers=True), arrays(y, integers=True)
    wanted = objective(model, x, y, loss=loss, training=training, sample_weight=sample_weight, wrt=wrt)
    started = time.perf_counter()
    given = {
        "y": y, "loss": loss, "training": training or None, "sample_weight": sample_weight, "grad_ys": grad_ys,
        "wrt": wrt,
    }  # fmt: skip
    with losses_kept(model), spread(executor) as noticed:
        found = checked(
            wanted.fn, [x], opts, called(name, wanted.name), _again(given, opts), started, grad_ys=grad_ys, wrt=wrt,
            variables=wanted.variables, owner=model,
        )  # fmt: skip
    return with_notes(found, noticed)


def _again(given: dict[str, Any], opts: Options) -> str:
    """A line that repeats the check."""
    parts = ["model", "x"]
    for key, value in given.items():
        if value is not None:
            shown = repr(value) if isinstance(value, (str, bool)) else key
            parts.append("y" if key == "y" else f"{key}={shown}")
    return f"check_model({', '.join([*parts, *opts.changed()])}, seed={opts.seed})"
