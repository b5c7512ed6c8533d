"""What a bundle's files are called and what its manifest says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gradcheck._graph.provenance import Origin

FORMAT = 1
MANIFEST, REPORT, TEXT, VERSIONS, RNG = "manifest.json", "report.json", "report.txt", "versions.json", "rng.json"
TRIP = "trip.json"
BATCH, VARIABLES, GRAPH = "batch.npz", "variables.npz", "graph.pb"
FILES = frozenset({REPORT, TEXT, VERSIONS, RNG, BATCH, VARIABLES, GRAPH})  # with TRIP, where a watchdog wrote it


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument of the step: what it is called, and where its value is."""

    label: str
    dtype: str  # of the value
    variable: bool = False
    stored: str | None = None  # the array's name in its file; None for a variable that was never initialized


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Where an op of the step comes from, by its full name."""

    name: str
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """The SHA-256 of a file."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle holds, besides its report."""

    name: str  # of the step
    step: int | None
    arguments: tuple[Argument, ...]
    outputs: tuple[str, ...]
    origins: tuple[Named, ...]
    notes: tuple[str, ...]
    files: tuple[Digest, ...]
    graph: str | None = None  # why there is no graph; None where there is one


def sha256_of(path: Path) -> str:
    """The digest of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
