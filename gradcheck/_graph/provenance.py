"""Places in the user's code: which line made an op."""

from __future__ import annotations

import linecache
import os
import re
import sysconfig
from dataclasses import replace
from functools import lru_cache
from typing import Any

from gradcheck._graph.forward import called_graphs, forward_op
from gradcheck._graph.held import HeldProgram, held_inside
from gradcheck._graph.program import CALLED, node_of
from gradcheck._graph.quantiles import AT_BASE
from gradcheck._graph.randomness import RANDOM
from gradcheck._graph.trace import Traced
from gradcheck._results import Held, Place

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LAYER_CALL = os.path.join("keras", "src", "layers", "layer.py")
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
    """The place of a node of the program traced from a FuncGraph; for an op of a gradient, that of its forward op."""
    op = operation(graph, name, op_type)
    if op is None:
        return Place(op=name, op_type=op_type)
    forward = forward_op(graph, op)
    return place_of(op, name, op_type, op if forward is None else forward)


def place_of(op: Any, name: str, op_type: str = "", maker: Any = None) -> Place:
    """The place of an op, by the line that made it or, where it is given, its maker."""
    frame = _users_frame(op if maker is None else maker)
    if frame is None:
        return Place(op=name, op_type=op_type or op.type)
    source = linecache.getline(frame.filename, frame.lineno).strip()
    return Place(
        op=name,
        op_type=op_type or op.type,
        file=_short(frame.filename),
        line=frame.lineno,
        function=frame.name,
        source=source or None,
    )


def own_name(graph: Any, name: str, op_type: str = "") -> str:
    """The name that an op has in the graph of the function that made it."""
    op = operation(graph, name, op_type)
    return name if op is None else str(op.name)


def forward_place(graph: Any, name: str, op_type: str = "") -> Place | None:
    """The place of the op that an op of a gradient differentiates; None for other ops."""
    op = operation(graph, name, op_type)
    forward = None if op is None else forward_op(graph, op)
    if forward is None:
        return None
    found = place(graph, name, op_type)
    return replace(found, op=forward.name, op_type=forward.type)


def keras_layer(graph: Any, name: str, op_type: str = "") -> str | None:
    """The path of the Keras layer in whose call an op, or the op that it differentiates, was made; None outside."""
    op = operation(graph, name, op_type)
    op = op if op is None else forward_op(graph, op) or op
    if op is None:
        return None
    calls = [f for f in op.traceback or () if f.name == "__call__" and f.filename.endswith(_LAYER_CALL)]
    # Each call opens a scope named like the layer, made unique by a number of its own.
    scopes = op.name.split("/")[: len(calls)]
    return "/".join(re.sub(r"_\d+$", "", scope) for scope in scopes) or None


def _users_frame(op: Any) -> Any:
    return next((f for f in reversed(list(op.traceback or ())) if _is_users(f.filename)), None)


def _short(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _original(graph: Any, op: Any) -> Any:
    """The op that was copied, where the graph holds copies of the user's ops: that one knows its line."""
    return graph.original(op) if hasattr(graph, "original") else op


def operation(graph: Any, name: str, op_type: str = "") -> Any:
    """The op of that name, in the graph or in a function that it calls (names of inlined nodes are joined by /)."""
    exact = _named(graph, name)
    if exact is not None and op_type in ("", exact.type):
        return exact
    parts = name.split("/")
    for k in range(len(parts) - 1, 0, -1):
        for prefix in _spellings("/".join(parts[:k])):
            call = _named(graph, prefix)
            for inner in called_graphs(call) if call is not None else ():
                found = operation(inner, "/".join(parts[k:]), op_type)
                if found is not None:
                    return found
    return next((op for spelling in _spellings(name) if (op := _named(graph, spelling)) is not None), None)


def _named(graph: Any, name: str) -> Any:
    try:
        return _original(graph, graph.get_operation_by_name(name))
    except (KeyError, ValueError):
        return None


def _spellings(name: str) -> list[str]:
    """A node's name in a function, and the op's in its graph: what a function returns may take the name of an op."""
    return list(dict.fromkeys((name, re.sub(r"_\d+$", "", name))))


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
