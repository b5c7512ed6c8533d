"""Each likeness has a wrong Jacobian that earns it, and a near miss that must not get it."""

import numpy as np
import pytest

from gradcheck._diagnose.jacobians import Block
from gradcheck._diagnose.likeness import likenesses

rng = np.random.default_rng(0)
X = np.array([-1.5, -0.7, -0.2, 0.1, 0.4, 0.9, 1.3, 2.2])
W = rng.normal(size=(3, 3))
SLOPES = np.diag(2 * X)
# y[i, k] = sum over j of x[i, j] w[j, k], for x of shape [2, 3].
PRODUCT = np.einsum("ab,jk->akbj", np.eye(2), W).reshape(6, 6)
PRODUCT_OF_TRANSPOSED = np.einsum("ab,jk->akbj", np.eye(2), W.T).reshape(6, 6)
BROADCAST = np.tile(np.eye(2), (4, 1))  # of a row of 2 that is added to 4 rows
SUM = rng.uniform(0.5, 2.0, (1, 6))


def block(analytic, numeric, shape, y_shape, base=None, **more):
    analytic, numeric = np.asarray(analytic, float), np.asarray(numeric, float)
    base = np.zeros(numeric.shape[1]) if base is None else base
    allowed = np.full(numeric.shape, 1e-9)
    return Block(
        analytic=analytic, numeric=numeric, allowed=allowed, base=base, shape=shape, y_shape=y_shape, **more
    )  # fmt: skip


def said(*blocks):
    found = likenesses({k: (f"argument {k}", each) for k, each in enumerate(blocks)})
    return [found[k].text if k in found else None for k in range(len(blocks))]


def slopes(analytic, numeric=SLOPES):
    return block(analytic, numeric, (8,), (8,), X)


def gradients(analytic, numeric):
    """Of several cotangents."""
    return block(analytic, numeric, (8,), (8,), X, combined=True)


def with_entry(matrix, value, at=(0, 0)):
    changed = np.array(matrix, float)
    changed[at] += value
    return changed


PERMUTED = np.arange(9).reshape(3, 3).T.reshape(-1)
TALL = rng.normal(size=(2, 6))
RESHAPED = np.swapaxes(TALL.reshape(2, 2, 3), -1, -2).reshape(2, 6)
FULL = rng.normal(size=(4, 4))
COMPLEX = np.array([[1.0, -2.0], [2.0, 1.0]])
MIXING = np.eye(4) + 0.3 * rng.normal(size=(4, 4))
COTANGENTS = np.random.default_rng(1).normal(size=(5, 8)) * np.array([[0.1], [1], [3], [7], [9]])
NORMS = np.linalg.norm(COTANGENTS, axis=1, keepdims=True)

OF_KERNEL = np.einsum("bi,jk->bkij", np.array([[1.0, 2.0, 0.5], [-1.0, 0.7, 3.0]]), np.eye(2)).reshape(4, 6)
GATHERED = np.eye(6)[[0, 1, 0, 1, 4, 5]]  # rows 0, 0 and 2
OVERWRITTEN = GATHERED * [[0], [0], [1], [1], [1], [1]]
LAST = np.array([[0], [0], [0], [0], [1], [1]])
POOLED = np.repeat(np.eye(2), 4, axis=1) / 4
# Of three numbers each, the second, the first and the last is the largest.
TRIPLES = np.array([0.1, 2.0, -1.0, 0.9, 0.3, 0.2, -0.7, 0.5, 1.5])
LARGEST = 2 * np.eye(9)[[1, 3, 8]]
GROUPS = np.repeat(np.eye(3), 3, axis=1)


def maxima(analytic, numeric=LARGEST):
    """A Jacobian of the largest of each triple, twice."""
    return block(analytic, numeric, (9,), (3,), base=TRIPLES)


LOWER = np.tril(np.ones((3, 3), bool)).reshape(-1)
TRIANGULAR = rng.normal(size=(4, 9)) * LOWER
ABOVE = rng.normal(size=(4, 9)) * ~LOWER


def matrix(analytic, numeric=TRIANGULAR):
    """A Jacobian of what reads the lower triangle of a matrix."""
    return block(analytic, numeric, (3, 3), (4,), base=np.arange(9.0) % 4 - 1.5)


