"""One battery over all rules, and what each owes to its paper, to TensorFlow and to Keras."""

import dataclasses
import functools
import itertools
import re

import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck import optimizers
from gradcheck.optimizers import (
    Accumulated,
    Adagrad,
    Adam,
    AdamW,
    Amplified,
    Clipped,
    Decayed,
    ExponentialDecay,
    GradientDescent,
    InverseTimeDecay,
    Miscounted,
    Momentum,
    RMSProp,
    Scaled,
    Stale,
    Started,
    TwoAssignments,
)

keras, raw = tf.keras, tf.raw_ops
EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
RULES = {
    "gradient descent": GradientDescent(0.1),
    "momentum": Momentum(0.05, 0.8),
    "nesterov": Momentum(0.05, 0.8, nesterov=True),
    "momentum, rate in update": Momentum(0.05, 0.8, learning_rate_in="update"),
    "dampened": Momentum(0.05, 0.8, dampening=0.25),
    "adagrad": Adagrad(0.6),
    "adagrad, started": Adagrad(0.6, 0.1, epsilon_in="root"),
    "rmsprop": RMSProp(0.02),
    "rmsprop with momentum": RMSProp(0.01, momentum=0.5, initial_accumulator_value=1.0, epsilon_in="denominator"),
    "adam": Adam(0.05),
    "adam, uncorrected": Adam(0.05, bias_correction=False),
    "adam of algorithm 1": Adam(0.05, epsilon_in="denominator"),
    "adam, epsilon in root": Adam(0.05, epsilon_in="root"),
    "adam, amsgrad": Adam(0.05, beta_2=0.9, amsgrad=True),
    "rmsprop, centered": RMSProp(0.02, centered=True, epsilon=0.1),
    "accumulated": Accumulated(Momentum(0.05, 0.8), 3),
    "amplified": Amplified(Clipped(GradientDescent(0.05), 4.0, by="norm"), 2.0),
    "started": Started(Adam(0.05), "m", 0.5),
    "miscounted": Miscounted(Adam(0.05)),
    "clipped step": Clipped(Momentum(0.05, 0.8), 0.1, of="step"),
    "adamw": AdamW(0.05, weight_decay=0.0),
    "clipped by value": Clipped(GradientDescent(0.1), 1.0),
    "clipped by norm": Clipped(GradientDescent(0.1), 1.0, by="norm"),
    "clipped by global norm": Clipped(Momentum(0.05, 0.8), 1.0, by="global norm"),
    "decayed": Decayed(GradientDescent(0.1), 0.0),
    "stale": Stale(GradientDescent(0.1)),
    "two assignments": TwoAssignments(Momentum(0.05, 0.8)),
    "two assignments, params first": TwoAssignments(Momentum(0.05, 0.5), first="params"),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def run(rule, params, gradient, steps):
    state = rule.init(params)
    for _ in range(steps):
        params, state = rule.step(params, gradient(params), state)
    return params, state


def bowl(w):
    return 2 * (w - 3.0)


def rosenbrock(params):
    with tf.GradientTape() as tape:
        tape.watch(params)
        x, y = params
        loss = (1 - x) ** 2 + 100 * (y - x**2) ** 2
    return tape.gradient(loss, params)


@every_rule
@pytest.mark.slow
def test_a_rule_converges_on_a_bowl(rule):
    w, step = tf.constant(2.0, tf.float64), tf.function(rule.step)
    state = rule.init(w)
    for _ in range(400):
        w, state = step(w, bowl(w), state)
    assert abs(float(w) - 3) < 1e-2


@pytest.mark.parametrize(
    "rule",
    [
        GradientDescent(1e-3), Momentum(2e-4, 0.9), Momentum(2e-4, 0.9, nesterov=True), Adagrad(0.5), RMSProp(2e-3),
        Adam(0.02), AdamW(0.02, weight_decay=0.0),
    ],
    ids=lambda rule: type(rule).__name__,
)  # fmt: skip
@pytest.mark.slow
def test_a_rule_comes_near_the_minimum_of_rosenbrocks_function(rule):
    start = [tf.constant(-0.5, tf.float64), tf.constant(0.5, tf.float64)]

    @tf.function
    def descent():
        params, state = start, rule.init(start)
        for _ in tf.range(8000):
            params, state = rule.step(params, rosenbrock(params), state)
        return params

    x, y = (float(each) for each in descent())
    assert (1 - x) ** 2 + 100 * (y - x**2) ** 2 < 1e-2, (x, y)


@pytest.mark.parametrize("dtype", EPS)
@every_rule
def test_a_rule_keeps_dtype_and_structure_and_leaves_its_inputs_alone(rule, dtype):
    def structure(a, b, c):
        return {"b": (tf.cast(b, dtype), [tf.cast(c, dtype)]), "a": tf.cast(a, dtype)}

    params, grads = structure([1.0, 2.0], 3.0, [[0.5]]), structure([0.25, -1.0], 2.0, [[0.0]])
    state = rule.init(params)
    given = [leaf.numpy().copy() for leaf in tf.nest.flatten((params, grads, state))]
    moved, after = rule.step(params, grads, state)
    tf.nest.assert_same_structure(moved, params)
    tf.nest.assert_same_structure(after, state)
    assert {leaf.dtype.name for leaf in tf.nest.flatten(moved)} == {dtype}
    assert [leaf.shape for leaf in tf.nest.flatten(moved)] == [leaf.shape for leaf in tf.nest.flatten(params)]
    assert [leaf.dtype for leaf in tf.nest.flatten(after)] == [leaf.dtype for leaf in tf.nest.flatten(state)]
    assert int(after["step"]) == int(state["step"]) + 1 == 1
    for leaf, before in zip(tf.nest.flatten((params, grads, state)), given, strict=True):
        np.testing.assert_array_equal(leaf.numpy(), before)


@every_rule
def test_a_traced_step_is_the_eager_one(rule):
    params, grads = [tf.constant([1.0, -2.0]), tf.constant(0.5)], [tf.constant([0.3, 4.0]), tf.constant(-1.0)]
    traced, state = tf.function(rule.step), rule.init(params)
    one, other = (params, state), (params, state)
    for _ in range(3):
        one, other = rule.step(one[0], grads, one[1]), traced(other[0], grads, other[1])
    for mine, yours in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        np.testing.assert_allclose(mine, yours, rtol=8 * EPS["float32"])


@pytest.mark.parametrize(
    ("rule", "expected"),  # of w = 2, g = -4, by hand
    [
        (GradientDescent(0.5), 4.0),
        (Momentum(0.25, 0.5), 3.0),
        (Momentum(0.25, 0.5, nesterov=True), 3.5),
        (Momentum(0.25, 0.5, dampening=0.5), 2.5),
        (Momentum(0.25, 0.5, learning_rate_in="update"), 3.0),
        (Adagrad(0.5, 9.0, 3.0), 2.25),
        (Adagrad(0.5, 4.0, 5.0, epsilon_in="root"), 2.4),
        (RMSProp(0.5, 0.75, epsilon=0.0), 3.0),
        (RMSProp(0.5, 0.75, epsilon=12.0), 2.5),
        (RMSProp(0.5, 0.75, epsilon=2.0, epsilon_in="denominator"), 2.5),
        (RMSProp(0.5, 0.75, epsilon=0.0, initial_accumulator_value=16.0), 2.5),
        (Adam(0.5, epsilon=0.0), 2.5),
        (Adam(0.5, 0.75, 0.75, epsilon=2.0), 2.25),  # α = 0.5 √0.25 / 0.25 = 1, m = -1, √v = 2
        (Adam(0.5, 0.75, 0.75, epsilon=4.0, epsilon_in="denominator"), 2.25),
        (Adam(0.5, 0.75, 0.75, epsilon=48.0, epsilon_in="root"), 2.25),
        (Adam(0.5, 0.75, 0.75, epsilon=0.0, bias_correction=False), 2.25),
        (AdamW(0.5, epsilon=0.0, weight_decay=0.5), 2.0),
        (Clipped(GradientDescent(0.5), 1.0), 2.5),
        (Clipped(GradientDescent(0.5), 8.0), 4.0),
        (Decayed(GradientDescent(0.5), 0.5), 3.5),
        (Decayed(GradientDescent(0.5), 0.5, into="weights"), 3.5),
        (Decayed(GradientDescent(0.5), 0.25, into="weights, unscaled"), 3.5),
        (Decayed(GradientDescent(0.5), 0.5, into="weights, afterwards"), 3.0),
        (Clipped(GradientDescent(0.5), 0.25, of="step"), 2.25),
        (Adam(0.5, 0.75, 0.75, epsilon=0.0, bias_correction="m"), 3.0),
        (Adam(0.5, 0.75, 0.75, epsilon=0.0, bias_correction="v"), 2.125),
        (Adam(0.5, epsilon=0.0, amsgrad=True), 2.5),
        (RMSProp(0.5, 0.75, epsilon=0.0, centered=True), 2.0 + 2.0 / 3**0.5),  # a = 4, b = -1
        (Accumulated(GradientDescent(0.5), 1), 4.0),
        (Accumulated(GradientDescent(0.5), 2), 2.0),
        (Amplified(GradientDescent(0.5), -2.0), -2.0),
        (Amplified(Clipped(GradientDescent(0.5), 6.0, by="norm"), 2.0), 5.0),
        (Amplified(Clipped(GradientDescent(0.5), 6.0), 2.0), 5.0),
        (Clipped(Amplified(GradientDescent(0.5), 2.0), 3.0), 5.0),
        (Started(Momentum(0.25, 0.5), "velocity", 2.0), 2.0),
        (Miscounted(GradientDescent(ExponentialDecay(1.0, 0.5))), 4.0),
        (Stale(GradientDescent(0.5)), 2.0),
        (Stale(GradientDescent(0.5), first="fresh"), 4.0),
        (TwoAssignments(Momentum(0.25, 0.5)), 3.0),
        (TwoAssignments(Momentum(0.25, 0.5), first="params"), 2.0),
        (GradientDescent(Scaled(ExponentialDecay(2.0, 0.5), 0.25)), 4.0),
    ],
    ids=str,
)
def test_the_first_step_is_that_of_a_computation_by_hand(rule, expected):
    params, _ = rule.step(tf.constant([2.0]), tf.constant([-4.0]), rule.init(tf.constant([2.0])))
    assert float(params[0]) == pytest.approx(expected, rel=8 * EPS["float32"])


def resource(op, names, **given):
    """A step of one of TensorFlow's kernels on variables of the slots."""

    def start(w, dtype):
        slots = {name: tf.Variable(tf.fill(w.shape, tf.constant(value, dtype))) for name, value in names.items()}
        var = tf.Variable(w)

        def step(g):
            numbers = {n: tf.constant(value() if callable(value) else value, dtype) for n, value in given.items()}
            handles = {name: slot.handle for name, slot in slots.items()}
            flags = {"use_nesterov": True} if "nesterov" in op else {}
            gradient = {"delta" if "GradientDescent" in op else "grad": g}
            getattr(raw, op.split()[0])(var=var.handle, **gradient, **handles, **numbers, **flags)
            return var.numpy()

        return step

    return start


def of_keras(make):
    def start(w, dtype):
        del dtype
        var, optimizer = tf.Variable(w), make()
        optimizer.build([var])
        apply = tf.function(lambda g: optimizer.apply([g], [var]))

        def step(g):
            apply(g)
            return var.numpy()

        return step

    return start


def adam_kernel(w, dtype):
    powers = [map(beta.__pow__, itertools.count(1)) for beta in BETAS]
    given = {f"beta{i}": beta for i, beta in enumerate(BETAS, 1)}
    given |= {f"beta{i}_power": functools.partial(next, power) for i, power in enumerate(powers, 1)}
    return resource("ResourceApplyAdam", {"m": 0.0, "v": 0.0}, lr=RATE, epsilon=EPSILON, **given)(w, dtype)


# Keras takes all numbers through float32, even for float64 weights: these are exact there.
RATE, EPSILON, START, BETAS = 2.0**-4, 2.0**-23, 0.125, (0.875, 1 - 2.0**-10)
PEERS = [
    (GradientDescent(RATE), resource("ResourceApplyGradientDescent", {}, alpha=RATE)),
    (GradientDescent(RATE), of_keras(lambda: keras.optimizers.SGD(RATE))),
    (Momentum(RATE, 0.75), resource("ResourceApplyMomentum", {"accum": 0.0}, lr=RATE, momentum=0.75)),
    (Momentum(RATE, 0.75), of_keras(lambda: keras.optimizers.SGD(RATE, momentum=0.75))),
    (Momentum(RATE, 0.75), resource("ResourceApplyKerasMomentum", {"accum": 0.0}, lr=RATE, momentum=0.75)),
    (Momentum(RATE, 0.75, nesterov=True),
     resource("ResourceApplyMomentum nesterov", {"accum": 0.0}, lr=RATE, momentum=0.75)),
    (Momentum(RATE, 0.75, nesterov=True), of_keras(lambda: keras.optimizers.SGD(RATE, momentum=0.75, nesterov=True))),
    (Adagrad(RATE, START, 0.0), resource("ResourceApplyAdagrad", {"accum": START}, lr=RATE)),
    (Adagrad(RATE, START, 0.25), resource("ResourceApplyAdagradV2", {"accum": START}, lr=RATE, epsilon=0.25)),
    (Adagrad(RATE, START, EPSILON, epsilon_in="root"),
     of_keras(lambda: keras.optimizers.Adagrad(RATE, initial_accumulator_value=START, epsilon=EPSILON))),
    (RMSProp(RATE, 0.75, 0.5, 0.25, initial_accumulator_value=1.0),
     resource("ResourceApplyRMSProp", {"ms": 1.0, "mom": 0.0}, lr=RATE, rho=0.75, momentum=0.5, epsilon=0.25)),
    (RMSProp(RATE, 0.75, epsilon=EPSILON), of_keras(lambda: keras.optimizers.RMSprop(RATE, rho=0.75, epsilon=EPSILON))),
    (RMSProp(RATE, 0.75, 0.5, 0.25),
     of_keras(lambda: keras.optimizers.RMSprop(RATE, rho=0.75, momentum=0.5, epsilon=0.25))),
    (Adam(RATE, *BETAS, EPSILON), adam_kernel),
    (Adam(RATE, *BETAS, EPSILON), of_keras(lambda: keras.optimizers.Adam(RATE, *BETAS, EPSILON))),
    (Adam(RATE, BETAS[0], 0.75, EPSILON, amsgrad=True),
     of_keras(lambda: keras.optimizers.Adam(RATE, BETAS[0], 0.75, EPSILON, amsgrad=True))),
    (RMSProp(RATE, 0.75, 0.5, 0.25, centered=True),
     of_keras(lambda: keras.optimizers.RMSprop(RATE, rho=0.75, momentum=0.5, epsilon=0.25, centered=True))),
    (RMSProp(RATE, 0.75, 0.5, 0.25, initial_accumulator_value=1.0, centered=True),
     resource("ResourceApplyCenteredRMSProp", {"mg": 0.0, "ms": 1.0, "mom": 0.0}, lr=RATE, rho=0.75, momentum=0.5,
              epsilon=0.25)),
    (Accumulated(Adam(RATE, *BETAS, EPSILON), 4),
     of_keras(lambda: keras.optimizers.Adam(RATE, *BETAS, EPSILON, gradient_accumulation_steps=4))),
    (AdamW(RATE, *BETAS, EPSILON, weight_decay=0.25),
     of_keras(lambda: keras.optimizers.AdamW(RATE, 0.25, *BETAS, EPSILON))),
    (Decayed(Clipped(Momentum(RATE, 0.75), 0.5, by="norm"), 0.25, into="weights"),
     of_keras(lambda: keras.optimizers.SGD(RATE, momentum=0.75, clipnorm=0.5, weight_decay=0.25))),
    (Clipped(GradientDescent(RATE), 0.5, by="global norm"),
     of_keras(lambda: keras.optimizers.SGD(RATE, global_clipnorm=0.5))),
    (Clipped(GradientDescent(RATE), 0.5), of_keras(lambda: keras.optimizers.SGD(RATE, clipvalue=0.5))),
]  # fmt: skip


def endings(rule, peer, dtype):
    """The weights of the rule and of its peer after each of 200 steps on random gradients."""
    rng = np.random.default_rng(3)
    w, grads = rng.normal(size=5).astype(np.float32), rng.normal(size=(200, 5)).astype(np.float32)
    mine, step = tf.constant(w, dtype), tf.function(rule.step)
    state, theirs, found = rule.init(mine), peer(mine, dtype), []
    for g in tf.unstack(tf.constant(grads, dtype)):
        mine, state = step(mine, g, state)
        found.append((mine.numpy(), theirs(g).copy()))
    return np.moveaxis(np.array(found, np.float64), 1, 0)


def assert_equal_over_200_steps(rule, peer):
    """In float64 to a few roundings of weight and step at each step, in float32 to what both are off their float64."""
    (mine, theirs), (wide, wider) = endings(rule, peer, tf.float32), endings(rule, peer, tf.float64)
    roundings = 8 * EPS["float64"] * np.cumsum(np.abs(wide) + np.abs(np.diff(wide, axis=0, prepend=0)), axis=0)
    assert np.all(abs(wide - wider) <= roundings), np.max(abs(wide - wider) / roundings)
    assert np.all(abs(mine - theirs) <= abs(mine - wide) + abs(theirs - wider) + roundings)


@pytest.mark.parametrize(
    ("rule", "peer"), PEERS, ids=[f"{type(rule).__name__}-{i}" for i, (rule, _) in enumerate(PEERS)]
)
@pytest.mark.slow
def test_a_rule_equals_tensorflows_kernel_and_keras_over_200_random_steps(rule, peer):
    assert_equal_over_200_steps(rule, peer)


@pytest.mark.parametrize("change", [{"learning_rate": 2.0**-4 * (1 + 1e-12)}, {"momentum": 0.75 + 1e-12}])
def test_the_test_above_can_fail(change):
    rule, peer = PEERS[2]
    with pytest.raises(AssertionError):
        assert_equal_over_200_steps(dataclasses.replace(rule, **change), peer)


@pytest.mark.parametrize("number", [0.25, np.float32(0.25), tf.constant(0.25), tf.Variable(0.25), lambda step: 0.25])
def test_a_learning_rate_may_be_a_number_a_tensor_or_a_schedule(number):
    rule = GradientDescent(number)
    w, _ = rule.step(
        tf.constant(1.0, tf.float64), tf.constant(2.0, tf.float64), rule.init(tf.constant(1.0, tf.float64))
    )
    assert float(w) == 0.5
    assert w.dtype == tf.float64


def test_a_schedule_of_keras_is_called_with_the_step_from_0():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [0.5, 0.25, 0.125])
    rule = GradientDescent(schedule)
    w, state = tf.constant(0.0), rule.init(0.0)
    found = []
    for _ in range(3):
        before = float(w)
        w, state = tf.function(rule.step)(w, tf.constant(-1.0), state)
        found.append(float(w) - before)
    assert found == [0.5, 0.25, 0.125]


