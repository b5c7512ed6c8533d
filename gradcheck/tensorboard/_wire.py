"""Summary values as the bytes that event files hold, put together from parts that were encoded once.

Source: Protocol Buffers, "Encoding"; the fields' numbers: "summary.proto", "tensor.proto", "event.proto" of TensorFlow.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Container, Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.core.framework.tensor_pb2 import TensorProto

from gradcheck.tensorboard._values import ABOUT, HISTOGRAMS, SCALARS, Summary

_VALUE, _TENSOR, _FLOATS, _CONTENT, _SUMMARY = 1, 8, 5, 4, 5  # of Summary, Value, TensorProto twice, and Event
_SINGLE = struct.Struct("<f")


class Encoded(NamedTuple):
    """A summary value.

    Attributes:
        tag: Its name.
        body: The value, without metadata.
        about: The metadata, which readers remember from a tag's first value.
    """

    tag: str
    body: bytes
    about: bytes


def encoded(value: Any) -> Encoded:
    """A summary value in that form, whichever it has."""
    if isinstance(value, Encoded):
        return value
    body = Summary.Value()
    body.CopyFrom(value)
    body.ClearField("metadata")
    about = Summary.Value(metadata=value.metadata) if value.HasField("metadata") else Summary.Value()
    return Encoded(value.tag, body.SerializeToString(), about.SerializeToString())


@functools.lru_cache(4096)
def _scalar_head(tag: str) -> bytes:
    proto = TensorProto(dtype=tf.float32.as_datatype_enum)  # without a shape, which is that of a scalar
    tensor = proto.SerializeToString() + _field(_FLOATS, bytes(_SINGLE.size))
    return (_named(tag) + _field(_TENSOR, tensor))[: -_SINGLE.size]


def scalar(tag: str, number: float) -> Encoded:
    """A number on the page SCALARS, in float32."""
    try:
        single = _SINGLE.pack(number)
    except OverflowError:
        single = _SINGLE.pack(math.copysign(math.inf, number))
    return Encoded(tag, _scalar_head(tag) + single, _about(SCALARS))


def histogram(tag: str, buckets: NDArray[Any]) -> Encoded:
    """A finite float64 array of shape [k, 3] on the page HISTOGRAMS; in float32, where that says the same."""
    with np.errstate(over="ignore"):
        single = buckets.astype(np.float32)
    table = single if (single == buckets).all() else buckets
    tensor = _table_head(table.dtype, len(table)) + _field(_CONTENT, table.tobytes())
    return Encoded(tag, _named(tag) + _field(_TENSOR, tensor), _about(HISTOGRAMS))


def summary(values: Iterable[Any], described: Container[str] = ()) -> bytes:
    """A `Summary`, without metadata for the tags that are described."""
    return b"".join([_field(_VALUE, v.body if v.tag in described else v.body + v.about) for v in map(encoded, values)])


def event(wall_time: float, step: int, content: bytes) -> bytes:
    """An `Event` with a summary."""
    head: bytes = tf.compat.v1.Event(wall_time=wall_time, step=step).SerializeToString()
    return head + _field(_SUMMARY, content)


def _field(number: int, payload: bytes) -> bytes:
    """A field with a length: its key, its length in groups of seven bits from the lowest, and what it holds."""
    head = bytearray((number << 3 | 2,))
    length = len(payload)
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head) + payload


@functools.lru_cache(4096)
def _named(tag: str) -> bytes:
    name: bytes = Summary.Value(tag=tag).SerializeToString()
    return name


@functools.cache
def _about(plugin: str) -> bytes:
    metadata: bytes = Summary.Value(metadata=ABOUT[plugin]).SerializeToString()
    return metadata


@functools.cache
def _table_head(dtype: Any, rows: int) -> bytes:
    shape = tf.TensorShape([rows, 3]).as_proto()
    head: bytes = TensorProto(dtype=tf.as_dtype(dtype).as_datatype_enum, tensor_shape=shape).SerializeToString()
    return head
