"""Batches of points cut into parcels for an executor, and what comes back put together."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._errors import ExecutorFailed
from gradcheck._farm.arithmetic import arithmetic
from gradcheck._farm.crew import WAIT, Crew
from gradcheck._farm.parcels import Code, Kept, Lacking, Parcel, Refused, Unfit
from gradcheck._farm.thin import thinned, whole
from gradcheck._farm.worker import forget, run_points, wake
from gradcheck._graph.evaluate import Runner, offering_batches
from gradcheck._graph.nodes import output_refs
from gradcheck._graph.program import RESOURCE, VARIANT, Program
from gradcheck._graph.wire import program_to_bytes

# How a batch is cut depends on its size alone, so that it is cut alike whatever the number of workers.
_PARCELS = 32  # of one batch, at most
_SMALL, _TOGETHER = 2**15, 4  # points of so few entries go out so many at a time, at least
_INLINE = 2**14  # bytes; what is larger goes to a worker once


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """A program as bytes, or why it cannot leave this process."""

    code: Code | None = None
    digest: str = ""
    stays: str = ""


_written: weakref.WeakKeyDictionary[Runner, _Written] = weakref.WeakKeyDictionary()


class Spread:
    """An executor at work for one check.

    Args:
        executor: Where batches go.

    Attributes:
        notes: What ran in this process all the same, and why.
    """

    def __init__(self, executor: Executor) -> None:
        self.crew = Crew(executor)
        self.notes: list[str] = []
        self.arithmetic = arithmetic()

    def run_batch(self, runner: Runner, moving: dict[str, Any], values: Sequence[Any]) -> list[Any] | None:
        """What `Runner.run_batch` gives, from the workers; None where this process must do it."""
        points = len(next(iter(moving.values())))
        entries = sum(np.size(v) for v in values if isinstance(v, np.ndarray))
        each = max(1 if entries > _SMALL else _TOGETHER, -(-points // _PARCELS))
        if points <= each:
            return None
        program = _program(runner)
        stays = program.stays or _stays(values)
        if stays:
            if stays not in self.notes:
                self.notes.append(stays)
            return None
        contents: dict[str, Any] = {program.digest: program.code}
        held = tuple(
            None if argument.name in moving else _packed(value, contents)
            for argument, value in zip(runner.program.main.args, values, strict=True)
        )
        first = Parcel(program=Kept(digest=program.digest), moving={}, values=held, arithmetic=self.arithmetic)
        parcels = [
            replace(first, moving={name: thinned(v[k : k + each]) for name, v in moving.items()})
            for k in range(0, points, each)
        ]
        replies = self.crew.results(run_points, parcels, _Supply(contents))
        if any(isinstance(reply, Refused) for reply in replies):
            return None
        stacks = list(zip(*([whole(a) for a in reply.arrays] for reply in replies), strict=True))
        if any(part.shape[1:] != parts[0].shape[1:] for parts in stacks for part in parts):
            return None  # it is refused here, in the words of this process
        return [np.concatenate(parts) for parts in stacks]


def _packed(value: Any, contents: dict[str, Any]) -> Any:
    """A value as an array or, where it is large, what stands for it; then it is added to the contents."""
    array = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    if array.nbytes <= _INLINE or array.dtype.hasobject:
        return array
    digest = _digest(np.ascontiguousarray(array).view(np.uint8).data, array.dtype.name, array.shape)
    contents[digest] = array
    return Kept(digest=digest)


def _digest(data: Any, *about: Any) -> str:
    """Of the bytes, and of what else tells them from others."""
    key = hashlib.blake2b(repr(about).encode(), digest_size=32).digest()
    return hashlib.blake2b(data, digest_size=16, key=key).hexdigest()


@contextmanager
def spread(executor: Executor | None) -> Iterator[list[str]]:
    """A scope in which batches of points go to an executor; gives the list of what was noticed, which it fills."""
    if executor is None:
        yield []
        return
    over = Spread(executor)
    try:
        executor.submit(wake, over.arithmetic)  # TensorFlow takes seconds to start: while the function is traced
    except RuntimeError as error:
        raise ValueError(f"executor takes no work: {error}; hand over one that is open") from error
    try:
        with offering_batches(over.run_batch):
            yield over.notes
    finally:
        forget()  # where workers are threads, what they keep is kept here


@dataclass(slots=True)
class _Supply:
    """Sends workers what they lack: one parcel at a time on behalf of each, for it may be large.

    An executor does not let us choose who gets it, so that another worker may take it first.
    """

    contents: dict[str, Any]
    under_way: dict[int, str] = field(default_factory=dict)  # parcels that carry something, and on whose behalf

    def __call__(self, k: int, parcel: Parcel, reply: Any) -> Any:
        if isinstance(reply, Unfit):
            raise ExecutorFailed(f"a worker cannot compute as this process does: {reply.why}")
        if not isinstance(reply, Lacking):
            self.under_way.pop(k, None)
            return None
        if reply.worker in self.under_way.values() and k not in self.under_way:
            return WAIT
        self.under_way[k] = reply.worker
        return replace(parcel, contents={digest: self.contents[digest] for digest in reply.digests})


def _program(runner: Runner) -> _Written:
    if runner not in _written:
        stays = _bound_ops(runner.program)
        if stays:
            _written[runner] = _Written(stays=_here(f"{', '.join(stays)} works with what only this process has"))
        else:
            data = program_to_bytes(runner.program)
            code = Code(data=data, sharing=runner.sharing)
            _written[runner] = _Written(code=code, digest=_digest(data, "program", runner.sharing))
    return _written[runner]


def _bound_ops(program: Program) -> list[str]:
    """Types of the ops that call Python functions, or find tables, queues and variables of this process by name."""
    nodes = [node for body in (program.main, *program.functions.values()) for node in body.nodes]
    within_run = ("TensorArray", "Stack")  # what loops of control flow v1 keep while they run
    return sorted(
        {
            node.op
            for node in nodes
            if "PyFunc" in node.op
            or (not node.op.startswith(within_run) and any(dtype == RESOURCE for _, dtype in _made(node)))
        }
    )


def _made(node: Any) -> list[tuple[str, int]]:
    """What a node makes itself, and does not pass on."""
    return [] if node.input else output_refs(node)


def _stays(values: Sequence[Any]) -> str:
    for value in values:
        dtype = getattr(value, "dtype", None)
        if isinstance(dtype, tf.DType) and dtype.as_datatype_enum in (RESOURCE, VARIANT):
            return _here(f"the function reads a {dtype.name}, which only this process has")
    return ""


def _here(why: str) -> str:
    return f"run in this process, not by the executor: {why}"
