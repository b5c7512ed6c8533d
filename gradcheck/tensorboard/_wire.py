"""Summary values as the bytes that event files hold, put together from parts that were encoded once.

Source: Protocol Buffers, "Encoding"; the fields' numbers: "summary.proto", "tensor.proto", "event.proto" of TensorFlow.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Container, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.tensor_pb2 import TensorProto

from gradcheck.tensorboard._values import ABOUT, HISTOGRAMS, SCALARS, Summary

_VALUE, _TENSOR, _FLOATS, _CONTENT, _SUMMARY = 1, 8, 5, 4, 5  # of Summary, Value, TensorProto twice, and Event
_TIME, _STEP = b"\x09", b"\x10"  # the keys of an Event's wall_time, a double, and its step, a number
_SINGLE = 4  # bytes of a float32
_WHOLE = (1 << 64) - 1  # a negative number is written as what is this much and one more larger


class Encoded(NamedTuple):
    """Values of a summary.

    Attributes:
        key: What they are known by: a tag, or a `Sheet`.
        content: The values, with metadata or without: readers remember it from a tag's first value.
    """

    key: Hashable
    content: Callable[[bool], bytes]


class Sheet:
    """Scalars under tags that recur together: their bytes, with a hole for each number."""

    def __init__(self, tags: Sequence[str]) -> None:
        self._forms = []
        for about in (b"", _about(SCALARS)):
            values = [_of_value(_scalar_head(tag) + bytes(_SINGLE), about) for tag in tags]
            self._forms.append(_form(values, len(about)))

    def filled(self, numbers: NDArray[Any]) -> list[Encoded]:
        """The scalars of some steps with these numbers, [steps, tags], in float32, as TensorBoard keeps them."""
        with np.errstate(over="ignore"):
            singles = numbers.astype("<f4").view(np.uint8)

        @functools.cache
        def table(described: bool) -> NDArray[Any]:
            form, holes = self._forms[described]
            values = np.tile(form, [len(singles), 1])
            values[:, holes] = singles
            return values

        def content(k: int, described: bool) -> bytes:
            filled: bytes = table(described)[k].tobytes()
            return filled

        return [Encoded(self, functools.partial(content, k)) for k in range(len(singles))]


def _form(values: Sequence[bytes], behind: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Values as one array of bytes, and where in it their numbers lie: `behind` bytes before the end of each."""
    ends = np.cumsum([len(value) for value in values], dtype=np.intp) - behind
    holes = ends[:, None] + np.arange(-_SINGLE, 0)
    return np.frombuffer(b"".join(values), np.uint8), holes.reshape(-1)


def encoded(value: Any) -> Encoded:
    """A summary value in that form, whichever it has."""
    if isinstance(value, Encoded):
        return value
    body = Summary.Value()
    body.CopyFrom(value)
    body.ClearField("metadata")
    return Encoded(value.tag, lambda described: _of_value((value if described else body).SerializeToString()))


@functools.lru_cache(4096)
def _scalar_head(tag: str) -> bytes:
    proto = TensorProto(dtype=tf.float32.as_datatype_enum)  # without a shape, which is that of a scalar
    tensor = proto.SerializeToString() + _field(_FLOATS, bytes(_SINGLE))
    return (_named(tag) + _field(_TENSOR, tensor))[:-_SINGLE]


def scalar(tag: str, number: float) -> Encoded:
    """A number on the page SCALARS, in float32."""
    with np.errstate(over="ignore"):
        body = _scalar_head(tag) + np.float64(number).astype("<f4").tobytes()
    return Encoded(tag, lambda described: _of_value(body, _about(SCALARS) if described else b""))


def histogram(tag: str, buckets: NDArray[Any]) -> Encoded:
    """A finite float64 array of shape [k, 3] on the page HISTOGRAMS; in float32, where that says the same."""
    return histograms([tag], buckets[None], np.zeros(1, int), np.array([len(buckets)]))[0]


def histograms(tags: Sequence[str], tables: NDArray[Any], first: NDArray[Any], behind: NDArray[Any]) -> list[Encoded]:
    """Some of them, each what is in [n, k, 3] from a first row on, with zeros in the others."""
    with np.errstate(over="ignore"):
        singles = tables.astype("<f4")
    short = (singles == tables).all((1, 2)).tolist()
    spans = zip(tags, short, first.tolist(), behind.tolist(), strict=True)
    return [
        Encoded(tag, functools.partial(_histogram, tag, is_short, (singles if is_short else tables)[k, start:end]))
        for k, (tag, is_short, start, end) in enumerate(spans)
    ]


def _histogram(tag: str, single: bool, table: NDArray[Any], described: bool) -> bytes:
    before, about = _around(tag, single, len(table), described)
    return before + table.tobytes() + about


def summary(values: Iterable[Any], described: Container[Hashable] = ()) -> bytes:
    """A `Summary`, without metadata where that is described."""
    return b"".join([v.content(v.key not in described) for v in map(encoded, values)])


def event(wall_time: float, step: int, content: bytes) -> bytes:
    """An `Event` with a summary."""
    return _TIME + struct.pack("<d", wall_time) + _STEP + _number(step & _WHOLE) + _field(_SUMMARY, content)


def _of_value(body: bytes, about: bytes = b"") -> bytes:
    return _field(_VALUE, body + about)


def _field(number: int, payload: bytes) -> bytes:
    """A field with a length: its key, its length, and what it holds."""
    return _number(number << 3 | 2) + _number(len(payload)) + payload


def _number(value: int) -> bytes:
    """A number that is not negative, in groups of seven bits from the lowest."""
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    groups.append(value)
    return bytes(groups)


@functools.lru_cache(4096)
def _named(tag: str) -> bytes:
    name: bytes = Summary.Value(tag=tag).SerializeToString()
    return name


@functools.cache
def _about(plugin: str) -> bytes:
    metadata: bytes = Summary.Value(metadata=ABOUT[plugin]).SerializeToString()
    return metadata


@functools.lru_cache(1 << 14)
def _around(tag: str, single: bool, rows: int, described: bool) -> tuple[bytes, bytes]:
    """What a histogram has before its table and behind it."""
    dtype, shape = tf.float32 if single else tf.float64, tf.TensorShape([rows, 3])
    head = TensorProto(dtype=dtype.as_datatype_enum, tensor_shape=shape.as_proto()).SerializeToString()
    table = bytes(rows * 3 * dtype.size)
    about = _about(HISTOGRAMS) if described else b""
    whole = _of_value(_named(tag) + _field(_TENSOR, head + _field(_CONTENT, table)), about)
    return whole[: len(whole) - len(about) - len(table)], about
