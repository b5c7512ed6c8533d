"""Why no gradient passes an op, and what is usually written in its place."""

from __future__ import annotations

_ROUNDING = "rounding is constant between its steps, and TensorFlow gives it no gradient"
_OPAQUE = "TensorFlow does not see into tf.numpy_function"
_POSITIONS = "argmax gives positions, which have no gradient"
COMPARISONS = ("Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual")
CAST = "a cast to an integer or bool dtype has no gradient"
EAGER_PYTHON = "Python ran here eagerly, and its result carries no gradient: NumPy and .numpy() cut it"
THROUGH_VARIABLE = "the value goes through a variable, and gradients do not pass an assignment"
OVERWRITTEN = (
    "the variable is assigned before it is read here, so that the value it had, by which TensorFlow differentiates, "
    "changes nothing"
)
OUTSIDE = "the variable was read outside of what is differentiated, and its value enters as a constant"
READ_INSIDE = "read the variable by TensorFlow's ops inside of the function or tape, not by .numpy() and not before it"
PARTLY = "one of several ways from the input to the output has no gradient, and the others have theirs"
WHOLE_NUMBERS = "what is used of it are whole numbers, such as positions, which have no gradient"

_REASONS = {
    "Round": _ROUNDING,
    "Rint": _ROUNDING,
    "Floor": "floor is constant between its steps, and TensorFlow gives it no gradient",
    "Ceil": "ceil is constant between its steps, and TensorFlow gives it no gradient",
    "FloorDiv": "floor division is constant between its steps, and TensorFlow gives it no gradient",
    "Sign": "sign is constant on either side of zero",
    "ArgMax": _POSITIONS,
    "ArgMin": _POSITIONS.replace("argmax", "argmin"),
    "PyFunc": _OPAQUE,
    "PyFuncStateless": _OPAQUE,
    "StopGradient": "tf.stop_gradient",
    "AssignVariableOp": THROUGH_VARIABLE,
    **dict.fromkeys(COMPARISONS, "a comparison gives true or false, which have no gradient"),
}
# They are constant where they have a derivative at all, so that nothing is missing where they stop a gradient.
STEPS = frozenset({"Round", "Rint", "Floor", "Ceil", "FloorDiv", "Sign", "StopGradient"})

_STRAIGHT = "straight through: {x} + tf.stop_gradient({f}({x}) - {x}), whose gradient is that of {x}"
_COMPARED = (
    "tf.sigmoid(k * (a - b)) is a smooth a > b; tf.where(a > b, p, q) lets the gradients of p and q pass, not those of "
    "a and b"
)
_SOFT_POSITION = (
    "for the value there, tf.reduce_{m}(x, axis); for a smooth position, tf.reduce_sum(tf.nn.softmax({k} * x) * "
    "tf.range(n, dtype=x.dtype))"
)
_OWN_GRADIENT = "write it with TensorFlow's ops, or give it a gradient by a @tf.custom_gradient around it"
_REMEDIES = {
    "Round": _STRAIGHT.format(f="tf.round", x="x"),
    "Rint": _STRAIGHT.format(f="tf.math.rint", x="x"),
    "Floor": _STRAIGHT.format(f="tf.floor", x="x"),
    "Ceil": _STRAIGHT.format(f="tf.math.ceil", x="x"),
    "FloorDiv": "a / b has a gradient; " + _STRAIGHT.format(f="tf.floor", x="a / b"),
    "Sign": "tf.tanh(k * x) is a smooth sign; or " + _STRAIGHT.format(f="tf.sign", x="x"),
    "ArgMax": _SOFT_POSITION.format(m="max", k="k"),
    "ArgMin": _SOFT_POSITION.format(m="min", k="-k"),
    "TopKV2": "use its values, which have a gradient; for a choice that has one, weights such as tf.nn.softmax(k * x)",
    "Cast": "stay in a floating dtype; if it is to round, " + _STRAIGHT.format(f="tf.floor", x="x"),
    "PyFunc": _OWN_GRADIENT,
    "PyFuncStateless": _OWN_GRADIENT,
    "EagerPyFunc": "use TensorFlow's ops inside in place of NumPy and .numpy(), or put a @tf.custom_gradient around it",
    "custom_gradient": "let its gradient function give a gradient for this input in place of None",
    "StopGradient": "leave tf.stop_gradient out where the gradient is to pass",
    "AssignVariableOp": "use the value itself in place of the variable that it is assigned to",
    "ReadVariableOp": "use the value itself in place of the variable that it is assigned to",
    "ResizeArea": 'method="bilinear" with antialias=True has a gradient',
    "HistogramFixedWidth": "soft bins: tf.reduce_sum(tf.nn.softmax(-k * (x[:, None] - centers) ** 2), axis=0)",
    **dict.fromkeys(COMPARISONS, _COMPARED),
}
_NO_GRADIENT = ("no gradient is registered", "is registered as not differentiable", "TensorFlow has no gradient of")


def reason_of(op: str) -> str | None:
    """Why no gradient passes an op of this type, where its type alone tells."""
    return _REASONS.get(op)


def remedy_of(op: str, reason: str) -> str | None:
    """What is usually written in place of an op that stops a gradient for some reason; None where nothing is."""
    if op in _REMEDIES:
        return _REMEDIES[op]
    if any(known in reason for known in _NO_GRADIENT):
        return f"compute it by ops that have a gradient, or put a @tf.custom_gradient around {op}"
    return None
