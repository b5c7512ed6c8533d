"""The experiments of a document on gradients in TensorFlow, each a computation that can be checked.

The document is the blog post 灵活使用Tensorflow执行梯度下降算法 (gradient descent in TensorFlow, done in many ways).
Its graphs are built as it writes them, and the numbers that it prints are figures beside the ones computed here.
"""

from __future__ import annotations

from gradcheck.subjects import _arguments, _checking, _descent
from gradcheck.subjects._subject import Subject, SubjectResult

__all__ = ["Subject", "SubjectResult", "get", "names", "wrong_names"]

_RIGHT = (
    Subject(
        name="linear-regression",
        section="basic practice",
        summary="a line fitted to 32 noisy points, placeholders fed",
        experiment=_descent.linear_regression,
    ),
    Subject(
        name="sum-over-ys",
        section="tf.gradients",
        summary="two ys: their gradients add up",
        experiment=_arguments.sum_over_ys,
    ),
    Subject(
        name="grad-ys",
        section="grad_ys",
        summary="two ys, each weighted by a cotangent",
        experiment=_arguments.grad_ys,
    ),
    Subject(
        name="stop-gradients-none",
        section="stop_gradients",
        summary="a + 2a, nothing stopped",
        experiment=_arguments.on_a_graph(_arguments.unstopped, (3.0, 1.0)),
    ),
    Subject(
        name="stop-gradients-argument",
        section="stop_gradients",
        summary="a + 2a, both stopped by tf.gradients(stop_gradients=)",
        experiment=_arguments.on_a_graph(_arguments.stopped, (1.0, 1.0)),
    ),
    Subject(
        name="stop-gradients-inside",
        section="stop_gradients",
        summary="a + 2a, both stopped by tf.stop_gradient",
        experiment=_arguments.on_a_graph(_arguments.stopped_inside, (1.0, 1.0)),
    ),
    Subject(
        name="stop-gradients-gradients",
        section="stop_gradients",
        summary="a + 2a, both stopped by a function that returns gradcheck.Gradients",
        experiment=_arguments.returned_by_a_function,
    ),
    Subject(
        name="one-weight-loss",
        section="gradient descent",
        summary="(w x - y)^2, and five steps at learning rate 1",
        experiment=_descent.one_weight_loss,
    ),
    Subject(
        name="keras-cnn",
        section="gradient checking",
        summary="a small convolutional network in Keras, by its images and all its weights",
        experiment=_checking.keras_cnn,
    ),
)
_WRONG = (
    Subject(
        name="wrong-square",
        section="gradient checking",
        summary="a custom gradient that is twice too large",
        experiment=_checking.wrong_square,
    ),
)


def names() -> tuple[str, ...]:
    """The names of all subjects that are meant to be right.

    Example:
        >>> import gradcheck
        >>> "grad-ys" in gradcheck.subjects.names()
        True
    """
    return tuple(subject.name for subject in _RIGHT)


def wrong_names() -> tuple[str, ...]:
    """The names of the subjects that are wrong on purpose, to see a check fail.

    Example:
        >>> import gradcheck
        >>> gradcheck.subjects.wrong_names()
        ('wrong-square',)
    """
    return tuple(subject.name for subject in _WRONG)


def get(name: str) -> Subject:
    """The subject of that name, right or wrong.

    Raises:
        ValueError: If there is none.

    Example:
        >>> import gradcheck
        >>> gradcheck.subjects.get("wrong-square").check().ok
        False
    """
    for subject in (*_RIGHT, *_WRONG):
        if subject.name == name:
            return subject
    raise ValueError(f"name must be one of {', '.join(map(repr, (*names(), *wrong_names())))}; got name={name!r}")
