"""A Python callable, traced: what the user's function computes, and with respect to what it is differentiated."""

from __future__ import annotations

import inspect
import random
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from gradcheck._graph import structure
from gradcheck._graph.asked import (
    asked_by_gradients,
    gradients_as_outputs,
    outputs_of,
    refuse_with_gradients,
    shown_of,
    xs_of,
)
from gradcheck._graph.concrete import AS_CONSTANTS, seen_by_python
from gradcheck._graph.copies import Copy
from gradcheck._graph.keywords import bound_keywords, is_refused
from gradcheck._graph.memory import fingerprint, recall, remember
from gradcheck._graph.outside import constants_of, read_by_python
from gradcheck._graph.quiet import errors_only
from gradcheck._graph.raised import add_note, raised_at
from gradcheck._graph.reads import kept_variables, variables_read
from gradcheck._graph.trace import Asked, Gradients, Outside, Traced, finish, place_inputs, with_values
from gradcheck._graph.values import Values


def trace_function(
    fn: Callable[..., Any], inputs: Any, *, grad_ys: Any = None, wrt: Any = None, name: str | None = None,
    order: int = 1, seed: int = 0, x_required: bool = True, surrogate: Callable[..., Any] | None = None,
    variables: Callable[[], Sequence[Any]] | None = None, owner: Any = None, at_inputs: bool = False,
) -> Traced:  # fmt: skip
    """Trace a callable at the given inputs, with its gradients.

    Args:
        fn: What to call.
        inputs: A list or tuple is positional arguments, a dict keyword arguments, anything else one argument.
        grad_ys: None, or cotangents in the structure of the outputs.
        wrt: None, "inputs", or names, tensors and variables.
        name: What to call the function; default its own name.
        order: 2 makes the gradients of the function the outputs.
        seed: Of the cotangents of those gradients, with order 2.
        x_required: Refuse a function that has nothing to be differentiated with respect to.
        surrogate: A function whose values stand in for those of fn; the gradients stay those of fn.
        variables: Gives the variables that are differentiated unless `wrt` says otherwise, read or not; asked after
            the tracing, which may make them. A function that cannot be traced is then refused, because what runs in
            Python hides the variables that it reads.
        owner: The object that fn was made from; a trace is remembered for as long as it lives. Default fn itself.
        at_inputs: The trace is run at these inputs only: what fn takes into Python may be constants.

    Raises:
        TypeError, ValueError: If the outputs, `grad_ys` or `wrt` cannot be used; the text says why.
    """
    name = name or name_of(fn)
    notes: list[str] = []
    arrays = [leaf for leaf in structure.leaves(inputs, "inputs") if isinstance(leaf.value, np.ndarray)]
    copies = [leaf.value.copy() for leaf in arrays]
    called = fn if surrogate is None else _side_by_side(fn, surrogate, inputs)
    lost: list[Outside] = []
    graph, placed, result, skipped = _call(
        called, inputs, name, notes, lost, eagerly=variables is None, at_inputs=at_inputs
    )
    _give_back(arrays, copies, name, notes)
    result, shown = (result, None) if surrogate is None else result
    wanted = () if variables is None else variables()
    outside = {id(each.variable): each for each in (*lost, *constants_of(graph, wanted, wrt))}
    read = variables_read(graph, [fn, surrogate], [*wanted, *(each.variable for each in outside.values())])
    outside_by_path = {r.path: outside[id(r.variable)] for r in read if id(r.variable) in outside}
    if isinstance(result, Gradients):
        refuse_with_gradients(grad_ys, wrt)
        asked = asked_by_gradients(result, placed, read)
    else:
        default = wanted if variables is not None and wrt is None else wrt
        try:
            xs = xs_of(placed, read, default, skipped, inputs, required=x_required)
        except ValueError as error:
            raise ValueError("; ".join([str(error), *notes])) from error.__cause__
        outputs = outputs_of(result, grad_ys, graph, name, fn)
        asked = Asked(outputs=outputs, xs=xs, stops=[])
    if surrogate is not None:
        asked.shown = shown_of(asked, shown, graph, name_of(surrogate))
    if isinstance(graph, Copy):
        asked.xs = [(path, graph.x_of(x)) for path, x in asked.xs]
    feeds = [(tensor, value) for _, tensor, value in placed if value is not None]
    key = fingerprint(graph, asked, (name, order, seed, tuple(skipped)))
    lasting = not notes and not isinstance(graph, Copy)
    owner = fn if owner is None else owner
    known = recall(owner, key) if lasting else None
    if known is not None:
        externals = [external for external, _ in graph.captures]
        again = with_values(known, [v for _, v in feeds], externals, Values(), [g for _, _, g in asked.outputs])
        return replace(again, outside=outside_by_path)
    try:
        if order == 2:
            asked = gradients_as_outputs(graph, asked, seed)
        finished = finish(graph, name, asked, feeds, Values(), skipped, notes)
    except Exception as error:
        if raised_at(error).file is None:
            raise
        plain = surrogate is None and variables is None and order == 1 and not isinstance(result, Gradients)
        inside, note = _differentiated_in_python(fn, inputs, name, error, possible=plain and not notes)
        again = trace_function(inside, inputs, grad_ys=grad_ys, wrt=wrt, name=name, seed=seed, x_required=x_required)
        return replace(again, notes=(note, *again.notes))
    traced = replace(finished, outside=outside_by_path)
    if lasting and not any(name.startswith("drawn_") for name in traced.values):
        remember(owner, key, traced)
    return traced


