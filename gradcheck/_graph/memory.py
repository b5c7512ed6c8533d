"""Traces remembered: a function that traces to the same graph again is not differentiated and compiled again."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import Any

from gradcheck._graph import structure
from gradcheck._graph.trace import Asked, Traced

_MOST = 16
_known: OrderedDict[tuple[int, Any], tuple[weakref.ref[Any], Any, Traced]] = OrderedDict()


def fingerprint(graph: Any, asked: Asked, more: tuple[Any, ...]) -> Any:
    """All that decides what a trace is turned into, before its gradients are built.

    Two traces with one fingerprint run the same ops on the same kinds of inputs. A `tf.custom_gradient` gets a name
    of its own in every trace, so what Python decides inside one is never taken from memory.
    """
    outputs = tuple((path, tuple(t.name for t in tensors)) for path, tensors, _ in asked.outputs)
    xs = tuple((path, _name(x)) for path, x in asked.xs)
    stops = tuple(_name(s) for s in asked.stops)
    shown = tuple(t.name for tensors in asked.shown or () for t in tensors)
    captures = tuple(inner.name for _, inner in graph.captures)
    definition = graph.as_graph_def().SerializeToString(deterministic=True)
    return definition, outputs, xs, stops, shown, captures, asked.unconnected, more


def _name(x: Any) -> Any:
    variable = structure.variable_of(x)
    return ("variable", id(variable)) if variable is not None else getattr(x, "name", id(x))


def recall(fn: Any, wanted: Any) -> Traced | None:
    """What was remembered of this very function under this fingerprint, or None."""
    found = _known.get((id(fn), wanted[-1]))
    if found is None or found[0]() is not fn or found[1] != wanted:
        return None
    _known.move_to_end((id(fn), wanted[-1]))
    return found[2]


def remember(fn: Any, wanted: Any, traced: Traced) -> None:
    """Keep a trace for as long as the function lives, the most recent ones only."""
    try:
        key = (id(fn), wanted[-1])
        reference = weakref.ref(fn, lambda _: _known.pop(key, None) and None)
    except TypeError:  # not every callable can be referred to weakly
        return
    _known[key] = (reference, wanted, traced)
    while len(_known) > _MOST:
        _known.popitem(last=False)
