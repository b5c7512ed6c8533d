"""Places in the user's code: which line made an op."""

from __future__ import annotations

import linecache
import os
import sysconfig
from functools import lru_cache
from typing import Any

from gradcheck._graph.held import HeldProgram, held_inside
from gradcheck._graph.program import CALLED, node_of
from gradcheck._graph.randomness import RANDOM
from gradcheck._graph.trace import Traced
from gradcheck._results import Held, Place

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@lru_cache(maxsize=1)
def _library_roots() -> tuple[str, ...]:
    import keras
    import tensorflow as tf

    packages = [os.path.dirname(os.path.dirname(os.path.abspath(m.__file__))) for m in (tf, keras)]
    return tuple(
        {
            _OURS,
            sysconfig.get_paths()["stdlib"],
            *(os.path.join(p, n) for p in packages for n in ("tensorflow", "keras")),
        }
    )


def place(graph: Any, name: str, op_type: str = "") -> Place:
    """The place of a node of the program traced from a FuncGraph."""
    op = _original(graph, _operation(graph, name))
    if op is None:
        return Place(op=name, op_type=op_type)
    for frame in reversed(list(op.traceback or ())):
        if not frame.filename.startswith(_library_roots()) and not frame.filename.startswith("<"):
            source = linecache.getline(frame.filename, frame.lineno).strip()
            return Place(
                op=name,
                op_type=op.type,
                file=_short(frame.filename),
                line=frame.lineno,
                function=frame.name,
                source=source or None,
            )
    return Place(op=name, op_type=op.type)


def _short(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _original(graph: Any, op: Any) -> Any:
    """The op that was copied, where the graph is a copy of the user's: that one knows its line."""
    origin = getattr(graph, "origin", None)
    if op is None or origin is None or op.graph is not graph:
        return op
    try:
        found = origin.get_operation_by_name(op.name)
    except (KeyError, ValueError):
        return op
    return found if found.type == op.type else op


def _operation(graph: Any, name: str) -> Any:
    """The op of that name, in the graph or in a function that it calls (names of inlined nodes are joined by /)."""
    for candidate in (name, name.rsplit("_", 1)[0]):
        try:
            return graph.get_operation_by_name(candidate)
        except (KeyError, ValueError):
            continue
    parts = name.split("/")
    for k in range(len(parts) - 1, 0, -1):
        try:
            call = graph.get_operation_by_name("/".join(parts[:k]))
        except (KeyError, ValueError):
            continue
        inner = _called_graph(graph, call)
        if inner is not None:
            return _operation(inner, "/".join(parts[k:]))
    return None


def _called_graph(graph: Any, call: Any) -> Any:
    for key in CALLED.get(call.type, ()):
        attribute = call.node_def.attr[key]
        name = attribute.func.name
        while graph is not None:
            function = graph._functions.get(name)
            if function is not None and hasattr(function, "graph"):
                return function.graph
            graph = getattr(graph, "outer_graph", None)
    return None


def held_places(traced: Traced, held: HeldProgram) -> tuple[Held, ...]:
    """What is held while inputs move: stopped tensors, and random numbers that outputs depend on."""
    stops = set(traced.stops)
    types = {node.name: node for node in traced.program.main.nodes}
    found = []
    for source in held.sources:
        node = types.get(node_of(source.ref))
        if node is None:
            continue
        if node.op == "StopGradient":
            found.append(Held(place=place(traced.graph, node.name, node.op), reason="stop_gradient"))
        elif source.ref in stops:
            found.append(Held(place=place(traced.graph, node.name, node.op), reason="stop_gradients"))
    for node in traced.program.main.nodes:
        if node.op in RANDOM and "gradients/" not in node.name:
            found.append(Held(place=place(traced.graph, node.name, node.op), reason="random"))
        elif node.op in CALLED and "gradients/" not in node.name:
            inside = held_inside(node, traced.program.library)
            found += [
                Held(place=place(traced.graph, f"{node.name}/{n}", "StopGradient"), reason="stop_gradient")
                for n in inside
            ]
    return tuple({str(h): h for h in found}.values())
