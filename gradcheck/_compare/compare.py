"""The comparison of an optimizer with a reference."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from gradcheck._calls import explained
from gradcheck._compare import runners
from gradcheck._compare.arrays import eps_of, unit_of
from gradcheck._compare.explanations import explain
from gradcheck._compare.foreign import taken_steps
from gradcheck._compare.graphs import Brought
from gradcheck._compare.judging import excess
from gradcheck._compare.recording import Recording, record
from gradcheck._compare.translation import rule_of
from gradcheck._graph.evaluate import eagerly
from gradcheck._graph.structure import variable_of
from gradcheck._report.optimizer import OptimizerReport
from gradcheck._results import Explanation, VariableDifference
from gradcheck.optimizers._rule import Rule
from gradcheck.tensorboard._reports import write_comparison


@explained()
def compare_optimizers(
    optimizer: Any,
    reference: Any,
    loss: Any,
    variables: Any,
    steps: int,
    *,
    logdir: str | os.PathLike[str] | None = None,
) -> OptimizerReport:
    """Run an optimizer beside a reference on the same gradients, and explain where they part.

    At each step the gradient of the loss is taken once, at the optimizer's weights, and given to both. Each runs on
    copies of the variables in their own dtype, and once more in float64, with the hyperparameters that were written:
    what the two runs of one are apart is its rounding. Optimizer and reference are apart where their float64 runs are,
    beyond the rounding of float64 and what a hyperparameter makes that is 4 units of float32 off. Where they cannot be
    run in float64, or neither is known as a rule, the roundings of both must not cover the distance in their own dtype.

    Where they are apart, changes of the reference's rule are tried: its hyperparameters, known conventions, what may
    stand around a rule, and two of these at once. A change is an explanation only if with it every step is accounted
    for to rounding. Several that give the same numbers are all named.

    Args:
        optimizer: A Keras 3 optimizer, one of `tf.compat.v1.train`, a rule of `gradcheck.optimizers`, an object with
            `init` and `step` like a rule's, or a callable of (params, grads, state) that gives (params, state), where
            params and grads are lists and state is None at first. It starts from the state that it is in.
        reference: The same. Explanations are searched for where it is a rule or one of Keras' or TensorFlow's own
            gradient descent, momentum, Adagrad, RMSProp, Adam and AdamW.
        loss: A callable without arguments that reads the variables and gives the loss, called eagerly once a step;
            where it draws data, say from `optimizers.minibatches`, both see the same. Optimizers of Keras that scale
            the loss get the gradients of the scaled one, as under `fit`. In a `tf.Graph`: the tensor of the loss, or a
            callable that gives it; it is computed from variables, at the values that the default session has, and
            constants.
        variables: The variables, of TensorFlow or Keras, or any nested structure of them.
        steps: How many steps to make.
        logdir: A directory, one per comparison, that TensorBoard then shows: the report, both trajectories and their
            difference over each other, and HParams. What goes wrong in writing is only logged.

    Returns:
        The report: `report.ok` or `bool(report)` says whether both agree to rounding, `str(report)` what explains it
        if not. Variables, slots, random states and the optimizers are as before, also after an error.

    Raises:
        TypeError, ValueError: For misuse, before loss is called; and for a loss that does not depend on the
            variables, and an optimizer that is no function of gradients, weights and its variables.

    Example:
        >>> import gradcheck, tensorflow as tf
        >>> w = tf.Variable(2.0)
        >>> theirs = tf.compat.v1.train.AdagradOptimizer(0.6)
        >>> by_hand = gradcheck.optimizers.Adagrad(0.6)
        >>> report = gradcheck.compare_optimizers(theirs, by_hand, lambda: (w - 3) ** 2, [w], steps=20)
        >>> report.first_apart, report.explanation.text
        (1, 'initial accumulator 0.1 instead of 0')
    """
    runners.require_optimizer("optimizer", optimizer)
    runners.require_optimizer("reference", reference)
    if not callable(loss) and tf.executing_eagerly():
        raise TypeError(f"loss must be a callable without arguments that gives the loss; got {type(loss).__name__}")
    flat = _variables(variables)
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)):
        raise TypeError(f"steps must be an integer; got steps={steps!r}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got steps={steps!r}")
    if logdir is not None and not isinstance(logdir, (str, os.PathLike)):
        raise TypeError(f"logdir must be a path or None; got logdir={logdir!r}")
    if tf.executing_eagerly():
        report = _compared(optimizer, reference, loss, flat, int(steps))
    else:
        brought = Brought(loss, flat)
        mine, theirs = brought.read("optimizer", optimizer), brought.read("reference", reference)
        with eagerly():
            function, made = brought.eagerly()
            optimizer, reference = brought.made(optimizer, mine, made), brought.made(reference, theirs, made)
            report = _compared(optimizer, reference, function, made, int(steps))
    if logdir is not None:
        write_comparison(report, logdir)
    return report


def _compared(
    optimizer: Any, reference: Any, loss: Callable[[], Any], variables: list[Any], steps: int
) -> OptimizerReport:
    narrow = any(tf.as_dtype(v.dtype).base_dtype != tf.float64 for v in variables)
    rules = tuple(rule_of(each, wide=narrow) for each in (reference, optimizer))
    recording = record(optimizer, reference, rules[0] or rules[1], loss, variables, steps)
    if not recording.weights:
        raise ValueError(f"loss must have a finite gradient at the start; {recording.notes[0]}")
    _forgive_float32(recording, rules)
    return _report(optimizer, reference, rules[0], recording)


def _forgive_float32(recording: Recording, rules: tuple[Rule | None, ...]) -> None:
    """Where hyperparameters are held in float32 in some places only, what this makes is rounding."""
    if not recording.in_float64 or recording.exact or max(map(max, recording.excess)) <= 1:
        return
    for rule, each in zip(rules, (recording, recording.of_the_reference()), strict=True):
        if rule is not None and np.all((over := excess(rule, each)[0]) <= 1):
            for step, most in enumerate(over):
                recording.excess[step] = [min(ratio, float(most)) for ratio in recording.excess[step]]
                recording.judged[step] = [(apart, max(apart, allowed)) for apart, allowed in recording.judged[step]]
            recording.notes.append("hyperparameters are held in float32 in places; what that moves is allowed")
            return


def _variables(variables: Any) -> list[Any]:
    flat: list[Any] = tf.nest.flatten(variables)
    if not flat:
        raise ValueError(f"variables must hold at least one variable; got {variables!r}")
    for i, variable in enumerate(flat):
        if variable_of(variable) is None:
            raise TypeError(
                f"variables must be variables of TensorFlow or Keras, which loss reads; number {i} is "
                f"{type(variable).__name__}: write tf.Variable(...)"
            )
        dtype = tf.as_dtype(variable.dtype).base_dtype
        if not dtype.is_floating:
            raise TypeError(f"variables must be floating; number {i} has dtype {dtype.name}")
    if len({id(variable_of(variable)) for variable in flat}) != len(flat):
        raise ValueError("variables must be different ones; one is there twice")
    return flat


def _report(optimizer: Any, reference: Any, rule: Rule | None, recording: Recording) -> OptimizerReport:
    found = tuple(_difference(recording, i) for i in range(len(recording.layout.names)))
    first = min((v.first_apart for v in found if v.first_apart is not None), default=None)
    notes = list(recording.notes)
    for what, each in (("optimizer", optimizer), ("reference", reference)):
        if taken := taken_steps(each):
            notes.append(f"the {what} had made {taken} steps before and went on from there")
    notes += _astray(recording, (runners.name_of(optimizer), runners.name_of(reference)))
    explanations: tuple[Explanation, ...] = ()
    nearest = None
    if first is not None:
        rule, why = _as_rule(reference, rule, recording)
        if rule is None:
            notes.append(why)
        else:
            apart = [i for i, v in enumerate(found) if v.first_apart is not None]
            explanations, nearest = explain(rule, recording, first, apart)
    if len(recording.layout.kept) < len(recording.layout.leaf):
        tried = f"{len(recording.layout.kept)} of {len(recording.layout.leaf)} entries, drawn at random"
        notes.append(f"explanations were tried on {tried}")
    return OptimizerReport(
        optimizer=runners.name_of(optimizer),
        reference=runners.name_of(reference),
        steps=len(recording.weights),
        variables=found,
        explanations=explanations,
        nearest=nearest,
        notes=tuple(notes),
    )


def _astray(recording: Recording, names: tuple[str, str]) -> list[str]:
    """Of runs that round away most of what they do."""
    found = []
    for name, each in zip(names, (recording, recording.of_the_reference()), strict=True):
        own, wide = np.array(each.weights), np.array(each.wide)
        with np.errstate(invalid="ignore"):
            apart, moved = (float(np.nan_to_num(abs(wide - other)).max()) for other in (own, recording.start))
        if recording.in_float64 and apart > moved / 2:
            found.append(
                f"in the variables' own dtype, {name} does not follow its float64 run, whose weights move by "
                f"{moved:.1e}: they are {apart:.1e} apart"
            )
    return found


def _as_rule(reference: Any, rule: Rule | None, recording: Recording) -> tuple[Rule | None, str]:
    """The reference as a rule, if it is one: its own trajectory decides."""
    if rule is None:
        return None, f"no explanation is searched for: {runners.name_of(reference)} is not known as a rule"
    if not isinstance(reference, Rule) and not np.all(excess(rule, recording.of_the_reference())[0] <= 1):
        return None, f"no explanation is searched for: {runners.name_of(reference)} does not follow the rule {rule}"
    return rule, ""


def _difference(recording: Recording, i: int) -> VariableDifference:
    layout = recording.layout
    largest, judged = [rows[i] for rows in recording.largest], [rows[i] for rows in recording.judged]
    over = [row[i] for row in recording.excess]
    step = int(np.argmax([apart for apart, _ in largest]))
    shape = layout.shapes[i]
    mine = np.flatnonzero(layout.leaf[layout.kept] == i)
    optimizer, reference = _trajectories(recording, mine)
    return VariableDifference(
        variable=layout.names[i],
        shape=shape,
        dtype=tf.as_dtype(layout.dtypes[i]).name,
        first_apart=next((k for k, ratio in enumerate(over, start=1) if ratio > 1), None),
        largest=largest[step][0],
        step=step + 1,
        index=tuple(int(k) for k in np.unravel_index(largest[step][1], shape)) if shape else (),
        units=largest[step][0] / float(unit_of(recording.most[i], eps_of(layout.dtypes[i]))),
        excess=max(over),
        in_float64=recording.in_float64 and i in layout.leaf[layout.kept],
        differences=tuple(apart for apart, _ in judged),
        allowed=tuple(allowed for _, allowed in judged),
        optimizer=optimizer,
        reference=reference,
    )


def _trajectories(recording: Recording, entries: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not len(entries):
        return (), ()
    both = [np.array(rows)[:, entries] for rows in (recording.weights, recording.reference)]
    with np.errstate(invalid="ignore"):
        far = np.nan_to_num(abs(both[0] - both[1]), nan=np.inf).max(0)
    entry = int(np.argmax(far))
    start = float(recording.start[entries[entry]])
    optimizer, reference = ((start, *map(float, rows[:, entry])) for rows in both)
    return optimizer, reference