def _give_back(arrays: Sequence[structure.Leaf], copies: Sequence[Any], name: str, notes: list[str]) -> None:
    """Undo what fn did to the user's arrays."""
    for leaf, copy in zip(arrays, copies, strict=True):
        if leaf.value.tobytes() != copy.tobytes():
            leaf.value[...] = copy
            notes.append(f"{name} changes {leaf.path} in place; the array was given its values back")


def name_of(fn: Any) -> str:
    """What to call a callable: its __name__, or the name of its class."""
    name = getattr(fn, "__name__", None) or getattr(fn, "name", None)
    return name if isinstance(name, str) else type(fn).__name__


@contextmanager
def python_state_kept() -> Iterator[None]:
    """A scope that gives Python's and NumPy's random states back."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


@contextmanager
def _tracing() -> Iterator[None]:
    """A scope for calling fn: random states are kept, and TensorFlow's logger speaks of errors only."""
    with errors_only(), python_state_kept():  # AutoGraph warns of what is then run eagerly, and so reported by us
        yield


def _side_by_side(fn: Callable[..., Any], surrogate: Callable[..., Any], inputs: Any) -> Callable[..., Any]:
    """Both functions called with the same arguments."""

    def both(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return fn(*args, **kwargs), surrogate(*args, **kwargs)

    return both


def _call(
    fn: Callable[..., Any],
    inputs: Any,
    name: str,
    notes: list[str],
    lost: list[Outside],
    *,
    eagerly: bool,
    at_inputs: bool,
) -> tuple[Any, Any, Any, list[str]]:
    """Call fn in a graph of ours: as it is, else converted by AutoGraph, else as one op that runs it `eagerly`.

    Before the last, where only these inputs matter: as it is, what it takes into Python being constants.
    """
    with _tracing():
        try:
            return _in_graph(fn, inputs)
        except Exception as error:
            _refuse_unfit(fn, inputs, name, error)
            first = error
        if is_refused(first) and tf.executing_eagerly():
            with suppress(Exception), bound_keywords():
                return _in_graph(fn, inputs)
        eager = _eager_outputs(fn, inputs, name) if eagerly and tf.executing_eagerly() else None
    with _tracing():
        try:
            converted = tf.__internal__.autograph.tf_convert(fn, tf.__internal__.autograph.control_status_ctx())
            return _in_graph(converted, inputs)
        except Exception:
            if eager is None:
                raise first from first.__cause__
        if at_inputs:
            with suppress(Exception), seen_by_python() as trace:
                args, kwargs = apply(lambda *args, **kwargs: (args, kwargs), inputs, inputs)
                found = _in_graph(trace.around(fn, args, kwargs), inputs)
                notes.append(AS_CONSTANTS.format("function"))
                return found
        notes.append(
            f"{name} cannot be traced ({_said(first)}); it was called eagerly, through tf.py_function: in its own "
            "dtype, and without the variables it reads"
        )
        with suppress(Exception):  # what cannot be looked at says nothing
            lost += read_by_python(fn, lambda: _continuous(_eager_outputs(fn, inputs, name)))
        return _in_graph(_through_python(fn, inputs, eager), inputs)


def _said(error: Exception) -> str:
    """The kind of an error, the user's line that raised it, and how its text begins."""
    place = raised_at(error)
    where = "" if place.file is None else f" at {place.file}:{place.line}"
    return f"{type(error).__name__}{where}: {textwrap.shorten(str(error), 120, placeholder=' ...')}"


def _refuse_unfit(fn: Callable[..., Any], inputs: Any, name: str, error: Exception) -> None:
    """Raise, where fn could not be called because it takes other arguments, what to pass instead."""
    if not isinstance(error, TypeError):
        return
    try:
        apply(inspect.signature(fn).bind, inputs, inputs)
    except ValueError:  # some callables do not tell what they take
        return
    except TypeError as unfit:
        raise TypeError(f"{name} cannot be called with these inputs ({unfit}): {_passed_as(inputs)}") from error


def _passed_as(inputs: Any) -> str:
    """How inputs are passed to a function, and what to write for another way."""
    if isinstance(inputs, Mapping):
        names = ", ".join(map(str, inputs))
        return (
            f"inputs is a dict, whose keys ({names}) are the names of arguments; for one that is a dict write [inputs]"
        )
    if isinstance(inputs, (list, tuple)) and not hasattr(inputs, "_fields"):
        kind = type(inputs).__name__
        whole = bool(inputs) and all(isinstance(value, int) for value in inputs)
        array = 'np.array(inputs, "float32")' if whole else "np.array(inputs)"
        return (
            f"inputs is a {kind} of {len(inputs)}, and each entry is one positional argument; for one argument write "
            f"{array}, or [inputs] where the function takes a {kind}"
        )
    return f"inputs is one argument, found {type(inputs).__name__}; for several write a list of them"


def _in_graph(fn: Callable[..., Any], inputs: Any) -> tuple[Any, Any, Any, list[str]]:
    # In a graph of the user's, what fn reads of it is copied: gradients then pass through it, and values are read once.
    graph = FuncGraph("gradcheck") if tf.executing_eagerly() else Copy(tf.compat.v1.get_default_graph(), {})
    with graph.as_default():
        arguments, placed, skipped = place_inputs(graph, inputs, "inputs")
        result = apply(fn, arguments, inputs)
    return graph, placed, result, skipped


def apply(fn: Callable[..., Any], arguments: Any, inputs: Any) -> Any:
    """Call fn with arguments of the structure of `inputs`: positional, by keyword, or one."""
    if isinstance(inputs, Mapping):
        return fn(**arguments)
    if isinstance(inputs, (list, tuple)) and not hasattr(inputs, "_fields"):
        return fn(*arguments)
    return fn(arguments)


def _eager_outputs(fn: Callable[..., Any], inputs: Any, name: str) -> Any:
    """Call fn eagerly; an error is the user's, and comes through with a note on which call it was."""
    with kept_variables(fn, inputs):
        return _eagerly(fn, inputs, name)


def _continuous(outputs: Any) -> list[Any]:
    return [
        tf.convert_to_tensor(leaf.value)
        for leaf in structure.leaves(outputs, "")
        if structure.is_continuous(leaf.value)
    ]


def _eagerly(fn: Callable[..., Any], inputs: Any, name: str) -> Any:
    try:
        arguments = structure.rebuild(inputs, lambda v: tf.convert_to_tensor(v) if _is_array(v) else v)
        return apply(fn, arguments, inputs)
    except Exception as error:
        add_note(error, f"{name} when called at the given inputs, before any check", raised_at(error))
        raise


def _differentiated_in_python(
    fn: Callable[..., Any], inputs: Any, name: str, error: Exception, *, possible: bool
) -> tuple[Callable[..., Any], str]:
    """fn as one op that runs it eagerly, where a gradient function inside raised while it was traced; and a note.

    Raises:
        Exception: What was raised, with a note on whose it is, where it is raised eagerly too or this is not possible.
    """
    try:
        if not (possible and tf.executing_eagerly()):
            raise error
        with _tracing(), kept_variables(fn, inputs), tf.GradientTape() as tape:
            arguments = structure.rebuild(inputs, lambda v: tf.convert_to_tensor(v) if _is_array(v) else v)
            moving = _continuous(arguments)
            tape.watch(moving)
            outputs = apply(fn, arguments, inputs)
            with tape.stop_recording():
                tape.gradient(_continuous(outputs), moving)
    except Exception as own:
        add_note(own, f"a gradient function within {name}, before any check", raised_at(own))
        raise
    note = (
        f"the gradient of {name} cannot be traced ({_said(error)}); it was taken eagerly, through tf.py_function: in "
        "its own dtype, and without the variables it reads"
    )
    return _through_python(fn, inputs, outputs), note


def _is_array(value: Any) -> bool:
    return structure.is_continuous(value) and structure.variable_of(value) is None


def _through_python(fn: Callable[..., Any], inputs: Any, eager: Any) -> Callable[..., Any]:
    """fn as one op that runs it eagerly and is differentiated by a tape inside."""
    if isinstance(eager, Gradients):
        raise TypeError("a function that returns gradcheck.Gradients must be traceable: it names tensors of a graph")
    flat = [leaf.value for leaf in structure.leaves(inputs, "")]
    moving = [i for i, value in enumerate(flat) if _is_array(value)]
    specs = [tf.convert_to_tensor(leaf.value) for leaf in structure.leaves(eager, "")]

    def run(*tensors: Any) -> list[Any]:
        values = list(flat)
        for i, tensor in zip(moving, tensors, strict=True):
            values[i] = tensor
        rest = iter(values)
        outputs = apply(fn, structure.rebuild(inputs, lambda _: next(rest)), inputs)
        return [tf.convert_to_tensor(leaf.value) for leaf in structure.leaves(outputs, "")]

    def call(*args: Any, **kwargs: Any) -> Any:
        given = kwargs if isinstance(inputs, Mapping) else args
        single = not isinstance(inputs, (Mapping, list, tuple))
        tensors = [leaf.value for leaf in structure.leaves(args[0] if single else given, "")]
        outputs = tf.py_function(run, [tensors[i] for i in moving], [s.dtype for s in specs])
        for output, spec in zip(outputs, specs, strict=True):
            output.set_shape(spec.shape)
        rest = iter(outputs)
        return structure.rebuild(eager, lambda _: next(rest))

    return call
