"""Forward mode beside reverse mode, both from one eager run of the function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._derivatives.point import as_reals, from_reals
from gradcheck._graph import structure
from gradcheck._graph.evaluate import eagerly
from gradcheck._graph.functions import apply
from gradcheck._numerics.directions import power_of_two_scale, rademacher


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """The same directional derivative of one output, from both modes.

    Attributes:
        y: Path of the output.
        forward: From `tf.autodiff.ForwardAccumulator`; None where it gives None.
        reverse: From `tf.GradientTape`; None where it gives None.
        size: Euclidean size of the terms that were summed.
    """

    y: str
    forward: float | None
    reverse: float | None
    size: float


def forward_and_reverse(
    fn: Callable[..., Any], inputs: Any, seed: int, variables: Sequence[Any] = ()
) -> list[Products]:
    """Differentiate every output along one random direction in all floating inputs and some variables, in both modes.

    The function runs eagerly: what it assigns is assigned.
    """
    rng = np.random.default_rng(seed)
    with eagerly():
        leaves = [leaf.value for leaf in structure.leaves(inputs, "inputs")]
        values = [tf.convert_to_tensor(v) if _is_array(v) else v for v in leaves]
        primals = [_read(v) for v in values if structure.is_continuous(v)]
        primals += [structure.variable_of(v) for v in variables]
        tangents = [_tangent(p, rng) for p in primals]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(primals)
            with tf.autodiff.ForwardAccumulator(primals, tangents) as accumulator:
                rest = iter(values)
                result = apply(fn, structure.rebuild(inputs, lambda _: next(rest)), inputs)
        return [
            _products(leaf, accumulator, tape, primals, tangents, rng)
            for leaf in structure.leaves(result, "outputs" if isinstance(result, (list, tuple, dict)) else "output")
            if structure.is_continuous(leaf.value) and tf.is_tensor(leaf.value)
        ]


def _is_array(value: Any) -> bool:
    return structure.is_continuous(value) and structure.variable_of(value) is None


def _read(value: Any) -> Any:
    variable = structure.variable_of(value)
    return value if variable is None else variable


def _tangent(primal: Any, rng: np.random.Generator) -> Any:
    value = primal.numpy()
    reals = as_reals(value)
    return tf.constant(from_reals(power_of_two_scale(reals) * rademacher(rng, reals.shape), value.shape, value.dtype))


def _products(
    leaf: Any, accumulator: Any, tape: Any, primals: list[Any], tangents: list[Any], rng: np.random.Generator
) -> Products:
    value = leaf.value.numpy()
    weights = rademacher(rng, as_reals(value).shape)
    cotangent = tf.constant(from_reals(weights, value.shape, value.dtype))
    jvp = accumulator.jvp(leaf.value)
    gradients = tape.gradient(leaf.value, primals, output_gradients=cotangent)
    terms = [
        as_reals(tf.convert_to_tensor(g).numpy()) * as_reals(t.numpy())
        for g, t in zip(gradients, tangents, strict=True)
        if g is not None
    ]
    return Products(
        y=leaf.path,
        forward=None if jvp is None else float(np.sum(as_reals(jvp.numpy()) * weights)),
        reverse=float(sum(np.sum(t) for t in terms)) if terms else None,
        size=float(np.sqrt(sum(np.sum(t**2) for t in terms))) if terms else 0.0,
    )
