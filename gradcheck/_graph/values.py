"""The values of what a graph captures from outside, in eager mode and in a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import handle_data_util

from gradcheck._errors import GraphUnavailable
from gradcheck._graph.contexts import chain
from gradcheck._graph.evaluate import eagerly


class Values:
    """Looks up the base values of captured tensors and variables; each is read once.

    Args:
        session: The session that holds the values of a `tf.Graph`; None for the default one, if there is any.
        feed_dict: Values for placeholders, as `Session.run` takes them.
    """

    def __init__(self, session: Any = None, feed_dict: Mapping[Any, Any] | None = None) -> None:
        self._session = session
        self._feed_dict = dict(feed_dict or {})
        self._known: dict[int, tuple[Any, Any]] = {}  # id -> the tensor, kept so that no other takes its id; its value

    def variable_dtype(self, external: Any) -> Any:
        """The dtype of the variable that a tensor is the handle of, or None where it is no such handle."""
        return variable_dtype(external)

    def value(self, external: Any) -> Any:
        """The value of a captured tensor; for a variable's handle, the variable's value."""
        if isinstance(external, tf.__internal__.EagerTensor):
            dtype = self.variable_dtype(external)
            if dtype is None:
                return external
            with eagerly():
                return tf.raw_ops.ReadVariableOp(resource=external, dtype=dtype)
        self.read([external])
        return self._known[id(external)][1]

    def read(self, externals: Sequence[Any]) -> None:
        """Read what is not known yet, all in one run of the session, so that it belongs together."""
        pending = []
        for external in externals:
            if isinstance(external, tf.__internal__.EagerTensor) or id(external) in self._known:
                continue
            if external.op.type == "Const":
                self._keep(external, tf.make_ndarray(external.op.get_attr("value")))
            elif external.graph.building_function:
                self._keep(external, self._in_function(external))
            else:
                pending.append(external)
        if pending:
            fetches = [e if self.variable_dtype(e) is None else read_of(e) for e in pending]
            for external, value in zip(pending, self._run(fetches), strict=True):
                self._keep(external, np.asarray(value))

    def _keep(self, external: Any, value: Any) -> None:
        self._known[id(external)] = (external, value)

    def _in_function(self, tensor: Any) -> Any:
        """The value of a tensor of a function that is being traced, where it has one."""
        for external, internal in tensor.graph.captures:
            if internal is tensor:
                return self.value(external)
        raise GraphUnavailable(
            f"{tensor.op.name!r} has no value while the function that it belongs to is being traced: call "
            "check_gradients(the function, inputs) from outside of it"
        )

    def _run(self, fetches: Sequence[Any]) -> Sequence[Any]:
        session = self._session or tf.compat.v1.get_default_session()
        name = fetches[0].op.name
        if session is None or session.graph is not fetches[0].graph:
            found = "there is no default session" if session is None else "the default session is one of another graph"
            raise GraphUnavailable(
                f"the value of {name!r} is needed, which belongs to a graph, and {found}: call within "
                "`with session.as_default():` or, for tensors of that graph, check_tf_gradients(ys, xs, "
                "session=session)"
            )
        try:
            found = raw_session(session).run(list(fetches), feed_dict=self._feed_dict)
        except tf.errors.FailedPreconditionError as error:
            valueless = self._valueless(raw_session(session), fetches) or [error.op.name if error.op else name]
            one = len(valueless) == 1
            raise GraphUnavailable(
                f"{', '.join(map(repr, valueless))} {'has' if one else 'have'} no value in the session: run "
                f"{'its initializer' if one else 'their initializers'} first, e.g. "
                "session.run(tf.compat.v1.global_variables_initializer())"
            ) from error
        except tf.errors.InvalidArgumentError as error:
            if "You must feed a value" not in error.message:
                raise
            raise GraphUnavailable(
                f"{name!r} depends on a placeholder, which has no value here: call "
                "check_tf_gradients(ys, xs, feed_dict={placeholder: value})"
            ) from error
        return list(found)

    def _valueless(self, session: Any, fetches: Sequence[Any]) -> list[str]:
        """The names of the variables without a value that some tensors read, each tensor run alone."""
        names = []
        for fetch in fetches:
            try:
                session.run(fetch, feed_dict=self._feed_dict)
            except tf.errors.FailedPreconditionError:
                handles = [t for t in fetch.op.inputs if variable_dtype(t) is not None]
                names.append((handles[0] if handles else fetch).op.name)
            except tf.errors.OpError:
                continue
        return names


def variable_dtype(tensor: Any) -> Any:
    """The dtype of the variable that a tensor is the handle of, or None where it is no such handle."""
    known = variable_type(tensor)
    return None if known is None else known[1]


def variable_type(tensor: Any) -> Any:
    """The shape and the dtype of the variable that a tensor is the handle of, or None where it is no such handle."""
    if tensor.dtype != tf.resource:
        return None
    eager = isinstance(tensor, tf.__internal__.EagerTensor)
    data = tensor._handle_data if eager else handle_data_util.get_resource_handle_data(tensor)
    if data is None or not data.is_set or not data.shape_and_type:
        return None
    return tf.TensorShape(data.shape_and_type[0].shape), tf.as_dtype(data.shape_and_type[0].dtype)


def is_symbolic(value: Any) -> bool:
    """Whether a value is a tensor of a graph, to be read, and not a value itself."""
    return isinstance(value, tf.Tensor) and not isinstance(value, tf.__internal__.EagerTensor)


def raw_session(session: Any) -> Any:
    """The session itself, where a monitored one would call its hooks."""
    return session._tf_sess() if hasattr(session, "_tf_sess") else session


def read_of(handle: Any) -> Any:
    """A tensor of the graph that reads the variable and waits for nothing; one made in a graph always has one."""
    for op in handle.consumers():
        if op.type == "ReadVariableOp" and not op.control_inputs and not chain(op):
            return op.outputs[0]
    raise GraphUnavailable(
        f"nothing in the graph reads the variable of {handle.op.name!r}, so its value cannot be had without adding "
        "an op"
    )
