"""A bundle's step, run once more and shown."""

from __future__ import annotations

from pathlib import Path

from gradcheck._errors import BundleDamaged, GraphUnavailable
from gradcheck.cli._misuse import MisuseError
from gradcheck.cli._named import made_by
from gradcheck.cli._quiet import wake_devices

_RETURNS = "it must return the training step, to be called with the tensors of the batch"


def replayed(bundle: Path, spec: str | None) -> bool:
    """Print what a bundle was written for and what running it again gives; whether all is finite now.

    Raises:
        MisuseError: If the bundle or the step cannot be used.
    """
    from gradcheck._replay import replay  # imports TensorFlow

    if spec is not None and ":" not in spec:
        raise MisuseError(f"a step is named module:function, got {spec!r}")
    step = None if spec is None else made_by(spec, _RETURNS)
    if step is not None and not callable(step):
        raise MisuseError(f"{spec} returned a value of type {type(step).__name__}; {_RETURNS}")
    wake_devices()
    try:
        read, report = replay(bundle, step)
    except (BundleDamaged, GraphUnavailable, ValueError) as error:
        raise MisuseError(f"{str(bundle)!r} cannot be run again: {error}") from error
    print(report)
    if report == read.report:
        print("the same report as when it was written")
    else:
        print(f"when it was written, by {read.versions.get('tensorflow')}:\n{read.report}")
    return report.ok
