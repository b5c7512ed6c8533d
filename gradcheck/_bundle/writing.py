"""A bundle, written so that it is whole or absent, whatever happens meanwhile."""

from __future__ import annotations

import datetime
import importlib
import json
import os
import platform
import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from gradcheck._bundle.arrays import save_arrays, size_of
from gradcheck._bundle.graph import outward_ops
from gradcheck._bundle.manifest import (
    BATCH,
    FORMAT,
    GRAPH,
    MANIFEST,
    REPORT,
    RNG,
    TEXT,
    TRIP,
    VARIABLES,
    VERSIONS,
    Argument,
    Digest,
    Manifest,
    Named,
    sha256_of,
)
from gradcheck._errors import BundleNotWritten
from gradcheck._graph.rerun import Rerun
from gradcheck._graph.wire import program_to_bytes
from gradcheck._report.nonfinite import NonfiniteReport
from gradcheck._report.plain import to_plain
from gradcheck._report.trip import TripReport
from gradcheck._version import __version__

PREFIX = "trip-"
_UNFINISHED = ".unfinished-"


def write_bundle(
    dump_dir: str | os.PathLike[str],
    rerun: Rerun,
    report: NonfiniteReport,
    *,
    trip: TripReport | None = None,
    step: int | None = None,
    max_bundles: int = 10,
    max_bytes: int = 2 * 2**30,
) -> Path:
    """Write what it takes to run a training step again into a new folder of `dump_dir`.

    The folder holds the batch, the variables before the step (weights, slots, states of random generators), the
    states of NumPy's and Python's random generators, the report as text and JSON, versions, and the step's graph.
    It is written under another name, brought to the disk and then renamed: a process that is killed leaves a whole
    bundle or none (what is unfinished is removed by the next one). Nothing is pickled.

    Args:
        dump_dir: The folder of bundles; made where there is none.
        rerun: The step, as `gradcheck._graph.rerun.of_concrete` makes it.
        report: What was found.
        trip: What the watchdog says of it, with the steps before.
        step: The number of the step.
        max_bundles: How many bundles `dump_dir` may hold in the end.
        max_bytes: How much they may take together, in bytes.

    Returns:
        The new folder.

    Raises:
        BundleNotWritten: If there is no room in `dump_dir` by these limits, or on the disk, or it cannot be written.
    """
    folder = Path(dump_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        _require_room(folder, rerun, max_bundles, max_bytes)
        return _written(folder, rerun, report, trip, step)
    except OSError as error:
        raise BundleNotWritten(f"no bundle was written to {str(folder)!r}: {error}") from error


def _sweep(folder: Path) -> None:
    """Remove what processes that are no more left unfinished."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        pid = left.name.rpartition("-")[2]
        if pid.isdecimal() and int(pid) != os.getpid() and not _is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _require_room(folder: Path, rerun: Rerun, max_bundles: int, max_bytes: int) -> None:
    bundles = [path for path in folder.glob(f"{PREFIX}*") if path.is_dir()]
    if len(bundles) >= max_bundles:
        raise BundleNotWritten(
            f"no bundle was written: {str(folder)!r} holds {len(bundles)} already, and max_bundles={max_bundles}; "
            "remove those that are done with"
        )
    taken = sum(file.stat().st_size for bundle in bundles for file in bundle.iterdir())
    needed = sum(size_of(given.value) for given in rerun.given if _is_stored(given.value))
    if taken + needed > max_bytes:
        raise BundleNotWritten(
            f"no bundle was written: it needs {needed} bytes, {str(folder)!r} holds {taken} already, and "
            f"max_bytes={max_bytes}"
        )


def _is_stored(value: Any) -> bool:
    return value is not None and value.dtype not in (tf.resource, tf.variant)


def _written(folder: Path, rerun: Rerun, report: NonfiniteReport, trip: TripReport | None, step: int | None) -> Path:
    now = datetime.datetime.now(datetime.timezone.utc)
    stem = PREFIX + now.strftime("%Y%m%dT%H%M%S.%fZ") + ("" if step is None else f"-step-{step}")
    unfinished = folder / f"{_UNFINISHED}{stem}-{os.getpid()}"
    unfinished.mkdir()
    try:
        _fill(unfinished, rerun, report, trip, step, now)
        for file in unfinished.iterdir():
            _bring_to_disk(file)
        _bring_to_disk(unfinished)
        final = folder / stem
        unfinished.rename(final)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _bring_to_disk(folder)
    return final


def _bring_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill(
    folder: Path,
    rerun: Rerun,
    report: NonfiniteReport,
    trip: TripReport | None,
    step: int | None,
    now: datetime.datetime,
) -> None:
    (folder / TEXT).write_text(f"{report if trip is None else trip}\n", encoding="utf-8")
    if trip is not None:
        _write_json(folder / TRIP, trip.to_dict())
    _write_json(folder / REPORT, report.to_dict())
    _write_json(folder / VERSIONS, {**_versions(), "written": now.isoformat()})
    _write_json(folder / RNG, _random_states())
    stored = {f"a{k}": g for k, g in enumerate(rerun.given) if _is_stored(g.value)}
    save_arrays(folder / BATCH, {n: g.value for n, g in stored.items() if g.variable is None})
    save_arrays(folder / VARIABLES, {n: g.value for n, g in stored.items() if g.variable is not None})
    without = _no_graph(rerun)
    if without is None:
        (folder / GRAPH).write_bytes(program_to_bytes(rerun.program))
    arguments = tuple(
        Argument(
            label=given.label,
            dtype=(given.variable if given.value is None else given.value.dtype).name if _has_dtype(given) else "",
            variable=given.variable is not None,
            stored=f"a{k}" if f"a{k}" in stored else None,
        )
        for k, given in enumerate(rerun.given)
    )
    manifest = Manifest(
        name=rerun.name,
        step=step,
        arguments=arguments,
        outputs=rerun.outputs,
        origins=tuple(_origins(rerun, report)) if without is None else (),
        notes=rerun.notes,
        files=tuple(Digest(file=p.name, sha256=sha256_of(p)) for p in sorted(folder.iterdir())),
        graph=without,
    )
    _write_json(folder / MANIFEST, {"format": FORMAT, **to_plain(manifest)})


def _has_dtype(given: Any) -> bool:
    return given.value is not None or given.variable is not None


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, allow_nan=False, indent=1) + "\n", encoding="utf-8")


def _no_graph(rerun: Rerun) -> str | None:
    """Why the graph cannot be run in another process, or None where it can."""
    kinds = sorted({g.value.dtype.name for g in rerun.given if g.value is not None and not _is_stored(g.value)})
    if kinds:
        return f"the step captures a tensor of dtype {kinds[0]}, which cannot be stored"
    outward = outward_ops(rerun.program)
    return f"the step holds {outward[0]}, which cannot be run in another process" if outward else None


def _origins(rerun: Rerun, report: NonfiniteReport) -> Iterator[Named]:
    """Where the op of the report comes from, and what it may be inside of."""
    if report.place is None:
        return
    name = report.place.op
    yield Named(name=name, origin=rerun.origin(name, report.place.op_type))
    parts = name.split("/")
    for k in range(1, len(parts)):
        outer = "/".join(parts[:k])
        yield Named(name=outer, origin=rerun.origin(outer, ""))


def _versions() -> dict[str, str]:
    modules = ("tensorflow", "keras", "numpy")
    found = {name: str(getattr(importlib.import_module(name), "__version__", "")) for name in modules}
    return {"gradcheck": __version__, "python": platform.python_version(), "platform": platform.platform(), **found}


def _random_states() -> dict[str, Any]:
    """Random states of the process after the step; those that the step reads are among its variables."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, numbers, following = random.getstate()
    return {
        "numpy": [kind, [int(k) for k in keys], int(position), int(has_gauss), float(gauss)],
        "python": [version, list(numbers), following],
        "tensorflow_global_seed": context.global_seed(),
    }
