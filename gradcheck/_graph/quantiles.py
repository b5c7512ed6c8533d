"""Random numbers with implicit gradients, moved along their quantiles.

TensorFlow differentiates a gamma or a truncated normal number z with respect to a parameter a by holding the value of
the distribution function: dz/da = -(dF/da) / (dF/dz). Drawing again at another a gives something else: the sampler
accepts and rejects. So the number is drawn once, at the base value of its parameters, and moved to the z with
F(z; a) = F(z0; a0) when they move.

Figurnov, Mohamed and Mnih, Implicit Reparameterization Gradients, NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from gradcheck._graph.inline import write_out
from gradcheck._graph.nodes import Node, beside, copy_node, data_inputs, make_node, output_refs, set_inputs
from gradcheck._graph.program import Body, Program, from_func_graph, map_bodies

AT_BASE = "_gradcheck_at_base"  # attribute of the nodes that hold a parameter (TensorFlow ignores such names)
NOTE = (
    "gamma and truncated normal numbers move with their parameters at a fixed value of the distribution function, "
    "which is what TensorFlow differentiates; they are not drawn again"
)
_NEWTON_STEPS, _CONVERGED = 6, 1e-8  # it converges quadratically


def follow_quantiles(program: Program) -> Program:
    """The program with each such number drawn at the held value of its parameters, and moved from there."""
    return map_bodies(program, _follow)


def follows(program: Program) -> bool:
    """Whether the program draws such numbers."""
    return any(node.op in _PARAMETERS for body in (program.main, *program.functions.values()) for node in body.nodes)


def _follow(body: Body) -> Body:
    nodes: list[Node] = []
    refs: dict[str, str] = {}
    kept: set[str] = set()
    for node in body.nodes:
        if node.op not in _PARAMETERS:
            nodes.append(node)
            continue
        added, old, new = _moved(node)
        nodes += added
        kept.update(n.name for n in added)
        refs[old] = new
    result = []
    for node in nodes:
        if node.name not in kept and any(i in refs for i in node.input):
            node = copy_node(node)
            set_inputs(node, [refs.get(i, i) for i in node.input], [])
        result.append(node)
    returns = tuple(replace(r, ref=refs.get(r.ref, r.ref)) for r in body.returns)
    return replace(body, nodes=tuple(result), returns=returns)


def _moved(node: Node) -> tuple[list[Node], str, str]:
    """The nodes that draw and move a number, the reference to it as drawn, and the one to it as moved."""
    ((drawn, dtype),) = output_refs(node)
    ins = data_inputs(node)
    positions, _ = _PARAMETERS[node.op]
    nodes = []
    held = []
    draw = copy_node(node)
    for k in positions:
        stop = make_node("StopGradient", f"{node.name}/at_base_{k}", [ins[k]], T=dtype)
        stop.attr[AT_BASE].b = True
        nodes.append(stop)
        held.append(output_refs(stop)[0][0])
        draw.input[k] = held[-1]
    nodes.append(draw)
    call = make_node("PartitionedCall", f"{node.name}/quantile", [drawn, *held, *(ins[k] for k in positions)])
    inner, (moved,) = write_out(call, _body(node.op, dtype))
    for one in inner:
        if not one.input:  # in a loop of control flow v1 a constant belongs to it by what it waits for
            one.input.extend(beside(drawn))
    return [*nodes, *inner], drawn, moved


@cache
def _body(op: str, dtype: int) -> Body:
    """The traced quantile: of the number drawn, the parameters at the base, and those that move."""
    positions, quantile = _PARAMETERS[op]
    with tf.Graph().as_default():
        graph = FuncGraph("quantile")
    with graph.as_default():
        graph.inputs = [tf.compat.v1.placeholder(dtype, name="number") for _ in range(1 + 2 * len(positions))]
        wide = [tf.cast(t, tf.float64) for t in graph.inputs]
        graph.outputs = [tf.cast(quantile(*wide), dtype)]
    return from_func_graph(graph).main


def _gamma(z0: Any, alpha0: Any, alpha: Any) -> Any:
    """The gamma number with the probability of z0, by Newton's method on the logarithm of the smaller tail."""
    lower = tf.math.igamma(alpha0, z0) < 0.5

    def log_tail(a: Any, z: Any) -> Any:
        return tf.math.log(tf.where(lower, tf.math.igamma(a, z), tf.math.igammac(a, z)))

    sign = tf.where(lower, tf.constant(1.0, tf.float64), tf.constant(-1.0, tf.float64))
    target = log_tail(alpha0, z0)
    way = tf.zeros_like(z0)  # of log z
    for _ in range(_NEWTON_STEPS):
        z = z0 * tf.exp(way)
        tail = log_tail(alpha, z)
        slope = tf.exp(alpha * tf.math.log(z) - z - tf.math.lgamma(alpha) - tail)  # z times the density, by the tail
        step = sign * (tail - target) / slope
        way -= step
    # Not a number where Newton's method does not end, such as below alpha = 0: a point to keep away from.
    found = tf.where(tf.abs(step) < _CONVERGED, z0 * tf.exp(way), tf.constant(np.nan, tf.float64))
    return tf.where(tf.math.is_finite(target) & (z0 > 0), found, z0)


def _truncated_normal(z0: Any, *parameters: Any) -> Any:
    """The truncated normal number with the probability of z0, counted from the nearer tail."""
    base, moving = parameters[:4], parameters[4:]
    side = tf.where(z0 > base[0], tf.constant(-1.0, tf.float64), tf.constant(1.0, tf.float64))

    def below(x: Any, mean: Any, deviation: Any) -> Any:
        return 0.5 * tf.math.erfc(-side * (x - mean) / deviation / tf.sqrt(tf.constant(2.0, tf.float64)))

    def number(mean: Any, deviation: Any, low: Any, high: Any) -> Any:
        first, last = below(low, mean, deviation), below(high, mean, deviation)
        return mean + deviation * side * tf.math.ndtri(first + share * (last - first))

    mean0, deviation0, low0, high0 = base
    first0, last0 = below(low0, mean0, deviation0), below(high0, mean0, deviation0)
    share = (below(z0, mean0, deviation0) - first0) / (last0 - first0)
    return z0 + (number(*moving) - number(*base))


# Per op: the positions of its parameters among its inputs, and the quantile.
_PARAMETERS: dict[str, tuple[tuple[int, ...], Callable[..., Any]]] = {
    "StatelessRandomGammaV2": ((2,), _gamma),
    "StatelessRandomGammaV3": ((4,), _gamma),
    "StatelessParameterizedTruncatedNormal": ((2, 3, 4, 5), _truncated_normal),
}
