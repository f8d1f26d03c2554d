"""Checks of configuration fields: each names the field, its value and the legal values."""

from __future__ import annotations

from typing import Any, get_args


def label(config: object, name: str) -> str:
    return f"{type(config).__name__}.{name} {getattr(config, name)!r}"


def one_of(config: object, name: str, legal: Any) -> None:
    if getattr(config, name) not in get_args(legal):
        raise ValueError(f"{label(config, name)}: must be one of {', '.join(get_args(legal))}")


def integer(config: object, name: str, least: int) -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{label(config, name)}: must be a whole number, at least {least}")


def flag(config: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(config, name), bool):
            raise ValueError(f"{label(config, name)}: must be true or false")


def number(config: object, name: str, low: float, high: float, *, open_ended: bool = False) -> None:
    value = getattr(config, name)
    fits = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
    if not fits or (open_ended and value in (low, high)):
        raise ValueError(f"{label(config, name)}: must be a number {'between' if open_ended else 'in'} {low} … {high}")


def interval(config: object, name: str, high: float) -> None:
    """Two numbers, 0 < low <= high; lists, as they come back from JSON, become tuples."""
    value = getattr(config, name)
    numbers = isinstance(value, tuple | list) and all(isinstance(v, int | float) for v in value)
    if not numbers or len(value) != 2 or not 0 < value[0] <= value[1] <= high:
        raise ValueError(f"{label(config, name)}: must be two numbers, 0 < low <= high <= {high}")
    object.__setattr__(config, name, (float(value[0]), float(value[1])))
