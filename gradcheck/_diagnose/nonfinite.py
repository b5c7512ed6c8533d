"""The op where a NaN or an infinity was born."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradcheck._graph.evaluate import Runner, returning
from gradcheck._graph.program import CONTINUOUS, Return, data_inputs, output_refs, prune, topological
from gradcheck._graph.provenance import place
from gradcheck._graph.trace import Traced
from gradcheck._report.nonfinite import NonfiniteReport
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


def locate(
    function: Any,
    arguments: Sequence[Any],
    variables: Mapping[Any, Any] | None = None,
    *,
    keywords: Mapping[str, Any] | None = None,
) -> NonfiniteReport:
    """The op of a traced training step where a NaN or an infinity is born; the step runs again, on copies.

    Nothing outside changes: variables (weights, slots, states of random generators, counters) are stood for by
    copies, assignments go there, and prints, summaries and assertions are left out.

    Args:
        function: A `tf.types.experimental.ConcreteFunction`, as `tf.function.get_concrete_function` gives it.
        arguments: The positional arguments of the call, in the structure that the function takes: what the user's
            call was given (of a method without self), or the flat tensors of `function.inputs` without the captured.
        variables: Values that variables had before the step, by `variable.ref()` of the `tf.Variable` (for one of
            Keras: `variable.value.ref()`); the others are taken as they are now.
        keywords: The keyword arguments of the call.

    Returns:
        The report; `ok` where nothing that the step returns or assigns, and nothing that it tests with
        `tf.math.is_finite` and the like, is NaN or infinite.

    Raises:
        GraphUnavailable: If the step takes values from outside that cannot be had again, such as a data set's next.
    """
    raise NotImplementedError
