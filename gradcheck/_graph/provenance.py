"""Places in the user's code: which line made an op."""

from __future__ import annotations

import linecache
import os
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from gradcheck._graph.held import HeldProgram, held_inside
from gradcheck._graph.program import CALLED, find_function, node_of
from gradcheck._graph.quantiles import AT_BASE
from gradcheck._graph.randomness import RANDOM
from gradcheck._graph.trace import Traced
from gradcheck._results import Held, Place

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SUBJECTS = os.path.join(_OURS, "subjects") + os.sep  # read as a user's code would be


@lru_cache(maxsize=1)
def _library_roots() -> tuple[str, ...]:
    import keras
    import tensorflow as tf

    roots = {_OURS, *(os.path.dirname(os.path.abspath(m.__file__)) for m in (tf, keras))}
    # tf.__file__ lies in tensorflow/_api for some builds
    roots |= {root.split(f"{os.sep}_api{os.sep}")[0] for root in roots}
    return tuple(root + os.sep for root in roots)


def _is_users(path: str) -> bool:
    if not path.endswith(".py") and not path.startswith("<ipython"):  # such as the script that started us
        return False
    if path.startswith(_library_roots()) and not path.startswith(_SUBJECTS):
        return False
    standard = sysconfig.get_paths()["stdlib"] + os.sep
    return not path.startswith(standard) or f"{os.sep}site-packages{os.sep}" in path


def place(graph: Any, name: str, op_type: str = "") -> Place:
    """The place of a node of the program traced from a FuncGraph."""
    op = _operation(graph, _forward(name))
    return Place(op=name, op_type=op_type) if op is None else place_of(op, name, op_type)


def place_of(op: Any, name: str, op_type: str = "") -> Place:
    """The place of an op, by the line that made it."""
    for frame in reversed(list(op.traceback or ())):
        if _is_users(frame.filename):
            source = linecache.getline(frame.filename, frame.lineno).strip()
            return Place(
                op=name,
                op_type=op_type or op.type,
                file=_short(frame.filename),
                line=frame.lineno,
                function=frame.name,
                source=source or None,
            )
    return Place(op=name, op_type=op_type or op.type)


def _forward(name: str) -> str:
    """The op that a gradient op differentiates: that is where the user wrote something."""
    if not name.startswith("gradients/"):
        return name
    return name.removeprefix("gradients/").split("_grad/")[0]


def _short(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _original(graph: Any, op: Any) -> Any:
    """The op that was copied, where the graph holds copies of the user's ops: that one knows its line."""
    return graph.original(op) if hasattr(graph, "original") else op


def _operation(graph: Any, name: str) -> Any:
    """The op of that name, in the graph or in a function that it calls (names of inlined nodes are joined by /)."""
    for candidate in (name, name.rsplit("_", 1)[0]):
        try:
            return _original(graph, graph.get_operation_by_name(candidate))
        except (KeyError, ValueError):
            continue
    parts = name.split("/")
    for k in range(len(parts) - 1, 0, -1):
        try:
            call = _original(graph, graph.get_operation_by_name("/".join(parts[:k])))
        except (KeyError, ValueError):
            continue
        for inner in _called_graphs(call):
            found = _operation(inner, "/".join(parts[k:]))
            if found is not None:
                return found
    return None


def _called_graphs(call: Any) -> Iterator[Any]:
    """The graphs of all functions that an op calls."""
    for key in CALLED.get(call.type, ()):
        attribute = call.node_def.attr[key]
        functions = attribute.list.func if attribute.WhichOneof("value") == "list" else [attribute.func]
        for called in functions:
            graph = getattr(find_function(call.graph, called.name), "graph", None)
            if graph is not None:
                yield graph


def held_places(traced: Traced, held: HeldProgram) -> tuple[Held, ...]:
    """What is held while inputs move: stopped tensors, and random numbers that outputs depend on."""
    stops = set(traced.stops)
    types = {node.name: node for node in traced.program.main.nodes}
    found = []
    for source in held.sources:
        node = types.get(node_of(source.ref))
        if node is None or AT_BASE in node.attr:
            continue
        if node.op == "StopGradient":
            found.append(Held(place=place(traced.graph, node.name, node.op), reason="stop_gradient"))
        elif source.ref in stops:
            found.append(Held(place=place(traced.graph, node.name, node.op), reason="stop_gradients"))
    for node in traced.program.main.nodes:
        if node.op in RANDOM and "gradients/" not in node.name:
            found.append(Held(place=place(traced.graph, node.name, node.op), reason="random"))
        elif node.op in CALLED and "gradients/" not in node.name:
            inside = held_inside(node, traced.program.functions)
            found += [
                Held(place=place(traced.graph, f"{node.name}/{n}", "StopGradient"), reason="stop_gradient")
                for n in inside
            ]
    return tuple({str(h): h for h in found}.values())
