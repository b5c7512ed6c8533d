"""Programs as bytes and back: what goes into files and to other processes."""

from __future__ import annotations

from dataclasses import replace

from tensorflow.core.framework import function_pb2

from gradcheck._graph.program import Body, Program, body_of, definition_of

_MAIN = "main"


def program_to_bytes(program: Program) -> bytes:
    """The program as a serialized FunctionDefLibrary; the same program always gives the same bytes."""
    library = function_pb2.FunctionDefLibrary()
    library.function.append(definition_of(_MAIN, program.main))
    library.function.extend(definition_of(name, program.functions[name]) for name in sorted(program.functions))
    serialized: bytes = library.SerializeToString(deterministic=True)
    return serialized


def program_from_bytes(data: bytes) -> Program:
    """The program that `program_to_bytes` wrote.

    Raises:
        google.protobuf.message.DecodeError: If the bytes are no FunctionDefLibrary.
        ValueError: If they hold no program.
    """
    library = function_pb2.FunctionDefLibrary()
    library.ParseFromString(data)
    bodies = {d.signature.name: _kept(body_of(d), d) for d in library.function}
    if _MAIN not in bodies or len(bodies) != len(library.function):
        raise ValueError("it must hold one function 'main', and others by names of their own")
    return Program(main=bodies.pop(_MAIN), functions=bodies)


def _kept(body: Body, definition: function_pb2.FunctionDef) -> Body:
    return replace(body, kept=tuple(definition.control_ret[name] for name in definition.signature.control_output))