EARNED = [
    # Neither the largest nor the smallest made it.
    ("wrong only in 6 entries, on which the output", maxima(2 * GROUPS, 2 * np.eye(9)[[1, 4, 6]])),
    ("in other places, in all 8 wrong entries that have one: [0] of the input has what belongs to [1]",
     slopes(np.roll(SLOPES, -1, axis=1))),
    ("in other places, in all 5 wrong entries", slopes(np.roll(SLOPES * (X < 0.9), -1, axis=1), SLOPES * (X < 0.9))),
    ("wrong only in 3 entries above the diagonal, on which the output does not depend", matrix(TRIANGULAR + ABOVE)),
    ("wrong only in 3 entries, on which the output does not depend",
     matrix((TRIANGULAR + ABOVE)[:, [0, 3, 2, 1, 4, 5, 6, 7, 8]], TRIANGULAR[:, [0, 3, 2, 1, 4, 5, 6, 7, 8]])),
    ("of a maximum goes to 3 entries, and belongs to the largest alone", maxima(2 * GROUPS)),
    ("of a maximum goes to 2 entries, and belongs", maxima(LARGEST + 2 * np.eye(9)[[0, 4, 8]] * [[1], [1], [0]])),
    ("of a maximum is shared by 3 entries, like that of a mean: it belongs to the largest", maxima(2 / 3 * GROUPS)),
    ("of a maximum goes to another entry than the largest", maxima(2 * np.eye(9)[[0, 3, 6]])),
    ("of a minimum goes to 3 entries, and belongs to the smallest", maxima(2 * GROUPS, 2 * np.eye(9)[[2, 5, 6]])),
    ("wrong only where x < 0: in all 3", slopes(np.where(X < 0, 0.5, 1) * SLOPES)),
    ("where analytic = 0, and right", slopes(np.where(X < 0, 0, 1) * SLOPES)),
    ("wrong only where x > 0", slopes(np.where(X > 0, np.cos(X), 1) * SLOPES)),
    ("wrong only where x >= 1.3", slopes(np.where(X > 1, np.cos(X), 1) * SLOPES)),
    ("wrong only where |x| >= 1.3", slopes(np.where(np.abs(X) > 1, np.cos(X), 1) * SLOPES)),
    ("clipped to [-1.5, 1.5]", slopes(np.clip(SLOPES, -1.5, 1.5))),
    ("kept below 1.5", slopes(np.minimum(SLOPES, 1.5))),
    ("kept above -1", slopes(np.maximum(SLOPES, -1))),
    ("clipped to [-2, 2]", gradients(np.clip(COTANGENTS, -2, 2), COTANGENTS)),
    ("clipped to a norm of 4", gradients(COTANGENTS * np.minimum(1, 4 / NORMS), COTANGENTS)),
    ("the sign is flipped", slopes(-SLOPES)),
    ("analytic = 3 x numeric in all 8 wrong entries", slopes(3 * SLOPES)),
    ("that of the identity: a straight-through", slopes(np.eye(8), np.zeros((8, 8)))),
    ("that of the identity in 6 of 8 entries, and 0", slopes(np.diag(np.abs(X) < 1.4) * 1.0, np.zeros((8, 8)))),
    ("as in straight-through estimators", slopes(np.diag(1 - np.tanh(X) ** 2), np.zeros((8, 8)))),
    ("a matrix is used where its transpose belongs", block(PRODUCT_OF_TRANSPOSED, PRODUCT, (2, 3), (2, 3))),
    ("the gradient is transposed: its axes 0 and 1", block(PRODUCT[:, :4], PRODUCT[:, [0, 2, 1, 3]], (2, 2), (6,))),
    ("the gradient is made symmetric: it is the mean", block((FULL + FULL[:, [0, 2, 1, 3]]) / 2, FULL, (2, 2), (4,))),
    ("the upstream gradient is used transposed", block(FULL, FULL[[0, 2, 1, 3]], (4,), (2, 2))),
    ("the Jacobian is used where its transpose", block(FULL, FULL.T, (2, 2), (2, 2))),
    ("reshaped to the shape of the input", block(RESHAPED, TALL, (2, 3), (2,))),
    ("only the diagonal", block(np.diag(np.diag(MIXING)), MIXING, (2, 2), (2, 2))),
    ("only entry 0 along axis 0", block(BROADCAST * (np.arange(8) < 2)[:, None], BROADCAST, (2,), (4, 2))),
    ("the mean over a broadcast axis", block(BROADCAST / 4, BROADCAST, (2,), (4, 2))),
    ("only entry 1 along axis 0", block(OF_KERNEL * (np.arange(4) > 1)[:, None], OF_KERNEL, (3, 2), (2, 2))),
    ("4 of 6 entries of the outputs send back nothing: the upstream gradient of an output is left out",
     block(np.eye(6)[[2, 3, 2, 3, 2, 3]] * LAST, np.eye(6)[[2, 3, 2, 3, 2, 3]], (3, 2), None)),
    ("2 of 6 entries of the output send back", block(OVERWRITTEN, GATHERED, (3, 2), (3, 2))),
    ("4 x numeric, and each entry of the output is made of 4", block(4 * POOLED, POOLED, (8,), (2,))),
    ("analytic = numeric / 6, and each entry of the output is made of 6", block(SUM / 6, SUM, (2, 3), ())),
    ("analytic = numeric / 3, and 3 entries along axis 1 of the input are added", block(SUM / 3, SUM, (2, 3), ())),
    ("analytic = 6 x numeric", block(6 * SUM, SUM, (2, 3), ())),
    ("is not conjugated", block(COMPLEX.T, COMPLEX, (1,), (1,), paired=(True, True))),
    ("the complex conjugate of", block(COMPLEX * [1, -1], COMPLEX, (1,), (1,), paired=(True, True))),
]  # fmt: skip
NEARLY = [
    slopes(np.roll(SLOPES, -1, axis=1) * 1.01),
    matrix((TRIANGULAR + ABOVE) * 1.01),
    matrix(TRIANGULAR + ABOVE * (np.arange(9) == 1)),
    maxima(2 * GROUPS * (1 + 1e-6 * TRIPLES)),
    slopes(np.where((X < 0) | (X == 0.4), np.cos(X), 1) * SLOPES),
    slopes(np.where(X == -1.5, np.cos(X), 1) * SLOPES),  # one wrong entry says nothing of a side
    slopes(with_entry(np.where(X < 0, np.cos(X), 1) * SLOPES, 1e-6, (4, 4))),
    slopes(np.diag(1.5 * np.tanh(2 * X / 1.5))),  # saturates, and has no bound
    slopes(np.where(np.abs(SLOPES) > 2.5, 0.1 * np.sign(SLOPES), SLOPES) * np.where(X == 0.1, 1.01, 1)),
    slopes(np.eye(8), np.diag(1.1 + np.abs(X))),  # 1 in all entries, which is no bound
    gradients(COTANGENTS * np.minimum(1, 4 / NORMS) * (1 + 1e-6 * np.arange(8)), COTANGENTS),
    slopes(with_entry(3 * SLOPES, 1e-6)),
    slopes(with_entry(np.eye(8), 1e-3, (1, 1)), with_entry(np.zeros((8, 8)), 1e-3, (1, 1))),
    block(with_entry(PRODUCT_OF_TRANSPOSED, 1e-6), PRODUCT, (2, 3), (2, 3)),
    block(PRODUCT_OF_TRANSPOSED * 1.01, PRODUCT, (2, 3), (2, 3)),
    block(with_entry(RESHAPED, 1e-6), TALL, (2, 3), (2,)),
    block(np.diag(np.diag(MIXING)) * 1.01, MIXING, (2, 2), (2, 2)),
    block(with_entry(BROADCAST * (np.arange(8) < 2)[:, None], 1e-6, (5, 0)), BROADCAST, (2,), (4, 2)),
    block(np.diag([1.0, 1, 1, 1, 0, 1]) @ GATHERED, GATHERED, (3, 2), (3, 2)),  # not made of what another is made of
    block(with_entry(GATHERED, -1, (2, 0)) * 1.01, GATHERED, (3, 2), (3, 2)),
    block(COMPLEX.T * 1.01, COMPLEX, (1,), (1,), paired=(True, True)),
]
PLAIN = [
    block(SUM / 5, SUM, (2, 3), ()),  # 5 counts nothing
    block(SUM / 2, SUM, (2, 3), ()),  # 2 is a length, and any forgotten factor
    slopes(SLOPES / 8),  # nothing is summed
    block(8 * POOLED, POOLED, (8,), (2,)),  # 8 is a length, and 4 are summed
    block(4 * BROADCAST, BROADCAST, (2,), (4, 2)),
]


