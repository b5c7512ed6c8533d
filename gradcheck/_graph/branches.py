"""Branches held: ops that choose by the size of their input go on choosing as they do at the base point.

Where no input of such an op lies exactly at its kink, the function with its choices held is the function itself close
to the point, has the same derivative there, and is smooth far beyond: millions of kinks nearby do no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from tensorflow.core.framework import types_pb2

from gradcheck._graph.nodes import Node, beside, copy_node, data_inputs, make_node, output_refs
from gradcheck._graph.program import Program, Return, redirect

_BOOL, _I32, _I64 = types_pb2.DT_BOOL, types_pb2.DT_INT32, types_pb2.DT_INT64
_NEAR = 2.0**-36  # so close to its kink an input is looked at closely


@dataclass(frozen=True, slots=True, kw_only=True)
class Branches:
    """A program whose choices can be held.

    Attributes:
        program: Computes the same, each choice by a tensor of its own.
        choices: Those tensors: hold them at their base values, and the branches are held.
        near: For some ops, by name, whether some input lies at its kink, or next to it; of others that is not known.
        differs: Per op, whether it gives anything else than its held branch does.
        names: Of the ops.
    """

    program: Program
    choices: tuple[Return, ...]
    near: Mapping[str, Return]
    differs: tuple[Return, ...]
    names: tuple[str, ...]


def branches(program: Program, without: Collection[str] = ()) -> Branches:
    """Rewrite the ops that choose in the main body of a float64 program.

    Args:
        program: What to rewrite.
        without: Names of ops to leave as they are.
    """
    nodes: list[Node] = []
    refs: dict[str, str] = {}
    own: dict[str, str] = {}  # the comparisons, each with what the op itself gives
    choices, names = [], []
    near: dict[str, Return] = {}
    # In a loop of control flow v1, which lies open in the body, a choice has another value in every iteration.
    writers = {} if any(node.op == "LoopCond" for node in program.main.nodes) else _WRITERS
    for node in program.main.nodes:
        nodes.append(node)
        write = writers.get(node.op)
        if write is None or node.name in without or not _can_be_held(node):
            continue
        added, choice, kept, tested = write(node)
        (out, dtype), *_ = output_refs(node)
        nodes += [*added, *_differs(node.name, out, kept, dtype)]
        if tested:
            nodes += _near(node.name, tested, dtype)
            near[node.name] = Return(f"{node.name}/near:output:0", _BOOL)
        refs[out] = kept
        own[f"{node.name}/unequal"] = out
        choices.append(choice)
        names.append(node.name)
    changed = redirect(replace(program.main, nodes=tuple(nodes)), refs)
    restored = tuple(_reading(node, own[node.name]) if node.name in own else node for node in changed.nodes)
    return Branches(
        program=Program(main=replace(changed, nodes=restored), functions=program.functions),
        choices=tuple(choices),
        near=near,
        differs=tuple(Return(f"{name}/differs:output:0", _BOOL) for name in names),
        names=tuple(names),
    )


def _reading(node: Node, first: str) -> Node:
    copy = copy_node(node)
    copy.input[0] = first
    return copy


def _can_be_held(node: Node) -> bool:
    if output_refs(node)[0][1] != types_pb2.DT_DOUBLE:
        return False
    return node.op != "MaxPool" or (
        node.attr["data_format"].s in (b"", b"NHWC") and node.attr["padding"].s in (b"SAME", b"VALID")
    )


def _differs(name: str, out: str, kept: str, dtype: int) -> list[Node]:
    unequal = make_node("NotEqual", f"{name}/unequal", [out, kept], T=dtype)
    unequal.attr["incompatible_shape_error"].b = True
    return [unequal, *_any(f"{name}/differs", f"{unequal.name}:z:0", out)]


def _near(name: str, tested: list[str], dtype: int) -> list[Node]:
    gaps = make_node("SquaredDifference", f"{name}/gaps", tested, T=dtype)
    least = _number(f"{name}/least", _NEAR**2, dtype, tested[0])
    close = make_node("LessEqual", f"{name}/close", [f"{gaps.name}:z:0", f"{least.name}:output:0"], T=dtype)
    return [gaps, least, close, *_any(f"{name}/near", f"{close.name}:z:0", tested[0])]


def _any(name: str, condition: str, at: str) -> list[Node]:
    """Whether a condition holds anywhere, at the given name."""
    flat = make_node("Reshape", f"{name}/flat", [condition, f"{name}/all:output:0"], T=_BOOL, Tshape=_I32)
    some = make_node("Any", name, [f"{name}/flat:output:0", f"{name}/axis:output:0"], Tidx=_I32)
    some.attr["keep_dims"].b = False
    return [_vector(f"{name}/all", [-1], at), _vector(f"{name}/axis", [0], at), flat, some]


def _vector(name: str, values: list[int], at: str) -> Node:
    node = make_node("Const", name, beside(at), dtype=_I32)
    tensor = node.attr["value"].tensor
    tensor.dtype = _I32
    tensor.tensor_shape.dim.add(size=len(values))
    tensor.int_val.extend(values)
    return node


def _number(name: str, value: float, dtype: int, at: str) -> Node:
    node = make_node("Const", name, beside(at), dtype=dtype)
    node.attr["value"].tensor.dtype = dtype
    node.attr["value"].tensor.tensor_shape.SetInParent()
    node.attr["value"].tensor.double_val.append(value)
    return node


# The nodes, the choice, what is chosen, and the tensors that are equal at a kink, where there are such.
Written = tuple[list[Node], Return, str, list[str]]


def _select(node: Node, test: str, tested: list[str], chosen: list[str], before: list[Node]) -> Written:
    """Choose between two tensors by a comparison."""
    dtype = output_refs(node)[0][1]
    choice = make_node(test, f"{node.name}/choice", tested, T=dtype)
    kept = make_node("SelectV2", f"{node.name}/kept", [f"{choice.name}:z:0", *chosen], T=dtype)
    return [*before, choice, kept], Return(f"{choice.name}:z:0", _BOOL), f"{kept.name}:output:0", tested


def _relu(node: Node) -> Written:
    (x,), zero = data_inputs(node), f"{node.name}/zero"
    of_zero = _number(zero, 0.0, output_refs(node)[0][1], x)
    return _select(node, "Greater", [x, f"{zero}:output:0"], [x, f"{zero}:output:0"], [of_zero])


def _leaky_relu(node: Node) -> Written:
    (x,), dtype = data_inputs(node), output_refs(node)[0][1]
    zero, slope = f"{node.name}/zero", f"{node.name}/slope"
    alpha = node.attr["alpha"].f if "alpha" in node.attr else 0.2
    low = make_node("Mul", f"{node.name}/low", [x, f"{slope}:output:0"], T=dtype)
    before = [_number(zero, 0.0, dtype, x), _number(slope, alpha, dtype, x), low]
    return _select(node, "Greater", [x, f"{zero}:output:0"], [x, f"{low.name}:z:0"], before)


def _abs(node: Node) -> Written:
    (x,), dtype, zero = data_inputs(node), output_refs(node)[0][1], f"{node.name}/zero"
    minus = make_node("Neg", f"{node.name}/minus", [x], T=dtype)
    before = [_number(zero, 0.0, dtype, x), minus]
    return _select(node, "Greater", [x, f"{zero}:output:0"], [x, f"{minus.name}:y:0"], before)


def _maximum(node: Node) -> Written:
    a, b = data_inputs(node)
    return _select(node, "GreaterEqual", [a, b], [a, b], [])


def _minimum(node: Node) -> Written:
    a, b = data_inputs(node)
    return _select(node, "LessEqual", [a, b], [a, b], [])


def _max_pool(node: Node) -> Written:
    """The largest of each window, taken from where it lies at the base point."""
    (x,), dtype = data_inputs(node), output_refs(node)[0][1]
    where = make_node("MaxPoolWithArgmax", f"{node.name}/choice", [x], T=dtype, Targmax=_I64)
    for key in ("ksize", "strides", "padding"):
        where.attr[key].CopyFrom(node.attr[key])
    where.attr["include_batch_in_index"].b = True
    flat = make_node("Reshape", f"{node.name}/row", [x, f"{node.name}/rows:output:0"], T=dtype, Tshape=_I32)
    axis = _vector(f"{node.name}/along", [0], x)
    axis.attr["value"].tensor.tensor_shape.ClearField("dim")
    kept = make_node(
        "GatherV2", f"{node.name}/kept",
        [f"{flat.name}:output:0", f"{where.name}:argmax:0", f"{axis.name}:output:0"],
        Tparams=dtype, Tindices=_I64, Taxis=_I32,
    )  # fmt: skip
    kept.attr["batch_dims"].i = 0
    nodes = [where, _vector(f"{node.name}/rows", [-1], x), flat, axis, kept]
    return nodes, Return(f"{where.name}:argmax:0", _I64), f"{kept.name}:output:0", []


_WRITERS: dict[str, Callable[[Node], Written]] = {
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "Abs": _abs,
    "Maximum": _maximum,
    "Minimum": _minimum,
    "MaxPool": _max_pool,
}
