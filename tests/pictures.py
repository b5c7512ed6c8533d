"""The pictures of docs/numerics.md, drawn from runs of the code that they are about.

`python -m tests.pictures` writes them anew, in docs/images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradcheck._numerics.estimates import estimate
from gradcheck._numerics.intervals import differentiate
from gradcheck._numerics.noise import ecnoise
from gradcheck._numerics.stencils import NINE, ORDERS, ladder, weight_matrix

IMAGES = Path(__file__).parents[1] / "docs" / "images"
Floats = npt.NDArray[np.float64]
Dtype = type[np.float64] | type[np.float32]

POINT = 0.7
SLOPE = float(3 * np.cos(3 * POINT) * np.exp(np.sin(3 * POINT)))
EPS: dict[Dtype, float] = {np.float64: 2.0**-52, np.float32: 2.0**-23}


def wave(t: Floats, dtype: Dtype = np.float64) -> Floats:
    """exp(sin 3x) at POINT + t, each operation in the given dtype."""
    x = (POINT + t).astype(dtype)
    return np.exp(np.sin(dtype(3) * x)).astype(np.float64)


@dataclass(frozen=True)
class Errors:
    """How far estimates from single windows are off, by the step; arrays of shape [steps], `by_order` [4, steps]."""

    steps: Floats
    by_order: Floats
    chosen: Floats  # of the order whose stated error is least
    stated: Floats


def errors(dtype: Dtype) -> Errors:
    """Of the derivative of `wave` from nine samples, at steps from 1/2 down to 2^-36."""
    steps = 2.0 ** -np.arange(1.0, 36.0, 0.5)
    samples = wave(np.outer(NINE, steps), dtype)
    by_order = weight_matrix(ladder(NINE), NINE) @ (samples - samples[4]) / steps - SLOPE
    # What the rounding of the argument itself leaves in the value: half a unit of x, through the slope.
    of_argument = np.full(steps.shape, 0.5 * EPS[dtype] * POINT * abs(SLOPE))
    found = estimate(samples, steps, NINE, eps=EPS[dtype], argument_noise=of_argument, grain=np.zeros(steps.shape))
    return Errors(steps, np.abs(by_order), np.abs(found.value - SLOPE), found.error)


@dataclass(frozen=True)
class Staircase:
    """A float32 function closely looked at: offsets, its values less the smooth part, and the noise that is found."""

    offsets: Floats
    rough: Floats
    noise: float


def staircase() -> Staircase:
    """Of `wave`, whose float64 run is the smooth part; the noise is ECnoise's, of nine samples over the same width."""
    offsets = np.linspace(-1e-5, 1e-5, 201)
    nine = wave(np.array(NINE) * 2.5e-6, np.float32)
    return Staircase(offsets, wave(offsets, np.float32) - wave(offsets), float(ecnoise(nine[:, None])[0][0]))


def coverage() -> tuple[Floats, Floats]:
    """Stated and true errors of derivatives of eight functions at 60 points each."""
    points = np.linspace(-1.9, 1.9, 60)
    stated, true = [], []
    for function, slopes in _FAMILY.items():
        truth = slopes(points)
        found = differentiate(
            lambda index, step, grid, f=function: f(points[index] + np.outer(grid, step))[:, :, None],
            len(points), step=2.0**-9, eps=2.0**-52, target=1e-12,
            argument_noise=2.0**-53 * np.abs(truth * points)[:, None],
        )  # fmt: skip
        stated.append(found.error[:, 0])
        true.append(np.abs(found.value[:, 0] - truth))
    return np.concatenate(stated), np.concatenate(true)


_FAMILY: dict[Callable[[Floats], Floats], Callable[[Floats], Floats]] = {
    np.tanh: lambda x: 1 / np.cosh(x) ** 2,
    np.exp: np.exp,
    np.arctan: lambda x: 1 / (1 + x**2),
    lambda x: np.sin(20 * x): lambda x: 20 * np.cos(20 * x),
    lambda x: np.exp(-(x**2)): lambda x: -2 * x * np.exp(-(x**2)),
    lambda x: 1 / (1 + 25 * x**2): lambda x: -50 * x / (1 + 25 * x**2) ** 2,
    lambda x: np.log1p(np.exp(x)): lambda x: 1 / (1 + np.exp(-x)),
    lambda x: x**7 - 3 * x: lambda x: 7 * x**6 - 3,
}


def _two_errors(left: Axes, right: Axes) -> None:
    wide = errors(np.float64)
    for order, off in zip(ORDERS, wide.by_order, strict=True):
        left.loglog(wide.steps, off, label=f"order {order}")
    left.set(title="float64: error of each order", ylabel="distance to the derivative")
    for dtype, colour in ((np.float32, "tab:red"), (np.float64, "tab:blue")):
        of = errors(dtype)
        right.loglog(of.steps, of.chosen, color=colour, label=f"{dtype.__name__}: true error")
        right.loglog(of.steps, of.stated, "--", color=colour, label=f"{dtype.__name__}: stated error")
    right.set(title="the order with the least stated error")
    for axes in (left, right):
        axes.set(xlabel="step h", ylim=(1e-16, 1e2))
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)


def _noise(left: Axes, right: Axes) -> None:
    stairs = staircase()
    left.plot(stairs.offsets, stairs.rough, ".", markersize=3, label="float32 less float64")
    left.axhspan(-stairs.noise, stairs.noise, alpha=0.25, label="± noise, from nine samples")
    left.set(title="rounding of φ, close to the point", xlabel="t", ylabel="difference of values")
    left.set_ylim(-5e-7, 7e-7)
    left.locator_params(axis="x", nbins=5)
    left.legend(fontsize="small", loc="upper right")
    stated, true = coverage()
    least = 1e-17
    right.loglog(stated, np.maximum(true, least), ".", markersize=3, label="480 derivatives")
    ends = np.array([stated.min(), stated.max()])
    right.loglog(ends, ends, color="gray", label="true = stated")
    right.loglog(ends, 10 * ends, ":", color="gray", label="10 x stated: what a verdict allows")
    right.set(title="does the error bar hold?", xlabel="stated error", ylabel="true error")
    right.legend(fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)


PICTURES: dict[str, Callable[[Axes, Axes], None]] = {"numerics_two_errors": _two_errors, "numerics_noise": _noise}


def draw(name: str, target: Path) -> None:
    """One of `PICTURES`, as a PNG."""
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    PICTURES[name](*figure.subplots(1, 2))
    figure.savefig(target, metadata={"Software": None}, dpi=110)


if __name__ == "__main__":
    for each in PICTURES:
        draw(each, IMAGES / f"{each}.png")