def test_rates_outside_and_inside_the_velocity_part_when_the_rate_changes():
    schedule = ExponentialDecay(1.0, 0.5)
    inside, outside = Momentum(schedule, 0.5), Momentum(schedule, 0.5, learning_rate_in="update")
    ends = [float(run(rule, tf.constant(0.0), lambda _: tf.constant(-1.0), 2)[0]) for rule in (inside, outside)]
    assert ends == [1.0 + (0.5 + 0.5), 1.0 + 0.5 * (0.5 + 1.0)]


@every_rule
def test_sparse_gradients_count_as_zero_where_no_row_is_named(rule):
    params = tf.constant([[1.0], [2.0], [3.0]])
    sparse = tf.IndexedSlices(tf.constant([[1.0], [0.5], [0.25]]), tf.constant([2, 0, 2]), tf.constant([3, 1]))
    dense = tf.constant([[0.5], [0.0], [1.25]])
    one, _ = rule.step(params, sparse, rule.init(params))
    other, _ = rule.step(params, dense, rule.init(params))
    np.testing.assert_array_equal(one, other)


@every_rule
def test_a_param_without_a_gradient_stays_with_its_slots(rule):
    params = [tf.constant([1.0, 2.0]), tf.constant(3.0)]
    state = rule.init(params)
    moved, after = rule.step(params, [None, tf.constant(1.0)], state)
    np.testing.assert_array_equal(moved[0], params[0])
    for name in rule.slots():
        np.testing.assert_array_equal(after[name][0], state[name][0])


