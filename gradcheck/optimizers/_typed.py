"""Rules as they can be typed."""

from __future__ import annotations

import dataclasses
from typing import Any


def typed(value: Any) -> str:
    """A call that makes such a value: what has no default first and without a name, then what is not its default."""
    parts = []
    for field in dataclasses.fields(value):
        held = getattr(value, field.name)
        if field.default is dataclasses.MISSING:
            parts.append(_shown(held))
        elif not (isinstance(held, (bool, int, float, str)) and held == field.default):
            parts.append(f"{field.name}={_shown(held)}")
    return f"{type(value).__name__}({', '.join(parts)})"


def _shown(value: Any) -> str:
    if hasattr(value, "numpy") and not callable(value):
        return str(value.numpy())
    shown = repr(value)
    return type(value).__name__ if " at 0x" in shown else shown
