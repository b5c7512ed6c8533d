"""The outputs of a traced function, and its gradients for cotangents of ones, as programs to run again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gradcheck._graph.evaluate import eagerly
from gradcheck._graph.rerun import Rerun, of_traced
from gradcheck._graph.trace import Traced


def outputs_of(traced: Traced) -> Rerun:
    """What returns the outputs."""
    at = _outputs(traced)
    return of_traced(traced, list(at), list(at.values()), {})


def gradients_of(traced: Traced, outputs: Sequence[Any]) -> Rerun:
    """What returns all gradients; `outputs` are what `outputs_of` returns."""
    values = dict(zip(_outputs(traced), outputs, strict=True))
    at: dict[int, str] = {}
    for output in traced.outputs:
        for source, positions in zip(traced.sources, output.sliced, strict=True):
            at.update(dict.fromkeys(positions or (), f"gradient of {output.path} w.r.t. {source.path}"))
    with eagerly():
        ones = {
            name: tf.ones_like(values[position])
            for output in traced.outputs
            for name, position in zip(output.cotangents, output.returns, strict=True)
        }
    return of_traced(traced, list(at), list(at.values()), ones)


def _outputs(traced: Traced) -> dict[int, str]:
    return {position: output.path for output in traced.outputs for position in output.returns}
