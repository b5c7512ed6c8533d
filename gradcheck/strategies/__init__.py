"""Strategies for hypothesis: inputs for functions that have gradients, and programs that have them.

Values are multiples of a power of two, and print short; they shrink to zeros, small shapes and float64. Arguments are
looked at when a test draws. Importing this module registers the hypothesis profile "gradcheck", which has no deadline
and no check of slow data, for TensorFlow's first call is slow: `hypothesis.settings.load_profile("gradcheck")`.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from gradcheck.strategies._programs import Program, programs
from gradcheck.strategies._special import distinct, indices, orthogonal, positive_definite, probabilities, ragged
from gradcheck.strategies._values import (
    at_kinks,
    away_from_kinks,
    broadcastable,
    cotangents,
    dtypes,
    shapes,
    tensors,
    variables,
)

__all__ = [
    "Program",
    "at_kinks",
    "away_from_kinks",
    "broadcastable",
    "cotangents",
    "distinct",
    "dtypes",
    "indices",
    "orthogonal",
    "positive_definite",
    "probabilities",
    "programs",
    "ragged",
    "shapes",
    "tensors",
    "variables",
]

settings.register_profile("gradcheck", deadline=None, suppress_health_check=[HealthCheck.too_slow])
