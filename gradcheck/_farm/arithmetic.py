"""How a process computes, as far as the bits of its results depend on it.

TensorFlow splits sums and products among the threads that it has within ops, so that their rounding depends on how many
those are (`tf.reduce_sum` of 2e6 numbers differs between 2 and 3 threads).
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, fields

import tensorflow as tf

from gradcheck._version import __version__

_HOW = {
    "gradcheck": "install the same version there",
    "tensorflow": "install the same version there",
    "threads": "start workers that have not used TensorFlow yet, or with TF_NUM_INTRAOP_THREADS set as it is here",
    "onednn": "set TF_ENABLE_ONEDNN_OPTS alike",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """Versions, the number of threads within an op, and whether oneDNN was switched on or off."""

    gradcheck: str
    tensorflow: str
    threads: int
    onednn: str


def arithmetic() -> Arithmetic:
    """How this process computes."""
    return Arithmetic(
        gradcheck=__version__,
        tensorflow=tf.__version__,
        threads=_threads(),
        onednn=os.environ.get("TF_ENABLE_ONEDNN_OPTS", ""),
    )


def adopt(wanted: Arithmetic) -> str | None:
    """Compute as another process does, as far as that can still be arranged; else what differs and what to do."""
    if _threads() != wanted.threads:
        with suppress(RuntimeError):  # TensorFlow has started its threads
            tf.config.threading.set_intra_op_parallelism_threads(wanted.threads)
    here = arithmetic()
    differences = [
        f"{f.name} is {getattr(here, f.name)!r} on the worker and {getattr(wanted, f.name)!r} here: {_HOW[f.name]}"
        for f in fields(Arithmetic)
        if getattr(here, f.name) != getattr(wanted, f.name)
    ]
    return "; ".join(differences) or None


def _threads() -> int:
    """How many threads TensorFlow uses within an op: as set, as the environment says, or one per core."""
    asked: int = tf.config.threading.get_intra_op_parallelism_threads()
    if asked > 0:
        return asked
    set_outside = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    if set_outside.isdecimal() and int(set_outside) > 0:
        return int(set_outside)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
