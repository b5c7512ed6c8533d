"""Rounding made visible: a float64 program that rounds at random, or as a narrower dtype would.

Monte Carlo arithmetic: every result of an op is multiplied by 1 + u r, with u the unit roundoff of the narrow dtype and
r random in [-1, 1). What then scatters from run to run is what rounding does to the result, however it got there.
Vignes, A stochastic arithmetic for reliable scientific computation, Math. Comput. Simul. 35 (1993), 233-261; Parker,
Monte Carlo Arithmetic, UCLA CSD-970002 (1997).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2

from gradcheck._graph.handed import with_argument
from gradcheck._graph.nodes import (
    Node,
    beside,
    copy_node,
    functions_named,
    make_node,
    output_refs,
    rename_called,
    set_inputs,
)
from gradcheck._graph.program import (
    COMPLEX,
    FLOATING,
    Argument,
    Body,
    Program,
    called_names,
    fresh_name,
    used_arguments,
)
from gradcheck._graph.twin import NARROW

_D, _C, _I, _L = types_pb2.DT_DOUBLE, types_pb2.DT_COMPLEX128, types_pb2.DT_INT32, types_pb2.DT_INT64
_B = types_pb2.DT_BOOL
SEED = "rounding_seed"  # name of the argument that holds the seed
_SCRAMBLE = 0x1E3779B97F4A7C15  # 2^64 / golden ratio, without the sign bit
# What to add after a result, by its dtype and how many times it is rounded.
_Rounding = Callable[[Node, str, int, float], tuple[list[Node], str] | None]
_UNITS = {
    types_pb2.DT_HALF: 2.0**-11,
    types_pb2.DT_BFLOAT16: 2.0**-8,
    types_pb2.DT_FLOAT: 2.0**-24,
    types_pb2.DT_COMPLEX64: 2.0**-24,
}
# Kernels that round more than once: the largest error seen below a parameter of 500, in units of 2 roundoffs.
_COARSE = {"RandomGammaGrad": 64.0}
_SERIES = 64  # terms
_AT_REST = 8.0  # roundings that a loop which runs until its numbers rest is off by: of its last rounds alone
_BITS = {types_pb2.DT_BFLOAT16: 2}  # of its 8: 2 / sqrt(pi) rounds to 1.125, which has few
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


def hands_on(op: str) -> bool:
    """Whether an op of that type gives nothing but entries that it was given, or constants."""
    return op in _EXACT or op.startswith(("TensorList", "Optional", "TensorArray", "ReadVariable"))


def with_rounding(program: Program, seed: int | None, *, unit: float | None = None, constants: bool = False) -> Program:
    """The float64 program rounding at random, anew with every seed.

    Args:
        program: In float64; complex results are left alone, but for constants.
        seed: Two seeds draw different roundings, one seed the same ones. None makes the seed the last argument, `SEED`,
            of the main body and of all that it calls; `hands_arguments` says whether that can be.
        unit: Unit roundoff for all ops; None for that of the narrow dtype that each op's results have in the function
            of which this is the twin, and none where they are not narrow.
        constants: Round the constants instead of the results of ops; not those of a few bits, such as 0.5 or 3.
    """

    def rounding(node: Node, ref: str, dtype: int, times: float) -> tuple[list[Node], str] | None:
        own, times = unit if unit is not None else _unit_of(node), 1.0 if constants else times
        if own is None or (not _is_long(node) if constants else not times or dtype != _D):
            return None
        draws, drawn = _drawn(ref, seed, dtype)
        rest, result = _multiplied(ref, drawn, times * own * _COARSE.get(node.op, 1.0), dtype)
        return draws + rest, result

    return _with(program if seed is not None else with_argument(program, Argument(SEED, _I)), rounding)


def with_rounding_by_value(program: Program, unit: float) -> Program:
    """The program with every result of an op off by up to `unit`, relative, as a number scrambled from its bits says.

    As true rounding is, this rounding is the same wherever a value is the same, and has nothing to do with it where the
    value is another: what does not move with the inputs adds no noise to differences.
    """

    def rounding(node: Node, ref: str, dtype: int, times: float) -> tuple[list[Node], str] | None:
        if not times or dtype != _D:
            return None
        draws, drawn = _scrambled(ref)
        rest, result = _multiplied(ref, drawn, times * unit, dtype)
        return draws + rest, result

    return _with(program, rounding)


def _with(program: Program, rounding: _Rounding) -> Program:
    names = {name: fresh_name("rounding") for name in program.functions}
    exact = _converging(program)
    return Program(
        main=_rounded(program.main, names, exact, rounding),
        functions={
            names[n]: _rounded(body, names, exact, rounding, n in exact) for n, body in program.functions.items()
        },
    )


def _converging(program: Program) -> frozenset[str]:
    """The functions of loops that run until numbers in them say that it is enough, and what those call.

    True rounding comes to rest there, on a fixed point. Random rounding does not, and the loop would go on and on.
    """
    found: set[str] = set()
    for body in (program.main, *program.functions.values()):
        for node in body.nodes:
            if node.op.endswith("While"):
                names = [node.attr[key].func.name for key in ("cond", "body")]
                if _asks_for_numbers(program.functions[names[0]]):
                    found.update(names)
    pending = list(found)
    while pending:
        for name in called_names(program.functions[pending.pop()]) - found:
            found.add(name)
            pending.append(name)
    return frozenset(found)


def _asks_for_numbers(cond: Body) -> bool:
    """Whether a loop's condition looks at more than counters."""
    used = used_arguments(cond)
    return any(a.name in used and a.dtype in (_B, *FLOATING) for a in cond.args)


