"""The float64 twin: a program rewritten so that it computes in double precision."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import kernels

from gradcheck._graph.inline import write_out
from gradcheck._graph.nodes import (
    Node,
    argument_types,
    beside,
    control_inputs,
    copy_node,
    data_inputs,
    make_node,
    node_of,
    op_def,
    output_refs,
    rename_called,
    set_inputs,
)
from gradcheck._graph.program import Body, Program, fresh_name
from gradcheck._graph.randomness import RANDOM
from gradcheck._graph.standins import stand_in

_D = types_pb2.DT_DOUBLE
WIDER = {
    types_pb2.DT_HALF: _D,
    types_pb2.DT_BFLOAT16: _D,
    types_pb2.DT_FLOAT: _D,
    types_pb2.DT_COMPLEX64: types_pb2.DT_COMPLEX128,
}
# Python functions expect the dtype that they were written for; Bitcast reinterprets bits.
# These take float64, and compute in float32 all the same.
_SINGLE = frozenset({"CTCLoss", "ImageProjectiveTransformV2", "ImageProjectiveTransformV3"})
_OWN_DTYPE = RANDOM | _SINGLE | {"Range", "LinSpace", "PyFunc", "PyFuncStateless", "EagerPyFunc", "Bitcast"}


# Attribute of a promoted node: the narrow dtype that its results had (TensorFlow ignores names with an underscore).
NARROW = "_gradcheck_narrow"
# Kept as they are, and exact as they are: a longer range would be another shape.
_UNCOUNTED = RANDOM | {"Range", "LinSpace"}


@dataclass(slots=True)
class _Promotion:
    names: dict[str, str]  # library function -> its twin
    step_by_step: bool
    unpromoted: set[str] = field(default_factory=set)


def is_narrow(program: Program) -> bool:
    """Whether anything in the program is narrower than float64."""
    bodies = [program.main, *program.functions.values()]
    return any(a.dtype in WIDER for body in bodies for a in body.args) or any(
        dtype in WIDER for body in bodies for node in body.nodes for _, dtype in output_refs(node)
    )


def narrow_inside(program: Program) -> tuple[str, ...]:
    """The ops of a float64 program that round as float32 does."""
    bodies = (program.main, *program.functions.values())
    return tuple(sorted(f"{n.op} '{n.name}'" for body in bodies for n in body.nodes if n.op in _SINGLE))


def promote(program: Program, *, step_by_step: bool = False) -> tuple[Program, tuple[str, ...]]:
    """The program in float64 and complex128.

    Type attributes, constants and nested functions are promoted. An op without a float64 kernel, and a Python
    function, keep their dtype between casts; a random op too, so that it draws the same numbers.

    Args:
        program: What to promote.
        step_by_step: Keep one op for one op, so that the two can be run beside each other.

    Returns:
        The twin, and the ops that could not be promoted and round as before (random ops are not among them).
    """
    work = _Promotion({name: fresh_name("twin") for name in program.functions}, step_by_step)
    main = _promote(program.main, work)
    library = {work.names[name]: _promote(body, work) for name, body in program.functions.items()}
    return Program(main=main, functions=library), tuple(sorted(work.unpromoted))


def _wide(dtype: int) -> int:
    wider: int = WIDER.get(dtype, dtype)
    return wider


def _promote(body: Body, work: _Promotion) -> Body:
    nodes: list[Node] = []
    refs: dict[str, str] = {}
    exact = _exact(body)
    for node in body.nodes:
        before, new, after = _promote_node(node, work, exact.get(node.name))
        nodes += [*before, new, *(cast for _, cast in after)]
        refs.update({ref: f"{cast.name}:y:0" for ref, cast in after})
    inner = {cast: ref for ref, cast in refs.items()}
    result = []
    for node in nodes:
        own = node.name + ":y:0" in inner
        if not own and any(i in refs for i in node.input):
            set_inputs(node, [refs.get(i, i) for i in node.input], [])
        result.append(node)
    return replace(
        body,
        args=tuple(replace(a, dtype=_wide(a.dtype)) for a in body.args),
        nodes=tuple(result),
        returns=tuple(replace(r, ref=refs.get(r.ref, r.ref), dtype=_wide(r.dtype)) for r in body.returns),
    )


def _promote_node(node: Node, work: _Promotion, exact: float | None) -> tuple[list[Node], Node, list[tuple[str, Node]]]:
    """Casts before, the node, and casts after it (each with the reference that it stands for)."""
    copy = copy_node(node)
    definition = op_def(node.op)
    if definition is None:
        return [], copy, []
    body = None if work.step_by_step else stand_in(node)
    if body is not None:
        return _promote_by(body, node)
    rename_called(copy, work.names)
    keep = _keeps(node)
    if not keep:
        for attribute in copy.attr.values():
            _promote_attribute(attribute, exact)
    for _, dtype in output_refs(node):
        if dtype in WIDER:
            copy.attr[NARROW].type = dtype
            break
    before: list[Node] = []
    data = data_inputs(copy)
    for i, (arrives, takes) in enumerate(_types(definition.input_arg, node, copy)):
        if arrives != takes:
            cast = make_node("Cast", f"{node.name}/narrow{i}", [data[i]], SrcT=arrives, DstT=takes)
            before.append(cast)
            data[i] = f"{cast.name}:y:0"
    set_inputs(copy, data, control_inputs(copy))
    if node.op in _SINGLE:
        work.unpromoted.add(f"{node.op} '{node.name}'")
    after = []
    gives = [t for _, types in argument_types(definition.output_arg, copy) for t in types]
    for (ref, dtype), given in zip(output_refs(node), gives, strict=True):
        if given != _wide(dtype):
            if node.op not in _UNCOUNTED:
                work.unpromoted.add(f"{node.op} '{node.name}'")
            name = f"{node.name}/widen_{ref.replace(':', '_').rsplit('/', 1)[-1]}"
            after.append((ref, make_node("Cast", name, [ref], SrcT=given, DstT=_wide(dtype))))
    return before, copy, after


def _promote_by(body: Body, node: Node) -> tuple[list[Node], Node, list[tuple[str, Node]]]:
    """A node written out as the body that stands for it, to which the node's name is given at the end."""
    data = data_inputs(node)
    inner, results = write_out(node, body)
    for made in inner:
        if not made.input:
            made.input.extend(beside(data[0]))
        if any(dtype == _D for _, dtype in output_refs(made)):
            made.attr[NARROW].type = types_pb2.DT_FLOAT  # in which the node computes, whatever it takes and gives
    named = make_node("Identity", node.name, results[:1], T=_D)
    refs = [f"{node.name}:output:0", *results[1:]]
    after = []
    for k, (ref, dtype) in enumerate(output_refs(node)):
        cast = make_node("Cast", f"{node.name}/widen{k}", [refs[k]], SrcT=_D, DstT=_D)
        if dtype in WIDER:
            cast.attr[NARROW].type = dtype
        after.append((ref, cast))
    return inner, named, after


