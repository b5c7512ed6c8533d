"""Programs, registered with TensorFlow and run: once, or over a batch of points in one call."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.eager import context, execute
from tensorflow.python.framework import ops

from gradcheck._graph.invariant import Split, split
from gradcheck._graph.nodes import make_node
from gradcheck._graph.program import (
    OURS,
    Argument,
    Body,
    Program,
    Return,
    call_as,
    definition_of,
    fresh_name,
    prune,
    reached_library,
)

INNER = f"{OURS}inner_"  # how the names begin that a runner gives the functions of its program
_ALIGNED = 64  # bytes, as TensorFlow asks of memory that it does not own
_registering = threading.RLock()  # an executor may run one program in several threads
F = TypeVar("F", bound=Callable[..., Any])


class ShapeChanged(ValueError):
    """A function whose outputs have other shapes at other values of its inputs."""


# What running a program may raise.
RUN_ERRORS = (tf.errors.OpError, ShapeChanged)


@lru_cache(maxsize=1)
def _plain_config() -> bytes:
    # Graph optimisation costs more than it saves on graphs that run a few times, and its fused kernels
    # (MatMul+Bias+Relu on CPU turns NaN into 0) are not what the user's eager code runs.
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.allow_soft_placement = True  # as in eager mode: a function may name a device that is not here
    serialized: bytes = config.SerializeToString()
    return serialized


@contextmanager
def eagerly() -> Iterator[None]:
    """A scope in which ops run at once, whatever graph or mode the caller is in."""
    with context.eager_mode():
        yield


Offered = Callable[["Runner", dict[str, Any], Sequence[Any]], "list[Any] | None"]
_offered: ContextVar[Offered | None] = ContextVar("offered", default=None)


@contextmanager
def offering_batches(to: Offered | None) -> Iterator[None]:
    """A scope in which `run_batch` first asks `to`, which gives its values, or None where the batch is to run here."""
    token = _offered.set(to)
    try:
        yield
    finally:
        _offered.reset(token)


def unconverted(fn: F) -> F:
    """The function, left as it is by AutoGraph where it is called while a `tf.function` is traced."""
    return cast(F, tf.autograph.experimental.do_not_convert(fn))


def release(names: Sequence[str]) -> None:
    """Take functions out of TensorFlow's registry."""
    ctx = context.context()
    for name in names:
        if ctx.has_function(name):
            ctx.remove_function(name)


@dataclass(eq=False)
class Runner:
    """A program that can be run; its functions leave TensorFlow's registry together with this object.

    TensorFlow keeps some 30 kB of each function that `run_batch` has called, for as long as the process lives (measured
    with 2.21): the op MapDefun never gives up what it made of it.

    `run` and `run_batch` give NumPy arrays, one per value that the main body returns.
    """

    program: Program
    alive: Any = None  # whatever must not be collected while this runs, such as the graph that holds Python functions
    sharing: bool = False  # whether a batch computes once what no moving argument changes, maybe rounded otherwise
    _registered: dict[tuple[str, ...], str] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def run(self, values: Sequence[Any]) -> list[Any]:
        """Run once, on one value per argument of the main body."""
        with eagerly():
            name = self._register(())
            returns = self.program.main.returns
            if not returns:
                return []
            return [_array(o) for o in _call(name, values, len(returns))]

    def run_batch(self, stacked: dict[str, Any], values: Sequence[Any]) -> list[Any]:
        """Run at many points in one call.

        Args:
            stacked: For each argument that moves, its values at all points, along a new first axis.
            values: One value per argument of the main body; those of moving arguments are not looked at.

        Raises:
            ShapeChanged: If an output has not the same shape at every point.
        """
        points = len(next(iter(stacked.values())))
        read = {a.name for a in self.program.main.args}
        stacked = {name: value for name, value in stacked.items() if name in read}
        if not stacked:  # a gradient that ignores its cotangent, say: the same at all points
            return [np.repeat(value[None], points, axis=0) for value in self.run(values)]
        offered = _offered.get()
        found = offered(self, stacked, values) if offered is not None else None
        if found is not None:
            return found
        if self._needs_steps():
            return self._run_each(stacked, values)
        moving = tuple(stacked)
        fixed = [v for v, a in zip(values, self.program.main.args, strict=True) if a.name not in stacked]
        with eagerly(), tf.device("CPU:0"):
            name = self._register(moving)
            returns = self.program.main.returns
            try:
                return [_array(o) for o in _call(name, [*stacked.values(), *fixed], len(returns))]
            except tf.errors.InvalidArgumentError as error:
                self._explain(error, stacked, values)
                raise

    def _needs_steps(self) -> bool:
        # MapDefun gives its functions no place for what loops of control flow v1 keep while they run; and TensorFlow
        # keeps the tape of a py_function under a name that runs at the same time would share.
        bodies = (self.program.main, *self.program.functions.values())
        alone = ("TensorArray", "Stack", "PyFunc", "EagerPyFunc")
        return any(node.op.startswith(alone) for body in bodies for node in body.nodes)

    def _run_each(self, stacked: dict[str, Any], values: Sequence[Any]) -> list[Any]:
        runs = [self.run(at) for at in self._points(stacked, values)]
        _require_one_shape({tuple(o.shape for o in run) for run in runs}, None)
        return [np.stack(parts) for parts in zip(*runs, strict=True)]

    def _explain(self, error: Exception, stacked: dict[str, Any], values: Sequence[Any]) -> None:
        """Raise ShapeChanged where running the points one by one shows that shapes differ."""
        _require_one_shape({tuple(o.shape for o in self.run(at)) for at in self._points(stacked, values)}, error)

    def _points(self, stacked: dict[str, Any], values: Sequence[Any]) -> Iterator[list[Any]]:
        """Values for all arguments, point by point."""
        names = [a.name for a in self.program.main.args]
        for k in range(len(next(iter(stacked.values())))):
            yield [stacked[n][k] if n in stacked else v for n, v in zip(names, values, strict=True)]

    def _register(self, moving: tuple[str, ...]) -> str:
        with _registering:
            if moving not in self._registered:
                self._registered[moving] = self._new_function(moving)
            return self._registered[moving]

    def _new_function(self, moving: tuple[str, ...]) -> str:
        ctx = context.context()
        ctx.ensure_initialized()
        if not self._names and self.program.functions:
            # Names of this runner's own: a name in the registry stands for one definition in the whole process.
            self._names.update({name: fresh_name("inner") for name in self.program.functions})
            for name, body in self.program.functions.items():
                ctx.add_function_def(definition_of(self._names[name], call_as(body, self._names)))
            weakref.finalize(self, release, list(self._names.values()))
        main = call_as(self.program.main, self._names)
        parts = split(main, moving) if moving and self.sharing else Split(nodes=(), shared=(), rest=main)
        first = [a for m in moving for a in main.args if a.name == m]
        rest = [a for a in main.args if a.name not in moving]
        shared = parts.rest.args[len(main.args) :]
        name = fresh_name("run")
        ctx.add_function_def(definition_of(name, replace(parts.rest, args=(*first, *rest, *shared))))
        weakref.finalize(self, release, [name])
        if moving:
            name = _register_map(name, first, rest, parts, main.returns)
            weakref.finalize(self, release, [name])
        return name


