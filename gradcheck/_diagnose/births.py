"""Where the NaNs and infinities that a program gives were born: each value carries the op that made it so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gradcheck._diagnose.paces import UntilNonfinite
from gradcheck._diagnose.ranges import has_infinity, has_nan, has_positive_infinity, is_continuous, is_finite
from gradcheck._graph.rerun import Rerun
from gradcheck._graph.shadows import read
from gradcheck._graph.single import is_write
from gradcheck._graph.visit import Value, Visit

# What asks whether a value is finite: that of which it is asked matters, whatever then becomes of it.
_TESTS = frozenset({"IsFinite", "IsNan", "IsInf", "CheckNumerics", "CheckNumericsV2"})
# They keep values behind the handle that is their first input.
_STORES = ("TensorArray", "StackPush")


@dataclass(frozen=True, slots=True, eq=False)
class Birth:
    """The first value of its line that is not finite.

    Attributes:
        order: When, counted in ops.
        visit: The op that gave it, from inputs that were finite or infinite on purpose; None for an argument.
        output: Which of the op's outputs, or the argument's value.
        tensor: That value.
        label: What an argument is called.
    """

    order: int
    visit: Visit | None
    output: int
    tensor: Any
    label: str = ""

    @property
    def was_given(self) -> bool:
        """Whether it came in, or is a constant."""
        return self.visit is None or self.visit.node.op == "Const"

    @property
    def may_be_meant(self) -> bool:
        """Whether it was given and is infinite only, as masks are that are added before a softmax.

        Data that is +Inf is no mask.
        """
        if self.visit is None and has_positive_infinity(self.tensor):
            return False
        return self.was_given and not has_nan(self.tensor)


@dataclass(frozen=True, slots=True)
class _Line:
    """Where the NaNs and where the infinities in a value come from."""

    nan: Birth | None = None
    inf: Birth | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The birth that matters, and what is not finite because of it or of another."""

    birth: Birth | None
    reaches: tuple[str, ...]
    returned: tuple[Any, ...] = ()  # what the program returned


@dataclass(slots=True)
class _Follower:
    shadows: dict[int, tuple[Value, Any]] = field(default_factory=dict)  # id -> the value and dtype of a variable
    ops: int = 0
    tested: Birth | None = None
    first: Birth | None = None  # of an op, wherever it leads

    def begin(self, value: Value, label: str, variable: Any) -> None:
        tensor = value.tensor
        if variable is not None:
            self.shadows[id(value)] = (value, variable)
            tensor = read(value.tensor, variable)
        if tensor is not None and is_continuous(tensor) and not is_finite(tensor):
            birth = Birth(0, None, 0, tensor, label)
            value.note = _Line(nan=birth) if has_nan(tensor) else _Line(inf=birth)

    def see(self, visit: Visit) -> None:
        self.ops += 1
        lines = [v.note for v in visit.inputs if v.note is not None]
        if visit.node.op in _TESTS and lines and self.tested is None:
            self.tested = _first([b for line in lines for b in (line.nan, line.inf)])
        for k, output in enumerate(visit.outputs):
            if is_continuous(output.tensor):
                output.note = self._line(visit, k, output.tensor, lines)
            elif output.tensor.dtype.name in ("variant", "resource"):
                output.note = _merged(lines)
        if visit.node.op.startswith(_STORES) and lines:
            visit.inputs[0].note = _merged(lines)
        if is_write(visit.node):
            for value in visit.inputs:
                if id(value) in self.shadows:
                    written = read(value.tensor, self.shadows[id(value)][1])
                    value.note = self._line(visit, 0, written, lines) if is_continuous(written) else None

    def _line(self, visit: Visit, k: int, tensor: Any, lines: Sequence[_Line]) -> _Line | None:
        if is_finite(tensor):
            return None
        nan, inf = _first([line.nan for line in lines]), _first([line.inf for line in lines])
        if not has_nan(tensor):
            return _Line(inf=inf or nan or self._born(visit, k, tensor))
        if nan is None:
            # Infinite on purpose is no fault: that they became NaN is.
            nan = inf if inf is not None and not inf.may_be_meant else self._born(visit, k, tensor)
        return _Line(nan=nan, inf=inf if has_infinity(tensor) else None)

    def _born(self, visit: Visit, k: int, tensor: Any) -> Birth:
        birth = Birth(self.ops, visit, k, tensor)
        if self.first is None and not birth.may_be_meant:
            self.first = birth
        return birth


def follow(rerun: Rerun, *, tests: bool = False, anywhere: bool = False) -> Found:
    """Run a program and tell where what it returns or assigns stopped being finite.

    Args:
        rerun: The program.
        tests: Where all that is finite: look also at what the program itself tested, such as a guard of gradients.
        anywhere: Where that is finite too: name the first op whose output is not, whatever becomes of it.
    """
    follower = _Follower()
    values, visits = rerun.start(UntilNonfinite(_merged, _is_fault))
    for value, given in zip(values, rerun.given, strict=True):
        if value.tensor is not None:
            follower.begin(value, given.label, given.variable)
    before = {id(value): value.note for value in values}
    returned: tuple[Value, ...] = ()
    while True:
        try:
            follower.see(next(visits))
        except StopIteration as end:
            returned = end.value
            break
    sinks = [(label, value) for label, value in zip(rerun.outputs, returned, strict=True) if value.note is not None]
    sinks += [
        (given.label, value)
        for value, given in zip(values, rerun.given, strict=True)
        if id(value) in follower.shadows and value.note is not None and value.note is not before[id(value)]
    ]
    birth = _first([b for _, value in sinks for b in (value.note.nan, value.note.inf)])
    if birth is None and tests:
        birth = follower.tested
    if birth is None and anywhere:
        birth = follower.first
    reaches = tuple(dict.fromkeys(label for label, _ in sinks))
    return Found(birth, reaches, tuple(value.tensor for value in returned))


def _is_fault(line: _Line) -> bool:
    return any(birth is not None and not birth.may_be_meant for birth in (line.nan, line.inf))


def _rank(birth: Birth) -> tuple[bool, int]:
    return (birth.may_be_meant, birth.order)


def _first(births: Sequence[Birth | None]) -> Birth | None:
    """The earliest, those that may be meant last."""
    present = [b for b in births if b is not None]
    return min(present, key=_rank, default=None)


def _merged(lines: Sequence[_Line]) -> _Line | None:
    if not lines:
        return None
    return _Line(nan=_first([line.nan for line in lines]), inf=_first([line.inf for line in lines]))
