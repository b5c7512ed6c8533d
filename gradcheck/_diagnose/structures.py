"""Wrong Jacobians whose axes tell what is wrong: transposed, not summed, averaged, overwritten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck._diagnose.jacobians import FEW, Block, Reals, factor_of, is_about, is_everywhere

_COMPARED = 512  # entries of x among which other places are looked for


def transposed(block: Block) -> str | None:
    """Axes of the Jacobian, those of the output and then those of x, that changed places."""
    if block.combined or block.y_shape is None or any(block.paired):
        return None
    shape = (*block.y_shape, *block.shape)
    first = len(block.y_shape)
    numeric, allowed = block.numeric.reshape(shape), block.allowed.reshape(shape)

    def fits(change: Callable[[Any], Any]) -> bool:
        matrix = block.numeric.shape
        return block.is_like(change(numeric).reshape(matrix), change(allowed).reshape(matrix))

    for p, q in combinations(range(len(shape)), 2):
        if shape[p] == shape[q] > 1 and fits(partial(np.swapaxes, axis1=p, axis2=q)):
            if p >= first:
                return f"the gradient is transposed: its axes {p - first} and {q - first} are swapped"
            if q < first:
                return f"the upstream gradient is used transposed: its axes {p} and {q} are swapped"
            return (
                f"a matrix is used where its transpose belongs: axis {p} of the output and axis {q - first} of the "
                "input are swapped"
            )
    if block.y_shape == block.shape and len(block.shape) > 1 and fits(lambda a: _full_transpose(a, first)):
        return "the Jacobian is used where its transpose belongs"
    if len(block.shape) > 1 and block.shape[-1] != block.shape[-2] and fits(lambda a: np.swapaxes(a, -1, -2)):
        return "the transposed gradient was reshaped to the shape of the input, and not transposed back"
    return None


def symmetrized(block: Block) -> str | None:
    """The gradient for matrices that are always symmetric, of what reads one triangle."""
    if any(block.paired) or len(block.shape) < 2 or block.shape[-1] != block.shape[-2]:
        return None
    shape = (-1, *block.shape)
    halves = [(a + np.swapaxes(a.reshape(shape), -1, -2).reshape(a.shape)) / 2 for a in (block.numeric, block.allowed)]
    if not block.is_like(*halves):
        return None
    return (
        "the gradient is made symmetric: it is the mean of the right one and its transpose, as is meant for matrices "
        "that are always symmetric; hand in 0.5 * (x + tf.linalg.matrix_transpose(x)), and it is right for x"
    )


def _full_transpose(a: Any, first: int) -> Any:
    return np.transpose(a, (*range(first, a.ndim), *range(first)))


def own_entry_only(block: Block) -> str | None:
    """A gradient that is right entry by entry, and leaves out what an entry does to the others."""
    n = len(block.analytic)
    if block.combined or any(block.paired) or block.analytic.shape != (n, n):
        return None
    if not block.is_like(block.numeric * np.eye(n), block.allowed):
        return None
    return "only the diagonal of the Jacobian is there: what an entry of the input does to other entries is left out"


def spread_from_extremum(block: Block) -> str | None:
    """The gradient of a maximum or minimum, of one entry of x per entry of the output, that other entries get."""
    if block.combined or any(block.paired) or np.any(block.reached.sum(axis=1) != 1):
        return None
    given = np.abs(block.analytic) > block.allowed
    count = given.sum(axis=1, keepdims=True)
    whole = given * block.numeric.sum(axis=1, keepdims=True)  # what the one entry should get
    odd = np.any(block.wrong, axis=1)
    others = (given & ~block.reached)[odd]
    made = block.base[np.argmax(block.reached, axis=1)][odd]
    if not odd.any() or not count.all():
        return None
    if np.all(np.where(others, block.base, -np.inf).max(axis=1) < made):
        name, which = "maximum", "largest"
    elif np.all(np.where(others, block.base, np.inf).min(axis=1) > made):
        name, which = "minimum", "smallest"
    else:
        return None
    most, kept = int(count[odd].max()), np.all(given[block.reached])
    if block.is_like(whole, block.allowed):
        if most > 1 and kept:
            return f"the gradient of a {name} goes to {most} entries, and belongs to the {which} alone"
        return f"the gradient of a {name} goes to another entry than the {which}, which made it" if most == 1 else None
    if most > 1 and kept and block.is_like(whole / count, block.allowed):
        return f"the gradient of a {name} is shared by {most} entries, like that of a mean: it belongs to the {which}"
    return None


def sum_left_out(block: Block) -> str | None:
    """Gradients taken from one entry along an axis of the output in place of the sum of all."""
    if block.combined or block.y_shape is None or any(block.paired):
        return None
    rows = np.arange(len(block.analytic)).reshape(block.y_shape)
    for axis, length in enumerate(block.y_shape):
        for k in range(length if length > 1 else 0):
            kept = np.take(rows, [k], axis)
            rest = np.delete(rows, k, axis)
            if _is_silent(block, rest.reshape(-1)) and not block.wrong[kept].any():
                # What is sent back from there is to be added to what is kept.
                same = np.broadcast_to(kept, rest.shape).reshape(-1)
                if np.array_equal(block.reached[rest.reshape(-1)], block.reached[same]):
                    which = "a broadcast axis" if prod(block.y_shape) > prod(block.shape) else "an axis"
                    return (
                        f"the sum over {which} is missing: only entry {k} along axis {axis} of the upstream gradient "
                        "counts"
                    )
    return None


def _is_silent(block: Block, rows: NDArray[np.int64]) -> bool:
    """Whether some entries of the output send nothing back, though they should."""
    silent = np.all(np.abs(block.analytic[rows]) <= block.allowed[rows])
    return bool(silent and np.all(block.reached[rows].any(axis=1)))


def mean_for_sum(block: Block) -> str | None:
    """One factor that is a number of entries that are summed, or the inverse of one."""
    factor = factor_of(block)
    if factor is None or factor == 0 or not is_everywhere(block):
        return None
    for count, of, broadcast in _counts(block):
        if is_about(factor * count, 1.0):
            kind = "the mean over a broadcast axis where the sum belongs" if broadcast else "a mean's where it is a sum"
            return f"analytic = numeric / {count}, and {of}: the gradient is {kind}"
        if is_about(factor, float(count)) and not broadcast:
            return f"analytic = {count} x numeric, and {of}: the gradient is a sum's where it is a mean"
    return None


def _counts(block: Block) -> Iterator[tuple[int, str, bool]]:
    """How many entries are summed, as the Jacobian shows it; 2 may be any forgotten factor, and is none."""
    if block.combined or block.y_shape is None or prod(block.y_shape) == prod(block.shape):
        return
    broadcast = prod(block.y_shape) > prod(block.shape)
    reached = block.reached.T if broadcast else block.reached  # a row per entry of the smaller one
    each = np.unique(reached.sum(axis=1))
    if len(each) == 1 and each[0] > 2:
        one, of = ("input", "output") if broadcast else ("output", "input")
        verb = "reaches" if broadcast else "is made of"
        yield int(each[0]), f"each entry of the {one} {verb} {each[0]} of the {of}", broadcast
    shape = block.y_shape if broadcast else block.shape
    support = reached.reshape(-1, *shape)
    for axes in (a for size in range(1, len(shape)) for a in combinations(range(len(shape)), size)):
        count = prod(shape[k] for k in axes)
        along = tuple(k + 1 for k in axes)
        if count > 2 and np.array_equal(support.any(axis=along), support.all(axis=along)):
            named = f"ax{'is' if len(axes) == 1 else 'es'} {', '.join(map(str, axes))}"
            yield (
                count,
                f"{count} entries along {named} of the {'output' if broadcast else 'input'} are added",
                broadcast,
            )


def overwritten(block: Block) -> str | None:
    """Entries of the output that send back nothing where others, made of the same entry of x, send what they must."""
    lost = np.flatnonzero(np.any(block.wrong, axis=1))
    if block.combined or not lost.size or len(lost) == len(block.analytic) or not _is_silent(block, lost):
        return None
    kept = np.delete(block.reached, lost, axis=0)
    if np.any(block.reached.sum(axis=1) > 1) or not all(np.any(np.all(kept == block.reached[k], axis=1)) for k in lost):
        return None
    if block.y_shape is None:
        apart = len(lost) != lost[-1] - lost[0] + 1
        return (
            None
            if apart
            else f"{len(lost)} of {len(block.analytic)} entries of the outputs send back nothing: the "
            "upstream gradient of an output is left out"
        )
    return (
        f"{len(lost)} of {len(block.analytic)} entries of the output send back nothing, each made of the same entry of "
        "the input as another one: where an index occurs twice, one gradient overwrites the other and is not added"
    )


def displaced(block: Block) -> str | None:
    """Derivatives that are right, and stand where those of other entries of x belong."""
    n = block.analytic.shape[1]
    if block.combined or any(block.paired) or n > _COMPARED:
        return None

    def like(matrix: Reals, j: int) -> NDArray[np.bool_]:
        """Which columns of a matrix are the analytic one of an entry."""
        reach = np.maximum(block.allowed, block.allowed[:, [j]])
        found: NDArray[np.bool_] = np.all(np.abs(matrix - block.analytic[:, [j]]) <= reach, axis=0)
        return found

    found: list[tuple[int, int]] = []
    for j in np.flatnonzero(block.wrong.any(axis=0)).tolist():
        belongs = like(block.numeric, j)
        if not belongs.any() or belongs.sum() < like(block.analytic, j).sum():  # not moved: given to more than it has
            return None
        if np.any(np.abs(block.analytic[:, j]) > block.allowed[:, j]):
            found.append((j, int(np.argmax(belongs))))
    several = {block.numeric[:, k].tobytes() for _, k in found}
    if len(several) < FEW:
        return None
    first, other = ([int(i) for i in np.unravel_index(k, block.shape)] for k in found[0])
    return (
        f"the derivatives are right and stand in other places, in all {len(found)} wrong entries that have one: "
        f"{first} of the input has what belongs to {other}"
    )


def of_nothing(block: Block) -> str | None:
    """Entries of x that the output does not depend on, and that get a gradient, where all others are right."""
    wrong, used = block.wrong.any(axis=0), block.reached.any(axis=0)
    if wrong.sum() < FEW or not used.any() or np.any(wrong & used):
        return None
    where = ""
    if len(block.shape) > 1 and block.shape[-1] == block.shape[-2]:
        row, column = np.unravel_index(np.flatnonzero(wrong), block.shape)[-2:]
        side = "above" if np.all(column > row) else "below" if np.all(column < row) else None
        where = f" {side} the diagonal" if side else ""
    return (
        f"wrong only in {int(wrong.sum())} entries{where}, on which the output does not depend: their gradient is 0; "
        f"right in the {int(used.sum())} that it is made of"
    )
