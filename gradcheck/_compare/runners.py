"""Anything that updates weights, run a step at a time on copies of the variables in a dtype of choice."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from gradcheck._compare import foreign
from gradcheck._compare.widened import is_wide, widened
from gradcheck._graph.quiet import errors_only
from gradcheck.optimizers._rule import Rule

_v1 = tf.compat.v1.train


class Runner(Protocol):
    """An optimizer on its own copies of the variables."""

    def step(self, grads: Sequence[Any]) -> list[Any]:
        """The weights after a step, as NumPy arrays in their own dtype."""


def name_of(optimizer: Any) -> str:
    """What to call an optimizer in a report."""
    if isinstance(optimizer, Rule):
        return repr(optimizer)
    name = getattr(optimizer, "__name__", None)
    return name if isinstance(name, str) else type(optimizer).__name__


def require_optimizer(what: str, optimizer: Any) -> None:
    """Refuse what is no optimizer, before anything runs."""
    if isinstance(optimizer, type):
        raise TypeError(f"{what} must be an optimizer, not a class of them: write {optimizer.__name__}(...)")
    if not (foreign.is_foreign(optimizer) or _has_contract(optimizer) or callable(optimizer)):
        raise TypeError(
            f"{what} must be a Keras 3 optimizer, one of tf.compat.v1.train, a rule of gradcheck.optimizers, or a "
            f"callable of (params, grads, state) that gives (params, state); got {type(optimizer).__name__}"
        )
    if not (foreign.is_foreign(optimizer) or isinstance(optimizer, Rule)):
        _require_arguments(what, optimizer)


def _require_arguments(what: str, optimizer: Any) -> None:
    try:
        signature = inspect.signature(optimizer.step if _has_contract(optimizer) else optimizer)
    except ValueError:  # some callables do not tell what they take
        return
    try:
        signature.bind([], [], None)
    except TypeError as error:
        raise TypeError(
            f"{what} must take (params, grads, state), where state is None at first, and give (params, state); "
            f"{name_of(optimizer)} takes {signature}"
        ) from error


def start(optimizer: Any, variables: Sequence[Any], dtypes: Sequence[Any], *, wide: bool = False) -> Runner:
    """The optimizer on copies of the variables in the given dtypes, from the state that it is in.

    With `wide`, hyperparameters are in float64 where that can be had.
    """
    if foreign.is_foreign(optimizer):
        return _Foreign(optimizer, variables, dtypes, wide)
    params = [tf.cast(foreign.value_of(v), dtype) for v, dtype in zip(variables, dtypes, strict=True)]
    return _Pure(optimizer, params)


def is_exact(optimizer: Any) -> bool:
    """Whether what a `wide` run computes with is in float64: a rule, or of a library, whose learning rate is."""
    if foreign.is_foreign(optimizer):
        return is_wide(widened(foreign.rate_of(optimizer)))
    return isinstance(optimizer, Rule) and is_wide(widened(optimizer.learning_rate))


def _has_contract(optimizer: Any) -> bool:
    return callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "step", None))


class _Pure:
    """A rule, or a callable with a rule's contract."""

    def __init__(self, rule: Any, params: list[Any]) -> None:
        self._name = name_of(rule)
        self._params = params
        self._call: Callable[..., Any] = rule.step if _has_contract(rule) else rule
        if isinstance(rule, Rule):
            self._call = tf.function(rule.step)  # a rule of ours is pure: tracing it changes nothing
        self._state = rule.init(params) if _has_contract(rule) else None

    def step(self, grads: Sequence[Any]) -> list[Any]:
        with errors_only():  # TensorFlow warns of tracing many rules
            result = self._call(list(self._params), list(grads), self._state)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"{self._name} must give (params, state); got {type(result).__name__}")
        params, self._state = result
        leaves = list(params.values()) if isinstance(params, Mapping) else params
        self._params = self._checked(leaves)
        return [param.numpy() for param in self._params]

    def _checked(self, leaves: Any) -> list[Any]:
        if not isinstance(leaves, (list, tuple)) or len(leaves) != len(self._params):
            found = len(leaves) if isinstance(leaves, (list, tuple)) else type(leaves).__name__
            raise ValueError(f"{self._name} must give a list of {len(self._params)} params, as it gets; got {found}")
        tensors = [tf.convert_to_tensor(leaf) for leaf in leaves]
        for i, (new, old) in enumerate(zip(tensors, self._params, strict=True)):
            if new.shape != old.shape or new.dtype != old.dtype:
                raise ValueError(
                    f"{self._name} must give params[{i}] of shape {old.shape} and dtype {old.dtype.name}, as it gets; "
                    f"got shape {new.shape} and dtype {new.dtype.name}"
                )
        return tensors


class _Foreign:
    """A copy of an optimizer of Keras or of TensorFlow's `train`."""

    def __init__(self, optimizer: Any, variables: Sequence[Any], dtypes: Sequence[Any], wide: bool) -> None:
        self._optimizer, self._variables = foreign.copied(optimizer, variables, dtypes, wide=wide)
        self._plain: dict[str, Any] | None = None

    def step(self, grads: Sequence[Any]) -> list[Any]:
        with errors_only(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Gradients do not exist")  # for some: that is the loss' affair
            scaled = foreign.of_scaled_loss(self._optimizer, grads)
            self._optimizer.apply_gradients(list(zip(scaled, self._variables, strict=True)))
        self._refuse_other_state()
        return [foreign.value_of(v).numpy() for v in self._variables]

    def _refuse_other_state(self) -> None:
        """Numbers among the attributes that change from one step to the next are state that nobody can restore."""
        plain = foreign.plain_attributes(self._optimizer)
        for name, value in (self._plain or {}).items():
            if not foreign.same(value, plain.get(name, value)):
                raise ValueError(
                    f"{type(self._optimizer).__name__} keeps state outside its variables: a step changed its attribute "
                    f"{name!r}; hold it in a variable made by add_variable, so that it can be restored"
                )
        self._plain = plain
