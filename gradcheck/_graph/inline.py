"""Nested calls, replaced by what they call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from gradcheck._graph.nodes import Node, control_inputs, copy_node, data_inputs, node_of, set_inputs
from gradcheck._graph.program import Body, Program, reached_library

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def inline_calls(program: Program, *, keep_compiled: bool) -> Program:
    """The program with the bodies of nested functions written out in their callers.

    Nodes of an inlined body are named "call/node". Conditionals and loops keep their functions, with the calls
    inside those inlined too.

    Args:
        program: What to inline.
        keep_compiled: Leave calls that XLA compiles as they are, so that they run as the user's do.
    """
    finished: dict[str, Body] = {}

    def body_of(name: str) -> Body:
        if name not in finished:
            finished[name] = _inline(program.functions[name], keep)
        return finished[name]

    def keep(node: Node) -> Body | None:
        name = _target(node, program.functions)
        if name is None or (keep_compiled and _compiled(node, program.functions[name])):
            return None
        return body_of(name)

    main = _inline(program.main, keep)
    for name in program.functions:
        body_of(name)
    return reached_library(Program(main=main, functions=finished))


def _target(node: Node, library: Mapping[str, Body]) -> str | None:
    name = node.attr["f"].func.name if node.op in _CALLS else ""
    return name if name in library else None


def _compiled(node: Node, body: Body) -> bool:
    return ("_XlaMustCompile" in node.attr and node.attr["_XlaMustCompile"].b) or (
        "_XlaMustCompile" in body.attributes and body.attributes["_XlaMustCompile"].b
    )


def _inline(body: Body, called: Callable[[Node], Body | None]) -> Body:
    nodes: list[Node] = []
    refs: dict[str, str] = {}
    gone: set[str] = set()
    for node in body.nodes:
        callee = called(node)
        if callee is None:
            nodes.append(node)
            continue
        gone.add(node.name)
        inner, returns = write_out(node, callee)
        nodes += inner
        refs.update({f"{node.name}:output:{i}": ref for i, ref in enumerate(returns)})
    if not gone:
        return body
    resolved = {ref: _resolve(ref, refs) for ref in refs}
    result = []
    for node in nodes:
        if any(i in resolved or (i.startswith("^") and i[1:] in gone) for i in node.input):
            node = copy_node(node)
            inputs = [resolved.get(i, i) for i in node.input if not (i.startswith("^") and i[1:] in gone)]
            set_inputs(node, inputs, [])
        result.append(node)
    returned = tuple(replace(r, ref=resolved.get(r.ref, r.ref)) for r in body.returns)
    return replace(body, nodes=tuple(result), returns=returned, kept=tuple(k for k in body.kept if k not in gone))


def write_out(call: Node, callee: Body) -> tuple[list[Node], list[str]]:
    """The nodes of a body in place of a call of it, named "call/node", and references to what it returns."""
    arguments = dict(zip((a.name for a in callee.args), data_inputs(call), strict=True))
    local = {node.name for node in callee.nodes}

    def rename(ref: str) -> str:
        if ref in arguments:
            return arguments[ref]
        mark = "^" if ref.startswith("^") else ""
        return f"{mark}{call.name}/{ref.lstrip('^')}" if node_of(ref) in local else ref

    inner = []
    for node in callee.nodes:
        copy = copy_node(node)
        copy.name = f"{call.name}/{node.name}"
        control = [rename(i) for i in control_inputs(node) if node_of(i) in local]
        set_inputs(copy, [rename(i) for i in data_inputs(node)], control)
        inner.append(copy)
    return inner, [rename(r.ref) for r in callee.returns]


def _resolve(ref: str, refs: Mapping[str, str]) -> str:
    while ref in refs:
        ref = refs[ref]
    return ref
