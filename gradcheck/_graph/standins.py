"""Ops that TensorFlow computes in float32 only, done in float64 by others."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from gradcheck._graph.nodes import Node
from gradcheck._graph.normalizing import normalization
from gradcheck._graph.pooling import pooling
from gradcheck._graph.program import Body, from_concrete
from gradcheck._graph.resizing import resizing

_traced: dict[Any, Body] = {}  # by op and attributes


def stand_in(node: Node) -> Body | None:
    """A body that takes in float64 what the node takes, and gives what it gives; None where none is needed or known."""
    found = resizing(node) or pooling(node) or normalization(node)
    if found is None:
        return None
    attributes = ((k, v.SerializeToString(deterministic=True)) for k, v in node.attr.items() if k[0] != "_")
    key = node.op, *sorted(attributes)
    if key not in _traced:
        function, specs = found
        with tf.init_scope():
            concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
        _traced[key] = from_concrete(concrete).main
    return _traced[key]
