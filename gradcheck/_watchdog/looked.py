"""What a guard looks at: losses, outputs and gradients, with names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._graph import structure
from gradcheck._graph.finite import COUNTED
from gradcheck._report.nonfinite import Range
from gradcheck._report.trip import Layer, Step, TripReport
from gradcheck._watchdog.names import variable_names

_UNNAMED = "to have the op named, put the whole step under watch: wd.watch(step)"
_NEW = COUNTED.index("new")


@dataclass(frozen=True, slots=True)
class Looked:
    """What one call of `guard` or `apply` looks at: losses and outputs first, then gradients."""

    caller: str  # "guard" or "apply"
    names: tuple[str, ...]
    tensors: tuple[Any, ...]
    losses: int

    def step(self, number: int, sums: Any) -> Step:
        """The description of a step, from the sums of squares."""
        norms = [float(v) for v in np.sqrt(sums)]
        pairs = list(zip((n.removeprefix("gradient of ") for n in self.names), norms, strict=True))
        layers = tuple(Layer(name=n, norm=v) for n, v in pairs[self.losses :])
        return Step(number=number, outputs=tuple(pairs[: self.losses]), layers=layers)

    def found(self, counts: Any) -> tuple[Range, ...]:
        """What was not finite, by a census of each tensor."""
        return tuple(
            Range(name=n, dtype=t.dtype.name, shape=static_shape(t), nan=int(c[0]), posinf=int(c[1]), neginf=int(c[2]))
            for n, t, c in zip(self.names, self.tensors, counts, strict=True)
            if c[_NEW]
        )

    def trip(self, number: int, found: Sequence[Range]) -> TripReport:
        """The report on a trip, by what does not see the step."""
        zeros = self.caller == "guard"
        return TripReport(
            name=self.caller, step=number, action="raise", found=tuple(found), notes=(_UNNAMED,), zeros=zeros
        )


def looked_at(caller: str, leaves: Sequence[Any], loss: Any, outputs: Any, variables: Sequence[Any] | None) -> Looked:
    """What is to be looked at, from the arguments of `guard`; `leaves` are its gradients, flat."""
    owners = None if variables is None else list(variables)
    if owners is not None and len(owners) != len(leaves):
        raise ValueError(
            f"variables must be one per gradient: found {len(owners)} variables and {len(leaves)} gradients"
        )
    known = {} if owners is None else variable_names(owners)
    given = [("loss", loss), ("outputs", outputs)]
    named = [leaf for path, value in given if value is not None for leaf in structure.leaves(value, path)]
    tested = [leaf for leaf in named if structure.is_continuous(leaf.value)]
    names, tensors = [leaf.path for leaf in tested], [tf.convert_to_tensor(leaf.value) for leaf in tested]
    losses = len(tensors)
    for k, gradient in enumerate(leaves):
        if gradient is None:
            continue
        values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
        if not tf.is_tensor(values) or structure.variable_of(values) is not None:
            raise TypeError(
                f"grads must be tensors, IndexedSlices or None, as tape.gradient gives them; found "
                f"{type(gradient).__name__} at position {k}; write wd.guard(grads, loss=loss, variables=variables)"
            )
        if structure.is_continuous(values):
            owner = None if owners is None else structure.variable_of(owners[k])
            names.append(f"gradient of {known[id(owner.handle)]}" if owner is not None else f"grads[{k}]")
            tensors.append(values)
    return Looked(caller, tuple(names), tuple(tensors), losses)


def static_shape(tensor: Any) -> tuple[int, ...]:
    """What is known of a tensor's shape; 0 for a length that is not."""
    return tuple(d or 0 for d in tensor.shape) if tensor.shape.rank is not None else ()
