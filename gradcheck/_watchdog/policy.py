"""What a watchdog was asked to do, validated before anything runs."""

from __future__ import annotations

import numbers
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gradcheck._report.trip import TripReport

ACTIONS = ("raise", "skip", "rollback", "stop", "log")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the user asked for, in one form."""

    action: str | Callable[[TripReport], str | None] = "raise"
    every: int = 1
    max_skips: int = 10
    snapshot_every: int = 100
    dump_dir: str | None = None
    logdir: str | None = None
    early_warnings: bool = False
    layer_outputs: bool = False

    @property
    def may_roll_back(self) -> bool:
        """Whether good states have to be kept."""
        return self.action == "rollback" or callable(self.action)


def policy(
    *,
    action: Any,
    every: Any,
    max_skips: Any,
    snapshot_every: Any,
    dump_dir: Any,
    logdir: Any = None,
    early_warnings: Any,
    layer_outputs: Any = False,
) -> Policy:
    """The policy, or an error that says what to write instead.

    Raises:
        ValueError: If a value is out of range.
        TypeError: If a value is of the wrong type.
    """
    if not callable(action):
        require_action(action, "or a callable that takes a TripReport")
    _whole("every", every, 1)
    _whole("max_skips", max_skips, 0)
    _whole("snapshot_every", snapshot_every, 1)
    for name, value in (("dump_dir", dump_dir), ("logdir", logdir)):
        if value is not None and not isinstance(value, (str, os.PathLike)):
            raise TypeError(f"{name} must be the path of a directory or None; got {name}={value!r}")
    for name, value in (("early_warnings", early_warnings), ("layer_outputs", layer_outputs)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False; got {name}={value!r}")
    return Policy(
        action=action,
        every=int(every),
        max_skips=int(max_skips),
        snapshot_every=int(snapshot_every),
        dump_dir=None if dump_dir is None else os.fspath(dump_dir),
        logdir=None if logdir is None else os.fspath(logdir),
        early_warnings=early_warnings,
        layer_outputs=layer_outputs,
    )


def require_action(action: object, otherwise: str) -> str:
    """The action, if it is one."""
    if not isinstance(action, str) or action not in ACTIONS:
        raise ValueError(f"action must be one of {', '.join(map(repr, ACTIONS))}, {otherwise}; got action={action!r}")
    return action


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number; got {name}={value!r}")
    if int(value) < least:
        raise ValueError(f"{name} must be at least {least}; got {name}={value!r}")
