"""Nodes of a program: what they read, give and call, and how they are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from tensorflow.core.framework import node_def_pb2
from tensorflow.python.framework import op_def_registry

Node = Any  # a NodeDef; the generated protobuf classes carry no types

# Attributes that name a function whose arguments are the node's own inputs, from the given position on.
CALLED = {
    "PartitionedCall": {"f": 0},
    "StatefulPartitionedCall": {"f": 0},
    "If": {"then_branch": 1, "else_branch": 1},
    "StatelessIf": {"then_branch": 1, "else_branch": 1},
    "Case": {"branches": 1},
    "StatelessCase": {"branches": 1},
    "While": {"cond": 0, "body": 0},
    "StatelessWhile": {"cond": 0, "body": 0},
}


def functions_named(node: Node) -> list[str]:
    """The functions that a node names."""
    found = []
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        found += [value.func.name] if kind == "func" else [func.name for func in value.list.func]
    return found


def called_functions(node: Node) -> list[tuple[str, int]]:
    """Names of the functions that get the node's own inputs, each with the position from which on it gets them.

    The condition of a loop is left out: it passes nothing on.
    """
    found = []
    for key, offset in CALLED.get(node.op, {}).items():
        value = node.attr[key]
        if key != "cond":
            funcs = value.list.func if value.WhichOneof("value") == "list" else [value.func]
            found += [(f.name, offset) for f in funcs]
    return found


def rename_called(node: Node, names: Mapping[str, str]) -> None:
    """Point the function attributes of a node, which is changed, at other names."""
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        if kind == "func":
            value.func.name = names.get(value.func.name, value.func.name)
        elif kind == "list":
            for func in value.list.func:
                func.name = names.get(func.name, func.name)


def copy_node(node: Node) -> Node:
    """A copy that may be changed."""
    copy = node_def_pb2.NodeDef()
    copy.CopyFrom(node)
    return copy


def make_node(op: str, name: str, inputs: Iterable[str], **types: int) -> Node:
    """A node whose attributes are all types."""
    node = node_def_pb2.NodeDef(name=name, op=op, input=list(inputs))
    for key, value in types.items():
        node.attr[key].type = value
    return node


@cache
def op_def(op: str) -> Any:
    """The definition of an op type, or None for a function called by its own name."""
    return op_def_registry.get(op)


def argument_types(args: Any, node: Node) -> list[tuple[str, list[int]]]:
    """For each argument of an op definition: its name, and the types of the tensors it stands for."""
    found = []
    for arg in args:
        if arg.type_list_attr:
            types = list(node.attr[arg.type_list_attr].list.type)
        else:
            one = node.attr[arg.type_attr].type if arg.type_attr else arg.type
            types = [one] * (node.attr[arg.number_attr].i if arg.number_attr else 1)
        found.append((arg.name, types))
    return found


def output_refs(node: Node) -> list[tuple[str, int]]:
    """References to all outputs of a node, in order, with their types."""
    definition = op_def(node.op)
    if definition is None:
        return []
    return [
        (f"{node.name}:{name}:{i}", dtype)
        for name, types in argument_types(definition.output_arg, node)
        for i, dtype in enumerate(types)
    ]


def input_types(node: Node) -> list[int]:
    """The types of the data inputs of a node, in order."""
    definition = op_def(node.op)
    return [t for _, types in argument_types(definition.input_arg, node) for t in types] if definition else []


def data_inputs(node: Node) -> list[str]:
    """The data inputs of a node, without the control inputs."""
    return [i for i in node.input if not i.startswith("^")]


def control_inputs(node: Node) -> list[str]:
    """The control inputs of a node, each with its leading ^."""
    return [i for i in node.input if i.startswith("^")]


def beside(ref: str) -> list[str]:
    """The control input that puts a node without inputs into the loop in which a reference has its value."""
    return [f"^{node_of(ref)}"] if ":" in ref else []


def set_inputs(node: Node, data: Iterable[str], control: Iterable[str]) -> None:
    """Replace the inputs of a node, which is changed."""
    del node.input[:]
    node.input.extend([*data, *control])


def add_inputs(node: Node, given: Iterable[tuple[str, int]]) -> None:
    """Give a call, which is changed, further inputs behind its own: references with their types.

    A loop hands them from one iteration to the next, so that its body must return as many more.
    """
    loop = node.op.endswith("While")
    refs, types = zip(*given, strict=True)
    set_inputs(node, [*data_inputs(node), *refs], control_inputs(node))
    node.attr["T" if loop else "Tin"].list.type.extend(types)
    if loop and node.attr["output_shapes"].list.shape:
        for _ in types:
            node.attr["output_shapes"].list.shape.add()


def node_of(ref: str) -> str:
    """The name of the node, or of the argument, that a reference reads."""
    return ref.lstrip("^").split(":", 1)[0]


def ref_of(tensor: Any) -> str:
    """The reference to a tensor of a FuncGraph that is no argument of it."""
    node = tensor.op.node_def
    ref: str = output_refs(node)[tensor.value_index][0]
    return ref
