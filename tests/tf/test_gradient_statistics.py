"""What is counted and drawn of a gradient, in each way that a graph can run."""

import math

import numpy as np
import pytest
import tensorflow as tf

from gradcheck.tensorboard import _reducing
from gradcheck.tensorboard._formats import FORMATS, HEAD, flat
from gradcheck.tensorboard._measuring import measured, norm
from gradcheck.tensorboard._packing import pack
from gradcheck.tensorboard._reducing import reduced
from gradcheck.tensorboard._statistics import Statistics, drawn

RNG = np.random.default_rng(0)
NORMAL = (RNG.normal(size=2000) * RNG.choice([1e-6, 1e-2, 1.0], 2000)).astype("f")
NORMAL[:300] = 0
SUBNORMAL = 2.0**-140


def _cast(values, dtype):
    return tf.cast(tf.constant(values, tf.float32), dtype)


CASES = {
    "float32": tf.constant([1.0, -2.0, 0.0, -0.0, SUBNORMAL, np.nan, np.inf, -np.inf, -np.inf, 3.0]),
    "ordinary": tf.constant(NORMAL),
    "matrix": tf.reshape(tf.constant(NORMAL), [40, 50]),
    "squares overflow": tf.constant([3e20, -4e20]),
    "squares underflow": tf.constant([3e-25, 4e-25]),
    "only subnormal": tf.constant([3 * 2.0**-145, -4 * 2.0**-145]),
    "negative NaN": tf.constant([-np.nan, 1.0]),
    "zero-size": tf.zeros([0, 3]),
    "scalar": tf.constant(-2.0),
    "zeros": tf.zeros([4]),
    "bfloat16": _cast([1.0, -2.0, 0.0, SUBNORMAL / 2**-9, np.nan, np.inf, 2.0**-130], tf.bfloat16),
    "float16": _cast([1.0, -2.0, 0.0, 2.0**-20, 2.0**-14, 60000.0, -np.inf], tf.float16),
    "float64": tf.constant([1.0, -2.0, 0.0, 1e200, np.nan, np.inf], tf.float64),
    "float64 subnormal": tf.constant([1.0, 1e-310], tf.float64),
    "complex64": tf.constant([3 + 4j, 0, complex(math.nan, 1)], tf.complex64),
    "complex128": tf.constant([3 + 4j, complex(0, -math.inf)], tf.complex128),
    "slices": tf.IndexedSlices(
        tf.constant([[1.0, 2.0], [3.0, 4.0], [-1.0, 6.0]]), tf.constant([1, 4, 1]), tf.constant([10, 2])
    ),
    "no slices": tf.IndexedSlices(tf.zeros([0, 2]), tf.zeros([0], tf.int32)),
}


def _numbers(value):
    """The same in NumPy, in float64."""
    if isinstance(value, tf.IndexedSlices):
        rows = {}
        for at, row in zip(value.indices.numpy(), value.values.numpy(), strict=True):
            rows[at] = rows.get(at, 0) + row
        return np.array(list(rows.values()), np.float64).ravel()
    array = value.numpy().ravel()
    if array.dtype.kind == "c":
        array = np.concatenate([array.real, array.imag])
    return array.astype(np.float64)


def _tiny(value):
    dtype = value.dtype.real_dtype
    return {tf.float16: 2.0**-14, tf.bfloat16: 2.0**-126, tf.float32: 2.0**-126, tf.float64: 2.0**-1022}[dtype]


def _expected(value):
    x = _numbers(value)
    with np.errstate(over="ignore", invalid="ignore"):
        scale = max(np.abs(x[np.isfinite(x)]), default=0.0) or 1.0
        return {
            "norm": scale * np.linalg.norm(x / scale), "largest": np.abs(x).max() if x.size else 0.0,
            "zero": (x == 0).sum(), "subnormal": ((x != 0) & (np.abs(x) < _tiny(value))).sum(),
            "nan": np.isnan(x).sum(), "posinf": (x == np.inf).sum(), "neginf": (x == -np.inf).sum(),
        }  # fmt: skip


