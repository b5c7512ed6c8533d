"""A hypothesis strategy for any of our values, from the types of its fields alone."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from hypothesis import strategies as st

from gradcheck._report.gradient import GradientReport


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of the type `kind`; of a dataclass every field is drawn, those with a default too."""
    arguments = typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return st.builds(kind, **{name: values(hint) for name, hint in typing.get_type_hints(kind).items()})
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return st.one_of([st.none() if argument is type(None) else values(argument) for argument in arguments])
    if typing.get_origin(kind) is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(values(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*map(values, arguments))
    return st.from_type(kind)


reports = values(GradientReport)
