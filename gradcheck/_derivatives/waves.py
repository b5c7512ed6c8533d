"""Derivatives of functions that swing in time with the samples, found out and measured again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradcheck._derivatives.point import Reals
from gradcheck._numerics.intervals import Derivatives, differentiate
from gradcheck._numerics.search import DETUNED

_NEAR = 0.77 * 2.0**-12  # of the first step: how far apart two points are that no wave slips between


def unmasked(sample: Callable[..., Reals], found: Derivatives, first: Any, options: dict[str, Any]) -> Derivatives:
    """The derivatives, those of functions that swing in time with the samples measured again.

    Nine samples of a fast wave can look like a slow one. The first step rarely falls for it, and does not settle then;
    so what took more than the first step is held against a pair of points much closer together.
    """
    begun = np.broadcast_to(np.asarray(first, np.float64), (found.value.shape[0],))
    near = begun * _NEAR
    later = np.abs(found.step / begun[:, None] - DETUNED) > 1e-6
    doubted = np.flatnonzero((later & (found.step > 16 * near[:, None])).any(axis=1))
    if not doubted.size:
        return found
    steps = near[doubted]
    pair = sample(doubted, steps, (-1, 1))
    with np.errstate(all="ignore"):
        slope = (pair[1] - pair[0]) / (2 * steps[:, None])
        far = np.abs(slope - found.value[doubted]) > (
            10 * found.error[doubted] + 20 * found.noise[doubted] / steps[:, None] + 1e-2 * np.abs(found.value[doubted])
        )
    masked = np.zeros(found.value.shape, bool)
    masked[doubted] = far & ~found.kink[doubted] & later[doubted] & (found.step[doubted] > 16 * steps[:, None])
    return _resolved(sample, found, masked, near, options) if masked.any() else found


def _resolved(
    sample: Callable[..., Reals], found: Derivatives, masked: NDArray[np.bool_], near: Reals, options: dict[str, Any]
) -> Derivatives:
    """The derivatives with masked ones measured again, beginning close to the point."""
    groups = np.flatnonzero(masked.any(axis=1))
    closer = differentiate(
        lambda index, steps, grid: sample(groups[index], steps, grid),
        len(groups),
        step=near[groups],
        eps=options["eps"],
        target=np.broadcast_to(options["target"], masked.shape)[groups],
        argument_noise=np.broadcast_to(options["argument_noise"], masked.shape)[groups],
        loudest=np.broadcast_to(options["loudest"], masked.shape)[groups],
    )
    merged = {}
    for name in found.__slots__:
        if name == "evaluations":
            continue
        array = np.array(getattr(found, name))
        array[groups] = np.where(masked[groups], getattr(closer, name), array[groups])
        merged[name] = array
    return Derivatives(**merged, evaluations=found.evaluations + closer.evaluations)
