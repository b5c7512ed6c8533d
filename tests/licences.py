"""Licences of everything that gradcheck brings along or can use, from the metadata of what is installed.

`python -m tests.licences` writes docs/licences.md anew.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "licences.md"
_HEAD = """\
# Licences

gradcheck is under the Apache License 2.0 (`LICENSE`), and holds no code of others. It stands on the packages below. The
table comes from the metadata of what was installed when it was written (`python -m tests.licences`); another release
of a package, and what TensorFlow brings besides, may differ. "Needed by" says which extra of gradcheck asks for it.

| package | needed by | licence |
|---|---|---|
"""
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXTRA = re.compile(r"""extra == ['"]([^'"]+)['"]""")


def requirements(of: Distribution, asked: frozenset[str] = frozenset()) -> dict[str, str]:
    """What a distribution asks for: the name of each package, and the extra that does, or "". No markers but extras."""
    found: dict[str, str] = {}
    for line in of.requires or ():
        name, extra = _NAME.match(line), _EXTRA.search(line)
        # "dev" repeats what "test" asks for.
        if name and (extra is None or extra[1] in asked) and found.get(name[0], "dev") == "dev":
            found[name[0]] = extra[1] if extra else ""
    return found


def licence(of: Distribution) -> str:
    """What the metadata of a distribution says: its expression, else its classifiers, else its licence field."""
    expression, classifiers, stated = (_field(of, name) for name in ("License-Expression", "Classifier", "License"))
    if expression:
        return expression[0]
    licences = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
    named = [c for c in licences if c != "OSI Approved"]
    first = next(iter("".join(stated).strip().splitlines()), "")
    return ", ".join(named) or (first if len(first) < 60 else "") or "not stated in its metadata"


def _field(of: Distribution, name: str) -> list[str]:
    return [str(value) for value in of.metadata.get_all(name) or ()]


def rows() -> list[tuple[str, str, str]]:
    """Package, what needs it, and licence, for what gradcheck asks for and what that asks for, by name."""
    own = distribution("gradcheck")
    extras = frozenset(_field(own, "Provides-Extra"))
    pending = [(name, f"[{extra}]" if extra else "gradcheck") for name, extra in requirements(own, extras).items()]
    found: dict[str, tuple[str, str, str]] = {}
    while pending:
        name, by = pending.pop(0)
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found or key == "gradcheck":
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:  # for another system, or an extra that is not installed
            continue
        found[key] = (f"{key} {package.version}", by, licence(package))
        pending += [(other, key) for other in requirements(package)]
    return [found[key] for key in sorted(found)]


def page() -> str:
    """The page."""
    return _HEAD + "".join(f"| {package} | {by} | {text} |\n" for package, by, text in rows())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
