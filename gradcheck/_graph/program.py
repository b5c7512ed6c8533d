"""A program: a function and those it calls, in a form that can be rewritten."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tensorflow.core.framework import function_pb2, types_pb2
from tensorflow.python.eager import context
from tensorflow.python.eager.polymorphic_function import atomic_function
from tensorflow.python.framework.ops import tensor_id

from gradcheck._graph.nodes import (
    Node,
    copy_node,
    data_inputs,
    functions_named,
    make_node,
    node_of,
    op_def,
    output_refs,
    rename_called,
    set_inputs,
)

OURS = "__gradcheck_"  # how the names of functions begin that are made here
_serial = itertools.count()


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a body: its name, and its type as a protobuf enum."""

    name: str
    dtype: int


@dataclass(frozen=True, slots=True)
class Return:
    """A value that a body returns: a reference ("node:output:0" or an argument's name) and its type."""

    ref: str
    dtype: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One function: arguments, nodes in an order that runs, and what it returns."""

    args: tuple[Argument, ...]
    nodes: tuple[Node, ...]
    returns: tuple[Return, ...]
    kept: tuple[str, ...] = ()  # nodes that run although nothing reads them, such as assertions
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A main body and the library of bodies that it reaches by name."""

    main: Body
    functions: Mapping[str, Body]


def fresh_name(stem: str) -> str:
    """A function name that nothing else in the process has."""
    return f"{OURS}{stem}_{next(_serial)}"


def from_func_graph(graph: Any) -> Program:
    """The program of a FuncGraph whose inputs and outputs are set."""
    return _with_library(_main(graph), graph)


def from_concrete(function: Any) -> Program:
    """The program of a concrete function, which is left as it is: first the inputs it is called with, then captures."""
    return _with_library(_body(function.function_def, function.graph), function.graph)


def _with_library(main: Body, graph: Any) -> Program:
    library: dict[str, Body] = {}
    pending = called_names(main)
    while pending:
        name = pending.pop()
        library[name] = _body(_definition(name, graph), graph)
        pending |= called_names(library[name]) - library.keys()
    return Program(main=main, functions=library)


def _main(graph: Any) -> Body:
    """The body of a FuncGraph.

    Its outputs get names of their own: by default they take those of the ops that give them, and those ops others.
    """
    outputs = list(graph.outputs)
    once = {id(t): t for t in outputs}
    graph.outputs = list(once.values())
    graph._output_names = {tensor_id(t): f"gradcheck_output_{k}" for k, t in enumerate(graph.outputs)}
    try:
        main = _body(atomic_function.from_func_graph(fresh_name("traced"), graph, {}).definition, graph)
    finally:
        graph.outputs = outputs
    returns = dict(zip(once, main.returns, strict=True))
    return replace(main, returns=tuple(returns[id(t)] for t in outputs))


def _definition(name: str, graph: Any) -> Any:
    ctx = context.context()
    if ctx.has_function(name):
        return ctx.get_function_def(name)
    return find_function(graph, name).cached_definition


def find_function(graph: Any, name: str) -> Any:
    """The function of that name which a graph, or one around it, knows; None where there is none."""
    while graph is not None:
        function = graph._get_function(name)
        if function is not None:
            return function
        graph = getattr(graph, "outer_graph", None)
    return None


def _body(definition: Any, graph: Any) -> Body:
    body = body_of(definition)
    unknown = [node for node in body.nodes if op_def(node.op) is None]
    return _with_calls(body, unknown, graph) if unknown else body


def body_of(definition: Any) -> Body:
    """The body that a FunctionDef describes."""
    signature = definition.signature
    return Body(
        args=tuple(Argument(a.name, a.type) for a in signature.input_arg),
        nodes=tuple(definition.node_def),
        returns=tuple(Return(definition.ret[a.name], a.type) for a in signature.output_arg),
        attributes={k: v for k, v in definition.attr.items() if k in ("_XlaMustCompile",)},
    )


def _with_calls(body: Body, named: list[Node], graph: Any) -> Body:
    """The body with nodes whose op is a function's name written as calls of that function."""
    refs: dict[str, str] = {}
    calls = {}
    for node in named:
        signature = _definition(node.op, graph).signature
        call = make_node(
            "StatefulPartitionedCall" if signature.is_stateful else "PartitionedCall", node.name, node.input
        )
        call.attr["f"].func.name = node.op
        call.attr["Tin"].list.type.extend(a.type for a in signature.input_arg)
        call.attr["Tout"].list.type.extend(a.type for a in signature.output_arg)
        refs.update({f"{node.name}:{a.name}:0": f"{node.name}:output:{k}" for k, a in enumerate(signature.output_arg)})
        calls[node.name] = call
    return redirect(replace(body, nodes=tuple(calls.get(n.name, n) for n in body.nodes)), refs)


