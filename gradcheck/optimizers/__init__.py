"""Update rules of optimizers as pure functions, what is done around them, and a way of feeding.

A rule holds hyperparameters and no state: `init(params)` gives the first state, `step(params, grads, state)` the next
params and state. Each rule's docstring has its formula, and what TensorFlow's and Keras' own do otherwise.
"""

from __future__ import annotations

from gradcheck.optimizers._accumulated import Accumulated
from gradcheck.optimizers._adagrad import Adagrad
from gradcheck.optimizers._adam import Adam, AdamW
from gradcheck.optimizers._amplified import Amplified
from gradcheck.optimizers._clipped import Clipped
from gradcheck.optimizers._decayed import Decayed
from gradcheck.optimizers._gradient_descent import GradientDescent
from gradcheck.optimizers._minibatches import minibatches
from gradcheck.optimizers._miscounted import Miscounted
from gradcheck.optimizers._momentum import Momentum
from gradcheck.optimizers._rmsprop import RMSProp
from gradcheck.optimizers._schedules import ExponentialDecay, InverseTimeDecay, Scaled
from gradcheck.optimizers._stale import Stale
from gradcheck.optimizers._started import Started
from gradcheck.optimizers._two_assignments import TwoAssignments

__all__ = [
    "Accumulated",
    "Adagrad",
    "Adam",
    "AdamW",
    "Amplified",
    "Clipped",
    "Decayed",
    "ExponentialDecay",
    "GradientDescent",
    "InverseTimeDecay",
    "Miscounted",
    "Momentum",
    "RMSProp",
    "Scaled",
    "Stale",
    "Started",
    "TwoAssignments",
    "minibatches",
]
