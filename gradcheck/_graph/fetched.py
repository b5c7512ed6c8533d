"""Tensors of a session's graph, with everything that it takes to run them again outside of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._graph.copies import Copy
from gradcheck._graph.evaluate import eagerly
from gradcheck._graph.provenance import origin
from gradcheck._graph.rerun import Given, Rerun
from gradcheck._graph.trace import settled
from gradcheck._graph.values import Values


def of_tensors(tensors: Sequence[Any], labels: Sequence[str], session: Any, feed_dict: Mapping[Any, Any]) -> Rerun:
    """What some tensors depend on, at the values that variables have in the session now; nothing is written.

    Args:
        tensors: Of one `tf.Graph`.
        labels: What to call them.
        session: A session of that graph.
        feed_dict: Values of placeholders, and of whatever else gives something new in each run.

    Raises:
        GraphUnavailable: If a value cannot be read.
    """
    graph = tensors[0].graph
    fed = {t.name: np.asarray(v, t.dtype.as_numpy_dtype) for t, v in _elements(graph, feed_dict)}
    with tf.Graph().as_default():  # so that nothing lands in the user's
        copy = Copy(graph, fed)
        program, held, *_ = settled(copy, copy.bring(tensors), [], Values(session, fed))
    with eagerly():
        given = tuple(Given(label=a.name, value=tf.convert_to_tensor(held[a.name])) for a in program.main.args)
    return Rerun(
        name="session.run",
        program=program,
        given=given,
        outputs=tuple(labels),
        origin=partial(origin, copy),
        alive=copy,
    )


def _elements(graph: Any, feed_dict: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    return [(graph.as_graph_element(key), value) for key, value in feed_dict.items()]