def called_names(body: Body) -> set[str]:
    """The functions that the nodes of a body name."""
    return {name for node in body.nodes for name in functions_named(node)}


def call_as(body: Body, names: Mapping[str, str]) -> Body:
    """The body with the functions that it calls known by other names."""
    nodes = []
    for node in body.nodes:
        if any(name in names for name in functions_named(node)):
            node = copy_node(node)
            rename_called(node, names)
        nodes.append(node)
    return replace(body, nodes=tuple(nodes))


# ------------------------------------------------------------------------------------------------ whole programs


def redirect(body: Body, refs: Mapping[str, str]) -> Body:
    """The body with references replaced, in nodes and in what it returns."""
    nodes = []
    for node in body.nodes:
        if any(i in refs for i in node.input):
            node = copy_node(node)
            inputs = [refs.get(i, i) for i in node.input]
            set_inputs(node, inputs, [])
        nodes.append(node)
    returns = tuple(replace(r, ref=refs.get(r.ref, r.ref)) for r in body.returns)
    return replace(body, nodes=tuple(nodes), returns=returns)


def prune(body: Body) -> Body:
    """The body without the nodes that nothing it returns or keeps depends on; arguments stay."""
    producers = {node.name: node for node in body.nodes}
    pending = [node_of(r.ref) for r in body.returns] + list(body.kept)
    live: set[str] = set()
    while pending:
        name = pending.pop()
        if name not in live and name in producers:
            live.add(name)
            pending += [node_of(i) for i in producers[name].input]
    return replace(body, nodes=tuple(node for node in body.nodes if node.name in live))


def used_arguments(body: Body) -> set[str]:
    """The names of the arguments that something live in the body reads."""
    live = prune(body)
    read = {i for node in live.nodes for i in data_inputs(node)} | {r.ref for r in live.returns}
    return {a.name for a in body.args if a.name in read}


def reachable(body: Body, refs: Iterable[str]) -> set[str]:
    """Names of the nodes that depend, by data, on one of the references."""
    touched = set(refs)
    names: set[str] = set()
    for node in topological(body):
        if any(i in touched for i in data_inputs(node)):
            names.add(node.name)
            touched.update(ref for ref, _ in output_refs(node))
    return names


def topological(body: Body) -> list[Node]:
    """The nodes, each after those it reads; nodes inside a loop of control flow v1 keep their order."""
    position = {node.name: i for i, node in enumerate(body.nodes)}
    if all(position.get(node_of(i), -1) < k for k, node in enumerate(body.nodes) for i in node.input):
        return list(body.nodes)
    done: set[str] = set()
    result: list[Node] = []
    for root in body.nodes:
        stack = [(root, False)]
        while stack:
            node, expanded = stack.pop()
            if expanded:
                result.append(node)
            elif node.name not in done:
                done.add(node.name)
                stack.append((node, True))
                stack += [
                    (body.nodes[position[node_of(i)]], False)
                    for i in reversed(node.input)
                    if node_of(i) in position and node_of(i) not in done
                ]
    return result


def map_bodies(program: Program, change: Callable[[Body], Body]) -> Program:
    """The program with every body changed alike."""
    return Program(main=change(program.main), functions={n: change(b) for n, b in program.functions.items()})


def reached_library(program: Program) -> Program:
    """The program without library bodies that its main body does not reach."""
    kept: dict[str, Body] = {}
    pending = called_names(program.main)
    while pending:
        name = pending.pop()
        if name in program.functions:
            kept[name] = program.functions[name]
            pending |= called_names(kept[name]) - kept.keys()
    return Program(main=program.main, functions=kept)


def definition_of(name: str, body: Body) -> Any:
    """The FunctionDef of a body."""
    definition = function_pb2.FunctionDef()
    definition.signature.name = name
    for arg in body.args:
        definition.signature.input_arg.add(name=arg.name, type=arg.dtype)
    for i, value in enumerate(body.returns):
        definition.signature.output_arg.add(name=f"r{i}", type=value.dtype)
        definition.ret[f"r{i}"] = value.ref
    for i, kept in enumerate(body.kept):
        definition.signature.control_output.append(f"k{i}")
        definition.control_ret[f"k{i}"] = kept
    definition.node_def.extend(body.nodes)
    for key, value in body.attributes.items():
        definition.attr[key].CopyFrom(value)
    return definition


RESOURCE, VARIANT, STRING = types_pb2.DT_RESOURCE, types_pb2.DT_VARIANT, types_pb2.DT_STRING
FLOATING = frozenset({types_pb2.DT_HALF, types_pb2.DT_BFLOAT16, types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE})
COMPLEX = frozenset({types_pb2.DT_COMPLEX64, types_pb2.DT_COMPLEX128})
CONTINUOUS = FLOATING | COMPLEX
