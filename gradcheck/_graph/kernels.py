"""Random kernels that keep their state to themselves, as kernels whose state is a variable: it can be given back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from gradcheck._graph.nodes import (
    CALLED,
    Node,
    add_inputs,
    beside,
    control_inputs,
    copy_node,
    data_inputs,
    functions_named,
    make_node,
    rename_called,
)
from gradcheck._graph.program import (
    RESOURCE,
    Argument,
    Body,
    Program,
    Return,
    called_names,
    fresh_name,
    reached_library,
)
from gradcheck._graph.stateless import constant, output_of

# The op that draws the same numbers where it is told the state, and the attribute that holds its dtype.
_TOLD = {
    "RandomUniform": ("StatelessRandomUniformV2", "dtype"),
    "RandomStandardNormal": ("StatelessRandomNormalV2", "dtype"),
    "TruncatedNormal": ("StatelessTruncatedNormalV2", "dtype"),
    "RandomUniformInt": ("StatelessRandomUniformIntV2", "Tout"),
}
_PHILOX = 1  # tf.random.Algorithm.PHILOX
_I32, _I64, _U64 = types_pb2.DT_INT32, types_pb2.DT_INT64, types_pb2.DT_UINT64


@dataclass(frozen=True, slots=True)
class KernelState:
    """The state of one random op.

    Attributes:
        label: The op, with the function that it stands in, if that is not the main one.
        argument: The argument of the main body that is the variable's handle.
        variable: int64 of shape [3], as `tf.random.Generator` has it: two numbers that count, and the key.
    """

    label: str
    argument: str
    variable: Any


@dataclass(slots=True)
class _Work:
    functions: Mapping[str, Body]
    drawing: frozenset[str]  # functions that draw, themselves or by what they call
    at: Mapping[tuple[str, str], str]  # function and node -> argument
    made: dict[str, Body] = field(default_factory=dict)
    names: dict[tuple[str, bool], str] = field(default_factory=dict)

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """What each function takes besides that draws, or stands beside one that does."""
        return tuple(Argument(a, RESOURCE) for a in self.at.values())


def with_states(program: Program, known: Sequence[KernelState] = ()) -> tuple[Program, list[KernelState]]:
    """The program with the states of its random kernels as further arguments, and variables for them.

    The numbers are those that the kernels would draw, from the beginning of their sequence: a kernel with the seeds
    `seed` and `seed2` is Philox with the key `seed`, which counts from `seed2` * 2**64 and leaves out 256 for each
    number (tensorflow/core/util/guarded_philox_random.h, tensorflow/core/kernels/random_op.cc). Without seeds, which
    are two zeros, the sequence is a new one each time, as it is there. Gamma and Poisson numbers and shuffles keep
    their kernels.

    Args:
        program: What draws.
        known: The states of the same program, where they exist already.
    """
    bodies = {"": program.main, **program.functions}
    drawing = {name for name, body in bodies.items() if any(n.op in _TOLD for n in body.nodes)}
    while more := {name for name, body in bodies.items() if called_names(body) & drawing} - drawing:
        drawing |= more
    if "" not in drawing:
        return program, []
    nodes = [(name, node) for name in sorted(drawing) for node in bodies[name].nodes if node.op in _TOLD]
    at = {(name, node.name): f"gradcheck_random_{k}" for k, (name, node) in enumerate(nodes)}
    work = _Work(program.functions, frozenset(drawing), at)
    main = _told(program.main, "", work)
    variables = {state.argument: state.variable for state in known}
    states = [
        KernelState(
            "/".join(filter(None, (name, node.name))),
            argument,
            variables[argument] if argument in variables else _variable(node),
        )
        for (name, node), argument in zip(nodes, at.values(), strict=True)
    ]
    return reached_library(Program(main=main, functions={**program.functions, **work.made})), states


def _variable(node: Node) -> Any:
    seeds = (node.attr["seed"].i, node.attr["seed2"].i)
    key, count = seeds if any(seeds) else np.random.default_rng().integers(2**62, size=2)
    return ResourceVariable(np.array([0, count, key], np.int64), trainable=False, name="gradcheck_random")


def _told(body: Body, name: str, work: _Work) -> Body:
    """The body with all states as arguments behind its own."""
    nodes: list[Node] = []
    for node in body.nodes:
        if node.op in _TOLD:
            nodes += _drawn(node, work.at[name, node.name])
        elif node.op in CALLED and not work.drawing.isdisjoint(functions_named(node)):
            nodes.append(_passing(node, work))
        else:
            nodes.append(node)
    return replace(body, args=(*body.args, *work.arguments), nodes=tuple(nodes))


def _passing(node: Node, work: _Work) -> Node:
    """A call that hands the states on."""
    copy = copy_node(node)
    loop = node.op.endswith("While")
    body = node.attr["body"].func.name if loop else ""
    rename_called(copy, {called: _variant(called, called == body, work) for called in functions_named(node)})
    add_inputs(copy, [(a.name, a.dtype) for a in work.arguments])
    return copy


def _variant(called: str, returns: bool, work: _Work) -> str:
    """The function that takes the states, and returns them too where it is the body of a loop."""
    key = (called, returns)
    if key not in work.names:
        work.names[key] = fresh_name("drawing")
        body = _told(work.functions[called], called, work)
        if returns:
            body = replace(body, returns=(*body.returns, *(Return(a.name, a.dtype) for a in work.arguments)))
        work.made[work.names[key]] = body
    return work.names[key]


def _drawn(node: Node, state: str) -> list[Node]:
    """What draws the op's next numbers; the last node has its name and gives them in the same way."""
    shape, *more = data_inputs(node)
    shape_type = node.attr["T"].type
    op, dtype = _TOLD[node.op]
    made: list[Node] = []

    def add(op: str, stem: str, inputs: list[str], **types: int) -> str:
        made.append(make_node(op, f"{node.name}/{stem}", inputs, **types))
        return output_of(made[-1])

    def whole(stem: str, dtype: int, value: int | list[int]) -> str:
        made.append(constant(f"{node.name}/{stem}", dtype, value, beside(shape)))
        return output_of(made[-1])

    size = add("Prod", "size", [shape, whole("axis", _I32, [0])], T=shape_type, Tidx=_I32)
    count = add("Cast", "count", [size], SrcT=shape_type, DstT=_U64)
    algorithm = whole("algorithm", _I32, _PHILOX)
    old = add("RngReadAndSkip", "state", [state, algorithm, count, *control_inputs(node)])
    numbers = add("Bitcast", "numbers", [old], T=_I64, type=_U64)
    parts = [
        add("Slice", stem, [numbers, whole(f"{stem}/from", _I32, [start]), whole(f"{stem}/of", _I32, [length])],
            T=_U64, Index=_I32)
        for stem, start, length in (("key", 2, 1), ("counter", 0, 2))
    ]  # fmt: skip
    types = {"dtype": node.attr[dtype].type, "Tshape": shape_type}
    made.append(make_node(op, node.name, [shape, *parts, algorithm, *more, *control_inputs(node)], **types))
    made[-1].device = node.device
    return made
