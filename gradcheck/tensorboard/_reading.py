"""Event files, read back: tags, steps and values, as far as they are whole."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from gradcheck._graph.quiet import errors_only
from gradcheck.tensorboard._sink import said
from gradcheck.tensorboard._values import HISTOGRAMS, IMAGES, SCALARS, TEXTS

T = TypeVar("T")
_SHOWN = 8  # tags or steps that a message names


@dataclass(frozen=True, slots=True, kw_only=True)
class Series(Generic[T]):
    """What was logged under one tag, in the order of writing.

    Attributes:
        steps: Of each value.
        wall_times: Of each value: seconds since 1970.
        values: One per step.
    """

    steps: tuple[int, ...]
    wall_times: tuple[float, ...]
    values: tuple[T, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture: its width and height in pixels, and the file."""

    width: int
    height: int
    png: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What a log directory holds, by kind and tag.

    Attributes:
        scalars: Numbers.
        histograms: Arrays of shape [k, 3], float64: left edge, right edge and count of each bucket.
        texts: Markdown.
        images: The pictures of each step.
        tensors: Values of other plugins, as arrays.
        runs: The event files of the directories inside, by path, such as "train".
        notes: What could not be read.
    """

    scalars: Mapping[str, Series[float]]
    histograms: Mapping[str, Series[NDArray[np.float64]]]
    texts: Mapping[str, Series[str]]
    images: Mapping[str, Series[tuple[Image, ...]]]
    tensors: Mapping[str, Series[NDArray[Any]]]
    runs: Mapping[str, Events] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_events(logdir: str | os.PathLike[str]) -> Events:
    """Read the event files of a log directory, by whomever they were written, without the package tensorboard.

    The file of a writer that was killed may end within a record: what comes before is read, and `notes` say where the
    file breaks off.

    Args:
        logdir: The directory.

    Returns:
        The scalars, histograms, texts and images by tag; those of directories inside under `runs`.

    Raises:
        TypeError: If `logdir` is no path.
        ValueError: If there is no such directory.

    Example:
        >>> import tempfile, gradcheck, tensorflow as tf
        >>> logdir = tempfile.mkdtemp()
        >>> loss = tf.compat.v1.Summary.Value(tag="loss", simple_value=0.5)
        >>> with tf.summary.create_file_writer(logdir).as_default():
        ...     _ = tf.summary.experimental.write_raw_pb(tf.compat.v1.Summary(value=[loss]).SerializeToString(), step=3)
        >>> found = gradcheck.tensorboard.read_events(logdir).scalars["loss"]
        >>> found.steps, found.values
        ((3,), (0.5,))
    """
    if not isinstance(logdir, (str, os.PathLike)):
        raise TypeError(f"logdir must be a path; got logdir={logdir!r}")
    top = os.fspath(logdir)
    if not tf.io.gfile.isdir(top):
        raise ValueError(f"logdir must be a directory; there is none at {top!r}")
    found = {
        os.path.relpath(folder, top): sorted(name for name in names if "tfevents" in name)
        for folder, _, names in tf.io.gfile.walk(top)
    }
    own = found.pop(".", [])
    return _run(
        top, own, {run: _run(os.path.join(top, run), names, {}) for run, names in sorted(found.items()) if names}
    )


def assert_scalar_logged(logdir: str | os.PathLike[str], tag: str, step: int | None = None, approx: Any = None) -> None:
    """Assert that a scalar was logged, at a step and with a value if these are given.

    Args:
        logdir: The directory of the run itself, such as "logs/train".
        tag: Of the scalar.
        step: The step; None for any.
        approx: The value, met to a millionth of itself, for event files keep seven digits; or whatever else is equal
            to it, such as `pytest.approx(0.5, abs=0.1)`. None for any.

    Raises:
        AssertionError: If it was not; it says what was logged instead.
        TypeError, ValueError: As for `read_events`.

    Example:
        >>> import tempfile, gradcheck, tensorflow as tf
        >>> logdir = tempfile.mkdtemp()
        >>> loss = tf.compat.v1.Summary.Value(tag="loss", simple_value=0.5)
        >>> with tf.summary.create_file_writer(logdir).as_default():
        ...     _ = tf.summary.experimental.write_raw_pb(tf.compat.v1.Summary(value=[loss]).SerializeToString(), step=3)
        >>> gradcheck.tensorboard.assert_scalar_logged(logdir, "loss", step=3, approx=0.5)
        >>> gradcheck.tensorboard.assert_scalar_logged(logdir, "loss", step=4)
        Traceback (most recent call last):
            ...
        AssertionError: scalar 'loss' was not logged at step 4; it was at step 3
    """
    __tracebackhide__ = True
    events = read_events(logdir)
    rest = "".join(f"\n  note: {note}" for note in events.notes)
    series = events.scalars.get(tag)
    if series is None:
        raise AssertionError(f"no scalar {tag!r} was logged; {_tags(events, tag)}{rest}")
    pairs = [(s, v) for s, v in zip(series.steps, series.values, strict=True) if step is None or s == step]
    if not pairs:
        raise AssertionError(f"scalar {tag!r} was not logged at step {step}; it was at {_steps(series.steps)}{rest}")
    if approx is not None and not any(_meets(value, approx) for _, value in pairs):
        values = ", ".join(f"{v:.7g} at step {s}" for s, v in pairs[-_SHOWN:])
        raise AssertionError(f"scalar {tag!r} is {values}; not {approx!r}{rest}")


def _meets(value: float, approx: Any) -> bool:
    if isinstance(approx, (int, float, np.number)):
        wanted = float(approx)
        return math.isclose(value, wanted, rel_tol=1e-6) or (math.isnan(value) and math.isnan(wanted))
    return bool(value == approx)


def _tags(events: Events, tag: str) -> str:
    near = difflib.get_close_matches(tag, events.scalars, _SHOWN, 0.0)
    inside = [run for run, found in events.runs.items() if tag in found.scalars]
    text = f"there are {', '.join(map(repr, near))}" if near else "there is no scalar at all"
    return text + (f"; it is in {', '.join(map(repr, inside))} inside that directory" if inside else "")


def _steps(steps: tuple[int, ...]) -> str:
    if len(steps) == 1:
        return f"step {steps[0]}"
    return f"steps {', '.join(map(str, steps[:_SHOWN]))}" + (f" ... {steps[-1]}" if len(steps) > _SHOWN else "")


def _run(folder: str, names: list[str], runs: dict[str, Events]) -> Events:
    kinds: dict[str, dict[str, list[tuple[int, float, Any]]]] = {
        kind: {} for kind in ("scalars", "histograms", "texts", "images", "tensors")
    }
    notes: list[str] = []
    plugins: dict[str, str] = {}  # the first value of a tag says which plugin draws it
    for name in names:
        for event in _events(os.path.join(folder, name), notes):
            for value in event.summary.value:
                plugin = plugins.setdefault(value.tag, value.metadata.plugin_data.plugin_name)
                try:
                    kind, content = _read(value, plugin)
                except (TypeError, ValueError) as error:
                    notes.append(f"{value.tag!r} at step {event.step} cannot be read: {error}")
                else:
                    kinds[kind].setdefault(value.tag, []).append((event.step, event.wall_time, content))
    series = {kind: {tag: _series(points) for tag, points in tags.items()} for kind, tags in kinds.items()}
    return Events(**series, runs=runs, notes=tuple(dict.fromkeys(notes)))


def _series(points: list[tuple[int, float, Any]]) -> Series[Any]:
    steps, times, values = zip(*points, strict=True)
    return Series(steps=steps, wall_times=times, values=values)


def _events(path: str, notes: list[str]) -> Iterator[Any]:
    count = 0
    with errors_only():  # TensorFlow calls its own reader deprecated; no other reads events without eager execution
        records = tf.compat.v1.train.summary_iterator(path)
    while True:
        try:
            event = next(records)
        except StopIteration:
            return
        except (tf.errors.OpError, ValueError) as error:
            notes.append(f"{path}: read up to record {count}, not further: {said(error)}")
            return
        count += 1
        yield event


def _read(value: Any, plugin: str) -> tuple[str, Any]:
    """The kind of a summary value, and what it holds; TypeError or ValueError where it is not as its kind should be."""
    which = value.WhichOneof("value")
    if which == "simple_value":
        return "scalars", value.simple_value
    if which == "histo":
        return "histograms", _old_histogram(value.histo)
    if which == "image":
        found = value.image
        return "images", (Image(width=found.width, height=found.height, png=found.encoded_image_string),)
    if which != "tensor":
        raise TypeError(f"it holds {which or 'nothing'}")
    array = tf.make_ndarray(value.tensor)
    if plugin == SCALARS:
        return "scalars", float(array)
    if plugin == HISTOGRAMS:
        return "histograms", array.astype(np.float64).reshape(-1, 3)
    if plugin == TEXTS:
        return "texts", "\n".join(entry.decode(errors="replace") for entry in array.reshape(-1))
    if plugin == IMAGES:
        width, height, *pictures = array
        return "images", tuple(Image(width=int(width), height=int(height), png=png) for png in pictures)
    return "tensors", array


def _old_histogram(found: Any) -> NDArray[np.float64]:
    """[k, 3] of the message that `tf.compat.v1.summary.histogram` writes; its outermost edges are infinite."""
    right = np.clip(np.array(found.bucket_limit, np.float64), found.min, found.max)
    left = np.concatenate([[found.min], right])[:-1]
    return np.stack([left, right, np.array(found.bucket, np.float64)], axis=1)
