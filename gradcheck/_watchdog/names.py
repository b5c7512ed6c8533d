"""What to call the outputs of a step and the variables that it uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from gradcheck._graph import structure

_OF_A_DICT = re.compile(r"^output\['([^']*)'\]$")


def variable_names(variables: Iterable[Any]) -> dict[int, str]:
    """Names by the id of the variable's handle: Keras' path where there is one, else the variable's own name."""
    names: dict[int, str] = {}
    for variable in variables:
        inner = structure.variable_of(variable)
        if inner is None:
            continue
        path = getattr(variable, "path", None)
        name = path if isinstance(path, str) else inner.name.removesuffix(":0")
        for k, component in enumerate(components(inner)):
            names.setdefault(id(component.handle), f"{name}/replica_{k}" if k else name)
    return names


def components(variable: Any) -> Sequence[Any]:
    """The variables that a variable of a distribution strategy stands for, one per device; else itself."""
    if isinstance(variable, tf.distribute.DistributedValues):
        found: Sequence[Any] = variable._values
        return found
    return [variable]


def output_names(graph: Any) -> dict[int, str]:
    """Names by the position among the flat outputs of a FuncGraph."""
    positions = {id(tensor): k for k, tensor in enumerate(graph.outputs)}
    names = {}
    for leaf in structure.leaves(graph.structured_outputs, "output"):
        if id(leaf.value) in positions:
            names[positions[id(leaf.value)]] = output_name(leaf.path)
    return names


def output_name(path: str) -> str:
    """What to call an output by its path: a key of a returned dict is its own name."""
    found = _OF_A_DICT.match(path)
    return found[1] if found else path
