"""Calls that do not fit the signature of a public function: what to write, instead of Python's own TypeError."""

from __future__ import annotations

import difflib
import functools
import inspect
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def explained(several: str | None = None, *, name: str | None = None) -> Callable[[F], F]:
    """A decorator: calls that the signature does not allow raise a TypeError that says what to write.

    The function keeps its signature, for type checkers, `inspect.signature` and readers alike.

    Args:
        several: The parameter behind the first one, if it takes the arguments of the first one in a list.
        name: What the user calls the function; default its own name.
    """

    def decorate(fn: F) -> F:
        signature = inspect.signature(fn)
        called = fn.__name__ if name is None else name

        @functools.wraps(fn)
        def checked(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(_instead(called, signature, several, args, kwargs, error)) from None
            return fn(*args, **kwargs)

        return cast(F, checked)

    return decorate


def _instead(
    called: str,
    signature: inspect.Signature,
    several: str | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    error: TypeError,
) -> str:
    """What was asked, what was found and what to write."""
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    given = args[len(signature.parameters) - len(parameters) :]
    taken = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    options = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    subject = _of(given[0] if given else None, taken[0])
    if len(given) > len(taken):
        found = f"{called} takes {_and(taken)} by position, found {len(given)} arguments ({_kinds(given)})"
        if several is not None and _are_arguments(given[1], given[len(taken) :]):
            named = _positional(given[0])
            named = named if len(named) == len(given) - 1 else [f"x{k}" for k in range(len(given) - 1)]
            return f"{found}; the arguments of {subject} go into a list: {called}({subject}, [{', '.join(named)}])"
        if options:
            return f"{found}; options are given by name: {', '.join(f'{o}=' for o in options)}"
        return f"{found}; leave out what stands behind {taken[-1]}"
    unknown = [k for k in kwargs if k not in {p.name for p in parameters}]
    if unknown:
        found = f"{called} has no argument {unknown[0]!r}"
        if several is not None and given and unknown[0] in [p.name for p in _parameters(given[0])]:
            keys = [n for n in _positional(given[0]) if n not in unknown][: len(given) - 1] + unknown
            inner = ", ".join(f'"{k}": ...' for k in keys)
            return f"{found}; keyword arguments of {subject} go into a dict: {called}({subject}, {{{inner}}})"
        meant = difflib.get_close_matches(unknown[0], [*taken, *options], 1)
        return f"{found}; {f'write {meant[0]}=' if meant else f'there are {_and([*taken, *options])}'}"
    if len(given) == 1 and several is not None and several not in kwargs:
        found = f"{called} needs {several}, found {taken[0]} alone; write {called}({subject}"
        if several != "inputs":
            return f"{found}, {several})"
        return f"{found}, [{', '.join(_positional(given[0]) or ['x'])}]), or [] for a function without arguments"
    return f"{called}: {error}"


def _are_arguments(inputs: Any, extra: Sequence[Any]) -> bool:
    """Whether what stands behind the inputs is more of them, and no option."""
    listed = isinstance(inputs, (list, tuple, Mapping))
    return all(
        hasattr(value, "shape")
        or isinstance(value, (list, tuple, Mapping))
        or (isinstance(value, numbers.Number) and not isinstance(value, bool) and not listed)
        for value in extra
    )


def _parameters(fn: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # some callables do not tell what they take
        return []


def _positional(fn: Any) -> list[str]:
    """The names of the arguments that fn must be given by position."""
    plain = [p for p in _parameters(fn) if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [p.name for p in plain if p.default is p.empty]


def _of(fn: Any, default: str) -> str:
    name = getattr(fn, "__name__", "")
    return name if isinstance(name, str) and name.isidentifier() else default


def _kinds(values: Sequence[Any]) -> str:
    return ", ".join(type(value).__name__ for value in values)


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
