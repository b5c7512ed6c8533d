"""Copies of optimizers of Keras and of TensorFlow's `train`, with variables of their own.

The copy has the class and the attributes of the original, so that what a subclass adds is there as well. Nothing of
the original is written to. Private attributes that are relied on: of Keras `_trainable_variables_indices`, `_var_key`,
`_learning_rate` and `_iterations`; of `train.Optimizer` `_slots` and `_non_slot_dict`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.training import optimizer as v1_optimizer

from gradcheck._compare.deviations import number_of
from gradcheck._compare.widened import widened
from gradcheck._graph.structure import variable_of

_KEPT = ("_iterations", "_learning_rate_tensor", "_trainable_variables_indices")
_NUMBERS = (bool, int, float, str, np.ndarray, np.generic, tf.__internal__.EagerTensor)


def is_foreign(optimizer: Any) -> bool:
    """Whether the optimizer is one of Keras 3 or of `tf.compat.v1.train`."""
    return isinstance(optimizer, (keras.optimizers.Optimizer, tf.compat.v1.train.Optimizer))


def value_of(variable: Any) -> Any:
    """The value of a variable of TensorFlow or Keras, as a tensor."""
    return tf.convert_to_tensor(variable_of(variable))


def copied(
    optimizer: Any, variables: Sequence[Any], dtypes: Sequence[Any], *, wide: bool = False
) -> tuple[Any, list[Any]]:
    """A copy of the optimizer in the state that it is in, and copies of the variables, both in the given dtypes.

    With `wide`, hyperparameters are in float64, as they were written.
    """
    memo: dict[int, Any] = {}
    copies = [_variable(v, dtype, memo) for v, dtype in zip(variables, dtypes, strict=True)]
    if isinstance(optimizer, tf.compat.v1.train.Optimizer):
        new = _copied_v1(optimizer, variables, copies, memo, wide=wide)
    else:
        new = _copied_keras(optimizer, variables, copies, memo, wide=wide)
    if wide:
        for name, value in vars(new).items():
            if not _bookkeeping(name) and name not in _KEPT:
                new.__dict__[name] = widened(value)
    return new, copies


def of_scaled_loss(optimizer: Any, grads: Sequence[Any]) -> list[Any]:
    """The gradients that an optimizer which scales the loss is to get: those of the loss that it has scaled."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return list(grads)
    factor = float(optimizer.scale_loss(tf.ones([])))
    return list(grads) if factor == 1 else [_times(g, factor) for g in grads]


def _times(gradient: Any, factor: float) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(_times(gradient.values, factor), gradient.indices, gradient.dense_shape)
    return None if gradient is None else gradient * tf.cast(factor, gradient.dtype)


def rate_of(optimizer: Any) -> Any:
    """The learning rate, a number, tensor or schedule; None where it is called otherwise."""
    return getattr(optimizer, "_learning_rate", getattr(optimizer, "_lr", None))


def key_of(variable: Any) -> Any:
    """What an optimizer of `train` finds the slots of a variable by."""
    return v1_optimizer._var_key(variable)


def taken_steps(optimizer: Any) -> int:
    """How many steps the optimizer has made before, as far as it counts them."""
    return int(optimizer.iterations) if isinstance(optimizer, keras.optimizers.Optimizer) else 0


def plain_attributes(optimizer: Any) -> dict[str, Any]:
    """Copies of the attributes that are numbers, strings, arrays or containers of them."""
    return {name: copy.deepcopy(v) for name, v in vars(optimizer).items() if not _bookkeeping(name) and _is_plain(v)}


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal, NaN being itself."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, str) or isinstance(other, str) or one is None or other is None:
        return bool(one == other)
    return bool(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=np.asarray(one).dtype.kind == "f"))


def _bookkeeping(name: str) -> bool:
    return name.startswith("_self_")  # TensorFlow's own, for checkpoints


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, _NUMBERS)


def _variable(variable: Any, dtype: Any, memo: dict[int, Any]) -> Any:
    """A copy in a dtype; a deep copy of what refers to the variable then refers to the copy."""
    inner, value = variable_of(variable), tf.cast(value_of(variable), dtype)
    if inner is variable:
        new = tf.Variable(value, name=variable.name.partition(":")[0], trainable=variable.trainable)
    else:
        new = keras.Variable(value, dtype=tf.as_dtype(dtype).name, name=variable.name, trainable=variable.trainable)
        new.overwrite_with_gradient = variable.overwrite_with_gradient
        new.constraint = variable.constraint
        memo[id(inner)] = new.value
    memo[id(variable)] = new
    return new


def _copied_keras(
    optimizer: Any, variables: Sequence[Any], copies: Sequence[Any], memo: dict[int, Any], *, wide: bool
) -> Any:  # fmt: skip
    old, new_dtype = variables[0].dtype, copies[0].dtype
    numbers = [id(optimizer._iterations), id(optimizer._learning_rate)]
    for slot in optimizer.variables:
        floating = tf.as_dtype(slot.dtype).is_floating and id(slot) not in numbers
        _variable(slot, new_dtype if floating and slot.dtype == old else slot.dtype, memo)
        if wide and slot is optimizer._learning_rate:
            _variable(slot, tf.float64, memo).assign(number_of(slot))
    new = _deep_copy(optimizer, memo)
    if optimizer.built:
        every = new._trainable_variables
        object.__setattr__(new, "_trainable_variables_indices", {new._var_key(v): i for i, v in enumerate(every)})
    return new


def _copied_v1(
    optimizer: Any, variables: Sequence[Any], copies: Sequence[Any], memo: dict[int, Any], *, wide: bool
) -> Any:
    new_key = {key_of(old): (key_of(new), new) for old, new in zip(variables, copies, strict=True)}
    for slots in optimizer._slots.values():
        for old_key, slot in slots.items():
            _variable(slot, new_key[old_key][1].dtype if old_key in new_key else slot.dtype, memo)
    for number in optimizer._non_slot_dict.values():
        # They go with hyperparameters, which are float32 tensors.
        new = _variable(number, tf.float64 if wide else number.dtype, memo)
        if wide:
            new.assign(number_of(number))
    new = _deep_copy(optimizer, memo)
    new._slots = {
        name: {new_key[k][0] if k in new_key else k: slot for k, slot in slots.items()}
        for name, slots in new._slots.items()
    }
    return new


def _deep_copy(optimizer: Any, memo: dict[int, Any]) -> Any:
    """Attribute by attribute: Keras' own way of copying goes by the config, which a subclass need not have."""
    new = object.__new__(type(optimizer))
    memo[id(optimizer)] = new
    for name, value in vars(optimizer).items():
        try:
            new.__dict__[name] = copy.deepcopy(value, memo)
        except Exception:  # what cannot be copied, such as a distribution strategy, is shared
            new.__dict__[name] = value
    return new
