"""The experiments of a document on gradients in TensorFlow, each a computation that can be checked.

The document is the blog post 灵活使用Tensorflow执行梯度下降算法 (gradient descent in TensorFlow, done in many ways).
Its graphs are built as it writes them, and the numbers that it prints are figures beside the ones computed here.
"""

from __future__ import annotations

import functools

import tensorflow as tf

from gradcheck import optimizers
from gradcheck.subjects import _arguments, _checking, _descent, _printed, _trajectories
from gradcheck.subjects._subject import Subject, SubjectResult

_v1 = tf.compat.v1

__all__ = ["Subject", "SubjectResult", "get", "names", "wrong_names"]

_RIGHT = (
    Subject(
        name="linear-regression",
        section="basic practice",
        summary="a line fitted to 32 noisy points, placeholders fed",
        experiment=_descent.linear_regression,
    ),
    Subject(
        name="norm-grads",
        section="basic practice",
        summary="the same graph with its gradient's norm and histogram as summaries",
        experiment=_descent.norm_grads,
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
        name="gradient-descent-small-rate",
        section="gradient descent",
        summary="twelve steps at a rate that their figures tell; gradients through five",
        experiment=_trajectories.gradient_descent_at_a_small_rate,
    ),
    Subject(
        name="momentum-optimizer",
        section="momentum",
        summary="ten steps of MomentumOptimizer; gradients through five of the rule",
        experiment=_trajectories.by_optimizer(
            functools.partial(optimizers.Momentum, learning_rate_in="update"),
            {"learning_rate": 0.01, "momentum": 0.8},
            lambda: _v1.train.MomentumOptimizer(tf.constant(0.01), 0.8),
            _printed.MOMENTUM_BY_OPTIMIZER,
        ),
    ),
    Subject(
        name="momentum-by-hand",
        section="momentum",
        summary="ten steps in two assignments, velocity first; gradients through five",
        experiment=_trajectories.momentum_by_hand("state"),
    ),
    Subject(
        name="nesterov",
        section="momentum",
        summary="gradients through five steps of Nesterov's momentum",
        experiment=_trajectories.through(
            functools.partial(optimizers.Momentum, nesterov=True), learning_rate=0.01, momentum=0.8
        ),
    ),
    Subject(
        name="adagrad-by-hand",
        section="adagrad",
        summary="twenty steps, accumulator from 0; gradients through five",
        experiment=_trajectories.adagrad_by_hand,
    ),
    Subject(
        name="adagrad-optimizer",
        section="adagrad",
        summary="twenty steps of AdagradOptimizer; gradients through five of the rule",
        experiment=_trajectories.by_optimizer(
            optimizers.Adagrad,
            {"learning_rate": 0.6, "initial_accumulator_value": 0.1},
            lambda: _v1.train.AdagradOptimizer(tf.constant(0.6)),
            _printed.ADAGRAD_BY_OPTIMIZER,
        ),
    ),
    Subject(
        name="rmsprop",
        section="beyond the document",
        summary="gradients through five steps of RMSProp",
        experiment=_trajectories.through(
            optimizers.RMSProp, learning_rate=0.1, rho=0.9, momentum=0.5, initial_accumulator_value=0.1
        ),
    ),
    Subject(
        name="adam",
        section="beyond the document",
        summary="gradients through five steps of Adam",
        experiment=_trajectories.through(optimizers.Adam, learning_rate=0.1, beta_1=0.9, beta_2=0.99),
    ),
    Subject(
        name="adamw",
        section="beyond the document",
        summary="gradients through five steps of AdamW",
        experiment=_trajectories.through(optimizers.AdamW, learning_rate=0.1, beta_1=0.9, weight_decay=0.01),
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
    Subject(
        name="momentum-wrong-order",
        section="momentum",
        summary="momentum by hand in the wrong order, as tf.group may run it",
        experiment=_trajectories.momentum_by_hand("params"),
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
        ('wrong-square', 'momentum-wrong-order')
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