def test_a_nan_stays_a_nan():
    for rule in RULES.values():
        w, _ = run(rule, tf.constant([1.0, 2.0]), lambda _: tf.constant([np.nan, 1.0]), 3)
        assert np.isnan(w[0]), rule


THROUGH = {
    "gradient descent": lambda eta, mu, acc: GradientDescent(eta),
    "momentum": lambda eta, mu, acc: Momentum(eta, mu),
    "nesterov": lambda eta, mu, acc: Momentum(eta, mu, nesterov=True),
    "adagrad": lambda eta, mu, acc: Adagrad(eta, acc),
    "rmsprop": lambda eta, mu, acc: RMSProp(eta, mu, mu, initial_accumulator_value=acc),
    "adam": lambda eta, mu, acc: Adam(eta, mu, epsilon=acc),
    "adamw": lambda eta, mu, acc: AdamW(eta, mu, weight_decay=acc),
    "clipped": lambda eta, mu, acc: Clipped(Momentum(eta, mu), acc, by="global norm"),
}


@pytest.mark.slow  # the bundled subjects check the like of it, at one weight
@pytest.mark.parametrize("make", THROUGH.values(), ids=THROUGH)
def test_gradients_pass_through_the_steps_of_a_rule(make):
    """Hypergradients: of the loss after five steps by the start, the rate, the momentum and the accumulator."""

    def loss(w, learning_rate, momentum, accumulator):
        rule = make(learning_rate, momentum, accumulator)
        (w, b), _ = run(rule, (w, tf.constant(0.25)), lambda p: (bowl(p[0]), 3 * p[1]), 5)
        return tf.reduce_sum((w - 3) ** 2) + b * b

    inputs = {"w": np.array([2.0, 3.5], np.float32), "learning_rate": np.float32(0.1), "momentum": np.float32(0.6),
              "accumulator": np.float32(0.3)}  # fmt: skip
    report = gradcheck.check_gradients(loss, inputs, forward=True)
    assert report.ok, str(report)
    assert any("forward mode agrees" in note for note in report.notes), report.notes


