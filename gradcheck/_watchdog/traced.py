"""A traced step under watch: the guarded functions that stand for it, and what they found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._graph.ending import Item
from gradcheck._graph.finite import COUNTED
from gradcheck._graph.guarded import Guarded, read
from gradcheck._graph.raised import lines_noted
from gradcheck._report.nonfinite import Range
from gradcheck._report.trip import Step
from gradcheck._watchdog.again import Again, again
from gradcheck._watchdog.names import output_names, variable_names
from gradcheck._watchdog.policy import Policy
from gradcheck._watchdog.seen import Seen, layer, scalar

_WORDS = {"change": "change of {}", "value": "new value of {}", "rows": "rows of {}"}


class Traced:
    """One concrete function of a step, with its guarded twin.

    Args:
        function: The ConcreteFunction.
        names: Names of variables, by the id of their handles.
        policy: What is asked for.

    Attributes:
        taken: How many flat tensors the function takes besides those that it captures.
    """

    def __init__(self, function: Any, names: Mapping[int, str], policy: Policy) -> None:
        self.function = function
        self.guarded = Guarded(function, layers=policy.layer_outputs, units=policy.early_warnings)
        known = {**variable_names(function.graph.variables), **names}
        outputs = output_names(function.graph)
        captured = function.captured_inputs
        self.taken = first = len(function.inputs) - len(captured)

        def name(item: Item) -> str:
            if item.kind == "output":
                return outputs.get(item.at, f"output[{item.at}]")
            if item.kind == "guarded":
                return str(self.guarded.marks[item.at])
            if item.at < first:
                return f"the variable in input {item.at}"
            handle = captured[item.at - first]
            return known.get(id(handle), f"variable {item.at - first}")

        self._items = [(name(item), item) for item in self.guarded.items]
        self._scale = next((h for k, h in enumerate(captured) if known.get(id(h), "").endswith("dynamic_scale")), None)
        self._pack = function.function_type.pack_output

    def run(self, number: int, inputs: Sequence[Any]) -> Seen:
        """Run the step once, on its flat inputs."""
        with lines_noted(self.function.graph, self.function.name):
            outcome = self.guarded(inputs)
        return Seen(
            result=self._pack(outcome.outputs),
            healthy=outcome.healthy,
            describe=partial(self._step, number, outcome.outputs, outcome.amounts, outcome.changes),
            found=partial(self._found, outcome.counts),
            again=partial(self._again, inputs, outcome.counts, outcome.drawn),
            units=partial(self._units, outcome.units),
            scale=() if self._scale is None else (float(read(self._scale)),),
        )

    def _step(self, number: int, outputs: Sequence[Any], amounts: Any, changes: Any) -> Step:
        scalars = [(name, scalar(outputs[item.at].numpy())) for name, item in self._items if item.kind == "output"]
        norms = np.sqrt(amounts.numpy())
        rows = iter(changes.numpy())
        layers = [
            layer(name, float(norm), *_of_row(next(rows)))
            for (name, item), norm in zip(self._items, norms, strict=True)
            if item.kind == "change"
        ]
        return Step(number=number, outputs=tuple(scalars), layers=tuple(layers))

    def _units(self, gave: Any) -> dict[str, Any]:
        ends = np.cumsum([length for _, length in self.guarded.rectifiers])[:-1]
        names = [name for name, _ in self.guarded.rectifiers]
        return dict(zip(names, np.split(gave.numpy(), ends), strict=True)) if names else {}

    def _again(self, inputs: Sequence[Any], counts: Any, drawn: Mapping[str, Any]) -> Again:
        guarded = [k for k, (_, item) in enumerate(self._items) if item.kind == "guarded"]
        anywhere = bool((counts.numpy()[guarded, _NEW] > 0).any())
        return again(self.function, inputs, {}, kernels=self.guarded.kernels, drawn=drawn, anywhere=anywhere)

    def _found(self, counts: Any) -> tuple[Range, ...]:
        rows = counts.numpy()
        return tuple(_range(n, item, row) for (n, item), row in zip(self._items, rows, strict=True) if row[_NEW] > 0)


_NEW = COUNTED.index("new")


def _range(name: str, item: Item, counts: Any) -> Range:
    shape = tf.TensorShape(item.value.shape)
    known = shape.as_list() if shape.rank else []
    return Range(
        name=_WORDS.get(item.kind, "{}").format(name), dtype=item.value.dtype.name, shape=tuple(d or 0 for d in known),
        nan=int(counts[0]), posinf=int(counts[1]), neginf=int(counts[2]),
    )  # fmt: skip


def _of_row(row: Any) -> tuple[float, float, float]:
    """The smallest entry, the largest, and the norm of the variable before."""
    low, high, amount = (float(v) for v in row)
    return low, high, math.sqrt(amount)