def _rounded(
    body: Body, names: Mapping[str, str], exact: frozenset[str], rounding: _Rounding, is_exact: bool = False
) -> Body:
    nodes: list[Node] = []
    refs: dict[str, str] = {}
    for node in body.nodes:
        copy = copy_node(node)
        rename_called(copy, names)
        set_inputs(copy, [refs.get(i, i) for i in copy.input], [])
        nodes.append(copy)
        times = 0.0 if is_exact or _is_exact(node) else 1.0
        if not is_exact and node.op.endswith("While") and not exact.isdisjoint(functions_named(node)):
            times = _AT_REST
        for ref, dtype in output_refs(node):
            added = rounding(node, ref, dtype, times) if dtype in (_D, _C) else None
            if added is not None:
                nodes += added[0]
                refs[ref] = added[1]
    returns = tuple(replace(r, ref=refs.get(r.ref, r.ref)) for r in body.returns)
    return replace(body, nodes=tuple(nodes), returns=returns)


def _unit_of(node: Node) -> float | None:
    """Half the spacing around 1 of the narrow dtype that a node's results had."""
    return _UNITS.get(node.attr[NARROW].type) if NARROW in node.attr else None


def _is_exact(node: Node) -> bool:
    return node.op in _EXACT or (node.op == "Cast" and node.attr["SrcT"].type not in FLOATING | COMPLEX)


def _is_long(node: Node) -> bool:
    return bool(_long_numbers(node).size)


def _long_numbers(node: Node) -> NDArray[np.float64]:
    """Those of a constant that have more bits than numbers that are meant as they are, and so are likely rounded."""
    if node.op != "Const" or node.attr["dtype"].type not in (_D, _C):
        return np.zeros(0)
    values = tf.make_ndarray(node.attr["value"].tensor)
    values = np.stack([values.real, values.imag])
    bits = _BITS.get(node.attr[NARROW].type, 8) if NARROW in node.attr else 8
    mantissas = np.ldexp(np.frexp(values)[0], bits)
    long: NDArray[np.float64] = values[(mantissas != np.rint(mantissas)) & (values != np.rint(values))]
    return long


def coefficients(program: Program) -> int:
    """How many numbers, all different, stand in the constants of a float64 program as those of a series do.

    Constants of many entries are data.
    """
    nodes = (node for body in (program.main, *program.functions.values()) for node in body.nodes)
    some = (_long_numbers(node) for node in nodes if node.op == "Const" and _entries(node) <= _SERIES)
    return len({abs(float(value)) for values in some for value in values})


def _entries(node: Node) -> int:
    return math.prod(d.size for d in node.attr["value"].tensor.tensor_shape.dim)


