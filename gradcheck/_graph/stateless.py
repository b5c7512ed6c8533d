"""A stateful random op, as the stateless one that draws from the same distribution."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tensorflow.core.framework import types_pb2

from gradcheck._graph.nodes import Node, beside, control_inputs, data_inputs, make_node, output_refs

_PHILOX = 1  # tf.random.Algorithm.PHILOX
_U64, _I64, _I32 = types_pb2.DT_UINT64, types_pb2.DT_INT64, types_pb2.DT_INT32


@dataclass(slots=True)
class _Draw:
    """One stateful op while its stateless twin is made."""

    node: Node
    stream: str | None  # reference to a number that differs from iteration to iteration, if there is any
    nodes: list[Node] = field(default_factory=list)

    @property
    def ins(self) -> list[str]:
        return data_inputs(self.node)

    def type_of(self, attribute: str) -> int:
        return int(self.node.attr[attribute].type)

    def add(self, op: str, name: str, inputs: Iterable[str], **types: int) -> Node:
        made = make_node(op, f"{self.node.name}/{name}", inputs, **types)
        self.nodes.append(made)
        return made

    def constant(self, name: str, dtype: int, value: int | Iterable[int]) -> str:
        made = constant(f"{self.node.name}/{name}", dtype, value, beside(self.ins[-1]))
        self.nodes.append(made)
        return f"{made.name}:output:0"

    def pair(self, name: str, first: int) -> str:
        """[first, stream], int64."""
        if self.stream is None:
            return self.constant(name, _I64, [first, 0])
        pack = self.add("Pack", name, [self.constant(f"{name}/first", _I64, first), self.stream], T=_I64)
        pack.attr["N"].i = 2
        return f"{pack.name}:output:0"

    def philox(self) -> list[str]:
        """Key, counter and algorithm."""
        key = self.constant("key", _U64, [key_of(self.node.name)])
        if self.stream is None:
            counter = self.constant("counter", _U64, [0, 0])
        else:
            cast = self.add("Cast", "counter", [self.pair("pair", 0)], SrcT=_I64, DstT=_U64)
            counter = f"{cast.name}:y:0"
        return [key, counter, self.constant("algorithm", _I32, _PHILOX)]

    def seed(self) -> str:
        return self.pair("seed", key_of(self.node.name))

    def shape_before(self, parameter: int, shape_type: int, parameter_type: int) -> str:
        """The shape at input 0, followed by the shape of a parameter."""
        own = self.add("Shape", "parameter_shape", [self.ins[parameter]], T=parameter_type, out_type=shape_type)
        axis = self.constant("axis", _I32, 0)
        inputs = [self.ins[0], f"{own.name}:output:0", axis]
        joined = self.add("ConcatV2", "full_shape", inputs, T=shape_type, Tidx=_I32)
        joined.attr["N"].i = 2
        return f"{joined.name}:output:0"

    def finish(self, op: str, inputs: Iterable[str], **types: int) -> None:
        self.nodes.append(make_node(op, self.node.name, [*inputs, *control_inputs(self.node)], **types))


def _by_shape(op: str, shape: int = 0, more: tuple[int, ...] = (), dtype: str = "dtype") -> Callable[[_Draw], None]:
    def make(draw: _Draw) -> None:
        inputs = [draw.ins[shape], *draw.philox(), *(draw.ins[i] for i in more)]
        draw.finish(op, inputs, dtype=draw.type_of(dtype), Tshape=draw.type_of("shape_dtype" if shape else "T"))

    return make


def _gamma(draw: _Draw) -> None:
    dtype, shape_type = draw.type_of("T"), draw.type_of("S")
    shape = draw.shape_before(1, shape_type, dtype)
    draw.finish("StatelessRandomGammaV3", [shape, *draw.philox(), draw.ins[1]], dtype=dtype, shape_dtype=shape_type)


def _poisson(rate: str) -> Callable[[_Draw], None]:
    def make(draw: _Draw) -> None:
        dtype, rate_type, shape_type = draw.type_of("dtype"), draw.type_of(rate), draw.type_of("S")
        inputs = [draw.shape_before(1, shape_type, rate_type), draw.seed(), draw.ins[1]]
        draw.finish("StatelessRandomPoisson", inputs, Rtype=rate_type, dtype=dtype, T=shape_type, Tseed=_I64)

    return make


def _multinomial(draw: _Draw) -> None:
    output = draw.type_of("output_dtype") or _I64
    draw.finish("StatelessMultinomial", [*draw.ins, draw.seed()], T=draw.type_of("T"), Tseed=_I64, output_dtype=output)


def _binomial(draw: _Draw) -> None:
    _, _, shape, counts, probabilities = draw.ins
    draw.finish(
        "StatelessRandomBinomial", [shape, draw.seed(), counts, probabilities],
        S=draw.type_of("S"), Tseed=_I64, T=draw.type_of("T"), dtype=draw.type_of("dtype"),
    )  # fmt: skip


def _shuffle(draw: _Draw) -> None:
    draw.finish("StatelessShuffle", [draw.ins[0], *draw.philox()], T=draw.type_of("T"))


STATELESS: dict[str, Callable[[_Draw], None]] = {
    "RandomUniform": _by_shape("StatelessRandomUniformV2"),
    "RandomStandardNormal": _by_shape("StatelessRandomNormalV2"),
    "TruncatedNormal": _by_shape("StatelessTruncatedNormalV2"),
    "RandomUniformInt": _by_shape("StatelessRandomUniformIntV2", more=(1, 2), dtype="Tout"),
    "StatefulUniform": _by_shape("StatelessRandomUniformV2", 2),
    "StatefulStandardNormalV2": _by_shape("StatelessRandomNormalV2", 2),
    "StatefulTruncatedNormal": _by_shape("StatelessTruncatedNormalV2", 2),
    "StatefulUniformInt": _by_shape("StatelessRandomUniformIntV2", 2, more=(3, 4)),
    "StatefulUniformFullInt": _by_shape("StatelessRandomUniformFullIntV2", 2),
    "RandomGamma": _gamma,
    "RandomPoisson": _poisson("dtype"),
    "RandomPoissonV2": _poisson("R"),
    "Multinomial": _multinomial,
    "StatefulRandomBinomial": _binomial,
    "RandomShuffle": _shuffle,
}


def stateless(node: Node, stream: str | None) -> list[Node]:
    """The nodes that stand for a stateful random op; the last one has its name.

    Args:
        node: One of `STATELESS`.
        stream: Reference to an int64 scalar; other values give other draws.
    """
    draw = _Draw(node, stream)
    STATELESS[node.op](draw)
    return draw.nodes


def key_of(name: str) -> int:
    """A key for the draws of a node."""
    # The node's name alone: a function's name differs from trace to trace, and the same seed must give the same report.
    return zlib.crc32(name.encode()) * 0x9E3779B97F4A7C15 % 2**62


def constant(name: str, dtype: int, value: int | Iterable[int], control: Iterable[str]) -> Node:
    """A Const of whole numbers: a scalar, or a vector."""
    node = make_node("Const", name, control, dtype=dtype)
    tensor = node.attr["value"].tensor
    tensor.dtype = dtype
    values = [value] if isinstance(value, int) else list(value)
    if isinstance(value, int):
        tensor.tensor_shape.SetInParent()
    else:
        tensor.tensor_shape.dim.add(size=len(values))
    store = {_U64: tensor.uint64_val, _I64: tensor.int64_val, _I32: tensor.int_val}
    store[dtype].extend(values)
    return node


def output_of(node: Node) -> str:
    """The reference to the only output of a node."""
    ref: str = output_refs(node)[0][0]
    return ref
