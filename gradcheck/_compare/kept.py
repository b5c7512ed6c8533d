"""TensorFlow's random state, given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tensorflow.python.eager import context
from tensorflow.python.ops import stateful_random_ops

_APART = "gradcheck"


@contextmanager
def tensorflow_random_state_kept() -> Iterator[None]:
    """A scope that gives back the seeds of eager ops to come, and the state of the global generator.

    Inside, eager ops draw seeds of their own: TensorFlow keeps one kernel, with a state, for each seed, and a seed that
    is drawn again later would find that state advanced.
    """
    rng = getattr(context.context(), "_rng", None)
    seeds = rng.getstate() if rng is not None else None
    if rng is not None:
        rng.seed(_APART)
    generator = stateful_random_ops.global_generator
    state = generator.state.numpy() if generator is not None else None
    try:
        yield
    finally:
        if rng is not None:
            rng.setstate(seeds)
        if generator is not None:
            generator.state.assign(state)
        stateful_random_ops.global_generator = generator
