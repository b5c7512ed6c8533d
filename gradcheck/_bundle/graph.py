"""Programs as files: function definitions, checked when they are read so that no op reaches out of the process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.python.ops import (
    gen_array_ops,
    gen_bitwise_ops,
    gen_control_flow_ops,
    gen_functional_ops,
    gen_image_ops,
    gen_linalg_ops,
    gen_list_ops,
    gen_math_ops,
    gen_nn_ops,
    gen_optional_ops,
    gen_random_ops,
    gen_resource_variable_ops,
    gen_sparse_ops,
    gen_special_math_ops,
    gen_spectral_ops,
    gen_stateful_random_ops,
    gen_stateless_random_ops,
    gen_stateless_random_ops_v2,
    gen_training_ops,
)

from gradcheck._errors import BundleDamaged
from gradcheck._graph.nodes import control_inputs, data_inputs, functions_named, node_of, op_def, output_refs
from gradcheck._graph.program import Body, Program
from gradcheck._graph.wire import program_from_bytes

_MODULES = (
    gen_array_ops, gen_bitwise_ops, gen_control_flow_ops, gen_functional_ops, gen_image_ops, gen_linalg_ops,
    gen_list_ops, gen_math_ops, gen_nn_ops, gen_optional_ops, gen_random_ops, gen_resource_variable_ops,
    gen_sparse_ops, gen_special_math_ops, gen_spectral_ops, gen_stateful_random_ops, gen_stateless_random_ops,
    gen_stateless_random_ops_v2, gen_training_ops,
)  # fmt: skip
# Ops of those modules that read files, or reach variables and devices by name.
_OUTWARD = frozenset({"ImmutableConst", "VarHandleOp", "DestroyResourceOp", "RemoteCall", "Abort"})
# Ops that act on the world outside: a run skips them, whatever they are.
_SKIPPED = frozenset({"Assert", "NoOp", "PrintV2", "Print", "WriteSummary", "CheckNumerics", "CheckNumericsV2"})


def outward_ops(program: Program) -> list[str]:
    """The types of the ops for which `program_from` would refuse the program."""
    nodes = [node for body in (program.main, *program.functions.values()) for node in body.nodes]
    return sorted({node.op for node in nodes if not _is_allowed(node.op)})


def program_from(data: bytes) -> Program:
    """The program that `program_to_bytes` wrote.

    Raises:
        BundleDamaged: If it is none; or holds an op that calls Python or reaches files, devices or the network.
    """
    try:
        program = program_from_bytes(data)
    except DecodeError as error:
        raise BundleDamaged("graph.pb: no function definitions") from error
    except ValueError as error:
        raise BundleDamaged(f"graph.pb: {error}") from error
    for name, body in {"main": program.main, **program.functions}.items():
        for fault in _faults(body, program.functions):
            raise BundleDamaged(f"graph.pb: function {name!r}: {fault}")
    return program


def _faults(body: Body, bodies: Mapping[str, Body]) -> Iterator[str]:
    names = [a.name for a in body.args] + [node.name for node in body.nodes]
    if len(set(names)) != len(names):
        yield "two nodes have one name"
    known = {a.name for a in body.args}
    nodes = {node.name for node in body.nodes}
    for node in body.nodes:
        if not _is_allowed(node.op):
            yield f"{node.op} {node.name!r} is not run: it may act outside of the graph"
        else:
            yield from _faulty_attributes(node)
            known.update(ref for ref, _ in output_refs(node))
            for called in functions_named(node):
                if called not in bodies:
                    yield f"{node.name!r} calls {called!r}, which is not there"
    for node in body.nodes:
        for ref in data_inputs(node):
            if ref not in known:
                yield f"{node.name!r} takes {ref!r}, which is not there"
        for control in control_inputs(node):
            if node_of(control) not in nodes:
                yield f"{node.name!r} waits for {control!r}, which is not there"
    for returned in body.returns:
        if returned.ref not in known:
            yield f"it returns {returned.ref!r}, which is not there"


def _faulty_attributes(node: Any) -> Iterator[str]:
    for attr in op_def(node.op).attr:
        if attr.name not in node.attr and not attr.HasField("default_value"):
            yield f"{node.name!r} has no attribute {attr.name!r}"


@cache
def _is_allowed(op: str) -> bool:
    if op in _SKIPPED:
        return True
    return op not in _OUTWARD and op_def(op) is not None and any(hasattr(module, op) for module in _MODULES)
