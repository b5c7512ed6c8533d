"""How long loops are passed over: until a value is not finite, or on the way to one op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradcheck._diagnose.ranges import is_continuous, is_finite
from gradcheck._graph.nodes import Node
from gradcheck._graph.skim import TO_THE_END
from gradcheck._graph.visit import Step, Value

# Shorter stretches are looked into: making a loop ready to run in one piece takes as long.
_SHORT = 32


@dataclass(slots=True)
class Towards:
    """Passes over all loops but the iterations on the way to one op."""

    path: tuple[Step, ...]

    def target(self, loop: Node, path: tuple[Step, ...], iteration: int, state: Sequence[Value]) -> int | None:
        """The iteration that is on the way; behind it, or elsewhere, the end."""
        del state
        depth = len(path)
        on_the_way = depth < len(self.path) and path == self.path[:depth] and self.path[depth].node == loop.name
        wanted = (self.path[depth].iteration or 0) if on_the_way else TO_THE_END
        if iteration > wanted:
            wanted = TO_THE_END
        return wanted if wanted - iteration > _SHORT else None

    def watches(self) -> bool:
        """No."""
        return False

    def arrived(self, before: Sequence[Value], after: Sequence[Value], loop: Node, skipped: int) -> None:
        """Nothing is known of values."""


@dataclass(slots=True)
class UntilNonfinite:
    """Passes over iterations in which all is finite and, once something at fault is not, over the rest."""

    merge: Callable[[Sequence[Any]], Any]  # what is known of several values, as one note
    is_fault: Callable[[Any], bool]  # whether a note tells of more than infinities that may be meant
    _stuck: set[int] = field(default_factory=set)
    _watching: bool = True

    def target(self, loop: Node, path: tuple[Step, ...], iteration: int, state: Sequence[Value]) -> int | None:
        """The end, after some iterations that were looked into."""
        del path
        if iteration < _SHORT:
            self._stuck.discard(id(loop))
            return None
        notes = [value.note for value in state if value.note is not None]
        self._watching = not notes
        if any(self.is_fault(note) for note in notes):
            return TO_THE_END
        return None if notes or id(loop) in self._stuck else TO_THE_END

    def watches(self) -> bool:
        """As long as nothing is known to be other than finite."""
        return self._watching

    def arrived(self, before: Sequence[Value], after: Sequence[Value], loop: Node, skipped: int) -> None:
        """What is not finite behind the loop is so for what was not before."""
        if self._watching and not skipped:
            self._stuck.add(id(loop))  # something infinite is meant to be in there
        known = self.merge([value.note for value in before if value.note is not None])
        for value in after:
            opaque = value.tensor.dtype.name in ("variant", "resource")
            if known is not None and (opaque or (is_continuous(value.tensor) and not is_finite(value.tensor))):
                value.note = known
