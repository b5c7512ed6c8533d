"""What goes to a worker and what comes back: bytes and arrays, never Python functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradcheck._farm.arithmetic import Arithmetic


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Stands for something large that a worker keeps under its digest."""

    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A program as bytes, and whether its batches compute once what is the same at all points: see `Runner`."""

    data: bytes
    sharing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """Some points at which a program is to be run.

    Attributes:
        program: The program.
        moving: For each argument that moves, its values at these points, along a first axis; as `thinned` gives them.
        values: One value per argument: an array, what stands for one, or None.
        arithmetic: How the caller computes.
        contents: By digest, what the worker lacked: `Code`, and arrays.
    """

    program: Kept
    moving: Mapping[str, Any]
    values: tuple[Any, ...]
    arithmetic: Arithmetic
    contents: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digests(self) -> set[str]:
        """Of everything that a worker must have."""
        return {self.program.digest, *(v.digest for v in self.values if isinstance(v, Kept))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """One array per value that the program returns, along a first axis of points; as `thinned` gives them."""

    arrays: list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """Digests of what a worker does not have yet, or no longer, and which one that is."""

    digests: frozenset[str]
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The function does not run at some of these points; run where it was asked for, it says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """A worker that cannot compute what the caller does, and why."""

    why: str
