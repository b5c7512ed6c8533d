"""A step that runs in Python under watch: variables are read before it, looked at behind it, and given back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.eager import context
from tensorflow.python.ops import stateful_random_ops

from gradcheck._graph import structure
from gradcheck._graph.concrete import AS_CONSTANTS, seen_by_python
from gradcheck._graph.functions import python_state_kept
from gradcheck._report.trip import Step
from gradcheck._watchdog.again import Again, again, said
from gradcheck._watchdog.layers import layer_outputs
from gradcheck._watchdog.looking import amounts_of, counted
from gradcheck._watchdog.names import output_name, variable_names
from gradcheck._watchdog.policy import Policy
from gradcheck._watchdog.running import running
from gradcheck._watchdog.seen import Seen, layer, scalar

_INSTEAD = "to have it named, watch a part that a tf.function can hold, or hand that to gradcheck.find_nonfinite"


class Snapshot:
    """The values of some variables at one moment, and the states of Python's, NumPy's and TensorFlow's own random.

    Reading a variable copies nothing: a later write in place copies first.

    Args:
        variables: The variables; those of a distribution strategy one by one.
    """

    def __init__(self, variables: Iterable[Any]) -> None:
        self._saved = [(inner, inner.read_value()) for inner in map(structure.variable_of, variables)]
        self._python, self._numpy = random.getstate(), np.random.get_state()
        self._tensorflow = None if _seeds() is None else _seeds().getstate()

    def add(self, variable: Any) -> None:
        """Take in a variable that was made since."""
        self._saved.append((variable, variable.read_value()))

    def restore(self) -> None:
        """Give everything back."""
        for variable, value in self._saved:
            variable.assign(value)
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        if self._tensorflow is not None and _seeds() is not None and _seeds().getstate() != self._tensorflow:
            _seeds().setstate(self._tensorflow)
            context.context().clear_kernel_cache()  # or ops with the same seed would go on from where they were

    def checked(self) -> list[tuple[Any, Any]]:
        """The variables of a floating or complex dtype, with their values then."""
        return [(v, value) for v, value in self._saved if v.dtype.base_dtype in structure.CONTINUOUS]


def _seeds() -> Any:
    """What gives the seeds of random ops that run eagerly; None before `tf.random.set_seed`."""
    return getattr(context.context(), "_rng", None)


def shared_generators() -> list[Any]:
    """The generators of random numbers that a step may use without holding them, if there are any."""
    return [stateful_random_ops.global_generator, global_state.get_global_attribute("global_seed_generator")]


class EagerStep:
    """A step that is called as it is.

    Args:
        function: The step.
        variables: Gives the variables that it may change, before each call.
        policy: What is asked for.
    """

    def __init__(self, function: Callable[..., Any], variables: Callable[..., list[Any]], policy: Policy) -> None:
        self._function = function
        self._layers: Callable[[], Any] = layer_outputs if policy.layer_outputs else nullcontext
        self._variables = variables

    def run(self, number: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Seen:
        """Call the step once, and give everything back unless all is finite. What the step raises comes through."""
        variables = self._variables(args, kwargs)
        before = Snapshot(variables)
        born: list[Any] = []

        def made(next_creator: Any, **options: Any) -> Any:
            variable = next_creator(**options)
            before.add(variable)
            born.append(variable)
            return variable

        with tf.variable_creator_scope(made), running() as guarded, self._layers() as given:
            result = self._function(*args, **kwargs)
        labels = variable_names(variables)
        checked = [(labels.get(id(v.handle), v.name), v, old) for v, old in before.checked()]
        after = [v.read_value() for _, v, _ in checked]
        leaves = structure.leaves(result, "output")
        outputs = [(output_name(leaf.path), leaf.value) for leaf in leaves if _is_scalar(leaf.value)]
        layers = {name for name, _ in given or ()}
        looked = [*outputs, *(given or ())]
        tensors = [*(t for _, t in looked), *after]
        found = list(guarded)
        if not np.isfinite(amounts_of(tensors)).all():
            olds = [*(None for _ in looked), *(old for *_, old in checked)]
            names = [*(n for n, _ in looked), *(f"new value of {n}" for n, *_ in checked)]
            found += [
                r for n, t, old in zip(names, tensors, olds, strict=True) if (r := counted(n, t, old)) is not None
            ]
        step = _described(number, outputs, checked, after)
        if found:
            before.restore()

        scales = [float(t) for (n, *_), t in zip(checked, after, strict=True) if n.endswith("dynamic_scale")]
        return Seen(
            result=result,
            healthy=not found,
            describe=lambda: step,
            found=lambda: tuple(found),
            again=partial(self._again, args, kwargs, born, anywhere=not layers.isdisjoint(f.name for f in found)),
            scale=scales[:1],
        )

    def _again(self, args: Sequence[Any], kwargs: Mapping[str, Any], born: Sequence[Any], *, anywhere: bool) -> Again:
        """Look for the op in a trace of the step, made for that alone; what it made is given to it once more."""
        function = getattr(self._function, "python_function", self._function)

        def traced(fn: Callable[..., Any], **options: Any) -> Any:
            left = iter(born)

            def given(next_creator: Any, **options: Any) -> Any:
                for variable in left:
                    return variable
                return next_creator(**options)

            with python_state_kept(), tf.variable_creator_scope(given):
                return tf.function(fn, **options).get_concrete_function(*args, **kwargs)

        notes: tuple[str, ...] = ()
        try:
            found = traced(function)
        except Exception:  # whatever the step does that a graph cannot must not hide the trip
            try:
                with seen_by_python() as trace:
                    found = traced(trace.around(function, args, kwargs), autograph=False)
            except Exception as error:
                note = f"the op is not named, because the step cannot be traced: {said(error)}; {_INSTEAD}"
                return Again(notes=(note,))
            notes = (AS_CONSTANTS.format("step"),)
        looked = again(found, args, kwargs, anywhere=anywhere)
        return replace(looked, notes=(*looked.notes, *notes))


def _is_scalar(value: Any) -> bool:
    return tf.is_tensor(value) and value.shape.rank == 0 and value.dtype in structure.CONTINUOUS


def _described(
    number: int, outputs: Sequence[tuple[str, Any]], checked: Sequence[tuple[str, Any, Any]], after: Sequence[Any]
) -> Step:
    moved = [(n, new - old, old) for (n, v, old), new in zip(checked, after, strict=True) if v.trainable]
    norms = np.sqrt(amounts_of([change for _, change, _ in moved]))
    sizes = np.sqrt(amounts_of([old for *_, old in moved]))
    layers = tuple(
        layer(name, float(norm), *_ends(change), float(size))
        for (name, change, _), norm, size in zip(moved, norms, sizes, strict=True)
    )
    return Step(number=number, outputs=tuple((n, scalar(t.numpy())) for n, t in outputs), layers=layers)


def _ends(change: Any) -> tuple[float, float]:
    real = abs(change.numpy()) if change.dtype.is_complex else change.numpy()
    return (float(real.min()), float(real.max())) if real.size else (0.0, 0.0)
