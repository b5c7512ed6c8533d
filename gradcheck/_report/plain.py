"""Reports as plain values that JSON can hold, and back."""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from gradcheck._report.gradient import GradientReport

FORMAT = 1
_NOT_IN_JSON = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_JSON_NAME = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}

T = TypeVar("T")


def report_to_dict(report: GradientReport) -> dict[str, Any]:
    """The report's fields; before them the format's number, and `ok` and `verdict`, which follow from the findings."""
    return {"format": FORMAT, **_derived(report), **to_plain(report)}


def report_from_dict(cls: type[GradientReport], data: Mapping[str, Any]) -> GradientReport:
    """The report that `report_to_dict` wrote.

    Raises:
        ValueError: If a field is missing, unknown or of the wrong kind, or `ok` or `verdict` contradicts the findings.
    """
    fields = dict(fields_of(data, "report"))
    require_format(fields, "report")
    stated = {name: fields.pop(name) for name in ("ok", "verdict") if name in fields}
    report: GradientReport = from_plain(cls, fields, "report")
    for name, computed in _derived(report).items():
        if name not in stated:
            raise ValueError(f"report.{name}: missing")
        if type(stated[name]) is not type(computed) or stated[name] != computed:
            raise ValueError(f"report.{name}: {stated[name]!r} contradicts the findings, which say {computed!r}")
    return report


def to_document(value: object) -> dict[str, Any]:
    """The fields of a report, with the format's number before them."""
    return {"format": FORMAT, **to_plain(value)}


def from_document(cls: type[T], data: Mapping[str, Any]) -> T:
    """The report that `to_document` wrote.

    Raises:
        ValueError: If a field is missing, unknown or of the wrong kind.
    """
    fields = dict(fields_of(data, "report"))
    require_format(fields, "report")
    report: T = from_plain(cls, fields, "report")
    return report


def require_format(fields: dict[str, Any], path: str) -> None:
    """Takes the format's number out of `fields`; ValueError unless it is the one that is read here."""
    if "format" not in fields:
        raise ValueError(f"{path}.format: missing")
    if (found := fields.pop("format")) != FORMAT or isinstance(found, bool):
        raise ValueError(f"{path}.format: expected {FORMAT}, got {found!r}")


def fields_of(data: object, path: str) -> Mapping[str, Any]:
    """`data` itself where it is a JSON object; ValueError else."""
    if not isinstance(data, Mapping):
        raise _mistyped(path, "an object", data)
    return data


def to_plain(value: object) -> Any:
    """Dicts, lists, strings, bools, numbers and None; NaN and infinities become strings, enum members their names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if not isinstance(value, (bool, int, float, str, type(None))) and hasattr(value, "item"):
        value = value.item()  # a NumPy scalar, recognised without importing NumPy
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    return value


def from_plain(kind: Any, data: object, path: str) -> Any:
    """The value of type `kind` that `to_plain` turned into `data`; ValueError, naming `path`, where it is none."""
    if dataclasses.is_dataclass(kind):
        return _dataclass(cast("type[Any]", kind), data, path)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _member(kind, data, path)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        (present,) = (argument for argument in arguments if argument is not type(None))
        return None if data is None else from_plain(present, data, path)
    if origin is tuple:
        return _tuple(arguments, data, path)
    if kind is float:
        return _float(data, path)
    if type(data) is not kind:
        raise _mistyped(path, _JSON_NAME[kind], data)
    return data


def _derived(report: GradientReport) -> dict[str, Any]:
    return {"ok": report.ok, "verdict": report.verdict.name}


def _dataclass(kind: type[T], data: object, path: str) -> T:
    fields = fields_of(data, path)
    kinds = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(cast("Any", kind))]
    for name in names:
        if name not in fields:
            raise ValueError(f"{path}.{name}: missing")
    for name, found in fields.items():
        if name not in names:
            raise ValueError(f"{path}.{name}: unknown, got {_shown(found)}; the fields are {', '.join(names)}")
    return kind(**{name: from_plain(kinds[name], fields[name], f"{path}.{name}") for name in names})


def _member(kind: type[enum.Enum], data: object, path: str) -> enum.Enum:
    if not isinstance(data, str) or data not in kind.__members__:
        raise _mistyped(path, f"one of {', '.join(kind.__members__)}", data)
    return kind[data]


def _tuple(arguments: tuple[Any, ...], data: object, path: str) -> tuple[Any, ...]:
    if not isinstance(data, (list, tuple)):
        raise _mistyped(path, "a list", data)
    kinds = (arguments[0],) * len(data) if arguments[-1] is Ellipsis else arguments
    if len(kinds) != len(data):
        raise _mistyped(path, f"a list of {len(kinds)}", data)
    return tuple(from_plain(kind, item, f"{path}[{i}]") for i, (kind, item) in enumerate(zip(kinds, data, strict=True)))


def _float(data: object, path: str) -> float:
    if isinstance(data, str) and data in _NOT_IN_JSON:
        return _NOT_IN_JSON[data]
    if isinstance(data, bool) or not isinstance(data, (int, float)):
        raise _mistyped(path, 'a number, "nan", "inf" or "-inf"', data)
    try:
        return float(data)
    except OverflowError as error:
        raise ValueError(f"{path}: an integer too large for a number") from error


def _mistyped(path: str, wanted: str, found: object) -> ValueError:
    return ValueError(f"{path}: expected {wanted}, got {_shown(found)}")


def _shown(found: object) -> str:
    text = repr(found)
    return text if len(text) <= 60 else f"{text[:57]}..."
