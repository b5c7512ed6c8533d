"""What the command line, the ini file and markers say about checks."""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MARKER = (
    "gradcheck(mode, order, rtol, directions, seed, forward): defaults of the checks that the fixture gradcheck makes "
    "in this test, class or module"
)
OF_RUN = "gradcheck_seed"  # what a worker of pytest-xdist is told
MODES = ("auto", "directional", "elementwise", "jacobian")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What was asked for on the command line or, where it is silent, in the ini file.

    Attributes:
        mode: Default mode of checks, or None.
        seed: Default seed, or None.
        drawn: Whether the seed was drawn for this run.
        json: The file to write all reports to, or None.
        logdir: The directory to write all reports to as TensorBoard shows them, or None.
        dump: The directory for what a watchdog dumps, or None.
        durations: How many of the slowest checks to list.
    """

    mode: str | None
    seed: int | None
    drawn: bool
    json: Path | None
    logdir: Path | None
    dump: Path | None
    durations: int

    def defaults(self) -> dict[str, Any]:
        """Options of a check."""
        given = {"mode": self.mode, "seed": self.seed}
        return {name: value for name, value in given.items() if value is not None}


def add_options(parser: pytest.Parser) -> None:
    """Declare the options and the ini values."""
    group = parser.getgroup("gradcheck", "checks of gradients")

    def add(name: str, text: str, **options: Any) -> None:
        group.addoption(f"--gradcheck-{name}", dest=f"gradcheck_{name}", help=text, **options)
        parser.addini(f"gradcheck_{name}", f"default of --gradcheck-{name}", default="")

    add("mode", "default mode of checks", choices=MODES, metavar="MODE")
    add("seed", "default seed of checks: a number, or random, which says what repeats it", type=_seed, metavar="N")
    add("json", "write the reports of all checks, as `gradcheck show FILE` reads them", metavar="FILE")
    add("logdir", "write the reports of all checks for TensorBoard", metavar="DIR")
    add("dump", "where a watchdog dumps what it trips over", metavar="DIR")
    add("durations", "list the N slowest checks", type=_count, metavar="N")


def settings_of(config: pytest.Config) -> Settings:
    """The settings of a run.

    Raises:
        pytest.UsageError: If an ini value cannot be used.
    """
    mode = _read(config, "mode")
    if mode is not None and mode not in MODES:
        raise pytest.UsageError(f"gradcheck_mode must be one of {', '.join(MODES)}; found {mode!r}")
    seed = _parsed(config, "seed", _seed)
    drawn = seed == "random"
    if drawn:
        of_run = getattr(config, "workerinput", {}).get(OF_RUN)
        seed = random.SystemRandom().randrange(2**31) if of_run is None else of_run
    return Settings(
        mode=mode,
        seed=seed,
        drawn=drawn,
        json=_path(config, "json"),
        logdir=_path(config, "logdir"),
        dump=_path(config, "dump"),
        durations=_parsed(config, "durations", _count) or 0,
    )


def _read(config: pytest.Config, name: str) -> Any:
    given = config.getoption(f"gradcheck_{name}")
    return given if given is not None else config.getini(f"gradcheck_{name}") or None


def _parsed(config: pytest.Config, name: str, parse: Any) -> Any:
    value = _read(config, name)
    try:
        return parse(value) if isinstance(value, str) else value
    except argparse.ArgumentTypeError as error:
        raise pytest.UsageError(f"gradcheck_{name}: {error}") from error


def _path(config: pytest.Config, name: str) -> Path | None:
    value = _read(config, name)
    if value is None:
        return None
    given = config.getoption(f"gradcheck_{name}") is not None
    base: Path = config.invocation_params.dir if given else config.rootpath
    return base / str(value)


def _seed(text: str) -> int | str:
    if text == "random":
        return text
    return _count(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return int(text)


def marked(item: pytest.Item) -> dict[str, Any]:
    """The options that markers set for a test; the nearest one counts.

    Raises:
        ValueError, TypeError: If a marker cannot be used; the text says what to write.
    """
    merged: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers("gradcheck"))):
        if marker.args:
            raise TypeError(f"@pytest.mark.gradcheck takes names only, such as mode=...; found {marker.args!r}")
        merged.update(marker.kwargs)
    if merged:
        _validate(merged)
    return merged


def _validate(given: Mapping[str, Any]) -> None:
    import difflib
    import inspect

    from gradcheck._check.options import options

    known = list(inspect.signature(options).parameters)
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            instead = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(known)}"
            raise ValueError(f"@pytest.mark.gradcheck has no option {name!r}: {instead}")
    options(**given)
