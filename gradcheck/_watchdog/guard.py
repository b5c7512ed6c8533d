"""The test of gradients that a user puts between the tape and the optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from gradcheck._graph import structure
from gradcheck._graph.ending import mark
from gradcheck._graph.finite import COUNTED, amounts, census
from gradcheck._report.nonfinite import Range
from gradcheck._report.trip import Layer, Step, TripReport
from gradcheck._watchdog.ledger import KEPT, Ledger
from gradcheck._watchdog.looking import amounts_of, counted
from gradcheck._watchdog.names import variable_names
from gradcheck._watchdog.running import RUNNING

_UNNAMED = "to have the op named, put the whole step under watch: wd.watch(step)"
_NEW = COUNTED.index("new")


@dataclass(frozen=True, slots=True)
class Guarding:
    """What one call of `guard` looks at: losses first, then gradients."""

    names: tuple[str, ...]
    tensors: tuple[Any, ...]
    losses: int

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [tuple(d or 0 for d in t.shape) if t.shape.rank is not None else () for t in self.tensors]


def guard(ledger: Ledger, grads: Any, loss: Any, variables: Sequence[Any] | None) -> Any:
    """The gradients, where they and the loss are finite."""
    leaves = tf.nest.flatten(grads)
    looked = _looked_at(leaves, loss, variables)
    if tf.executing_eagerly():
        return _eagerly(ledger, grads, leaves, looked)
    inner = RUNNING.tracing or RUNNING.step is not None
    for name, tensor in zip(looked.names, looked.tensors, strict=True):
        mark(tensor, name)
    if inner:
        return grads
    return _in_graph(ledger, grads, leaves, looked)


def _looked_at(leaves: Sequence[Any], loss: Any, variables: Sequence[Any] | None) -> Guarding:
    owners = None if variables is None else list(variables)
    if owners is not None and len(owners) != len(leaves):
        raise ValueError(
            f"variables must be one per gradient: found {len(owners)} variables and {len(leaves)} gradients"
        )
    known = {} if owners is None else variable_names(owners)
    names, tensors = [], []
    for leaf in structure.leaves(loss, "loss") if loss is not None else ():
        if structure.is_continuous(leaf.value):
            names.append(leaf.path)
            tensors.append(tf.convert_to_tensor(leaf.value))
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
    return Guarding(tuple(names), tuple(tensors), losses)


def _eagerly(ledger: Ledger, grads: Any, leaves: Sequence[Any], looked: Guarding) -> Any:
    watched = RUNNING.step
    number = ledger.begin() if watched is None else 0
    if number % ledger.policy.every:
        return grads
    sums = amounts_of(looked.tensors)
    found = []
    if not np.isfinite(sums).all():
        found = [r for n, t in zip(looked.names, looked.tensors, strict=True) if (r := counted(n, t, None)) is not None]
    if watched is not None:  # the step around decides, and takes back what is written from here on
        watched += found
        return grads
    describe = partial(_step, number, looked, sums)
    if not found:
        ledger.healthy(describe)
        return grads
    ledger.trip(TripReport(name="guard", step=number, action="raise", found=tuple(found), notes=(_UNNAMED,)), describe)
    return tf.nest.pack_sequence_as(grads, [_zero(g) for g in leaves])


def _step(number: int, looked: Guarding, sums: Any) -> Step:
    norms = [float(v) for v in np.sqrt(sums)]
    names = [n.removeprefix("gradient of ") for n in looked.names]
    return Step(
        number=number,
        outputs=tuple(zip(names[: looked.losses], norms[: looked.losses], strict=True)),
        layers=tuple(Layer(name=n, norm=v) for n, v in list(zip(names, norms, strict=True))[looked.losses :]),
    )


def _zero(gradient: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(tf.zeros_like(gradient.values), gradient.indices, gradient.dense_shape)
    return None if gradient is None else tf.zeros_like(gradient)


def _in_graph(ledger: Ledger, grads: Any, leaves: Sequence[Any], looked: Guarding) -> Any:
    """The same inside of a tf.function: the host is told only where something is found."""
    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        raise ValueError(
            "guard was called in a tf.function with jit_compile=True, from which nothing can be said to Python; put "
            "the step under watch instead: wd.watch(step)"
        )
    replicas = tf.distribute.get_replica_context()
    if replicas is not None and replicas.num_replicas_in_sync > 1:
        raise ValueError(
            "guard was called in one of several replicas, which all have to decide alike; put the function that calls "
            "strategy.run under watch instead: wd.watch(step)"
        )
    with tf.init_scope():  # steps are counted in the graph, so that a healthy one need not call Python
        # Not tf.Variable, which a tf.function lets itself make in its first trace only.
        count = ResourceVariable(tf.zeros([], tf.int64), trainable=False, name="gradcheck_guarded_steps")
        zeros = tf.zeros([KEPT, len(looked.tensors)], tf.float64)
        last = ResourceVariable(zeros, trainable=False, name="gradcheck_norms")
    number = count.assign_add(1, read_value=True)
    present = [g for g in leaves if g is not None]

    def tell(number: Any, counts: Any, rows: Any, alive: Any = (count, last)) -> None:
        del alive  # a graph holds its variables weakly
        if not ledger.running:  # else the step around decides
            _trip_in_graph(ledger, looked, int(number), counts.numpy(), rows.numpy())

    def looking() -> Any:
        sums = amounts(looked.tensors)
        with tf.control_dependencies([last.scatter_nd_update([[number % KEPT]], [sums])]):
            return tf.cond(tf.reduce_all(tf.math.is_finite(sums)), lambda: tf.constant(True), closely)

    def closely() -> Any:
        counts = tf.stack([census(t) for t in looked.tensors])
        sound = tf.reduce_all(tf.equal(counts[:, _NEW], 0))

        def bad() -> Any:
            with tf.control_dependencies([tf.py_function(tell, [number, counts, last.read_value()], [])]):
                return tf.constant(False)

        return tf.cond(sound, lambda: tf.constant(True), bad)

    healthy = tf.cond(tf.equal(number % ledger.policy.every, 0), looking, lambda: tf.constant(True))
    kept = tf.cond(healthy, lambda: [_same(g) for g in present], lambda: [_zero(g) for g in present])
    found = iter(kept)
    return tf.nest.pack_sequence_as(grads, [None if g is None else next(found) for g in leaves])


def _same(gradient: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(tf.identity(gradient.values), gradient.indices, gradient.dense_shape)
    return tf.identity(gradient)


def _trip_in_graph(ledger: Ledger, looked: Guarding, number: int, counts: Any, rows: Any) -> None:
    found = [
        Range(name=n, dtype=t.dtype.name, shape=s, nan=int(c[0]), posinf=int(c[1]), neginf=int(c[2]))
        for n, t, s, c in zip(looked.names, looked.tensors, looked.shapes, counts, strict=True)
        if c[_NEW]
    ]
    before = range(max(1, number - KEPT + 1), number)
    ledger.catch_up(number, [partial(_step, k, looked, rows[k % KEPT]) for k in before])
    ledger.trip(
        TripReport(name="guard", step=number, action="raise", found=tuple(found), notes=(_UNNAMED,)),
        partial(_step, number, looked, rows[number % KEPT]),
    )
