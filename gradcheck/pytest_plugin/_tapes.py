"""Losses and gradients that a test computes in Python, shown to a watchdog."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def with_guarded_tapes(body: Callable[..., Any], watchdog: Any) -> Callable[..., Any]:
    """The body of a test, in which a watchdog sees what is differentiated by a `tf.GradientTape`, and the gradients.

    These have to be finite. A value on the way need not: what `tf.where` leaves out is no fault.
    """

    @functools.wraps(body)
    def guarded(*arguments: Any, **named: Any) -> Any:
        import tensorflow as tf

        gradient = tf.GradientTape.gradient
        traced: dict[str, list[Any]] = {"loss": [], "gradients": []}

        def looked_at(self: Any, target: Any, sources: Any, *rest: Any, **options: Any) -> Any:
            found = gradient(self, target, sources, *rest, **options)
            loss = [y for y in tf.nest.flatten(target) if _is_floating(y)]
            if tf.executing_eagerly():
                watchdog.guard(tf.nest.flatten(found), loss=loss or None, variables=_variables(sources))
            elif tf.compat.v1.get_default_graph() is outermost:
                traced["loss"] += loss
                traced["gradients"] += [g for g in tf.nest.flatten(found) if g is not None]
            return found

        outermost = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        tf.GradientTape.gradient = looked_at
        try:
            # Where the watchdog traces the body to look for the op, it looks at what comes out.
            result = body(*arguments, **named)
            return result if outermost is None else traced
        finally:
            tf.GradientTape.gradient = gradient

    return guarded


def _is_floating(value: Any) -> bool:
    dtype = getattr(value, "dtype", None)
    return bool(getattr(dtype, "is_floating", False) or getattr(dtype, "is_complex", False))


def _variables(sources: Any) -> list[Any] | None:
    import tensorflow as tf

    flat = tf.nest.flatten(sources)
    return flat if all(isinstance(source, tf.Variable) for source in flat) else None
