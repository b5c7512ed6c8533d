"""The search for the step at which a derivative is known best."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gradcheck._numerics.estimates import ROUNDING, Estimates, estimate
from gradcheck._numerics.listening import Heard, Listener
from gradcheck._numerics.records import AGREE, Records, choose
from gradcheck._numerics.smoothness import Shape, one_sided, shape_at_edge, shape_at_point
from gradcheck._numerics.stencils import NINE

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

# Roundings on a lattice of powers of two may all go the same way and hide. Ten bits keep the steps exact all the same.
DETUNED = 673 / 512
LARGEST_STEP = 1009 / 4096
TRUSTED_STEP = 2.0**-4.5  # a first estimate at a larger step may be an alias of something faster: look closer
_NEAR = 8.0  # how much closer to look first
_ACROSS = 2.0**12  # from a kink in the window to where only a kink at the point itself is still in it
_GROWTH = 8.0
_PERSISTENT = 32.0  # a kink at the point is seen at steps this far apart; one nearby only while the window holds it
_SIDE_NORM = 5.7  # 2-norm of the one-sided weights of order 4, larger than those of lower orders
_SIDE_BETTER = 0.25
_PLAIN = 8.0


def smallest_step(eps: float) -> float:
    """The step below which rounding leaves too little of a derivative to be of use."""
    return float(DETUNED * 2.0 ** np.rint(np.log2(eps) * 2 / 3))


class Search:
    """Open problems, what is known of each, and where to look next.

    A step is *good* where rounding outweighs truncation, *bad* where truncation, unexplained noise, a kink or a
    non-finite sample spoils it. The best step lies between the largest good and the smallest bad one.
    """

    def __init__(
        self,
        *,
        group: Integers,
        channel: Integers,
        target: Floats,
        argument_noise: Floats,
        eps: float,
        grid: tuple[int, ...],
        loudest: Floats,
    ) -> None:
        size = group.size
        self.group, self.channel, self.target, self.argument_noise = group, channel, target, argument_noise
        self.eps, self.grid = eps, grid
        self.want = np.zeros(size)  # the next step; 0 once there is nothing left to look for
        self.lowest = np.full(size, np.inf)  # smallest step seen
        self.good, self.bad, self.wall = np.zeros(size), np.full(size, np.inf), np.full(size, np.inf)
        self.closer, self.look = np.zeros(size), np.zeros(size)  # where to go if no step is good; before all others
        self.listener = Listener(size, smallest_step(eps), loudest)
        self.quiet, self.noisy = Records.unknown(size), Records.unknown(size)
        self.left, self.right = Records.unknown(size), Records.unknown(size)
        self.firm = np.zeros(size, np.bool_)  # nothing speaks against the quiet record
        self.doubt = np.zeros(size)  # its distance to what speaks against it
        self.grainy = np.zeros(size, np.bool_)  # the listener explained the noise as the function's grain
        self.singular_step, self.singular_gap = np.full(size, np.inf), np.zeros(size)
        self.singular_widest = np.zeros(size)
        self.jump, self.vertical = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
        self.left_finite, self.right_finite = np.zeros(size, np.bool_), np.zeros(size, np.bool_)

    @property
    def _trusts_quiet(self) -> Bools:
        # Noise that was heard only at wider steps, on the way out, does not speak against what was quiet before.
        unheard = ~np.isfinite(self.listener.step) | (self.firm & (self.quiet.step < self.listener.step))
        trusts: Bools = (self.listener.believed | unheard) & ~self.grainy & np.isfinite(self.quiet.error)
        return trusts

    @property
    def best(self) -> Records:
        """The intervals to go by, their errors as they must be stated."""
        chosen = choose(self._trusts_quiet, self.quiet, self.noisy)
        chosen.error = np.where(self._trusts_quiet, np.maximum(chosen.error, self.doubt), chosen.error)
        return chosen

    @property
    def satisfied(self) -> Bools:
        """Error within target, and nothing left to confirm; noise needs no explanation where it does no harm."""
        best = self.best
        sure = np.where(self._trusts_quiet, self.firm, self.grainy | (best.step <= TRUSTED_STEP))
        return (best.error <= self.target) & sure

    @property
    def _persists(self) -> Bools:
        return self.singular_widest >= _PERSISTENT * self.singular_step

    @property
    def kink(self) -> Bools:
        """A kink, jump or vertical slope seen at several steps, and not left behind at smaller ones."""
        behind = self._trusts_quiet & self.firm & (self.quiet.step < self.singular_step)
        return self._persists & ~(behind & (8 * self.best.error < self.singular_gap)) & ~self.grainy

    def offer(self, at: Integers, samples: Floats, step: Floats) -> None:
        """Learn from samples [9, n] at these steps [n] about the problems at these positions [n], each only once."""
        known = self.listener.known[at]
        found = estimate(samples, step, self.grid, eps=self.eps, argument_noise=self.argument_noise[at], grain=known)
        with np.errstate(all="ignore"):
            noise = np.maximum(found.floor, known)
            shape = (shape_at_point if self.grid == NINE else shape_at_edge)(samples, noise)
            singular = shape.singular & found.finite
            heard = self.listener.listen(at, found, samples, step, singular)
            singular &= ~heard.stuck
            self._aim(at, found, step, heard, singular)
            self._merge(at, found, step, heard)
            self._bracket(at, found, step, heard)
            self._note_shape(at, shape, singular, step)
            if self.grid == NINE:
                sides = one_sided(samples, step, noise, jump=shape.jump)
                fourth = np.full(at.size, 4)
                self.left.merge(at, sides.left, sides.left_error, step, noise, fourth)
                self.right.merge(at, sides.right, sides.right_error, step, noise, fourth)
                self.left_finite[at] = np.isfinite(samples[:5]).all(axis=0)
                self.right_finite[at] = np.isfinite(samples[4:]).all(axis=0)
        self.lowest[at] = np.minimum(self.lowest[at], step)

    def _aim(self, at: Integers, found: Estimates, step: Floats, heard: Heard, singular: Bools) -> None:
        # Truncation of order p and rounding meet where h^(p+1) shrinks by their ratio.
        rounding = np.maximum(found.floor, self.listener.known[at]) / step
        bits = np.rint(np.log2(found.truncation / rounding) / (found.order + 1))
        factor = np.exp2(np.clip(np.nan_to_num(bits, nan=2.0), 2, 8))
        again = np.isfinite(self.lowest[at])
        factor = np.where(heard.loud & found.settled, np.where(again, 2 * _NEAR, _NEAR), factor)
        factor = np.where(singular & again, _ACROSS, factor)
        factor = np.where(found.finite, factor, np.where(again, 256.0, 16.0))
        self.closer[at] = np.where(step < self.lowest[at], step / factor, self.closer[at])
        self.look[at] = heard.look

    def _merge(self, at: Integers, found: Estimates, step: Floats, heard: Heard) -> None:
        error = np.where(found.finite, found.error + ROUNDING * heard.hidden / step, np.inf)
        grainy = self.listener.grain[at] > 0
        noisy = grainy | (found.loud & found.settled)
        self.noisy.merge(at, found.value, np.where(noisy, error, np.inf), step, found.noise, found.order)
        against = np.abs(found.value - self.noisy.value[at]) > AGREE * (error + self.noisy.error[at])
        new = ~np.isfinite(self.quiet.error[at])
        old_step, old_value = self.quiet.step[at], self.quiet.value[at]
        take, clash = self.quiet.merge(at, found.value, np.where(noisy, np.inf, error), step, found.noise, found.order)
        calm = found.finite & ~noisy & ~heard.loud
        agrees = calm & ~new & ~clash & (step != old_step) & (np.minimum(step, old_step) <= TRUSTED_STEP)
        first = calm & new & (step <= TRUSTED_STEP) & ~against
        self.firm[at] = ((self.firm[at] & ~(clash & take)) | agrees | first) & ~(clash & take & ~first)
        gap = np.abs(found.value - old_value)
        self.doubt[at] = np.where(clash & take, gap, np.where(agrees, 0.0, self.doubt[at]))
        disproved = np.where(take, old_step, step)
        self.bad[at] = np.where(clash, np.minimum(self.bad[at], disproved), self.bad[at])

    def _bracket(self, at: Integers, found: Estimates, step: Floats, heard: Heard) -> None:
        fresh = (self.listener.grain[at] > 0) & ~self.grainy[at]
        self.grainy[at] |= fresh
        self.bad[at] = np.where(fresh, self.wall[at], self.bad[at])
        self.good[at] = np.where(fresh, self.listener.widest[at], self.good[at])
        bad = ~found.finite | (heard.loud & ~self.grainy[at]) | (found.truncation > found.rounding)
        self.bad[at] = np.where(bad & ~heard.doubted & ~fresh, np.minimum(self.bad[at], step), self.bad[at])
        self.wall[at] = np.where(found.finite, self.wall[at], np.minimum(self.wall[at], step))
        # What was doubted while noise was unexplained counts from the moment it is believed.
        believed = self.listener.believed[at] & np.isfinite(self.quiet.error[at])
        reach = np.where(believed, self.quiet.step[at], 0.0)
        good = np.maximum(np.where(self.good[at] < self.bad[at], self.good[at], 0.0), reach * (reach < self.bad[at]))
        usable = ~bad & ~heard.doubted & (step < self.bad[at])
        self.good[at] = np.where(usable, np.maximum(good, step), good)

    def _note_shape(self, at: Integers, shape: Shape, singular: Bools, step: Floats) -> None:
        self.singular_widest[at] = np.where(
            singular, np.maximum(self.singular_widest[at], step), self.singular_widest[at]
        )
        nearer = singular & (step < self.singular_step[at])
        to = at[nearer]
        self.singular_step[to], self.singular_gap[to] = step[nearer], (shape.bend / step)[nearer]
        self.jump[to], self.vertical[to] = shape.jump[nearer], shape.vertical[nearer]

    def plan(self) -> None:
        """Set the next step of every problem, 0 where there is nothing left to look for."""
        least = smallest_step(self.eps)
        best = self.best
        limit = np.where(np.isfinite(best.error), least, 16 * self.eps)
        closer = np.maximum(np.where(self.good > 0, self.lowest / _NEAR, self.closer), limit)
        closer = np.where(closer < self.lowest, closer, 0.0)
        with np.errstate(all="ignore"):
            bits = np.nan_to_num(np.floor(np.log2(self.bad / self.good)), posinf=0.0)
            between = np.where(bits >= 3, self.good * np.exp2(bits // 2), 0.0)
        wider = np.minimum(self.good * _GROWTH, LARGEST_STEP)
        wider = np.where(wider > self.good, wider, 0.0)
        outward = np.where(np.isinf(self.bad), wider, between)
        sure = self.firm | self.grainy
        want = np.where((self.good > 0) & (sure | (closer == 0)), outward, closer)
        want = np.where(self.look >= limit, self.look, want)
        at_point = self._persists & (self.singular_step <= 4 * least)
        still = (self.want > 0) & ~self.satisfied & ~at_point
        self.want = np.where(still, want, 0.0)
        self._adopt_sides(best)

    def _adopt_sides(self, best: Records) -> None:
        """Where a kink or an edge is near, but not at the point, take the wider window that ends before it."""
        near = self._trusts_quiet & self.firm & ~self.kink & (self.want > 0)
        near &= np.isfinite(self.listener.step) | np.isfinite(self.wall)
        # Rounding as heard at the point itself: at the side's own step the kink drowned it.
        errors = [side.error + ROUNDING * _SIDE_NORM * best.noise / side.step for side in (self.left, self.right)]
        fits = [
            np.abs(side.value - best.value) <= AGREE * (error + best.error)
            for side, error in zip((self.left, self.right), errors, strict=True)
        ]
        # A kink leaves one side clean, and the other must be plainly wrong: else the wrong one might be taken.
        edge = np.isfinite(self.wall)
        apart = np.abs(self.left.value - self.right.value) > _PLAIN * (best.error + errors[0] + errors[1])
        for side, error, fit, other in zip((self.left, self.right), errors, fits, reversed(fits), strict=True):
            use = near & fit & (edge | (apart & ~other)) & (error < _SIDE_BETTER * self.quiet.error)
            at = np.flatnonzero(use)
            self.quiet.merge(at, side.value[at], error[at], side.step[at], best.noise[at], side.order[at])
            self.want[at], self.doubt[at] = 0.0, 0.0