# Where nothing has to be looked at closely: no NaN, no infinity, no square that is lost.
CALM = ("ordinary", "matrix", "zero-size", "scalar", "zeros", "float64 subnormal", "slices", "no slices")


def _packed(values, histograms):
    """The numbers of `HEAD`, [7, values], and bins, as XLA computes them."""
    *heads, bins = tf.function(lambda values: pack([flat(v) for v in values], histograms), jit_compile=True)(values)
    widths = [FORMATS[value.dtype.real_dtype].bins for value in values]
    return np.concatenate(heads).reshape(len(HEAD), -1), np.split(bins.numpy(), np.cumsum(widths)[:-1])


def _reduced(values, histograms):
    """The same by reductions: the second of two steps."""
    made = []

    @tf.function
    def reduce(values):
        each = [True] * len(values)
        tensors, reduction = reduced(values, counts=each, histograms=[histograms] * len(values))
        made.append(reduction)
        return tensors

    seen = [made[0].seen(tensors) for tensors in (reduce(values), reduce(values))]
    heads, found = made[0].statistics(seen)
    assert (heads[:1] == heads[1:])[~np.isnan(heads[:1])].all()
    bins = {k: counts[1, at] for which, _, counts in found for at, k in enumerate(which)}
    return heads[1], [bins.get(k) for k in range(len(values))]


def _found(way, histograms, cases):
    """The statistics of cases that leave a graph together."""
    values = [CASES[name] for name in cases]
    heads, bins = (_packed if way == "xla" else _reduced)(values, histograms)
    for name, value, head, counts in zip(cases, values, heads.T, bins, strict=True):
        form = FORMATS[value.dtype.real_dtype]
        buckets = drawn(counts[None], form.bias, head[1:2]).of(0) if histograms else None
        yield name, Statistics(*head, buckets)


@pytest.mark.slow
@pytest.mark.parametrize("histograms", [True, False])
@pytest.mark.parametrize("cases", [CASES, CALM], ids=["all", "calm"])
def test_statistics_compiled_by_xla_are_those_of_numpy(cases, histograms):
    for name, one in _found("xla", histograms, [*cases]):
        _is_as_by_numpy(name, one, histograms)


@pytest.mark.parametrize("histograms", [True, False])
@pytest.mark.parametrize("flushed", [True, False], ids=["flushed", "kept"])
@pytest.mark.parametrize("few", [1024, 9, 0])
def test_statistics_of_a_graph_are_those_of_numpy(few, flushed, histograms, monkeypatch):
    """Of tensors that leave it as they are, and of those that are reduced; wherever subnormal numbers are flushed."""
    monkeypatch.setattr(_reducing, "_FEW", few)
    monkeypatch.setattr(_reducing, "_ROOM", 4000 if flushed else 0)
    monkeypatch.setattr(_reducing, "takes_subnormal_for_zero", lambda: flushed)
    for name, one in _found("graph", histograms, [*CASES]):
        _is_as_by_numpy(name, one, histograms)


def test_statistics_of_many_numbers_need_little_of_them():
    """Rows with zeros alone leave the graph, where no norm is in doubt."""
    rows = np.tile(NORMAL[300:], 60).reshape(-1, 1000).copy()
    rows[[3, 50], [7, 8]] = 0, SUBNORMAL
    left, reduction = reduced([tf.constant(rows)], counts=[True], histograms=[False])
    assert sum(tensor.numpy().size for tensor in left) < 300
    heads, _ = reduction.statistics([reduction.seen(left)])
    assert heads[0, -2:, 0].tolist() == [1, 1]
    assert heads[0, 0, 0] == pytest.approx(np.linalg.norm(rows.astype(np.float64)), rel=1e-6)