def test_a_gradient_of_zero_at_an_accumulator_of_zero_has_a_finite_hypergradient():
    g = tf.constant([0.0, 1.0])
    with tf.GradientTape() as tape:
        tape.watch(g)
        w, _ = Adagrad(0.5, epsilon=0.25).step(tf.zeros(2), g, Adagrad(0.5).init(tf.zeros(2)))
    np.testing.assert_allclose(tape.gradient(w, g), [-2.0, -0.5 * 0.25 / 1.25**2], rtol=4 * EPS["float32"])


GOOD = GradientDescent(0.1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: GradientDescent(-0.1), ValueError,
         "learning_rate must be a finite number at least 0; got learning_rate=-0.1"),
        (lambda: GradientDescent(float("nan")), ValueError,
         "learning_rate must be a finite number at least 0; got learning_rate=nan"),
        (lambda: GradientDescent(tf.constant(-1.0)), ValueError,
         "learning_rate must be a finite number at least 0; got learning_rate=-1.0"),
        (lambda: GradientDescent(tf.constant([1.0, 2.0])), TypeError,
         "learning_rate must be a floating scalar; got a tensor of shape (2,) and dtype float32; a schedule is a "
         "callable of the step, which counts from 0"),
        (lambda: GradientDescent("0.1"), TypeError,
         "learning_rate must be a number or a scalar tensor; got learning_rate='0.1'; a schedule is a callable of the "
         "step, which counts from 0"),
        (lambda: Momentum(0.1, 1.5), ValueError, "momentum must be a finite number from 0 to 1; got momentum=1.5"),
        (lambda: Momentum(0.1, True), TypeError, "momentum must be a number or a scalar tensor; got momentum=True"),
        (lambda: Momentum(0.1, 0.9, nesterov=1), TypeError, "nesterov must be True or False; got nesterov=1"),
        (lambda: Momentum(0.1, 0.9, learning_rate_in="v"), ValueError,
         "learning_rate_in must be one of 'velocity', 'update'; got learning_rate_in='v'"),
        (lambda: Adagrad(0.1, -1.0), ValueError,
         "initial_accumulator_value must be a finite number at least 0; got initial_accumulator_value=-1.0"),
        (lambda: Adagrad(0.1, epsilon=-1.0), ValueError,
         "epsilon must be a finite number at least 0; got epsilon=-1.0"),
        (lambda: RMSProp(0.1, rho=2), ValueError, "rho must be a finite number from 0 to 1; got rho=2.0"),
        (lambda: Adam(0.1, beta_2=-0.5), ValueError, "beta_2 must be a finite number from 0 to 1; got beta_2=-0.5"),
        (lambda: Adam(0.1, bias_correction=0), TypeError,
         "bias_correction must be True or False; got bias_correction=0"),
        (lambda: AdamW(0.1, weight_decay=-0.5), ValueError,
         "weight_decay must be a finite number at least 0; got weight_decay=-0.5"),
        (lambda: Clipped(GOOD, 1.0, by="size"), ValueError,
         "by must be one of 'value', 'norm', 'global norm'; got by='size'"),
        (lambda: Clipped(GradientDescent, 1.0), TypeError,
         "rule must be a rule of gradcheck.optimizers, e.g. GradientDescent(0.1); got the class GradientDescent"),
        (lambda: Decayed(GOOD, -1.0), ValueError, "decay must be a finite number at least 0; got decay=-1.0"),
        (lambda: Adam(0.1, bias_correction="w"), ValueError,
         "bias_correction must be one of 'm', 'v'; got bias_correction='w'"),
        (lambda: Adam(0.1, amsgrad=1), TypeError, "amsgrad must be True or False; got amsgrad=1"),
        (lambda: RMSProp(0.1, centered=None), TypeError, "centered must be True or False; got centered=None"),
        (lambda: Clipped(GOOD, 1.0, by="norm", of="step"), ValueError, "by must be one of 'value'; got by='norm'"),
        (lambda: Clipped(GOOD, 1.0, of="weights"), ValueError,
         "of must be one of 'gradient', 'step'; got of='weights'"),
        (lambda: Accumulated(GOOD, 2.0), TypeError, "steps must be an integer; got steps=2.0"),
        (lambda: Accumulated(GOOD, 0), ValueError, "steps must be at least 1; got steps=0"),
        (lambda: Accumulated(Stale(Clipped(GOOD, 1.0, by="norm")), 2), ValueError,
         "Accumulated cannot stand around clipping by a norm; write Clipped(Accumulated(...), ...), which clips each "
         "gradient"),
        (lambda: Amplified(GOOD, 0.0), ValueError, "factor must be a finite number other than 0; got factor=0.0"),
        (lambda: Started(GOOD, "velocity", 1.0), TypeError, "GradientDescent(0.1) has no slots"),
        (lambda: Started(Momentum(0.1, 0.9), "v", 1.0), ValueError,
         "slot must be one of 'velocity'; got slot='v'"),
        (lambda: Miscounted(GOOD, 2), ValueError, "by must be 1 or -1, a step; got by=2"),
        (lambda: Stale(GOOD, first="last"), ValueError, "first must be one of 'zero', 'fresh'; got first='last'"),
        (lambda: TwoAssignments(0.5), TypeError,
         "rule must be a rule of gradcheck.optimizers, e.g. GradientDescent(0.1); got 0.5"),
        (lambda: Scaled(0.5, 2.0), TypeError, "schedule must be a callable of the step; got schedule=0.5"),
        (lambda: InverseTimeDecay(0.5, -2.0), ValueError, "decay must be a finite number at least 0; got decay=-2.0"),
        (lambda: GOOD.init([]), ValueError, "params must hold at least one tensor; got []"),
        (lambda: GOOD.init({"a": 1}), TypeError, "params['a'] must be a floating tensor; got dtype int32: cast it"),
        (lambda: GOOD.init(["a"]), TypeError, "params[0] must be a floating tensor; got dtype string: cast it"),
        (lambda: GOOD.step([1.0, 2.0], [1.0], GOOD.init([1.0, 2.0])), ValueError,
         "grads must have the structure of params, which is [., .]; got [.]"),
        (lambda: GOOD.step({"a": 1.0}, {"b": 1.0}, GOOD.init({"a": 1.0})), ValueError,
         "grads must have the structure of params, which is {'a': .}; got {'b': .}"),
        (lambda: GOOD.step([tf.ones(2)], [tf.ones(3)], GOOD.init([tf.ones(2)])), ValueError,
         "grads[0] must have the shape of params, (2,); got (3,)"),
        (lambda: GOOD.step([tf.ones(2)], [tf.ones(2, tf.float64)], GOOD.init([tf.ones(2)])), TypeError,
         "grads[0] must have the dtype of params, float32; got float64: cast it"),
        (lambda: GOOD.step(1.0, 1.0, {}), ValueError,
         "state must be what init(params) gives, a dict of step; got the keys "),
        (lambda: Momentum(0.1, 0.9).step(1.0, 1.0, GOOD.init(1.0)), ValueError,
         "state must be what init(params) gives, a dict of step, velocity; got the keys step"),
        (lambda: Momentum(0.1, 0.9).step(1.0, 1.0, None), ValueError,
         "state must be what init(params) gives, a dict of step, velocity; got NoneType"),
        (lambda: Momentum(0.1, 0.9).step([1.0], [1.0], {"step": 0, "velocity": 1.0}), ValueError,
         "state['velocity'] must have the structure of params, which is [.]; got ."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_misuse_says_what_was_asked_what_was_found_and_what_to_write(make, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        make()


def test_every_rule_is_in_the_battery():
    kinds = {type(rule).__name__ for rule in RULES.values()}
    assert kinds == {name for name in optimizers.__all__ if isinstance(getattr(optimizers, name), type)} - {
        "ExponentialDecay", "InverseTimeDecay", "Scaled",
    }  # fmt: skip
