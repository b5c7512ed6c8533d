"""Gradients in graphs of `tf.compat.v1`: a summary among those that `merge_all` merges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from gradcheck.tensorboard._recording import Item, Recording, items
from gradcheck.tensorboard._wire import summary

__all__ = ["gradient_summaries"]


def gradient_summaries(
    gradients: Any,
    variables: Any = None,
    *,
    histograms: bool = True,
    weights: bool = False,
    collections: Sequence[str] | None = None,
    name: str = "gradient_summaries",
) -> Any:
    """Norm, largest, exact counts and a histogram of each gradient, as one summary.

    In place of `tf.summary.scalar("norm_grads", gradients)`, which takes no list and no norm, and of
    `tf.summary.histogram`, which fails at the first NaN.

    Args:
        gradients: What `tf.gradients` gives, or the pairs that `compute_gradients` does: tensors, `tf.IndexedSlices`
            and None, floating or complex.
        variables: One per gradient: variables, or strings to name gradients by. None for pairs.
        histograms: Whether histograms of the gradients are made.
        weights: Whether histograms of the variables are made. What is said of variables holds at some moment of the
            run, before its update or after.
        collections: Of graph keys; by default that of `tf.compat.v1.summary.merge_all`.
        name: Of the op.

    Returns:
        A string tensor with a serialized `Summary`, for `FileWriter.add_summary`.

    Raises:
        TypeError, ValueError: If gradients and variables do not belong together, or are not of a `tf.Graph`.

    Example:
        >>> import gradcheck, tensorflow as tf
        >>> with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        ...     w = tf.compat.v1.get_variable("w", initializer=[3.0, 4.0])
        ...     loss = tf.reduce_sum(w**2) / 2
        ...     _ = gradcheck.tensorboard.v1.gradient_summaries(tf.gradients(loss, w), w)
        ...     merged = tf.compat.v1.summary.merge_all()
        ...     session.run(tf.compat.v1.global_variables_initializer())
        ...     found = tf.compat.v1.Summary.FromString(session.run(merged))
        >>> [value.tensor.float_val[0] for value in found.value if value.tag == "gradient_norm/w"]
        [5.0]
    """
    found = graph_items(gradients, variables)
    recording = Recording(found, histograms=histograms, weights=weights)

    def serialized(*arrays: Any) -> bytes:
        return summary(recording.values(arrays))

    with tf.name_scope(name):
        tensor = tf.numpy_function(serialized, recording.tensors(present(found)), tf.string, name="summary")
        tensor.set_shape([])
    for key in [tf.compat.v1.GraphKeys.SUMMARIES] if collections is None else collections:
        tf.compat.v1.add_to_collection(key, tensor)
    return tensor


def graph_items(gradients: Any, variables: Any) -> list[Item]:
    """Gradients of a graph with their variables, checked."""
    if tf.executing_eagerly():
        raise ValueError(
            "there is no tf.Graph to add to; build within `with graph.as_default():`, or write "
            "gradcheck.tensorboard.SummaryWriter(logdir).gradients(step, gradients, variables)"
        )
    if variables is None:
        pairs = list(gradients) if isinstance(gradients, (list, tuple)) else []
        if not pairs or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            raise TypeError(
                "gradients must be pairs with variables, as compute_gradients gives them, or variables must be given; "
                f"found {type(gradients).__name__} without variables"
            )
        gradients, variables = zip(*pairs, strict=True)
    return items(gradients, variables)


def present(found: Sequence[Item]) -> list[Any]:
    """The gradients that are not None."""
    return [item.gradient for item in found if item.gradient is not None]
