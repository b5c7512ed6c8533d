"""The test that a user puts between the tape and the optimizer, or around the optimizer's update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from gradcheck._graph import structure
from gradcheck._graph.ending import mark
from gradcheck._graph.guarded import read, write
from gradcheck._watchdog.deciding import branch, decided
from gradcheck._watchdog.ledger import Ledger
from gradcheck._watchdog.looked import Looked, looked_at
from gradcheck._watchdog.looking import amounts_of, counted
from gradcheck._watchdog.running import RUNNING
from gradcheck._watchdog.waiting import decided_silently


def guard(ledger: Ledger, grads: Any, loss: Any, outputs: Any, variables: Sequence[Any] | None) -> Any:
    """The gradients, where they, the loss and the outputs are finite; zeros in their place where not."""
    leaves = tf.nest.flatten(grads)
    looked = looked_at("guard", leaves, loss, outputs, variables)
    if _is_left_to_the_step(looked):
        return grads
    present = [g for g in leaves if g is not None]
    if tf.executing_eagerly():
        passed = present if _is_healthy(ledger, looked) else [_zero(g) for g in present]
    elif _is_compiled():
        healthy = decided_silently(ledger, looked)
        passed = tf.cond(healthy, lambda: [_same(g) for g in present], lambda: [_zero(g) for g in present])
    else:
        passed = decided(ledger, looked, present)
    found = iter(passed)
    return tf.nest.pack_sequence_as(grads, [None if g is None else next(found) for g in leaves])


def apply(
    ledger: Ledger, optimizer: Any, grads: Sequence[Any], variables: Sequence[Any], loss: Any, outputs: Any
) -> None:
    """The update of an optimizer, where the gradients, the loss and the outputs are finite; else nothing."""
    update = _update_of(optimizer)
    grads, variables = list(grads), list(variables)
    looked = looked_at("apply", grads, loss, outputs, variables)
    if not getattr(optimizer, "built", True):
        with tf.init_scope():  # no branch may make variables
            optimizer.build(variables)
    if _is_left_to_the_step(looked) or (tf.executing_eagerly() and _is_healthy(ledger, looked)):
        update(grads, variables)
    elif not tf.executing_eagerly():
        compiled = _is_compiled()
        healthy = decided_silently(ledger, looked) if compiled else decided(ledger, looked, None)
        if ledger.policy.action == "raise" and not compiled:
            with tf.control_dependencies([healthy]):
                update(grads, variables)
        elif _replicas() > 1:
            _update_and_take_back(healthy, optimizer, grads, variables)
        else:
            branch(healthy, lambda: _done(update, grads, variables), lambda: [tf.constant(False)])


def _update_and_take_back(healthy: Any, optimizer: Any, grads: Sequence[Any], variables: Sequence[Any]) -> None:
    """In a replica: an update there meets the other replicas, which TensorFlow refuses within a branch."""
    if not hasattr(optimizer, "variables"):
        raise ValueError(
            f"optimizer must be a Keras optimizer in one of several replicas; got {type(optimizer).__name__}"
        )
    inner = [structure.variable_of(v) for v in (*optimizer.variables, *variables)]
    here = [v._get() if isinstance(v, tf.distribute.DistributedValues) else v for v in inner]
    before = [read(v.handle) for v in here]
    with tf.control_dependencies([healthy]):  # which may raise
        optimizer.apply(grads, variables)

    def take_back() -> list[Any]:
        for variable, value in zip(here, before, strict=True):
            write(variable.handle, value)
        return [tf.constant(False)]

    branch(healthy, lambda: [tf.constant(True)], take_back)


def _update_of(optimizer: Any) -> Callable[..., Any]:
    """What updates, of a Keras optimizer or anything that does as one."""
    if hasattr(optimizer, "scale_loss") and hasattr(optimizer, "inner_optimizer"):
        raise ValueError(
            "optimizer must not be a LossScaleOptimizer, which skips steps by itself; put the step under watch "
            "instead: wd.watch(step)"
        )
    update = getattr(optimizer, "apply", optimizer)
    if not callable(update):
        raise TypeError(
            "optimizer must be a Keras optimizer or a callable that takes gradients and variables; got "
            f"{type(optimizer).__name__}"
        )
    found: Callable[..., Any] = update
    return found


def _done(update: Callable[..., Any], grads: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
    update(grads, variables)
    return [tf.constant(True)]


def _is_left_to_the_step(looked: Looked) -> bool:
    """Whether a watched step around decides; what is looked at is marked for it."""
    if tf.executing_eagerly():
        return False
    for name, tensor in zip(looked.names, looked.tensors, strict=True):
        mark(tensor, name)
    return RUNNING.tracing or RUNNING.step is not None


def _is_compiled() -> bool:
    """Whether what is being traced is for XLA."""
    compiled = control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
    if compiled and _replicas() > 1:
        raise ValueError(
            "guard was called with jit_compile=True in one of several replicas; put the function that calls "
            "strategy.run under watch instead: wd.watch(step)"
        )
    return bool(compiled)


def _replicas() -> int:
    context = tf.distribute.get_replica_context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def _is_healthy(ledger: Ledger, looked: Looked) -> bool:
    """Look at eager tensors, and do what follows from a trip."""
    watched = RUNNING.step
    number = ledger.begin() if watched is None else 0
    if number % ledger.policy.every:
        return True
    sums = amounts_of(looked.tensors)
    found = []
    if not np.isfinite(sums).all():
        found = [r for n, t in zip(looked.names, looked.tensors, strict=True) if (r := counted(n, t, None)) is not None]
    if watched is not None:  # the step around decides, and takes back what is written from here on
        watched += found
        return True
    if not found:
        ledger.healthy(lambda: looked.step(number, sums))
        return True
    ledger.trip(looked.trip(number, found), lambda: looked.step(number, sums))
    return False


def _same(gradient: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(tf.identity(gradient.values), gradient.indices, gradient.dense_shape)
    return tf.identity(gradient)


def _zero(gradient: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(tf.zeros_like(gradient.values), gradient.indices, gradient.dense_shape)
    return tf.zeros_like(gradient)
