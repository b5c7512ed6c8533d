"""What loud noise is: a function's own grain, or a feature too fine for the step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradcheck._numerics.estimates import Estimates

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

_SAME = 4.0  # measured from nine samples, one and the same noise varies up to this factor
_SCALING = 0.75  # noise of a kink grows as the step; a little slower must do where it moves about in the window
_FAR = 2.0**13
_WIDE, _WIDEST = 8.0, 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What to make of one window; every field of shape [n]."""

    loud: Bools  # noise far above rounding, and not explained so far
    hidden: Floats  # noise that the samples may hide, because they hold still on the steps of a staircase
    doubted: Bools  # quiet, but so is a staircase seen too closely
    stuck: Bools  # a staircase, as far as can be seen
    look: Floats  # step at which to look next to tell noise from features; 0 if there is nothing to tell


def _stuck(samples: Floats) -> Bools:
    """Where half of the neighbours are equal, on either side: a staircase seen too closely, or a flat spot."""
    equal = samples[1:] == samples[:-1]
    both: Bools = (equal[:4].sum(axis=0) >= 2) & (equal[4:].sum(axis=0) >= 2)
    return both


class Listener:
    """Noise heard so far at each open problem.

    A function has a grain where an intermediate result far larger than the result was rounded. It is the same at
    all steps, until at small ones the function is seen to be a staircase: constant, or with a jump, or climbing by
    equal stairs. Kinks and unresolved oscillations are loud too, but at small steps they leave a function that moves
    smoothly by less than the noise that was heard, which no staircase does.
    """

    def __init__(self, size: int, least: float, loudest: Floats) -> None:
        self.least = least  # no step below this one
        self.loudest = loudest  # no grain is louder than this: what is, is a feature
        self.grain = np.zeros(size)
        self.hum = np.zeros(size)  # noise no louder than rounding may be
        self.noise, self.step = np.zeros(size), np.full(size, np.inf)  # loud noise at the smallest step
        self.shaped = np.zeros(size, np.bool_)  # at that step it looked like a jump or a kink at the point
        self.widest = np.zeros(size)  # largest step with loud noise
        self.scalings = np.zeros(size, np.int64)  # how often loud noise changed with the step, as no noise does
        self.believed = np.zeros(size, np.bool_)  # the loud noise was none: features, resolved by now
        self.awaited = np.zeros(size)  # a look at a step as small as this, which will tell, was asked for

    @property
    def known(self) -> Floats:
        """Noise to reckon with whatever the next samples show."""
        return np.maximum(self.grain, self.hum)

    def listen(self, at: Integers, found: Estimates, samples: Floats, step: Floats, singular: Bools) -> Heard:
        """Take in one window [9, n] for the problems at these positions [n]."""
        before, noise, measured, finite = self.step[at], self.noise[at], found.measured, found.finite
        shaped = singular & (self.shaped[at] | ~np.isfinite(before))
        stuck = _stuck(samples) & finite & ~shaped
        loud = found.loud & finite
        heard = np.isfinite(before) & (step != before)
        low, high = np.minimum(measured, noise), np.maximum(measured, noise)
        same = heard & found.settled & finite & ~shaped & (high <= _SAME * low)
        apart = np.maximum(step, before) / np.minimum(step, before)
        certain = (same & (apart >= _FAR / 2)) | ((step <= self.awaited[at]) & (stuck | (same & loud)))
        certain &= high <= self.loudest[at]
        to = at[certain]
        self.grain[to] = np.where(stuck, noise, high)[certain]
        self.believed[at] |= loud & (measured > self.loudest[at])
        self.believed[to] = False
        quiet = heard & finite & ~loud & (step < before)
        moves = np.abs(found.value) * step
        self.believed[at] |= quiet & ~stuck & (moves < noise) & (moves > 8 * found.noise)
        louder_wide = (measured > noise) == (step > before)
        changed = heard & loud & found.settled & ~stuck & ~certain & louder_wide
        changed &= high > np.maximum(_SAME, apart**_SCALING) * low
        self.scalings[at] += changed
        # Louder the wider the step: a kink at the point, a dead zone beside one, or the same thing twice over.
        self.believed[at] |= changed & (shaped | (step > before) | (self.scalings[at] >= 2))
        open_question = ~self.believed[at] & (self.grain[at] == 0)
        doubted = open_question & (quiet | (stuck & (heard | loud)))
        look = self._look(at, step, moves, stuck, same & open_question, doubted)
        self._remember(at, found, step, loud, stuck, singular)
        explained = self.grain[at] > 0
        return Heard(
            loud=(loud & ~(explained & (measured <= _SAME * self.grain[at]))) | doubted,
            hidden=np.where(certain, self.grain[at], 0.0),
            doubted=doubted & (self.grain[at] == 0),
            stuck=stuck,
            look=look,
        )

    def _look(self, at: Integers, step: Floats, moves: Floats, stuck: Bools, same: Bools, doubted: Bools) -> Floats:
        before = self.step[at]
        wide = _WIDE * np.maximum(self.widest[at], step)
        wide = np.where(wide <= _WIDEST, wide, 0.0)
        telling = step * np.exp2(np.floor(np.log2(np.minimum(self.noise[at] / (16 * moves), 0.25))))
        look = np.where(same, np.minimum(np.minimum(step, before) / _FAR, telling), 0.0)
        look = np.where(doubted, np.where(stuck | ~np.isfinite(before), wide, telling), look)
        look = np.where((look > 0) & (look < self.least), self.least, look)
        look = np.where(look == step, 0.0, look)
        self.awaited[at] = np.where(look < step, look, 0.0)
        return look

    def _remember(
        self, at: Integers, found: Estimates, step: Floats, loud: Bools, stuck: Bools, singular: Bools
    ) -> None:
        humming = found.settled & found.finite & ~loud & ~stuck
        self.hum[at] = np.where(humming, np.maximum(self.hum[at], found.measured), self.hum[at])
        note = loud & found.settled & (step < self.step[at])
        self.noise[at[note]], self.step[at[note]] = found.measured[note], step[note]
        self.shaped[at[note]] = singular[note]
        self.widest[at] = np.where(loud & found.settled, np.maximum(self.widest[at], step), self.widest[at])
