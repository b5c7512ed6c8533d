"""A fault planted in a training: what it is made of, and what becomes of it under watch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradcheck import Watchdog

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: keras.optimizers.SGD(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "adamw": lambda: keras.optimizers.AdamW(0.01, use_ema=True),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, centered=True, momentum=0.5),
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "ftrl": lambda: keras.optimizers.Ftrl(0.01),
    "lion": lambda: keras.optimizers.Lion(0.01),
    "clipped": lambda: keras.optimizers.Adam(0.01, global_clipnorm=1.0),
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A step that can go wrong.

    Attributes:
        step: What is put under watch.
        good, bad: Arguments with which it is healthy, and with which it is not.
        state: What must not change in a step that trips: variables, generators.
    """

    step: Callable[..., Any]
    good: tuple[Any, ...]
    bad: tuple[Any, ...]
    state: Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A fault: how to build the training, and what the report must say.

    Attributes:
        make: Builds the training; its source holds `# here` at the line to blame.
        ops: Types of the op that may be named: the first that gives what is not finite.
        cause: As in the report.
        hidden: Whether the loss stays finite although the weights do not, so that TerminateOnNaN is silent.
    """

    name: str
    make: Callable[[], Trial]
    source: Callable[..., Any]
    ops: tuple[str, ...]
    cause: str
    hidden: bool = False

    @property
    def line(self) -> str:
        """The line to blame, as "file:line"; empty where what came in is to blame."""
        lines, first = inspect.getsourcelines(self.source)
        at = [first + k for k, text in enumerate(lines) if "# here" in text]
        return f"{Path(inspect.getsourcefile(self.source) or '').name}:{at[0]}" if at else ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a fault: each of the four must be true."""

    name: str
    tripped: bool  # at the bad step and at no other
    op: bool
    line: bool
    cause: bool
    kept: bool  # every bit
    hidden: bool  # the plain training's loss stayed finite, where it was said to
    text: str = field(repr=False, default="")

    @property
    def ok(self) -> bool:
        return all((self.tripped, self.op, self.line, self.cause, self.kept, self.hidden))


def bits(state: Sequence[Any]) -> list[bytes]:
    """Every bit of variables and generators."""
    held = [each.state if isinstance(each, tf.random.Generator) else each for each in state]
    return [np.asarray(each).tobytes() for each in held]


def answer(fault: Planted) -> Answer:
    """Run a fault under watch: healthy steps, the bad one, a healthy one again."""
    keras.utils.set_random_seed(1)
    trial = fault.make()
    watchdog = Watchdog(action="skip")
    watched = watchdog.watch(trial.step)
    for _ in range(2):
        watched(*trial.good)
    early, before = watchdog.trips, bits(trial.state)
    watched(*trial.bad)
    kept, tripped = bits(trial.state) == before, watchdog.trips - early
    watched(*trial.good)
    report = watchdog.report
    found = None if report is None else report.nonfinite
    moved = bits(trial.state) != before
    where = Path(found.where).name if found is not None and found.where else ""
    return Answer(
        name=fault.name,
        tripped=(early, tripped, watchdog.trips) == (0, 1, 1) and moved,
        op=found is not None and found.op_type in fault.ops,
        line=found is not None and (not fault.line or where == fault.line),
        cause=found is not None and found.cause == fault.cause,
        kept=kept,
        hidden=not fault.hidden or _is_hidden(fault),
        text=f"{fault.name}: expected {fault.ops} {fault.cause} at {fault.line}\n{report}",
    )


def _is_hidden(fault: Planted) -> bool:
    """Whether the training, not under watch, loses its weights while its loss stays finite."""
    keras.utils.set_random_seed(1)
    trial = fault.make()
    losses = [float(trial.step(*trial.good)), *(float(trial.step(*trial.bad)) for _ in range(2))]
    values = [np.asarray(v) for v in trial.state if not isinstance(v, tf.random.Generator)]
    lost = any(not np.isfinite(v).all() for v in values if v.dtype.kind == "f")
    return lost and bool(np.isfinite(losses).all())


def training(
    loss: Callable[..., Any], weights: Sequence[Any], optimizer: str, *, run: str = "function"
) -> tuple[Callable[..., Any], list[Any]]:
    """A step that minimizes `loss(*weights, *batch)`, and all of its state."""
    variables = [tf.Variable(w, name=f"w{k}") for k, w in enumerate(weights)]
    chosen = OPTIMIZERS[optimizer]()
    chosen.build(variables)
    mean = keras.metrics.Mean()
    generator = tf.random.Generator.from_seed(5)

    def step(*batch: Any) -> Any:
        generator.normal([2])
        with tf.GradientTape() as tape:
            value = loss(*variables, *batch)
        chosen.apply(tape.gradient(value, variables), variables)
        mean.update_state(value)
        return value

    state = [*variables, *chosen.variables, *mean.variables, generator]
    return _run(step, run), state


def model_training(
    model: Any, loss: Callable[..., Any], optimizer: str, *, run: str = "function"
) -> tuple[Callable[..., Any], list[Any]]:
    """The same for a Keras model: `loss(y, model(x))`."""
    chosen = OPTIMIZERS[optimizer]()
    chosen.build(model.trainable_variables)

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        chosen.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
        return value

    return _run(step, run), [*model.variables, *chosen.variables]


def _run(step: Callable[..., Any], how: str) -> Callable[..., Any]:
    if how == "eager":
        return step
    if how == "nested":
        inner = tf.function(step)
        return tf.function(lambda *batch: inner(*batch))  # noqa: PLW0108
    return tf.function(step, jit_compile=how == "compiled")
