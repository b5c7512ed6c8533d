"""What the names on a command line stand for."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import gradcheck
from gradcheck._errors import GradientMismatch
from gradcheck._report.gradient import GradientReport
from gradcheck._report.outcomes import Outcome
from gradcheck.cli._misuse import MisuseError

_RETURNS = (
    "it must return (fn, inputs), (fn, inputs, options), a GradientReport or a Subject, as `def check(): return loss, "
    "[x]` does"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A check that was asked for by name and has not run yet."""

    name: str
    check: Callable[[], Outcome]


def bundled() -> Any:
    """The module of bundled subjects."""
    return gradcheck.subjects


def resolve(specs: Sequence[str], *, mode: str | None, seed: int | None) -> list[Named]:
    """What to check, in the order asked for; every bundled subject where nothing was.

    All names are resolved before any check runs.

    Raises:
        MisuseError: If a name is unknown, or a module or function cannot be had.
    """
    given = {name: value for name, value in (("mode", mode), ("seed", seed)) if value is not None}
    return [_users(spec, given) if ":" in spec else _bundled(spec, given) for spec in specs or bundled().names()]


def _bundled(name: str, given: Mapping[str, Any]) -> Named:
    subjects = bundled()
    known = [*subjects.names(), *subjects.wrong_names()]
    if name not in known:
        close = difflib.get_close_matches(name, known)
        instead = f"did you mean {' or '.join(close)}?" if close else "`gradcheck list` names them all."
        raise MisuseError(f"no subject is called {name!r}: {instead} Your own are written module:function.")
    return Named(name=name, check=functools.partial(_checked, name, None, lambda: subjects.get(name), given))


def made_by(spec: str, returns: str) -> Any:
    """What the user's module:function returns when it is called without arguments.

    Raises:
        MisuseError: If there is no such function, or it takes arguments or fails; `returns` says what it is to return.
    """
    module, found = _found(spec)
    _require_callable_without_arguments(found, spec, returns)
    try:
        return found()
    except Exception as error:
        at = _line_in(module, error)
        raise MisuseError(f"{spec} failed: {type(error).__name__}{at}: {error}") from error


def _found(spec: str) -> tuple[ModuleType, Any]:
    """A user's module, and what a module:function names in it."""
    module_name, _, path = spec.partition(":")
    module = _module(module_name, spec)
    found: Any = module
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            raise MisuseError(f"module {module_name!r} has no {path!r}{_like(attribute, dir(found))}")
        found = getattr(found, attribute)
    return module, found


def _users(spec: str, given: Mapping[str, Any]) -> Named:
    module, found = _found(spec)
    if _is_subject(found):
        return Named(name=spec, check=functools.partial(_checked, spec, module, lambda: found, given))
    _require_callable_without_arguments(found, spec, _RETURNS)
    return Named(name=spec, check=functools.partial(_checked, spec, module, found, given))


def _module(name: str, spec: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        instead = f"; write {name.removesuffix('.py')}:{spec.partition(':')[2]}" if name.endswith(".py") else ""
        raise MisuseError(f"cannot import module {name!r}: {type(error).__name__}: {error}{instead}") from error


def _like(attribute: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(attribute, known)
    return f"; it has {' and '.join(close)}" if close else ""


def _require_callable_without_arguments(found: object, spec: str, returns: str) -> None:
    if not callable(found):
        raise MisuseError(f"{spec} is of type {type(found).__name__}, not a function; {returns}")
    try:
        signature = inspect.signature(found)
    except ValueError:  # some callables written in C do not tell
        return
    try:
        signature.bind()
    except TypeError as error:
        raise MisuseError(f"{spec} takes arguments, {signature}, and is called without any; {returns}") from error


def _checked(name: str, module: ModuleType | None, make: Callable[[], Any], given: Mapping[str, Any]) -> Outcome:
    try:
        return _outcome(name, make(), given)
    except GradientMismatch as mismatch:
        return Outcome(name=name, report=mismatch.report)
    except MisuseError:
        raise
    except Exception as error:
        at = _line_in(module, error)
        said = "\n".join([str(error), *getattr(error, "__notes__", ())])
        raise MisuseError(f"{name} could not be checked: {type(error).__name__}{at}: {said}") from error


def _outcome(name: str, made: Any, given: Mapping[str, Any]) -> Outcome:
    if isinstance(made, GradientReport):
        return Outcome(name=name, report=made)
    if _is_subject(made):
        result = made.check(**given)
        return Outcome(name=name, report=result.report, figures=tuple(result.figures))
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise MisuseError(f"{name} returned a value of type {type(made).__name__}; {_RETURNS}")
    fn, inputs, options = made if len(made) == 3 else (*made, {})
    if not callable(fn) or not isinstance(options, Mapping):
        raise MisuseError(f"{name} returned ({', '.join(type(each).__name__ for each in made)}); {_RETURNS}")
    return Outcome(name=name, report=gradcheck.check_gradients(fn, inputs, **{**options, **given}))


def _is_subject(found: Any) -> bool:
    return callable(getattr(found, "check", None)) and hasattr(found, "summary")


def _line_in(module: ModuleType | None, error: Exception) -> str:
    """Where in the user's module it happened, if it did."""
    file = module and module.__file__
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if file and frame.filename == file]
    return f" at {file}:{lines[-1]}" if lines else ""
