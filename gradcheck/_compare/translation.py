"""The rule that an optimizer of Keras or of TensorFlow's `train` is documented to follow."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from gradcheck import optimizers
from gradcheck._compare.deviations import core_of, number_of
from gradcheck._compare.widened import remembering, widened_rule
from gradcheck.optimizers._clipped import clips_by_norm
from gradcheck.optimizers._rule import Rule

_v1 = tf.compat.v1.train
_keras = keras.optimizers


def rule_of(optimizer: Any, *, wide: bool = False) -> Rule | None:
    """The rule with the optimizer's hyperparameters, or None for an optimizer that is not known.

    A subclass may do anything, so that only the classes themselves are known; what they do besides, such as moving
    averages of the weights, is not part of the rule. Schedules are called with steps that are numbers; with `wide`,
    those of Keras are in float64.
    """
    make = _KNOWN.get(type(optimizer))
    rule = optimizer if isinstance(optimizer, Rule) else make(optimizer) if make else None
    return rule and remembering(widened_rule(rule) if wide else rule)


def _rate(optimizer: Any) -> Any:
    held = optimizer._learning_rate
    return held if callable(held) else number_of(held)


def _momentum(rate: Any, momentum: Any, nesterov: bool, learning_rate_in: str) -> Rule:
    if isinstance(momentum, (int, float)) and momentum == 0 and not nesterov:
        return optimizers.GradientDescent(rate)
    return optimizers.Momentum(rate, momentum, nesterov, learning_rate_in=learning_rate_in)


def _around(optimizer: Any, rule: Rule) -> Rule | None:
    """The options that every optimizer of Keras takes."""
    for option, by in (("clipvalue", "value"), ("clipnorm", "norm"), ("global_clipnorm", "global norm")):
        if getattr(optimizer, option):
            rule = optimizers.Clipped(rule, getattr(optimizer, option), by)
    if optimizer.weight_decay and not isinstance(core_of(rule), optimizers.AdamW):
        rule = optimizers.Decayed(rule, optimizer.weight_decay, into="weights")
    if steps := optimizer.gradient_accumulation_steps:
        if clips_by_norm(rule) or callable(rule.learning_rate):
            return None  # the mean is clipped, and the schedule called with the number of gradients
        rule = optimizers.Accumulated(rule, steps)
    return rule


def _sgd(o: Any) -> Rule | None:
    return _around(o, _momentum(_rate(o), o.momentum, bool(o.nesterov), "velocity"))


def _adagrad(o: Any) -> Rule | None:
    return _around(o, optimizers.Adagrad(_rate(o), o.initial_accumulator_value, o.epsilon, epsilon_in="root"))


def _rmsprop(o: Any) -> Rule | None:
    return _around(o, optimizers.RMSProp(_rate(o), o.rho, o.momentum, o.epsilon, centered=o.centered))


def _adam(o: Any) -> Rule | None:
    return _around(o, optimizers.Adam(_rate(o), o.beta_1, o.beta_2, o.epsilon, amsgrad=o.amsgrad))


def _adamw(o: Any) -> Rule | None:
    if not o.weight_decay:
        return _adam(o)
    numbers = (_rate(o), o.beta_1, o.beta_2, o.epsilon)
    return _around(o, optimizers.AdamW(*numbers, amsgrad=o.amsgrad, weight_decay=o.weight_decay))


def _number(held: Any) -> float:
    return number_of(held() if callable(held) else held)


def _v1_adam(o: Any) -> Rule:
    return optimizers.Adam(_number(o._lr), _number(o._beta1), _number(o._beta2), _number(o._epsilon))


def _v1_rmsprop(o: Any) -> Rule:
    numbers = (_number(x) for x in (o._learning_rate, o._decay, o._momentum, o._epsilon))
    return optimizers.RMSProp(*numbers, initial_accumulator_value=1.0, centered=o._centered)


_KNOWN: dict[type, Any] = {
    _keras.SGD: _sgd,
    _keras.Adagrad: _adagrad,
    _keras.RMSprop: _rmsprop,
    _keras.Adam: _adam,
    _keras.AdamW: _adamw,
    _v1.GradientDescentOptimizer: lambda o: optimizers.GradientDescent(_number(o._learning_rate)),
    _v1.MomentumOptimizer: lambda o: _momentum(
        _number(o._learning_rate), _number(o._momentum), bool(o._use_nesterov), "update"
    ),
    _v1.AdagradOptimizer: lambda o: optimizers.Adagrad(
        _number(o._learning_rate), o._initial_accumulator_value, epsilon=0.0
    ),
    _v1.RMSPropOptimizer: _v1_rmsprop,
    _v1.AdamOptimizer: _v1_adam,
}
