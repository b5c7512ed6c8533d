"""The way in to an op: the calls, branches and iterations around it, as the user knows them."""

from __future__ import annotations

from collections.abc import Iterator

from gradcheck._graph.nodes import Node
from gradcheck._graph.program import Body, Program
from gradcheck._graph.rerun import Rerun
from gradcheck._graph.visit import Step, Visit


def inside(seen: Visit, rerun: Rerun) -> Iterator[str]:
    """Such as "while (iteration 3)" and "cond (then branch)", from the outermost on."""
    body = rerun.program.main
    names: list[str] = []
    for step in seen.path:
        if step.part == "frame":
            yield f"{step.node.removesuffix('/while_context').removesuffix('_context')} ({', '.join(_taken(step))})"
            continue
        call = _called(body, step)
        names.append(step.node)
        own = rerun.origin("/".join(names), call.op).own_name
        yield f"{own} ({', '.join(_taken(step))})" if _taken(step) else own
        body = rerun.program.functions[_function_of(call, step.part)]


def _taken(step: Step) -> list[str]:
    if step.iteration is not None:
        return [*(["condition"] if step.part == "cond" else []), f"iteration {step.iteration}"]
    if step.part in ("then", "else"):
        return [f"{step.part} branch"]
    return [] if step.part == "call" else [step.part]


def body_around(program: Program, path: tuple[Step, ...]) -> Body:
    """The body that a path leads to."""
    body = program.main
    for step in path:
        if step.part == "frame":  # its nodes stand among those around it
            continue
        body = program.functions[_function_of(_called(body, step), step.part)]
    return body


def _called(body: Body, step: Step) -> Node:
    return next(node for node in body.nodes if node.name == step.node)


def _function_of(call: Node, part: str) -> str:
    if part.startswith("branch "):
        return str(call.attr["branches"].list.func[int(part.removeprefix("branch "))].name)
    key = {"call": "f", "then": "then_branch", "else": "else_branch"}.get(part, part)
    return str(call.attr[key].func.name)
