"""What one evaluation of a traced function costs, estimated from its shapes."""

from __future__ import annotations

import math
from typing import Any

_PRODUCTS = ("MatMul", "Conv", "Einsum", "Cholesky", "Svd", "Qr", "Matrix", "SelfAdjointEig")


def entries_computed(graph: Any) -> float:
    """Entries that the ops of a FuncGraph compute, each multiply-add of a product counted as a tenth of one.

    Shapes that are not known count as one entry, and the bodies of loops once.
    """
    total = 0.0
    for op in graph.get_operations():
        if op.type in ("Const", "Placeholder") or op.name.startswith("gradients"):
            continue
        own = sum(_size(t) for t in op.outputs)
        if any(p in op.type for p in _PRODUCTS) and op.inputs:
            operand = min(_size(t) for t in op.inputs)
            last = op.outputs[0].shape.as_list()[-1] if op.outputs[0].shape.rank else 1
            own *= max(1.0, operand / max(1, last or 1) / 10.0)
        total += own
    return max(1.0, total)


def _size(tensor: Any) -> float:
    return float(math.prod(tensor.shape.as_list())) if tensor.shape.is_fully_defined() else 1.0
