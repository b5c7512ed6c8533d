"""A user's project of 30 tests, 10 of which fail, as the plugin is tried on it."""

RIGHT = """
import numpy as np
import pytest
import tensorflow as tf

from gradcheck import check_gradients


def cube(x):
    return x**3


@pytest.mark.parametrize("n", range(11))
def test_a_power(gradcheck, n):
    gradcheck(lambda x: x**n * x, np.array([0.5, -1.5]))


@pytest.mark.gradcheck(mode="directional", rtol=1e-6)
class TestLayer:
    def test_a_layer(self, gradcheck):
        assert gradcheck(tf.sin, np.array([0.5])).mode == "directional"

    @pytest.mark.gradcheck(seed=7)
    def test_its_seed(self, gradcheck):
        report = gradcheck.check(cube, np.array([0.5]))
        assert (report.seed, report.mode) == (7, "directional")

    def test_an_option_of_the_call(self, gradcheck):
        assert gradcheck(cube, np.array([0.5]), mode="elementwise", seed=3).mode == "elementwise"


def test_a_bare_assertion():
    assert check_gradients(cube, np.array([0.5]))


def test_tensors_of_a_graph(gradcheck):
    with tf.Graph().as_default():
        x = tf.constant([0.5, 1.0])
        assert gradcheck.tf_gradients(tf.sin(x) * x, x).ok


def test_without_a_check():
    assert True


@pytest.mark.usefixtures("gradcheck")
class TestOfTensorFlow(tf.test.TestCase):
    def test_in_a_class(self):
        self.gradcheck(cube, np.array([0.5]))

    def test_that_all_is_close(self):
        self.assertAllClose(tf.sin(0.0), 0.0)
"""

WRONG = """
import unittest

import numpy as np
import pytest
import tensorflow as tf

from gradcheck import assert_gradients, check_gradients

X = np.array([0.5, -1.5, 2.0])


@tf.custom_gradient
def doubled(x):
    return x * x, lambda up: up * 4 * x


@tf.custom_gradient
def off_by_a_little(x):
    return tf.sin(x), lambda up: up * tf.cos(x) * 1.001


def rounded(x):
    return tf.round(3 * x)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_by_the_fixture(gradcheck, scale):
    gradcheck(lambda x: scale * doubled(x), X)


def test_by_a_bare_assertion():
    assert check_gradients(doubled, X)


def test_by_a_bare_assertion_on_ok():
    report = check_gradients(off_by_a_little, X)
    assert report.ok


def test_by_assert_gradients():
    assert_gradients(off_by_a_little, X)


def test_a_cut(gradcheck):
    gradcheck(rounded, X)


def test_not_finite(gradcheck):
    gradcheck(tf.sqrt, np.array([0.0, 1.0]))


class TestOfUnittest(unittest.TestCase):
    def test_in_a_class(self):
        self.assertTrue(check_gradients(doubled, X))


def test_of_something_else():
    assert 1 + 1 == 3
"""

INI = """
[pytest]
filterwarnings = error
addopts = --strict-markers --strict-config
"""
