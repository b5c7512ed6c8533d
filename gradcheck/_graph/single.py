"""One node of a program, run eagerly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import tensor_shape_pb2
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import context, core
from tensorflow.python.framework import tensor_util

from gradcheck._errors import GraphUnavailable
from gradcheck._graph.evaluate import Runner, eagerly
from gradcheck._graph.nodes import (
    CALLED,
    Node,
    copy_node,
    functions_named,
    input_types,
    op_def,
    output_refs,
    set_inputs,
)
from gradcheck._graph.program import Argument, Body, Program, Return, reached_library

# What watches a value and raises: here the watching is ours.
_PASSES = frozenset({"CheckNumerics", "CheckNumericsV2", "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3"})
# What changes variables.
_WRITES = ("Assign", "ResourceApply", "ResourceSparseApply", "ResourceScatter", "ResourceStridedSliceAssign",
           "ResourceCountUpTo", "Rng", "Stateful", "NonDeterministicInts")  # fmt: skip
# What gives another value each time, out of something of the user's.
_FROM_OUTSIDE = ("Iterator", "MultiDeviceIterator", "QueueDequeue", "Reader", "Unstage")
_ONCE = (*_FROM_OUTSIDE, "Collective", "Nccl")


@dataclass(slots=True)
class Ops:
    """Runs nodes one by one.

    Args:
        functions: Those that nodes name.
        alive: What must not be collected meanwhile, such as the graph that holds Python functions.
    """

    functions: Mapping[str, Body]
    alive: Any = None
    _constants: dict[int, Any] = field(default_factory=dict)
    _runners: dict[int, Runner] = field(default_factory=dict)
    _context: Any = field(default_factory=context.context)

    def __post_init__(self) -> None:
        self._context.ensure_initialized()

    def run(
        self, node: Node, kind: str, attributes: tuple[Any, ...], tensors: Sequence[Any], outputs: int
    ) -> Sequence[Any]:
        """The outputs of a node, of which there are so many.

        Args:
            node: The node, which must live as long as this object.
            kind: What `kind_of` says of it.
            attributes: What `attributes_of` says of it.
            tensors: Its inputs.
            outputs: How many outputs it has.

        Raises:
            tf.errors.OpError: If the op fails.
        """
        if kind == "const":
            return (self._constant(node),)
        if kind == "pass":
            return tensors[:1]
        if kind == "native":
            return self._natively(node, tensors)
        try:
            found: list[Any] = pywrap_tfe.TFE_Py_Execute(
                self._context._handle, None, node.op, tensors, attributes, outputs
            )
        except core._NotOkStatusException as error:
            raise core._status_to_exception(error) from None
        return found

    def _constant(self, node: Node) -> Any:
        if id(node) not in self._constants:
            with eagerly():
                self._constants[id(node)] = tf.constant(tensor_util.MakeNdarray(node.attr["value"].tensor))
        return self._constants[id(node)]

    def _natively(self, node: Node, tensors: Sequence[Any]) -> Sequence[Any]:
        """Run an op that calls functions which are not entered, such as one that maps over a data set."""
        if id(node) not in self._runners:
            self._runners[id(node)] = Runner(_alone(node, self.functions), alive=self.alive)
        with eagerly():
            return [tf.convert_to_tensor(v) for v in self._runners[id(node)].run(tensors)]


def kind_of(node: Node) -> str:
    """How a node is run: "op", "const", "pass", "native", "skip", or the op type of what calls.

    Raises:
        GraphUnavailable: If it takes a value from outside that cannot be had twice.
    """
    if node.op in CALLED:
        return str(node.op)
    if node.op == "Const":
        return "const"
    if node.op in _PASSES:
        return "pass"
    if node.op.startswith(_ONCE):
        raise GraphUnavailable(
            f"{node.op} {node.name!r} takes its value from outside, where it cannot be had a second time; let the "
            "function take that value as an argument"
        )
    if op_def(node.op).is_stateful and not output_refs(node) and not is_write(node):
        return "skip"
    return "native" if functions_named(node) else "op"


def is_from_outside(node: Node) -> bool:
    """Whether an op takes a value, such as a batch, from outside, where it cannot be had twice."""
    return str(node.op).startswith(_FROM_OUTSIDE)


def is_write(node: Node) -> bool:
    """Whether an op, which calls nothing, changes variables that it takes."""
    return str(node.op).startswith(_WRITES)


def attributes_of(node: Node) -> tuple[Any, ...]:
    """The attributes of a node as TensorFlow's eager execution takes them: names and values in turn."""
    definition = op_def(node.op)
    flat: list[Any] = []
    for attr in definition.attr if definition is not None else ():
        if attr.name in node.attr and not functions_named(node):
            value = node.attr[attr.name]
            kind = value.WhichOneof("value")
            flat += [attr.name, _listed(value.list, attr.type) if kind == "list" else _plain(getattr(value, kind))]
    return tuple(flat)


def _listed(values: Any, kind: str) -> list[Any]:
    fields = {
        "string": "s",
        "int": "i",
        "float": "f",
        "bool": "b",
        "type": "type",
        "shape": "shape",
        "tensor": "tensor",
    }
    return [_plain(value) for value in getattr(values, fields[kind[5:-1]])]  # kind is such as "list(type)"


def _plain(value: Any) -> Any:
    """The value itself; for a shape the lengths in it, or None."""
    if not isinstance(value, tensor_shape_pb2.TensorShapeProto):
        return value
    return None if value.unknown_rank else tf.TensorShape(value).as_list()


def _alone(node: Node, functions: Mapping[str, Body]) -> Program:
    """A program that runs one node."""
    args = tuple(Argument(f"a{k}", dtype) for k, dtype in enumerate(input_types(node)))
    copy = copy_node(node)
    set_inputs(copy, [a.name for a in args], [])
    returns = tuple(Return(ref, dtype) for ref, dtype in output_refs(node))
    return reached_library(Program(main=Body(args=args, nodes=(copy,), returns=returns), functions=functions))
