"""Random ops, made to draw the same numbers in every run."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import replace

from tensorflow.core.framework import types_pb2

from gradcheck._graph.program import (
    Body,
    Node,
    Program,
    beside,
    control_inputs,
    copy_node,
    data_inputs,
    make_node,
    map_bodies,
    output_refs,
    set_inputs,
)

_PHILOX = 1  # tf.random.Algorithm.PHILOX
# stateful op -> (stateless op, positions of its inputs behind shape, key, counter and algorithm)
_STATELESS = {
    "RandomUniform": ("StatelessRandomUniformV2", ()),
    "RandomStandardNormal": ("StatelessRandomNormalV2", ()),
    "TruncatedNormal": ("StatelessTruncatedNormalV2", ()),
    "RandomUniformInt": ("StatelessRandomUniformIntV2", (1, 2)),
    "StatefulUniform": ("StatelessRandomUniformV2", ()),
    "StatefulStandardNormalV2": ("StatelessRandomNormalV2", ()),
    "StatefulTruncatedNormal": ("StatelessTruncatedNormalV2", ()),
    "StatefulUniformInt": ("StatelessRandomUniformIntV2", (3, 4)),
    "StatefulUniformFullInt": ("StatelessRandomUniformFullIntV2", ()),
}
_SHAPE_AT = {"StatefulUniform": 2, "StatefulStandardNormalV2": 2, "StatefulTruncatedNormal": 2,
             "StatefulUniformInt": 2, "StatefulUniformFullInt": 2}  # fmt: skip
_SKIPS = ("RngReadAndSkip", "RngSkip")
FROZEN = frozenset(_STATELESS) | frozenset(_SKIPS)  # the ops that `freeze_randomness` knows

# Stateful, without a stateless twin of the same draws: one draw of theirs is fed.
UNREPEATABLE = frozenset(
    {
        "RandomShuffle", "RandomPoisson", "RandomPoissonV2", "Multinomial", "StatefulRandomBinomial",
        "ParameterizedTruncatedNormal", "NonDeterministicInts",
    }
)  # fmt: skip

# What draws numbers, with or without a state; the gradient stops there.
RANDOM = frozenset(_STATELESS) | {
    "StatelessRandomUniform", "StatelessRandomUniformV2", "StatelessRandomNormal", "StatelessRandomNormalV2",
    "StatelessTruncatedNormal", "StatelessTruncatedNormalV2", "StatelessRandomUniformInt",
    "StatelessRandomUniformIntV2", "StatelessRandomUniformFullInt", "StatelessRandomUniformFullIntV2",
    "RandomShuffle", "RandomPoisson", "RandomPoissonV2", "Multinomial", "StatelessMultinomial",
    "StatefulRandomBinomial", "StatelessRandomBinomial", "StatelessRandomPoisson", "ParameterizedTruncatedNormal",
}  # fmt: skip


def freeze_randomness(program: Program, *, generators: bool = True) -> Program:
    """The program with stateful random ops replaced by stateless ones, each with a key of its own.

    Two runs then draw the same numbers, and no generator of the user's advances. The numbers are not those that
    the stateful op would have drawn next. Inside a loop every iteration draws the same.

    Args:
        program: What draws.
        generators: Replace also what draws from a generator whose state is a variable.
    """
    return map_bodies(program, lambda body: _freeze(body, generators))


def of_generator(node: Node) -> bool:
    """Whether a node draws from a generator whose state is a variable, or moves that on."""
    return node.op in _SKIPS or (node.op in _STATELESS and node.op in _SHAPE_AT)


def _freeze(body: Body, generators: bool) -> Body:
    frozen = {n.name for n in body.nodes if n.op in FROZEN and (generators or not of_generator(n))}
    if not frozen:
        return body
    nodes: list[Node] = []
    refs: dict[str, str] = {}
    gone: set[str] = set()
    for node in body.nodes:
        if node.name not in frozen:
            nodes.append(node)
        elif node.op in _STATELESS:
            nodes += _stateless(node, refs)
        elif node.op == "RngSkip":
            gone.add(node.name)
        else:
            nodes += _state(node, refs)
    result = []
    for node in nodes:
        if any(i in refs or i.lstrip("^") in gone for i in node.input):
            node = copy_node(node)
            set_inputs(node, [refs.get(i, i) for i in node.input if i.lstrip("^") not in gone], [])
        result.append(node)
    returns = tuple(replace(r, ref=refs.get(r.ref, r.ref)) for r in body.returns)
    return replace(body, nodes=tuple(result), returns=returns, kept=tuple(k for k in body.kept if k not in gone))


def _stateless(node: Node, refs: dict[str, str]) -> list[Node]:
    op, more = _STATELESS[node.op]
    ins = data_inputs(node)
    shape_at = _SHAPE_AT.get(node.op, 0)
    at = beside(ins[shape_at])
    constants = [
        _constant(f"{node.name}/key", types_pb2.DT_UINT64, [_key(node.name)], at),
        _constant(f"{node.name}/counter", types_pb2.DT_UINT64, [0, 0], at),
        _constant(f"{node.name}/algorithm", types_pb2.DT_INT32, _PHILOX, at),
    ]
    inputs = [ins[shape_at], *(f"{c.name}:output:0" for c in constants), *(ins[i] for i in more)]
    shape_type = node.attr["shape_dtype" if shape_at else "T"].type
    dtype = node.attr["Tout" if node.op == "RandomUniformInt" else "dtype"].type
    new = make_node(op, node.name, [*inputs, *control_inputs(node)], dtype=dtype, Tshape=shape_type)
    for old_ref, new_ref in zip(output_refs(node), output_refs(new), strict=True):
        refs[old_ref[0]] = new_ref[0]
    return [*constants, new]


def _state(node: Node, refs: dict[str, str]) -> list[Node]:
    """A constant in place of the state that a generator would have given."""
    at = beside(data_inputs(node)[-1])
    new = _constant(node.name, types_pb2.DT_INT64, [_key(node.name), 0, _key(node.name)], at)
    refs[output_refs(node)[0][0]] = f"{node.name}:output:0"
    return [new]


def _key(name: str) -> int:
    # The node's name alone: a function's name differs from trace to trace, and the same seed must give the same report.
    return zlib.crc32(name.encode()) * 0x9E3779B97F4A7C15 % 2**62


def _constant(name: str, dtype: int, value: int | Iterable[int], control: Iterable[str]) -> Node:
    node = make_node("Const", name, control, dtype=dtype)
    tensor = node.attr["value"].tensor
    tensor.dtype = dtype
    values = [value] if isinstance(value, int) else list(value)
    if isinstance(value, int):
        tensor.tensor_shape.SetInParent()
    else:
        tensor.tensor_shape.dim.add(size=len(values))
    store = {
        types_pb2.DT_UINT64: tensor.uint64_val,
        types_pb2.DT_INT64: tensor.int64_val,
        types_pb2.DT_INT32: tensor.int_val,
    }
    store[dtype].extend(values)
    return node


def with_seed(node: Node) -> Node:
    """The node with a seed of its own, if it is one that draws without a stateless twin."""
    if node.op not in UNREPEATABLE or "seed" not in node.attr:
        return node
    seeded = copy_node(node)
    seeded.attr["seed"].i = _key(node.name) % 2**31 + 1
    seeded.attr["seed2"].i = 1
    return seeded
