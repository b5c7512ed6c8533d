"""Why an op gave NaN or an infinity: too large for its dtype, rounded into a singular point, or truly singular."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._diagnose.births import Birth
from gradcheck._diagnose.paces import Towards
from gradcheck._diagnose.ranges import is_continuous, wide_array
from gradcheck._graph.evaluate import RUN_ERRORS, eagerly
from gradcheck._graph.nodes import copy_node, output_refs, set_inputs
from gradcheck._graph.program import COMPLEX, FLOATING, Argument, Body, Program, Return
from gradcheck._graph.rerun import Rerun
from gradcheck._graph.twin import WIDER, is_narrow, promote
from gradcheck._graph.visit import Value, returned_by, visit

OVERFLOW, LOST, SINGULAR, INPUT = "overflow", "lost precision", "singularity", "input"

# Functions with a singular point at finite arguments. All other ops are finite wherever no number gets too large.
_SINGULAR = frozenset(
    {
        "Log", "Log1p", "Sqrt", "Rsqrt", "Pow", "Xlogy", "Xlog1py", "Acos", "Asin", "Acosh", "Atanh", "Lgamma",
        "Digamma", "Polygamma", "Zeta", "Igamma", "Igammac", "IgammaGradA", "Betainc", "Ndtri", "Erfinv", "BesselK0",
        "BesselK1", "BesselY0", "BesselY1", "Expint", "MatrixInverse", "MatrixSolve", "MatrixTriangularSolve",
        "MatrixDeterminant", "LogMatrixDeterminant", "MatrixLogarithm", "MatrixSquareRoot", "Cholesky", "CholeskyGrad",
        "Qr", "Svd", "SelfAdjointEigV2", "Eig", "Mod", "FloorMod", "TruncateMod", "Mean", "AcosGrad", "AsinGrad",
    }
)  # fmt: skip
_OF_MANY = ("MatMul", "BatchMatMul", "Conv", "Sum", "Prod", "Einsum", "AddN", "Cum", "SparseTensorDense", "Xla")
# The same, where the position of what must not be zero is known: only there is the point singular.
_DIVISOR = {
    "RealDiv": 1, "Div": 1, "TruncateDiv": 1, "FloorDiv": 1, "Xdivy": 1, "Reciprocal": 0, "Inv": 0, "SqrtGrad": 0,
}  # fmt: skip
# What runs out of sight, and of which no other dtype can be asked: Python functions, and a loop over a dataset.
_OPAQUE = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc", "ReduceDataset"})
# Numbers of which the functions that are left overflow, if not by adding or multiplying many.
_LARGE = 100.0
# Their second input is 1/x or 1/sqrt(x): finite, unless x was singular; what is too large is the product.
_PRODUCTS = frozenset({"RsqrtGrad", "ReciprocalGrad", "InvGrad"})


def cause_of(birth: Birth, rerun: Rerun) -> str | None:
    """ "overflow", "lost precision", "singularity", "input" where it came from outside, None where it cannot be told.

    The op alone, in float64 on the inputs that it had, tells what is too large for its dtype only. The whole program
    in float64 tells whether the inputs were rounded into a singular point.
    """
    if birth.visit is None or birth.was_given:
        return INPUT
    if birth.visit.node.op in _OPAQUE:
        return None
    bad = ~np.isfinite(wide_array(birth.tensor))
    alone = _alone_in_float64(birth)
    if alone is not None and np.all(np.isfinite(alone[bad])):
        return OVERFLOW
    if is_narrow(rerun.program):
        exact = _in_twin(birth, rerun)
        if exact is not None and exact.shape == bad.shape and np.all(np.isfinite(exact[bad])):
            return LOST
    return SINGULAR if _is_singular(birth) else OVERFLOW


def _is_narrow(birth: Birth) -> bool:
    assert birth.visit is not None
    tensors = [v.tensor for v in (*birth.visit.inputs, *birth.visit.outputs)]
    return any(t.dtype.as_datatype_enum in WIDER for t in tensors)


def _alone_in_float64(birth: Birth) -> Any:
    """The output of the op in float64, on the inputs it had, or None where it cannot be had."""
    seen = birth.visit
    assert seen is not None
    if not _is_narrow(birth) or any(v.tensor.dtype.name in ("resource", "variant") for v in seen.inputs):
        return None
    refs = output_refs(seen.node)
    args = tuple(Argument(f"a{k}", v.tensor.dtype.as_datatype_enum) for k, v in enumerate(seen.inputs))
    node = copy_node(seen.node)
    set_inputs(node, [a.name for a in args], [])
    if node.op == "Cast" and node.attr["DstT"].type in FLOATING | COMPLEX:
        return wide_array(seen.inputs[0].tensor)
    program, unpromoted = promote(
        Program(main=Body(args=args, nodes=(node,), returns=tuple(Return(*r) for r in refs)), functions={})
    )
    if unpromoted:
        return None
    with eagerly():
        given = [Value(_widened(v.tensor)) for v in seen.inputs]
    try:
        returned = returned_by(visit(program, given))
    except RUN_ERRORS:
        return None
    return wide_array(returned[birth.output].tensor)


def _widened(tensor: Any) -> Any:
    wider = WIDER.get(tensor.dtype.as_datatype_enum)
    return tensor if wider is None else tf.cast(tensor, tf.as_dtype(wider))


def _in_twin(birth: Birth, rerun: Rerun) -> Any:
    """What the op gives when the whole program runs in float64, or None where that run never comes to it."""
    seen = birth.visit
    assert seen is not None
    _, walk = rerun.widened().start(Towards(seen.path))
    try:
        for twin in walk:
            if twin.node.name == seen.node.name and twin.path == seen.path:
                return wide_array(twin.outputs[birth.output].tensor) if birth.output < len(twin.outputs) else None
    except RUN_ERRORS:
        return None
    return None


def _is_singular(birth: Birth) -> bool:
    """Whether the op has a singular point where it gave NaN or an infinity."""
    seen = birth.visit
    assert seen is not None
    inputs = [v.tensor for v in seen.inputs]
    if any(is_continuous(t) and not np.all(np.isfinite(wide_array(t))) for t in inputs):
        return True  # infinities given on purpose, that became NaN
    if seen.node.op in _DIVISOR:
        return bool(np.any(wide_array(inputs[_DIVISOR[seen.node.op]]) == 0))
    if seen.node.op in _PRODUCTS:
        return False
    if seen.node.op == "Pow":
        base, power = (wide_array(t) for t in inputs)
        return bool(np.any((base == 0) & (power < 0)) or np.any((base < 0) & (power != np.round(power))))
    if seen.node.op in _SINGULAR:
        return True
    largest = max((np.max(np.abs(wide_array(t)), initial=0.0) for t in inputs if is_continuous(t)), default=0.0)
    return not seen.node.op.startswith(_OF_MANY) and bool(largest < _LARGE)
