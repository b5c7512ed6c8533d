"""An argument of the main body that is handed to every function that it calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from gradcheck._graph.nodes import CALLED, add_inputs, copy_node, functions_named, rename_called
from gradcheck._graph.program import Argument, Body, Program, Return, fresh_name, reached_library


def hands_arguments(program: Program) -> bool:
    """Whether all that calls functions gives them its own inputs, so that an argument can be handed to them."""
    bodies = (program.main, *program.functions.values())
    return all(node.op in CALLED or not functions_named(node) for body in bodies for node in body.nodes)


def with_argument(program: Program, argument: Argument) -> Program:
    """The program with a further argument, the last one of its main body and of each function that it calls."""
    # A function may be the body of one loop, which returns what it is handed, and be called elsewhere.
    plain = {name: fresh_name("handed") for name in program.functions}
    looped = {name: fresh_name("handed") for name in program.functions}
    functions = {}
    for name, body in program.functions.items():
        made = _handed(body, argument, plain, looped)
        functions[plain[name]] = made
        functions[looped[name]] = replace(made, returns=(*made.returns, Return(argument.name, argument.dtype)))
    return reached_library(Program(main=_handed(program.main, argument, plain, looped), functions=functions))


def _handed(body: Body, argument: Argument, plain: Mapping[str, str], looped: Mapping[str, str]) -> Body:
    nodes = []
    for node in body.nodes:
        if functions_named(node):
            node = copy_node(node)
            if node.op.endswith("While"):
                name = node.attr["body"].func.name
                node.attr["body"].func.name = looped.get(name, name)
            rename_called(node, plain)
            add_inputs(node, [(argument.name, argument.dtype)])
        nodes.append(node)
    return replace(body, args=(*body.args, argument), nodes=tuple(nodes))
