"""The values that checks produce: verdicts, places in the user's code, and findings."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

_BLURRED = 40.0  # of what may be 10 numeric errors, and with rtol about 20: the rest is rounding of the analytic side


class Verdict(enum.Enum):
    """What a check says about one pair of output and input.

    The value of each member is the sentence that reports print. Several verdicts merge into the gravest one, in
    the order of `GRAVEST_FIRST`.
    """

    MATCH = "the analytic gradient agrees with the numeric one"
    MISMATCH = "the analytic and numeric gradients are further apart than any stated error explains"
    UNCONNECTED = "there is no gradient, and the output does not depend on this input"
    CUT = "there is no gradient, yet the output moves with this input"
    NONSMOOTH = "the function has a kink or a jump at this very point"
    INCONCLUSIVE = "the numeric gradient is not precise enough to decide"
    NONDETERMINISTIC = "two runs at the same point differ"
    NONFINITE = "a value or a gradient is NaN or infinite"


GRAVEST_FIRST = (
    Verdict.NONFINITE,
    Verdict.NONDETERMINISTIC,
    Verdict.MISMATCH,
    Verdict.CUT,
    Verdict.INCONCLUSIVE,
    Verdict.NONSMOOTH,
    Verdict.MATCH,
    Verdict.UNCONNECTED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A line of the user's code, or the name of an op that has none."""

    op: str  # name of the op in the traced graph
    op_type: str
    file: str | None = None
    line: int | None = None
    function: str | None = None
    source: str | None = None  # the text of the line
    layer: str | None = None  # path of the Keras layer in whose call it was made
    iteration: int | None = None  # of the innermost loop around it, from 0 on

    def __str__(self) -> str:
        where = f" at {self.file}:{self.line}" if self.file else ""
        where += f" in {self.function}" if self.file and self.function else ""
        where += f", layer {self.layer}" if self.layer else ""
        where += f", iteration {self.iteration}" if self.iteration is not None else ""
        return f"{self.op_type} '{self.op}'{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The op where the path from an input to an output ends, why, and what is usually written instead."""

    place: Place
    reason: str
    remedy: str | None = None  # None where there is no usual one

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A tensor kept at its base value while the inputs move."""

    place: Place
    reason: str  # "stop_gradient", "stop_gradients" or "random"

    def __str__(self) -> str:
        return f"{self.place} ({self.reason})"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorMap:
    """How far the entries of a matrix are apart, as a grid of cells; each stands for the worst of its entries.

    Numbers are differences in units of what is allowed, to three digits; 0 where an entry was not compared on its own.
    """

    rows: int  # of the matrix; an x of higher rank is folded, its last axis in rows
    columns: int
    block: tuple[int, int]  # rows and columns that one cell stands for
    cells: tuple[tuple[float, ...], ...]
    worst: tuple[int, int]  # the cell with the largest number


@dataclass(frozen=True, slots=True, kw_only=True)
class Taylor:
    """What is left of a step's effect once the gradient's share is taken off, for steps of several sizes.

    Of one random direction in one x. A remainder that shrinks as the square of the step shows a right gradient, one
    that shrinks as the step itself a wrong one.
    """

    y: str
    x: str
    steps: tuple[float, ...]  # in units of the scale of each entry of x
    change: tuple[float, ...]  # |y(x + step d) - y(x)|
    remainder: tuple[float, ...]  # |y(x + step d) - y(x) - step g.d|


EVERY_INPUT = "all inputs at once"  # the x of a finding on a direction in which all of them move together


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One verdict on one pair of output and input.

    Numbers belong to the entry at `index` where one is named, else to the sum along one random direction.
    `error` and `allowed` have the unit of `numeric`; an unknown error is inf. Absent is None.
    """

    verdict: Verdict
    ok: bool
    y: str  # path of the output, e.g. "output" or "outputs[1]"
    x: str  # path of the input or variable, e.g. "inputs[0]" or "dense/kernel"
    index: tuple[int, ...] | None = None  # entry of x
    y_index: tuple[int, ...] | None = None  # entry of y, where one output entry was singled out
    part: str | None = None  # "real" or "imag" where x is complex
    analytic: float | None = None
    numeric: float | None = None
    error: float | None = None  # the numeric side's own error, one sigma-like bound
    allowed: float | None = None  # how far apart the two may be
    dtype: str = ""  # of the analytic gradient
    points: int = 0  # of the stencil
    order: int = 0  # of the stencil
    twin: bool = False  # numeric side ran in float64 while the function is of a narrower dtype
    wrong: int = 0  # how many entries were found wrong
    size: int = 0  # how many entries x has
    more_wrong: bool = False  # True where the search for wrong entries stopped early
    one_sided: tuple[float, float] | None = None  # derivatives to the left and to the right, at a kink
    reason: str | None = None  # what was seen, in a sentence, where numbers do not say it
    advice: str | None = None  # what to do next
    hint: str | None = None
    blame: Place | None = None  # the op or custom gradient at fault
    also: tuple[Place, ...] = ()  # others that are at fault
    cut: Cut | None = None
    held: tuple[Held, ...] = ()
    map: ErrorMap | None = None  # of an x of rank 2 or more whose entries were compared one by one

    @property
    def difference(self) -> float | None:
        """The distance between analytic and numeric, or None where one is absent."""
        if self.analytic is None or self.numeric is None:
            return None
        return abs(self.analytic - self.numeric)

    @property
    def excess(self) -> float | None:
        """The difference in units of what is allowed: above 1 is too far apart, inf where it is not a number."""
        if self.difference is None or self.allowed is None:
            return None
        if self.difference == 0.0 and self.allowed >= 0.0:
            return 0.0
        excess = self.difference / self.allowed if self.allowed else math.inf
        return math.inf if math.isnan(excess) else excess

    @property
    def blurred(self) -> bool:
        """Whether rounding of the analytic gradient, and not the numeric error, keeps it from being decided."""
        if self.verdict is not Verdict.INCONCLUSIVE or self.error is None or self.allowed is None:
            return False
        return self.allowed > _BLURRED * self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number that a document prints, beside the same number computed here."""

    label: str
    printed: float
    computed: float
    ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableDifference:
    """How far an optimizer and its reference came apart in one variable.

    Steps count from 1. `largest`, with its step, index and units, is of the runs in the variable's own dtype.
    `differences` and `allowed`, a number per step, are of the runs that were judged, in float64 where both can be run
    there, and of the entry that is furthest apart in units of allowed. `optimizer` and `reference` are the weights of
    one entry, the furthest apart of those that were recorded, in its own dtype, with the start in front.
    """

    variable: str
    shape: tuple[int, ...]
    dtype: str
    first_apart: int | None  # the first step with an entry apart beyond rounding
    largest: float  # difference, over all steps and entries
    step: int  # of the largest difference
    index: tuple[int, ...]  # of the largest difference
    units: float  # largest difference in units of rounding of the variable's largest weight
    excess: float  # largest of differences in units of allowed: above 1 is apart
    in_float64: bool  # whether the float64 runs of both were judged
    differences: tuple[float, ...]
    allowed: tuple[float, ...]
    optimizer: tuple[float, ...]
    reference: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A change of the reference's rule that was tried on an optimizer's trajectory."""

    text: str
    rule: str  # that results from the change, as it can be typed
    steps: int  # that it accounts for to rounding, from the start
    excess: float  # largest difference that it leaves, in units of what is allowed: at most 1 accounts for all
