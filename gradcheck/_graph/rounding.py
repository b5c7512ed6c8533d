"""Rounding made visible: a float64 program that rounds at random, as a narrower dtype would.

Monte Carlo arithmetic: every result of an op is multiplied by 1 + u r, with u the unit roundoff of the narrow dtype and
r random in [-1, 1). What then scatters from run to run is what rounding does to the result, however it got there.
Vignes, A stochastic arithmetic for reliable scientific computation, Math. Comput. Simul. 35 (1993), 233-261; Parker,
Monte Carlo Arithmetic, UCLA CSD-970002 (1997).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from gradcheck._graph.program import (
    COMPLEX,
    FLOATING,
    Body,
    Node,
    Program,
    beside,
    copy_node,
    fresh_name,
    make_node,
    output_refs,
    rename_called,
    set_inputs,
)
from gradcheck._graph.twin import NARROW

_D, _I = types_pb2.DT_DOUBLE, types_pb2.DT_INT32
_UNITS = {
    types_pb2.DT_HALF: 2.0**-11,
    types_pb2.DT_BFLOAT16: 2.0**-8,
    types_pb2.DT_FLOAT: 2.0**-24,
    types_pb2.DT_COMPLEX64: 2.0**-24,
}
# Kernels that round more than once: the largest error seen below a parameter of 500, in units of 2 roundoffs.
_COARSE = {"RandomGammaGrad": 64.0}
# These hand on what they are given, bit by bit.
_EXACT = frozenset(
    {
        "Identity", "IdentityN", "StopGradient", "PreventGradient", "Reshape", "Transpose", "Squeeze", "ExpandDims",
        "Slice", "StridedSlice", "Concat", "ConcatV2", "Pack", "Unpack", "Split", "SplitV", "Tile", "Pad", "PadV2",
        "GatherV2", "GatherNd", "Placeholder", "Fill", "ZerosLike", "OnesLike", "Neg", "Relu", "ReluGrad", "Select",
        "SelectV2", "BroadcastTo", "Snapshot", "TensorListPopBack", "TensorListGetItem", "TensorListStack", "Merge",
        "Switch", "Enter", "Exit", "NextIteration", "PartitionedCall", "StatefulPartitionedCall", "If", "StatelessIf",
        "While", "StatelessWhile", "Case", "StatelessCase", "Sign", "Maximum", "Minimum", "Max", "Min",
        "MaxPool", "Const",
    }
)  # fmt: skip


def with_rounding(program: Program, unit: float | None, seed: int, *, constants: bool = False) -> Program:
    """The float64 program with every rounding op followed by a random rounding.

    Args:
        program: In float64; complex results are left alone.
        unit: Unit roundoff for all ops; None for that of the narrow dtype that each op's results have in the function
            of which this is the twin, and none where they are not narrow.
        seed: Two seeds draw different roundings, one seed the same ones.
        constants: Round the constants instead of the results of ops; not those of a few bits, such as 0.5 or 3.
    """
    names = {name: fresh_name("rounding") for name in program.functions}
    return Program(
        main=_rounded(program.main, unit, seed, names, constants),
        functions={names[n]: _rounded(body, unit, seed, names, constants) for n, body in program.functions.items()},
    )


def _rounded(body: Body, unit: float | None, seed: int, names: Mapping[str, str], constants: bool) -> Body:
    nodes: list[Node] = []
    refs: dict[str, str] = {}
    for node in body.nodes:
        copy = copy_node(node)
        rename_called(copy, names)
        set_inputs(copy, [refs.get(i, i) for i in copy.input], [])
        nodes.append(copy)
        own = unit if unit is not None else _unit_of(node)
        own = own * _COARSE.get(node.op, 1.0) if own is not None else None
        if own is None or (not _is_long(node) if constants else _is_exact(node)):
            continue
        for ref, dtype in output_refs(node):
            if dtype == _D and dtype in FLOATING:
                added, new = _rounding(ref, own, seed)
                nodes += added
                refs[ref] = new
    returns = tuple(replace(r, ref=refs.get(r.ref, r.ref)) for r in body.returns)
    return replace(body, nodes=tuple(nodes), returns=returns)


def _unit_of(node: Node) -> float | None:
    """Half the spacing around 1 of the narrow dtype that a node's results had."""
    return _UNITS.get(node.attr[NARROW].type) if NARROW in node.attr else None


def _is_exact(node: Node) -> bool:
    return node.op in _EXACT or (node.op == "Cast" and node.attr["SrcT"].type not in FLOATING | COMPLEX)


def _is_long(node: Node) -> bool:
    """Whether a node is a constant that takes more bits than bfloat16 has, and so was likely rounded."""
    if node.op != "Const" or node.attr["dtype"].type != _D:
        return False
    values = tf.make_ndarray(node.attr["value"].tensor)
    return bool(np.any(values.astype(tf.bfloat16.as_numpy_dtype).astype(np.float64) != values))


def _rounding(ref: str, unit: float, seed: int) -> tuple[list[Node], str]:
    name = ref.replace(":", "_") + "/rounding"
    shape = make_node("Shape", f"{name}/shape", [ref], T=_D, out_type=_I)
    seeds = make_node("Const", f"{name}/seed", beside(ref), dtype=_I)
    tensor = seeds.attr["value"].tensor
    tensor.dtype = _I
    tensor.tensor_shape.dim.add(size=2)
    tensor.int_val.extend([seed, zlib.crc32(name.encode()) % 2**31])
    draw = make_node(
        "StatelessRandomUniform", f"{name}/draw", [f"{shape.name}:output:0", f"{seeds.name}:output:0"],
        dtype=_D, T=_I, Tseed=_I,
    )  # fmt: skip
    spread, low = _scalar(f"{name}/spread", 2 * unit, ref), _scalar(f"{name}/low", 1 - unit, ref)
    scaled = make_node("Mul", f"{name}/scaled", [f"{draw.name}:output:0", f"{spread.name}:output:0"], T=_D)
    factor = make_node("AddV2", f"{name}/factor", [f"{scaled.name}:z:0", f"{low.name}:output:0"], T=_D)
    result = make_node("Mul", f"{name}/result", [ref, f"{factor.name}:z:0"], T=_D)
    return [shape, seeds, draw, spread, low, scaled, factor, result], f"{result.name}:z:0"


def _scalar(name: str, value: float, ref: str) -> Node:
    node = make_node("Const", name, beside(ref), dtype=_D)
    node.attr["value"].tensor.dtype = _D
    node.attr["value"].tensor.tensor_shape.SetInParent()
    node.attr["value"].tensor.double_val.append(value)
    return node


def coarsest_spacing(program: Program) -> float:
    """The spacing of numbers around 1 in the narrowest dtype of the function of which this is the twin; 0 for none."""
    bodies = (program.main, *program.functions.values())
    return max(
        (2 * unit for body in bodies for node in body.nodes if (unit := _unit_of(node)) is not None), default=0.0
    )
