"""A bundle, read: everything in it is checked before anything runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf

from gradcheck._bundle.arrays import load_arrays
from gradcheck._bundle.graph import program_from
from gradcheck._bundle.manifest import (
    BATCH,
    FILES,
    FORMAT,
    GRAPH,
    MANIFEST,
    REPORT,
    TRIP,
    VARIABLES,
    VERSIONS,
    Manifest,
    sha256_of,
)
from gradcheck._errors import BundleDamaged
from gradcheck._graph.program import RESOURCE, Program
from gradcheck._graph.provenance import Origin
from gradcheck._graph.rerun import Given, Rerun
from gradcheck._report.nonfinite import NonfiniteReport
from gradcheck._report.plain import from_plain
from gradcheck._results import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a bundle holds.

    Attributes:
        name: Of the step.
        step: Its number, where that was told.
        report: What was found when it was written.
        given: The arguments of the step.
        outputs: What its results are called.
        notes: What was noticed when it was written.
        rerun: The step, ready to run; None where its graph could not be stored.
        without: Why there is no graph.
        versions: Of what it was written by.
    """

    name: str
    step: int | None
    report: NonfiniteReport
    given: tuple[Given, ...]
    outputs: tuple[str, ...]
    notes: tuple[str, ...]
    rerun: Rerun | None
    without: str | None
    versions: Mapping[str, Any]


def read_bundle(path: str | Path) -> Bundle:
    """Read a bundle that `write_bundle` wrote. Nothing of it runs.

    Raises:
        BundleDamaged: If a file is missing, changed or of the wrong kind, or the graph holds an op that calls Python or
            reaches files, devices or the network.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise BundleDamaged(f"{str(path)!r} is no folder; give one that a watchdog wrote into its dump_dir")
    manifest = _manifest(folder)
    _require_files(folder, manifest)
    try:
        report = NonfiniteReport.from_dict(_json(folder / REPORT))
    except ValueError as error:
        raise BundleDamaged(f"{REPORT}: {error}") from error
    given = _given(folder, manifest)
    program = program_from((folder / GRAPH).read_bytes()) if manifest.graph is None else None
    if program is not None:
        _require_fit(program, given, manifest)
    rerun = None
    if program is not None:
        rerun = Rerun(
            name=manifest.name,
            program=program,
            given=given,
            outputs=manifest.outputs,
            origin=partial(_stored_origin, {named.name: named.origin for named in manifest.origins}),
            notes=manifest.notes,
        )
    return Bundle(
        name=manifest.name, step=manifest.step, report=report, given=given, outputs=manifest.outputs,
        notes=manifest.notes, rerun=rerun, without=manifest.graph, versions=_json(folder / VERSIONS),
    )  # fmt: skip


def _stored_origin(known: Mapping[str, Origin], name: str, op_type: str) -> Origin:
    """Where an op came from when the bundle was written; its name alone where that was not stored."""
    plain = Origin(place=Place(op=name, op_type=op_type), own_name=name)
    return known.get(name, plain)


_LONGEST = 64 * 2**20  # bytes of a JSON file


def _json(path: Path) -> Any:
    if path.is_symlink() or not path.is_file():
        raise BundleDamaged(f"{path.name}: missing")
    if path.stat().st_size > _LONGEST:
        raise BundleDamaged(f"{path.name}: cannot be read: it is longer than {_LONGEST} bytes")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleDamaged(f"{path.name}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise BundleDamaged(f"{path.name}: expected a JSON object, found {type(found).__name__}")
    return found


def _manifest(folder: Path) -> Manifest:
    fields = _json(folder / MANIFEST)
    if fields.pop("format", None) != FORMAT:
        raise BundleDamaged(f"{MANIFEST}: its format is not {FORMAT}, the one that this version of gradcheck reads")
    try:
        manifest: Manifest = from_plain(Manifest, fields, "manifest")
    except ValueError as error:
        raise BundleDamaged(f"{MANIFEST}: {error}") from error
    return manifest


def _require_files(folder: Path, manifest: Manifest) -> None:
    listed = {digest.file: digest.sha256 for digest in manifest.files}
    wanted = FILES if manifest.graph is None else FILES - {GRAPH}
    if set(listed) - {TRIP} != wanted:
        raise BundleDamaged(f"{MANIFEST}: it must list {', '.join(sorted(wanted))}; found {', '.join(sorted(listed))}")
    for file, digest in listed.items():
        path = folder / file
        if path.is_symlink() or not path.is_file():
            raise BundleDamaged(f"{file}: missing")
        if sha256_of(path) != digest:
            raise BundleDamaged(f"{file}: its bytes are not those that were written")


def _given(folder: Path, manifest: Manifest) -> tuple[Given, ...]:
    batch = {a.stored: a.dtype for a in manifest.arguments if a.stored is not None and not a.variable}
    variables = {a.stored: a.dtype for a in manifest.arguments if a.stored is not None and a.variable}
    values = {**load_arrays(folder / BATCH, batch), **load_arrays(folder / VARIABLES, variables)}
    try:
        return tuple(
            Given(
                label=a.label,
                value=None if a.stored is None else values[a.stored],
                variable=tf.as_dtype(a.dtype) if a.variable else None,
            )
            for a in manifest.arguments
        )
    except TypeError as error:
        raise BundleDamaged(f"{MANIFEST}: {error}") from error


def _require_fit(program: Program, given: tuple[Given, ...], manifest: Manifest) -> None:
    args, returns = program.main.args, program.main.returns
    if len(args) != len(given) or len(returns) != len(manifest.outputs):
        raise BundleDamaged(
            f"{GRAPH}: it takes {len(args)} arguments and returns {len(returns)} values; the manifest names "
            f"{len(given)} and {len(manifest.outputs)}"
        )
    for arg, each in zip(args, given, strict=True):
        if each.variable is not None:
            fits = arg.dtype == RESOURCE
        else:
            fits = each.value is not None and each.value.dtype.as_datatype_enum == arg.dtype
        if not fits:
            raise BundleDamaged(f"{GRAPH}: its argument {arg.name!r} does not fit {each.label!r} of the manifest")
