"""What only the package tensorboard has words for: layouts of the page CUSTOM SCALARS, and HParams.

Where it is not installed, these give nothing and the logger "gradcheck" says once what to install; the rest is written
all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from gradcheck.tensorboard._sink import warn_once
from gradcheck.tensorboard._values import Summary, SummaryMetadata


def layout(categories: Mapping[str, Mapping[str, Sequence[str]]]) -> list[Any]:
    """The layout of CUSTOM SCALARS: what is drawn together, as one value to write at step 0.

    Args:
        categories: Per title of a section, charts by title, each with the regular expressions of the scalars' tags
            that share it.
    """
    try:
        from tensorboard.plugins.custom_scalar import layout_pb2, metadata
    except ModuleNotFoundError as error:
        _say_what_is_missing(error, "the page CUSTOM SCALARS")
        return []
    found = layout_pb2.Layout(
        category=[
            layout_pb2.Category(
                title=title,
                chart=[
                    layout_pb2.Chart(title=chart, multiline=layout_pb2.MultilineChartContent(tag=tags))
                    for chart, tags in charts.items()
                ],
            )
            for title, charts in categories.items()
        ]
    )
    about = SummaryMetadata.FromString(metadata.create_summary_metadata().SerializeToString())
    tensor = tf.make_tensor_proto(found.SerializeToString(), tf.string)
    return [Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, tensor=tensor, metadata=about)]


def hparams(values: Mapping[str, bool | float | str], metrics: Sequence[str]) -> list[Any]:
    """What tells a run apart on the page HPARAMS, as values to write at step 0.

    Args:
        values: The settings of the run, by name.
        metrics: Tags of the scalars that are shown beside them.
    """
    try:
        from tensorboard.plugins.hparams import api
    except ModuleNotFoundError as error:
        _say_what_is_missing(error, "the page HPARAMS")
        return []
    written = (
        api.hparams_config_pb([api.HParam(name) for name in values], [api.Metric(tag) for tag in metrics]),
        api.hparams_pb(dict(values)),
    )
    return [value for pb in written for value in Summary.FromString(pb.SerializeToString()).value]


def _say_what_is_missing(error: ModuleNotFoundError, page: str) -> None:
    if (error.name or "").partition(".")[0] != "tensorboard":
        raise error
    warn_once(
        f"nothing is written for {page}: that needs the package tensorboard, and there is none in this environment; "
        'type pip install "gradcheck[tensorboard]"'
    )
