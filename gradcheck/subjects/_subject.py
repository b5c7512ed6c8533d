"""A named computation that can be checked, and what its check gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gradcheck._report.gradient import GradientReport
from gradcheck._results import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectResult:
    """What the check of a subject gave.

    Attributes:
        report: On its gradients.
        figures: What the document prints beside what was computed here.
    """

    report: GradientReport
    figures: tuple[Figure, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the gradients are right and every figure is met."""
        return self.report.ok and all(figure.ok for figure in self.figures)


class Experiment(Protocol):
    """Builds a computation and checks it, under a name and with two options of `check_gradients`."""

    def __call__(self, *, name: str, mode: str, seed: int) -> SubjectResult:
        """Build and check."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A named computation that can be checked.

    Attributes:
        name: What `gradcheck run` calls it.
        section: Of the document.
        summary: A line about it.
        experiment: Builds it and checks it.

    Example:
        >>> import gradcheck
        >>> gradcheck.subjects.get("grad-ys").check().ok
        True
    """

    name: str
    section: str
    summary: str
    experiment: Experiment

    def check(self, *, mode: str = "auto", seed: int = 0) -> SubjectResult:
        """Build and check the computation; `mode` and `seed` are those of `check_gradients`."""
        return self.experiment(name=self.name, mode=mode, seed=seed)