@pytest.mark.parametrize(("text", "one"), EARNED, ids=[text for text, _ in EARNED])
def test_what_is_seen_is_said(text, one):
    (found,) = said(one)
    assert text in found


@pytest.mark.parametrize("one", NEARLY, ids=range(len(NEARLY)))
def test_a_near_miss_gets_no_hint(one):
    assert one.wrong.any()
    assert said(one) == [None]


@pytest.mark.parametrize("one", PLAIN, ids=range(len(PLAIN)))
def test_a_factor_that_counts_nothing_is_a_constant_factor(one):
    found = likenesses({0: ("x", one)})[0]
    assert found.plain
    assert found.text.endswith("a constant factor")


def test_gradients_of_two_inputs_that_are_swapped():
    a, b = SLOPES, np.diag(np.cos(X))
    assert said(slopes(b, a), slopes(a, b)) == [
        "the gradients of two inputs are swapped: this is the one of argument 1",
        "the gradients of two inputs are swapped: this is the one of argument 0",
    ]


def test_gradients_that_are_not_crossed_are_not_swapped():
    a, b = SLOPES, np.diag(np.cos(X))
    assert said(slopes(b, a), slopes(b, b)) == [None, None]
    assert said(slopes(b, a), slopes(a * 1.01, b)) == [None, None]


def test_what_is_right_and_what_is_not_finite_get_no_hint():
    assert said(slopes(SLOPES)) == [None]
    assert said(slopes(SLOPES * 2, with_entry(SLOPES, np.nan))) == [None]