def _call(name: str, values: Sequence[Any], outputs: int) -> list[Any]:
    """Call a registered function by its own name: as an attribute of another op TensorFlow would never forget it."""
    inputs = [_lent(v) for v in values]
    attributes = ("executor_type", "", "config_proto", _plain_config())
    found: list[Any] = execute.execute(name, outputs, inputs, attributes, context.context())
    return found


def _lent(value: Any) -> Any:
    """A tensor on the memory of an array, which nobody changes meanwhile: `tf.convert_to_tensor` copies it first."""
    if isinstance(value, np.ndarray):
        context.context().ensure_initialized()
        return ops.EagerTensor(value, context.context().device_name, None)
    return tf.convert_to_tensor(value)


def lendable(array: Any, dtype: Any) -> Any:
    """A copy of an array, in another dtype, on memory aligned so that TensorFlow takes it without copying it again."""
    dtype = np.dtype(dtype)
    memory = np.empty(array.size * dtype.itemsize + _ALIGNED, np.uint8)
    first = -memory.ctypes.data % _ALIGNED
    copy = memory[first : first + array.size * dtype.itemsize].view(dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _register_map(
    name: str, stacked: Sequence[Argument], fixed: Sequence[Argument], parts: Split, returns: Sequence[Return]
) -> str:
    """Register the function that calls another one at many points, after what they share."""
    shared = [value.ref for value in parts.shared]
    node = make_node("MapDefun", fresh_name("map"), [a.name for a in (*stacked, *fixed)] + shared)
    node.attr["f"].func.name = name
    node.attr["Targuments"].list.type.extend(a.dtype for a in stacked)
    node.attr["Tcaptured"].list.type.extend([a.dtype for a in fixed] + [value.dtype for value in parts.shared])
    node.attr["output_types"].list.type.extend(r.dtype for r in returns)
    for _ in returns:
        node.attr["output_shapes"].list.shape.add().unknown_rank = True
    node.attr["max_intra_op_parallelism"].i = 1
    given = tuple(Return(f"{node.name}:output:{k}", r.dtype) for k, r in enumerate(returns))
    mapped = fresh_name("map")
    context.context().add_function_def(
        definition_of(mapped, Body(args=(*stacked, *fixed), nodes=(*parts.nodes, node), returns=given))
    )
    return mapped


def _require_one_shape(shapes: set[tuple[tuple[int, ...], ...]], error: Exception | None) -> None:
    """Refuse outputs that have other shapes at other points."""
    if len(shapes) > 1:
        found = " and ".join(", ".join(str(list(s)) for s in one) for one in sorted(shapes)[:2])
        raise ShapeChanged(
            f"the function's outputs change shape with the values of its inputs: found {found} at points close "
            "together; "
            "a derivative needs outputs of one shape: multiply by a mask instead of selecting, or check the part "
            "that is fixed"
        ) from error


def _array(tensor: Any) -> Any:
    """The tensor as an array on its memory, which is not to be written to: `tensor.numpy()` copies it."""
    return np.asarray(tensor._numpy()) if tensor.dtype not in (tf.resource, tf.variant) else tensor


def returning(program: Program, body: Body, keep: Sequence[str] = ()) -> Program:
    """The program with another main body, without the nodes and arguments that it does not need (but for `keep`)."""
    pruned = prune(body)
    read = {i for node in pruned.nodes for i in node.input} | {r.ref for r in pruned.returns} | set(keep)
    args = tuple(a for a in pruned.args if a.name in read)
    return reached_library(Program(main=replace(pruned, args=args), functions=program.functions))
