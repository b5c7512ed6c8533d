"""Keras layers in a traced graph: what they give, and what is rectified."""

from __future__ import annotations

from typing import Any

from gradcheck._graph.nodes import ref_of
from gradcheck._graph.provenance import keras_layer
from gradcheck._graph.structure import CONTINUOUS

_GRADIENTS = ("gradient_tape/", "gradients/")
_RECTIFIERS = ("Relu", "Relu6")


def layer_outputs(graph: Any) -> list[tuple[str, str, Any]]:
    """What the layers of a FuncGraph give to others, or to the loss: path of the layer, reference, tensor.

    An op belongs to the innermost layer in whose call it was made. Layers within functions that the graph calls are
    not seen.
    """
    owners = {op: keras_layer(op, op.name) for op in graph.get_operations() if not _is_of_gradient(op)}
    returned = {id(t) for t in graph.outputs}
    return [
        (owner, ref_of(tensor), tensor)
        for op, owner in owners.items()
        for tensor in op.outputs
        if owner is not None
        and tensor.dtype in CONTINUOUS
        and (id(tensor) in returned or any(owners.get(user, owner) != owner for user in tensor.consumers()))
    ]


def rectified(graph: Any) -> list[tuple[str, str, Any]]:
    """The outputs of rectifiers in the forward pass whose last axis counts units: layer or op, reference, tensor."""
    found = [op for op in graph.get_operations() if op.type in _RECTIFIERS and not _is_of_gradient(op)]
    outputs = [(op, op.outputs[0]) for op in found if (op.outputs[0].shape.rank or 0) >= 2]
    return [(keras_layer(op, op.name) or op.name, ref_of(t), t) for op, t in outputs if t.shape[-1] is not None]


def _is_of_gradient(op: Any) -> bool:
    name = f"/{op.name}"
    return any(f"/{scope}" in name for scope in _GRADIENTS)
