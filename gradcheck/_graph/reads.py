"""The variables that a function reads or holds, and what to call them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from gradcheck._graph import structure
from gradcheck._graph.copies import Copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A variable that a function reads, what to call it, and whether it is to be differentiated by default."""

    path: str
    variable: Any  # tf.Variable
    trainable: bool


@contextmanager
def kept_variables(fn: Any, inputs: Any) -> Iterator[None]:
    """A scope that gives variables their values back: those among the inputs, and those that fn holds."""
    owners = [*owners_of(fn), *(leaf.value for leaf in structure.leaves(inputs, ""))]
    found = [structure.variable_of(v) for owner in owners for v in variables_of(owner)]
    variables = {id(v): v for v in found if v is not None}.values()
    saved = [(v, v.numpy()) for v in variables if tf.executing_eagerly()]
    try:
        yield
    finally:
        for variable, value in saved:
            if variable.numpy().tobytes() != value.tobytes():
                variable.assign(value)


def variables_read(graph: Any, fns: Sequence[Any], also: Sequence[Any] = ()) -> list[Read]:
    """All that was read, in the order of first use, and then what is asked for `also`, read or not."""
    watched = {id(v.handle): v for v in graph._watched_variables}
    holders = {key: holder for fn in fns for key, holder in _keras_holders(fn).items()}
    found: list[Read] = []
    taken = set()
    read = [watched.get(id(external)) for external, _ in graph.captures]
    read += graph.variables() if isinstance(graph, Copy) else []
    read += [structure.variable_of(v) for v in also]
    for variable in {id(v): v for v in read if v is not None}.values():
        holder = holders.get(id(variable))
        path = variable.name.removesuffix(":0") if holder is None else holder.path
        unique, n = path, 2
        while unique in taken:
            unique, n = f"{path}#{n}", n + 1
        taken.add(unique)
        # A frozen layer of Keras says so on its own variable only.
        trainable = variable.trainable and (holder is None or holder.trainable)
        found.append(Read(path=unique, variable=variable, trainable=trainable))
    return found


def _keras_holders(fn: Any) -> dict[int, Any]:
    """Keras' variables around those that fn holds: as a layer or model, a bound method, in its closure or globals."""
    holders: dict[int, Any] = {}
    for owner in owners_of(fn):
        for variable in variables_of(owner):
            inner = structure.variable_of(variable)
            if inner is not None and isinstance(getattr(variable, "path", None), str):
                holders[id(inner)] = variable
    return holders


def owners_of(fn: Any) -> list[Any]:
    """What fn holds that may hold variables: itself, the object it is bound to, its closure and its globals."""
    inner = getattr(fn, "python_function", fn)
    owners = [fn, getattr(fn, "__self__", None), getattr(inner, "__self__", None)]
    for cell in getattr(inner, "__closure__", None) or ():
        try:
            owners.append(cell.cell_contents)
        except ValueError:  # a cell that is not filled yet
            continue
    code, scope = getattr(inner, "__code__", None), getattr(inner, "__globals__", {})
    owners += [scope[n] for n in getattr(code, "co_names", ()) if n in scope]
    return [part for owner in owners for part in (owner if isinstance(owner, (list, tuple)) else [owner])]


def variables_of(owner: Any) -> Sequence[Any]:
    if owner is None or isinstance(owner, (type, str)) or not hasattr(type(owner), "variables"):
        return [owner] if structure.variable_of(owner) is not None else []
    if type(owner).__module__.partition(".")[0] == "numpy":
        return []
    return listed_variables(owner)


def listed_variables(owner: Any) -> Sequence[Any]:
    """What an object says are its variables: none, where it says nothing of the kind, or refuses to."""
    try:
        found = getattr(owner, "variables", ())
    except Exception:  # the user's own property: some libraries raise where there are none
        return ()
    return found if isinstance(found, (list, tuple)) else ()