@pytest.mark.parametrize("histogram", [True, False])
def test_statistics_on_the_host_are_those_of_numpy(histogram):
    """In Python, and in the thread in which TensorFlow calls Python, which may take subnormal numbers for zero."""
    dtypes = [value.dtype.real_dtype for value in CASES.values()]
    vectors = [flat(value) for value in CASES.values()]
    found = []

    def look(*arrays):
        pairs = zip(arrays, dtypes, strict=True)
        found.extend((measured(array, dtype, histogram), norm(array, dtype)) for array, dtype in pairs)

    look(*(vector.numpy() for vector in vectors))
    tf.function(lambda: tf.numpy_function(look, vectors, []) and None)()
    for name, (one, size) in zip([*CASES, *CASES], found, strict=True):
        _is_as_by_numpy(name, one, histogram)
        assert size == pytest.approx(one.norm, rel=1e-6, abs=0, nan_ok=True), name


@pytest.mark.parametrize("scale", [1.0, 1e3], ids=["below 2", "above 2"])
def test_many_numbers_are_counted_as_few(scale):
    many = np.tile(NORMAL, 700)[:-1] * np.float32(scale)
    few = measured(many[: len(NORMAL)], tf.float32, True)
    one = measured(many, tf.float32, True)
    expected = few.buckets[:, 2] * 700
    assert (one.buckets[:, :2] == few.buckets[:, :2]).all()
    assert sorted(expected - one.buckets[:, 2])[-2:] == [0, 1]
    assert one.zero == 700 * few.zero
    assert one.norm == pytest.approx(np.linalg.norm(many.astype(np.float64)), rel=1e-6)


def _is_as_by_numpy(name, one, histograms):
    for kind, expected in _expected(CASES[name]).items():
        got = getattr(one, kind)
        same = got == pytest.approx(expected, rel=3e-6 if kind == "norm" else 0, abs=0, nan_ok=True)
        assert same, (name, kind, got, expected)
    assert (one.buckets is not None) == histograms
    if histograms:
        _is_a_histogram_of(one.buckets, _numbers(CASES[name]), _tiny(CASES[name]), name)


def _is_a_histogram_of(buckets, numbers, tiny, name):
    finite = numbers[np.isfinite(numbers)]
    assert buckets.dtype == np.float64
    assert buckets.shape[1] == 3
    assert 1 <= len(buckets) <= 29
    assert np.isfinite(buckets).all()
    assert buckets[:, 2].sum() == finite.size
    assert (buckets[:, 0] <= buckets[:, 1]).all()
    assert (buckets[1:, 0] == buckets[:-1, 1]).all()  # no gaps
    finite = np.where(np.abs(finite) < tiny, 0.0, finite)
    for left, right, count in buckets:  # a number on an edge may be on either side
        assert ((left < finite) & (finite < right)).sum() <= count <= ((left <= finite) & (finite <= right)).sum(), name
    largest = np.abs(finite).max(initial=0)
    assert np.abs(buckets[:, :2]).max() == (largest if np.isfinite(numbers).all() else pytest.approx(largest, rel=1))


@pytest.mark.parametrize(
    ("bits", "largest", "expected"),
    [
        ({}, 0.0, [[0, 0, 0]]),
        ({0: 3}, 0.0, [[0, 0, 3]]),
        ({127: 1}, 1.0, [[0.5, 1, 1]]),
        ({127: 2}, 1.5, [[1, 1.5, 2]]),
        ({127 + 256: 2}, 1.5, [[-1.5, -1, 2]]),
        ({127: 2, 0: 1}, 1.5, [[0, 2.0**-13, 1], *([2.0**k, 2.0 ** (k + 1), 0] for k in range(-13, 0)), [1, 1.5, 2]]),
        ({255: 5}, math.nan, [[0, 0, 0]]),
        ({254: 1, 255: 1}, math.inf, [[2.0**127, 2.0**128, 1]]),
    ],
)
def test_bins_are_drawn_by_sign_and_power_of_two(bits, largest, expected):
    bins = np.zeros(512)
    for at, count in bits.items():
        bins[at] = count
    others = np.ones(512)  # beside which it is drawn
    found = drawn(np.stack([others, bins, others]), 127, np.array([1.0, largest, math.inf]))
    assert found.of(1).tolist() == expected


def test_the_largest_float64_is_drawn_within_float64():
    bins = np.zeros(4096)
    bins[2046] = 1
    assert drawn(bins[None], 1023, np.array([math.inf])).of(0)[:, :2].max() == np.finfo(np.float64).max
