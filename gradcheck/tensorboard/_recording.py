"""What one call records about gradients and the variables they belong to, and under which tags."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from gradcheck._graph import structure
from gradcheck.tensorboard._formats import FORMATS, HEAD, flat
from gradcheck.tensorboard._measuring import measured, norm
from gradcheck.tensorboard._packing import norms, pack
from gradcheck.tensorboard._pages import layout
from gradcheck.tensorboard._reducing import Bins, Seen, reduced
from gradcheck.tensorboard._statistics import Statistics, drawn
from gradcheck.tensorboard._transport import Leaving
from gradcheck.tensorboard._values import text
from gradcheck.tensorboard._wire import Sheet, histogram, histograms, scalar

# The page CUSTOM SCALARS: charts by section, each with the tags that share it.
PAGE: Mapping[str, Mapping[str, Sequence[str]]] = {
    "Gradients": {
        "norm of all": ["global_norm/gradients"],
        "norm": ["gradient_norm/.*"],
        "largest magnitude": ["gradient_largest/.*"],
        "NaN and infinities": ["gradient_(nan|posinf|neginf)/.*"],
        "zero and subnormal": ["gradient_(zero|subnormal)/.*"],
    },
    "Weights": {
        "norm of all": ["global_norm/weights"],
        "norm": ["weight_norm/.*"],
        "update / weight": ["update_ratio/.*"],
    },
}


@dataclass(frozen=True, slots=True)
class Item:
    """A gradient and what it belongs to.

    Attributes:
        name: Of the variable, for the tags.
        gradient: A tensor, `tf.IndexedSlices`, or None.
        variable: The variable, or None where only a name was given.
    """

    name: str
    gradient: Any
    variable: Any


def items(gradients: Any, variables: Any) -> list[Item]:
    """Gradients with their variables, checked.

    Raises:
        TypeError, ValueError: If they do not belong together, or are nothing that can be recorded.
    """
    leaves = [gradients] if tf.is_tensor(gradients) else tf.nest.flatten(gradients)
    owners = [variables] if _is_owner(variables) else tf.nest.flatten(variables)
    if len(leaves) != len(owners):
        raise ValueError(
            f"variables must be one per gradient: found {len(owners)} variables and {len(leaves)} gradients"
        )
    for k, (gradient, owner) in enumerate(zip(leaves, owners, strict=True)):
        _check(k, gradient, owner)
    inner = [None if isinstance(owner, str) else structure.variable_of(owner) for owner in owners]
    found = zip(_names(owners), leaves, inner, strict=True)
    return [Item(*each) for each in found]


def _is_owner(value: Any) -> bool:
    return isinstance(value, str) or structure.variable_of(value) is not None


def _check(k: int, gradient: Any, owner: Any) -> None:
    if not _is_owner(owner):
        raise TypeError(f"variables must hold variables, or names as strings; found {type(owner).__name__} at {k}")
    if gradient is None:
        return
    values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
    if not tf.is_tensor(values) or structure.variable_of(values) is not None:
        raise TypeError(
            "gradients must be tensors, IndexedSlices or None, as tape.gradient gives them; found "
            f"{type(gradient).__name__} at position {k}"
        )
    if not structure.is_continuous(values):
        raise TypeError(f"gradients must be floating or complex; found {values.dtype.name} at position {k}")
    if not isinstance(owner, str) and not isinstance(gradient, tf.IndexedSlices):
        shape = structure.variable_of(owner).shape
        if not values.shape.is_compatible_with(shape):
            raise ValueError(
                f"gradient {k} has the shape {values.shape}, its variable {shape}; are both in the same order?"
            )


def _names(owners: Sequence[Any]) -> list[str]:
    """A name for each, no two alike: a Keras variable's path, else the variable's own name."""
    given = []
    for owner in owners:
        path = owner if isinstance(owner, str) else getattr(owner, "path", None)
        given.append(path if isinstance(path, str) else structure.variable_of(owner).name.partition(":")[0])
    many, seen = Counter(given), Counter[str]()
    names = []
    for name in given:
        seen[name] += 1
        names.append(f"{name}_{seen[name]}" if many[name] > 1 else name)
    return names


class Recording:
    """What is recorded about some gradients: the tensors that leave the graph, and the summary values from them.

    NumPy looks at the gradients and variables themselves where they are at hand; in a graph ops do, and one vector
    leaves it.

    Args:
        found: Gradients and variables.
        histograms: Whether histograms of the gradients are made.
        weights: Whether histograms of the variables are made, too.

    Attributes:
        variables: Those that are known, of a floating or complex dtype.
        width: How long the vector is that `packed` gives.
    """

    def __init__(self, found: Sequence[Item], *, histograms: bool, weights: bool) -> None:
        present = [item for item in found if item.gradient is not None]
        owned = [item for item in found if item.variable is not None and structure.is_continuous(item.variable)]
        self.variables = [item.variable for item in owned]
        self._names = [item.name for item in present]
        self._owned = [item.name for item in owned]
        self._without = [item.name for item in found if item.gradient is None]
        self._said = False
        self._layers, self._owned_layers = _layers(self._names), _layers(self._owned)
        self._groups, self._owned_groups = (
            [*layers.values(), [*range(len(names))]] if names else []
            for layers, names in ((self._layers, self._names), (self._owned_layers, self._owned))
        )
        self._drawn = [f"gradients/{name}" for name in self._names] + [f"weights/{name}" for name in self._owned]
        heads = [f"gradient_{kind}/{name}" for name in self._names for kind in HEAD]
        self._sheet = Sheet([
            *heads,
            *(f"weight_norm/{name}" for name in self._owned),
            *_tags_of_groups("gradient_norm", "gradients", self._layers, self._groups),
            *_tags_of_groups("weight_norm", "weights", self._owned_layers, self._owned_groups),
        ])  # fmt: skip
        self._ratios = Sheet([f"update_ratio/{name}" for name in (*self._owned, *self._owned_layers)])
        self._histograms, self._weights = histograms, weights
        self._dtypes = [_real_dtype(item.gradient) for item in present]
        self._weight_dtypes = [_real_dtype(variable) for variable in self.variables]
        drawn_dtypes = [*(self._dtypes if histograms else ()), *(self._weight_dtypes if weights else ())]
        self.width = len(heads) + sum(FORMATS[dtype].bins for dtype in drawn_dtypes) + len(owned) * (1 + weights)

    def tensors(self, gradients: Sequence[Any]) -> list[Any]:
        """The gradients that are not None, in order, then the variables: each as a vector of real numbers."""
        return [*(flat(g) for g in gradients), *self.read()]

    def read(self) -> list[Any]:
        """The variables, each as a vector of real numbers."""
        return [flat(tf.convert_to_tensor(v)) for v in self.variables]

    def values(self, arrays: Sequence[NDArray[Any]]) -> Iterator[Any]:
        """The summary values of one step, from what `tensors` gave."""
        count = len(self._names)
        found = [measured(a, d, self._histograms) for a, d in zip(arrays[:count], self._dtypes, strict=True)]
        pairs = zip(arrays[count:], self._weight_dtypes, strict=True)
        weights = [measured(a, d, True) for a, d in pairs] if self._weights else [_only(norm(a, d)) for a, d in pairs]
        of_gradients, of_weights = (np.array([one.norm for one in some]) for some in (found, weights))
        numbers = [*(number for one in found for number in one.head), *of_weights]
        for sizes, groups in ((of_gradients, self._groups), (of_weights, self._owned_groups)):
            numbers += [_together(sizes[group]) for group in groups]
        yield from self._sheet.filled(np.array([numbers]))
        for tag, one in zip(self._drawn, (*found, *weights), strict=True):
            if one.buckets is not None:
                yield histogram(tag, one.buckets)
        yield from self._once()

    def leaving(self, gradients: Sequence[Any]) -> Leaving:
        """What `values` makes of `tensors`, by reductions in the graph."""
        count, owned = len(self._names), len(self._owned)
        tensors, looked = reduced(
            [*gradients, *(tf.convert_to_tensor(v) for v in self.variables)],
            counts=[True] * count + [False] * owned,
            histograms=[self._histograms] * count + [self._weights] * owned,
        )

        def values(steps: Sequence[Seen]) -> Iterator[list[Any]]:
            return self._values(*looked.statistics(steps))

        return Leaving(tensors, looked.seen, values, looked.nbytes)

    def packed(self, gradients: Sequence[Any]) -> Leaving:
        """The same for XLA, as one float64 vector."""
        others = () if self._weights else (lambda: [tf.convert_to_tensor(v) for v in self.variables],)
        parts = [*pack([flat(g) for g in gradients], self._histograms, *others)]
        if self._weights:
            heads, _, bins = pack(self.read(), True)
            parts += [heads[: 2 * len(self._owned)], bins]
        return _packed(parts, self._values_of_rows)

    def _values_of_rows(self, rows: Sequence[NDArray[Any]]) -> Iterator[list[Any]]:
        """The summary values of some steps, from what `packed` gave in each."""
        count, owned = len(self._names), len(self._owned)
        ends = np.cumsum([5 * count, 0 if self._weights else owned, 2 * count])
        first, sizes, last, rest = np.split(np.array(rows), ends, 1)
        heads = np.concatenate([first, last], 1).reshape(len(rows), len(HEAD), count)
        bins, rest = _split(rest, self._dtypes if self._histograms else [], 0)
        weights = np.zeros([len(rows), len(HEAD), owned])
        if self._weights:
            sizes, largest, rest = np.split(rest, [owned, 2 * owned], 1)
            weights[:, HEAD.index("largest")] = largest
            bins += _split(rest, self._weight_dtypes, count)[0]
        weights[:, 0] = sizes
        return self._values(np.concatenate([heads, weights], 2), bins)

    def _values(self, heads: NDArray[Any], bins: Sequence[Bins]) -> Iterator[list[Any]]:
        """The summary values of some steps.

        Args:
            heads: The numbers of `HEAD`, [steps, 7, gradients and variables]: of variables, the norms at least.
            bins: Of those that are drawn.
        """
        drawings: list[list[Any]] = [[] for _ in heads]
        _draw(bins, heads[:, HEAD.index("largest")], self._drawn, drawings)
        heads, sizes = heads[:, :, : len(self._names)], heads[:, 0, len(self._names) :]
        groups = [
            _together(norms[:, group])[:, None]
            for norms, groups in ((heads[:, 0], self._groups), (sizes, self._owned_groups))
            for group in groups
        ]
        numbers = [heads.transpose(0, 2, 1).reshape(len(heads), -1), sizes, *groups]
        for sheet, drawing in zip(self._sheet.filled(np.concatenate(numbers, 1)), drawings, strict=True):
            yield [sheet, *drawing, *self._once()]

    def ratios(self, arrays: Sequence[NDArray[Any]]) -> Iterator[Any]:
        """The summary values of the change, from what `read` gave before the update and after it."""
        pairs = zip(arrays[: len(self._owned)], arrays[len(self._owned) :], self._weight_dtypes, strict=True)
        with np.errstate(all="ignore"):  # of infinities
            sizes = [(norm(new - old, dtype), norm(old, dtype)) for old, new, dtype in pairs]
        for values in self._ratios_of(np.reshape(sizes, [-1, 2]).T.reshape(1, -1)):
            yield from values

    def leaving_changes(self, before: Sequence[Any]) -> Leaving:
        """What `ratios` makes of `before` and the variables as they are now, by reductions in the graph."""
        moved = [new - old for new, old in zip(self.read(), before, strict=True)]
        no = [False] * (2 * len(before))
        tensors, looked = reduced([*moved, *before], counts=no, histograms=no)

        def values(steps: Sequence[Any]) -> Iterator[list[Any]]:
            return self._ratios_of(looked.statistics(steps)[0][:, 0])

        return Leaving(tensors, looked.seen, values, looked.nbytes)

    def packed_changes(self, before: Sequence[Any]) -> Leaving:
        """The same for XLA, as one float64 vector."""
        moved = [new - old for new, old in zip(self.read(), before, strict=True)]
        found = norms(lambda: [*moved, *before])
        return _packed([found], lambda rows: self._ratios_of(np.array(rows)))

    def _ratios_of(self, sizes: NDArray[Any]) -> Iterator[list[Any]]:
        """The summary values of the changes in some steps.

        Args:
            sizes: [steps, 2 variables]: the norm of each variable's change, then the norms before.
        """
        moved, before = (self._with_layers(part) for part in np.split(sizes, 2, axis=1))
        with np.errstate(all="ignore"):
            ratios = moved / before
        told = (before > 0) | np.isnan(before)  # of a variable that was all zeros there is no ratio
        tags = [f"update_ratio/{name}" for name in (*self._owned, *self._owned_layers)]
        for row, known, sheet in zip(ratios, told, self._ratios.filled(ratios), strict=True):
            if known.size and known.all():
                yield [sheet]
            else:
                yield [scalar(tag, number) for tag, number in itertools.compress(zip(tags, row, strict=True), known)]

    def _with_layers(self, norms: NDArray[Any]) -> NDArray[Any]:
        """Norms of variables, [steps, variables], and behind them those of the layers."""
        layers = (_together(norms[:, rows])[:, None] for rows in self._owned_layers.values())
        return np.concatenate([norms, *layers], 1)

    def _once(self) -> Iterator[Any]:
        """What is said with the first values, and not again."""
        if self._said:
            return
        self._said = True
        yield from layout(PAGE)
        if self._without:
            yield text(
                "gradients_none", "\n".join(["No gradient arrives at:", "", *(f"- `{n}`" for n in self._without)])
            )


def _draw(bins: Sequence[Bins], largest: NDArray[Any], tags: Sequence[str], steps: Sequence[list[Any]]) -> None:
    """Add histograms to the values of each step."""
    for which, dtype, counts in bins:
        form = FORMATS[dtype]
        found = drawn(counts.reshape(-1, form.bins), form.bias, largest[:, which].reshape(-1))
        values = iter(histograms([tags[k] for k in which] * len(steps), *found))
        for step in steps:
            step.extend(itertools.islice(values, len(which)))


def _split(rows: NDArray[Any], dtypes: Sequence[Any], first: int) -> tuple[list[Bins], NDArray[Any]]:
    """The bins of tensors of these dtypes, from this position on, which lie in a row; and what is behind them."""
    found = []
    for dtype, group in itertools.groupby(range(len(dtypes)), dtypes.__getitem__):
        which = [*group]
        counts, rows = np.split(rows, [FORMATS[dtype].bins * len(which)], 1)
        found.append(Bins([first + k for k in which], dtype, counts.reshape(len(rows), len(which), -1)))
    return found, rows


def _packed(parts: Sequence[Any], values: Callable[[Sequence[Any]], Iterator[list[Any]]]) -> Leaving:
    """What leaves as one vector, in parts."""
    row = tf.concat(parts, 0)
    return Leaving([row], _as_array, values, row.shape.num_elements() * row.dtype.size)


def _as_array(tensors: Sequence[Any]) -> NDArray[Any]:
    return np.asarray(tensors[0])


def _only(size: float) -> Statistics:
    return Statistics(size, math.nan, 0, 0, 0, 0, 0)


def _layers(names: Sequence[str]) -> dict[str, list[int]]:
    """The positions of each layer's variables; a layer is the part of a name before the last "/"."""
    layers: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        layer, _, rest = name.rpartition("/")
        if layer and rest and layer not in names:
            layers.setdefault(layer, []).append(k)
    return layers


def _tags_of_groups(tag: str, of_all: str, layers: Mapping[str, Any], groups: Sequence[Any]) -> list[str]:
    return [*(f"{tag}/{layer}" for layer in layers), f"global_norm/{of_all}"] if groups else []


def _together(norms: NDArray[Any]) -> NDArray[Any]:
    """The norm of vectors with these norms, put together: of [..., vectors]."""
    with np.errstate(all="ignore"):
        together = np.hypot.reduce(norms, axis=-1)
    return np.where(np.isnan(norms).any(-1), np.nan, together)


def _real_dtype(value: Any) -> Any:
    return tf.as_dtype(value.dtype).base_dtype.real_dtype
