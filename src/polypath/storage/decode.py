"""Convert JSON values to dataclasses, with msgspec in strict mode. Errors state the field, its value and legal values.

    read(folder / "summary.json", RunResult)

Lists become tuples, and integers become floats, where a field needs it. Text never becomes a number.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from polypath.storage.files import read_json

T = TypeVar("T")
_WORDS = {
    "object": "a table",
    "array": "a list",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}


def read(file: Path, kind: type[T], *, others: bool = False, finite: bool = True) -> T:
    """Read the JSON document in a file as ``kind``; see :func:`decode`.

    Raises:
        ValueError: the file is missing, unreadable or not JSON, or a value does not fit. The message has the path.
    """
    value = read_json(file)
    try:
        return decode(value, kind, file.stem, others=others, finite=finite)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def read_result(file: Path, kind: type[T], number: int, what: str, more: str = "") -> T:
    """Read a result whose ``format`` is ``number``.

    Args:
        what: the kind of run that made the result, for the message.
        more: a hint at the end of the message.

    Raises:
        ValueError: the file is not such a result, is damaged, or has another format.
    """
    held = read_json(file)
    if not isinstance(held, Mapping) or held.get("format") != number:
        raise ValueError(f"{file}: is not a result of a {what} in format {number}{more}")
    return decode({key: value for key, value in held.items() if key != "format"}, kind, str(file))


def decode(value: Any, kind: type[T], what: str, *, others: bool = False, finite: bool = True) -> T:
    """Convert a JSON value to ``kind``: a dataclass, a ``TypedDict`` or any other type that msgspec knows.

    Args:
        what: the value's name in messages.
        others: ignore fields that ``kind`` does not have.
        finite: reject NaN and infinity.

    Raises:
        ValueError: a field is unknown, missing, of another type, or rejected by its class.
    """
    try:
        if finite or not others:
            _check(value, kind, what, others, finite)
        return _convert(value, kind)
    except RecursionError as error:
        raise ValueError(f"{what}: is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise ValueError(_explained(value, kind, what, error)) from error


def _convert(value: Any, kind: Any) -> Any:
    return msgspec.convert(value, kind, strict=True, str_keys=True)


def _check(value: Any, kind: Any, what: str, others: bool, finite: bool) -> None:
    """Reject values that msgspec accepts: unknown fields, NaN and infinity, integers of more than 64 bits."""
    if kind is Any:
        return
    if not others and isinstance(value, Mapping) and (hints := _hints(kind)) is not None:
        if unknown := [name for name in value if name not in hints]:
            raise ValueError(f"{what} has no field {unknown[0]!r}; it has {', '.join(hints) or 'none'}")
    elif isinstance(value, float) and finite and not math.isfinite(value):
        raise ValueError(f"{what} = {value}: must be a finite number")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"{what} = {reprlib.repr(value)}: must be below 2**63")
    for part, part_kind, name in _parts(value, kind, what):
        _check(part, part_kind, name, others, finite)


def _explained(value: Any, kind: Any, what: str, error: msgspec.ValidationError) -> str:
    """Return the error message for the innermost part that is wrong."""
    for part, part_kind, name in _parts(value, kind, what):
        try:
            _convert(part, part_kind)
        except msgspec.ValidationError as inner:
            return _explained(part, part_kind, name, inner)
    if error.__cause__ is not None:  # raised by the class's own check; its message contains the field
        return str(error.__cause__)
    if missing := re.fullmatch(r"Object missing required field `(.*)`", str(error)):
        return f"{what} lacks the field {missing[1]!r}"
    if typing.get_origin(kind) is typing.Literal:
        reason = f"must be one of {', '.join(map(str, typing.get_args(kind)))}"
    else:
        reason = re.sub(r"`([^`]*)`", lambda m: " or ".join(_WORDS.get(w, w) for w in m[1].split(" | ")), str(error))
    return f"{what} = {reprlib.repr(value)}: {reason[0].lower()}{reason[1:]}"


def _parts(value: Any, kind: Any, what: str) -> Iterator[tuple[Any, Any, str]]:
    """Yield the fields or entries of a value, with their types and names."""
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    args, hints, origin = typing.get_args(kind), _hints(kind), typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        given = [arg for arg in args if arg is not types.NoneType]
        if value is not None and len(given) == 1:
            yield value, given[0], what
    elif isinstance(value, Mapping) and hints is not None:
        yield from ((value[name], hint, f"{what}.{name}") for name, hint in hints.items() if name in value)
    elif isinstance(value, Mapping) and origin in (dict, Mapping):
        yield from ((part, args[-1], f"{what}[{key!r}]") for key, part in value.items())
    elif isinstance(value, list | tuple) and origin in (list, tuple, Sequence):
        kinds = args if len(args) == len(value) and Ellipsis not in args else args[:1] * len(value)
        yield from ((part, kinds[i], f"{what}[{i}]") for i, part in enumerate(value))


@functools.cache
def _hints(kind: Any) -> dict[str, Any] | None:
    """Map the fields of a dataclass or ``TypedDict`` to their types. Return None for other types."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    return typing.get_type_hints(kind, include_extras=True) if typing.is_typeddict(kind) else None
