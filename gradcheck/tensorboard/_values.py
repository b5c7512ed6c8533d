"""What TensorBoard shows, as summary values: the plugins that draw them, texts and images.

TensorFlow's own `tf.summary.scalar` and its siblings need the tensorboard package since TensorFlow 2.21; a value is no
more than a tensor with the name of the page that draws it, and that needs nothing.
Source: TensorBoard, "summary.proto" and the metadata.py of its plugins scalar, histogram, text and image.
"""

from __future__ import annotations

import struct
from typing import Any

import tensorflow as tf

Summary = tf.compat.v1.Summary
SummaryMetadata = tf.compat.v1.SummaryMetadata

# The plugins, by name.
SCALARS, HISTOGRAMS, TEXTS, IMAGES = "scalars", "histograms", "text", "images"
_SCALAR_CLASS, _TENSOR_CLASS, _BLOB_CLASS = 1, 2, 3  # DataClass in summary.proto
_CLASSES = {SCALARS: _SCALAR_CLASS, HISTOGRAMS: _TENSOR_CLASS, TEXTS: _TENSOR_CLASS, IMAGES: _BLOB_CLASS}
ABOUT = {
    plugin: SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin), data_class=data_class)
    for plugin, data_class in _CLASSES.items()
}
_PNG = b"\x89PNG\r\n\x1a\n"


def text(tag: str, markdown: str) -> Any:
    """Markdown on the page TEXT."""
    return _value(tag, TEXTS, tf.make_tensor_proto(markdown.encode(), tf.string))


def image(tag: str, png: bytes) -> Any:
    """A picture on the page IMAGES.

    Raises:
        ValueError: If `png` is no PNG.
    """
    if png[:8] != _PNG or len(png) < 24:
        raise ValueError(f"png must hold a PNG picture; got {len(png)} bytes that begin with {png[:8]!r}")
    width, height = struct.unpack(">II", png[16:24])
    return _value(tag, IMAGES, tf.make_tensor_proto([str(width).encode(), str(height).encode(), png], tf.string))


def _value(tag: str, plugin: str, tensor: Any) -> Any:
    return Summary.Value(tag=tag, tensor=tensor, metadata=ABOUT[plugin])
