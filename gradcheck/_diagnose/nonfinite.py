"""The op where a NaN or an infinity was born."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gradcheck._graph.evaluate import Runner, returning
from gradcheck._graph.program import CONTINUOUS, Return, data_inputs, output_refs, prune, topological
from gradcheck._graph.provenance import place
from gradcheck._graph.trace import Traced
from gradcheck._results import Place


def birthplace(traced: Traced, positions: Sequence[int], cotangents: Mapping[str, object]) -> Place | None:
    """The first op with finite inputs and a non-finite output, among those that some returned values depend on.

    Args:
        traced: The function.
        positions: Which of the values that the traced program returns are not finite.
        cotangents: Values of the cotangent arguments.
    """
    main = traced.program.main
    body = prune(replace(main, returns=tuple(main.returns[p] for p in positions), kept=()))
    order = topological(body)
    watched = [(node, ref, dtype) for node in order for ref, dtype in output_refs(node) if dtype in CONTINUOUS]
    if not watched:
        return None
    program = traced.program
    returns = tuple(Return(ref, dtype) for _, ref, dtype in watched)
    runner = Runner(returning(program, replace(body, returns=returns)), alive=traced.graph)
    known = {**traced.values, **cotangents}
    values = runner.run([known[a.name] for a in runner.program.main.args])
    finite = {ref: _is_finite(v) for (_, ref, _), v in zip(watched, values, strict=True)}
    for node, ref, _ in watched:
        if not finite[ref] and all(finite.get(i, True) for i in data_inputs(node)):
            return place(traced.graph, node.name, node.op)
    return None


def _is_finite(value: object) -> bool:
    array = np.asarray(value)
    return bool(np.all(np.isfinite(array.astype(np.complex128 if array.dtype.kind == "c" else np.float64))))