def _drawn(ref: str, seed: int | None, dtype: int) -> tuple[list[Node], str]:
    """Nodes that draw a number of [-1, 1) for every entry of a tensor."""
    name = _stem(ref)
    shape = make_node("Shape", f"{name}/shape", [ref], T=dtype, out_type=_I)
    own = make_node("Const", f"{name}/own", beside(ref), dtype=_I)
    tensor = own.attr["value"].tensor
    tensor.dtype = _I
    tensor.tensor_shape.SetInParent()
    tensor.int_val.append(zlib.crc32(name.encode()) % 2**31)
    given: list[Node] = []
    if seed is not None:
        given = [copy_node(own)]
        given[0].name = f"{name}/given"
        given[0].attr["value"].tensor.int_val[:] = [seed]
    both = [f"{name}/given:output:0" if given else SEED, f"{own.name}:output:0"]
    seeds = make_node("Pack", f"{name}/seed", both, T=_I)
    seeds.attr["N"].i = len(both)
    draw = make_node(
        "StatelessRandomUniform", f"{name}/draw", [f"{shape.name}:output:0", f"{seeds.name}:output:0"],
        dtype=_D, T=_I, Tseed=_I,
    )  # fmt: skip
    two, one = _scalar(f"{name}/two", 2.0, ref), _scalar(f"{name}/one", 1.0, ref)
    doubled = make_node("Mul", f"{name}/doubled", [f"{draw.name}:output:0", f"{two.name}:output:0"], T=_D)
    centred = make_node("Sub", f"{name}/centred", [f"{doubled.name}:z:0", f"{one.name}:output:0"], T=_D)
    return [shape, own, *given, seeds, draw, two, one, doubled, centred], f"{centred.name}:z:0"


def _scrambled(ref: str) -> tuple[list[Node], str]:
    """Nodes that scramble the bits of every entry of a tensor into a number of [-1, 1)."""
    name = _stem(ref)
    own = 2 * zlib.crc32(name.encode()) << 16  # other ops round the same value otherwise
    bits = make_node("Bitcast", f"{name}/bits", [ref], T=_D, type=_L)
    first, second = _integer(f"{name}/first", _SCRAMBLE + own, ref), _integer(f"{name}/second", _SCRAMBLE, ref)
    half = _integer(f"{name}/half", 29, ref)
    product = make_node("Mul", f"{name}/product", [f"{bits.name}:output:0", f"{first.name}:output:0"], T=_L)
    high = make_node("RightShift", f"{name}/high", [f"{product.name}:z:0", f"{half.name}:output:0"], T=_L)
    mixed = make_node("BitwiseXor", f"{name}/mixed", [f"{product.name}:z:0", f"{high.name}:z:0"], T=_L)
    word = make_node("Mul", f"{name}/word", [f"{mixed.name}:z:0", f"{second.name}:output:0"], T=_L)
    number = make_node("Cast", f"{name}/number", [f"{word.name}:z:0"], SrcT=_L, DstT=_D)
    unit = _scalar(f"{name}/unit", 2.0**-63, ref)
    result = make_node("Mul", f"{name}/drawn", [f"{number.name}:y:0", f"{unit.name}:output:0"], T=_D)
    nodes = [bits, first, second, half, product, high, mixed, word, number, unit, result]
    return nodes, f"{result.name}:z:0"


def _multiplied(ref: str, drawn: str, unit: float, dtype: int) -> tuple[list[Node], str]:
    """Nodes for ref x (1 + unit x drawn)."""
    name = _stem(ref)
    spread, one = _scalar(f"{name}/spread", unit, ref), _scalar(f"{name}/exact", 1.0, ref)
    scaled = make_node("Mul", f"{name}/scaled", [drawn, f"{spread.name}:output:0"], T=_D)
    factor = make_node("AddV2", f"{name}/factor", [f"{scaled.name}:z:0", f"{one.name}:output:0"], T=_D)
    nodes, by = [spread, one, scaled, factor], f"{factor.name}:z:0"
    if dtype == _C:
        nodes.append(make_node("Cast", f"{name}/cast", [by], SrcT=_D, DstT=_C))
        by = f"{name}/cast:y:0"
    result = make_node("Mul", f"{name}/result", [ref, by], T=dtype)
    return [*nodes, result], f"{result.name}:z:0"


def _stem(ref: str) -> str:
    return ref.replace(":", "_") + "/rounding"


def _integer(name: str, value: int, ref: str) -> Node:
    node = make_node("Const", name, beside(ref), dtype=_L)
    tensor = node.attr["value"].tensor
    tensor.dtype = _L
    tensor.tensor_shape.SetInParent()
    tensor.int64_val.append(value)
    return node


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