def _types(args: Any, node: Node, copy: Node) -> list[tuple[int, int]]:
    arrive = [_wide(t) for _, types in argument_types(args, node) for t in types]
    take = [t for _, types in argument_types(args, copy) for t in types]
    return list(zip(arrive, take, strict=True))


def _promote_attribute(attribute: Any, exact: float | None) -> None:
    kind = attribute.WhichOneof("value")
    if kind == "type":
        attribute.type = _wide(attribute.type)
    elif kind == "list":
        for i, dtype in enumerate(attribute.list.type):
            attribute.list.type[i] = _wide(dtype)
    elif kind == "tensor" and attribute.tensor.dtype in WIDER:
        wide = tf.as_dtype(WIDER[attribute.tensor.dtype]).as_numpy_dtype
        array = tf.make_ndarray(attribute.tensor)
        wider = array.astype(wide) if exact is None else np.full(array.shape, exact)
        attribute.tensor.CopyFrom(tf.make_tensor_proto(wider))


def _exact(body: Body) -> dict[str, float]:
    """Constants of calculus, by the nodes that hold them rounded.

    The gradient of erf holds 2 / sqrt(pi), which the function itself does not: computed with in float64 as float32 has
    rounded it, it would make a right gradient wrong by that rounding. In narrower dtypes other numbers round to the
    same, and it is taken for that constant only where it multiplies an exponential, as there.
    """
    found = {}
    before_exp = _multiplied_by_exp(body)
    for node in body.nodes:
        if node.op != "Const" or node.attr["dtype"].type not in _ROUNDED:
            continue
        rounded = _ROUNDED[node.attr["dtype"].type]
        array = tf.make_ndarray(node.attr["value"].tensor)
        if array.size == 1 and (rounded is _ROUNDED[types_pb2.DT_FLOAT] or node.name in before_exp):
            number = float(array.reshape(()))
            if abs(number) in rounded:
                found[node.name] = math.copysign(rounded[abs(number)], number)
    return found


def _multiplied_by_exp(body: Body) -> set[str]:
    """Names of the factors in products with an exponential."""
    factors = {node.name: [node_of(r) for r in data_inputs(node)] for node in body.nodes if node.op == "Mul"}
    exponentials = {node.name for node in body.nodes if node.op == "Exp"}
    found: set[str] = set()
    ahead = [names for names in factors.values() if exponentials & set(names)]
    while ahead:
        new = set(ahead.pop()) - found
        found |= new
        ahead += [factors[name] for name in new if name in factors]
    return found


_CONSTANTS = (
    math.pi, math.pi / 2, math.tau, math.sqrt(math.pi), math.sqrt(math.pi) / 2, 2 / math.sqrt(math.pi),
    math.sqrt(math.tau), 1 / math.sqrt(math.tau), math.sqrt(2), math.sqrt(0.5), math.sqrt(2 / math.pi),
    math.log(2), 1 / math.log(2), math.log(10), 1 / math.log(10), math.e,
)  # fmt: skip
_ROUNDED = {
    dtype: {float(tf.as_dtype(dtype).as_numpy_dtype(c)): c for c in _CONSTANTS}
    for dtype in (types_pb2.DT_FLOAT, types_pb2.DT_HALF, types_pb2.DT_BFLOAT16)
}


def _keeps(node: Node) -> bool:
    """Whether the node must run in the dtype it has."""
    if node.op in _OWN_DTYPE:
        return True
    types = []
    for attr in op_def(node.op).attr:
        if attr.type in ("type", "list(type)") and attr.name in node.attr:
            value = node.attr[attr.name]
            given = [value.type] if attr.type == "type" else list(value.list.type)
            allowed = attr.allowed_values.list.type
            if any(t in WIDER and allowed and WIDER[t] not in allowed for t in given):
                return True
            types += [(attr.name, t) for t in given if t in WIDER]
    return bool(types) and not all(_has_kernel(node.op, name, WIDER[t]) for name, t in types)


@cache
def _has_kernel(op: str, attribute: str, dtype: int) -> bool:
    found = [k for k in kernels.get_registered_kernels_for_op(op).kernel if k.device_type in ("CPU", "DEFAULT")]
    if not found:
        return True  # not a kernel of its own: a call, a loop, a conditional
    for kernel in found:
        constraints = {c.name: c.allowed_values.list.type for c in kernel.constraint}
        if attribute not in constraints or dtype in constraints[attribute]:
            return True
    return False
