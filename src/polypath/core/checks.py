"""Checks of arguments and of fields. The error of a failed check contains the name, the value and the legal values.

check("threads", threads, whole(1))                   # threads = 0: must be a whole number of at least 1
check_fields(self, join=one_of("mean", "sum"))        # FractalNet.join = 'or': must be one of mean, sum
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule for legal values: a text that follows "must be", and a function that tests a value."""

    legal: str
    fits: Callable[[Any], bool]


LARGEST = sys.float_info.max  # the largest finite number


def check(name: str, value: Any, rule: Rule) -> Any:
    """Check a value by a rule, and return the value converted by :func:`plain`.

    Raises:
        ValueError: a value that the rule does not allow.
    """
    value = plain(value)
    if not rule.fits(value):
        raise ValueError(f"{name} = {value!r}: must be {rule.legal}")
    return value


def check_fields(config: object, prefix: str | None = None, /, **rules: Rule) -> None:
    """Check fields of a config, each by its rule. ``prefix`` is the config's name in messages, by default the class.

    Raises:
        ValueError: a field's value that the field's rule does not allow.
    """
    prefix = type(config).__name__ if prefix is None else prefix
    for name, rule in rules.items():
        check(f"{prefix}.{name}" if prefix else name, getattr(config, name), rule)


def plain(value: Any) -> Any:
    """Convert NumPy and torch numbers to Python numbers, and arrays and lists to tuples, also inside dicts and tuples.

    Other values are returned unchanged.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if type(value) is dict:
        return {plain(key): plain(entry) for key, entry in cast(dict[Any, Any], value).items()}
    return tuple(map(plain, value)) if type(value) in (list, tuple) else value


def json_value(name: str, value: Any) -> Any:
    """Convert a value to JSON and back. NumPy and torch numbers and arrays become Python numbers and lists.

    Raises:
        ValueError: a value that JSON cannot hold, such as NaN and infinity.
    """
    try:
        return json.loads(json.dumps(plain(value), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        legal = "text, finite numbers, true, false, lists, tables"
        raise ValueError(f"{name}: give JSON values ({legal}): {error}") from None


def plain_fields(config: Any) -> None:
    """Apply :func:`plain` to all fields of a dataclass, frozen or not. Call it from ``__post_init__``."""
    for field in dataclasses.fields(config):
        object.__setattr__(config, field.name, plain(getattr(config, field.name)))


def whole_text(name: str, text: str, low: int, high: int) -> int:
    """Parse text as a whole number from ``low`` to ``high``.

    Raises:
        ValueError: any other text.
    """
    return int(check(name, text.strip(), one_of(*map(str, range(low, high + 1)))))


# --- rules ---------------------------------------------------------------------------------------------------


def one_of(*legal: Any) -> Rule:
    return Rule(f"one of {', '.join(map(str, legal))}", lambda value: value in legal)


def whole(low: int, high: int | None = None) -> Rule:
    """Allow a whole number from ``low`` to ``high``, both included."""
    legal = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
    top = math.inf if high is None else high
    return Rule(legal, lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= top)


def number(
    low: float = -LARGEST, high: float = LARGEST, *, above: float | None = None, below: float | None = None
) -> Rule:
    """Allow a number from ``low`` to ``high``, both included; ``above`` and ``below`` are exclusive bounds."""

    def fits(value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            return False
        return (above is None or value > above) and (below is None or value < below)

    begin = f"({above}" if above is not None else f"[{low}"
    end = f"{below})" if below is not None else f"{high}]"
    if below is None and high == LARGEST:
        least = "" if low == -LARGEST else f" of at least {low}"
        legal = f"a finite number above {above}" if above is not None else f"a finite number{least}"
    else:
        legal = f"a number in {begin}, {end}"
    return Rule(legal, fits)


def interval(high: float = LARGEST) -> Rule:
    """Allow two numbers with 0 < first <= second <= ``high``."""
    one = number(above=0, high=high)

    def fits(value: Any) -> bool:
        pair = _entries(value)
        return len(pair) == 2 and all(map(one.fits, pair)) and pair[0] <= pair[1]

    return Rule(f"two numbers, 0 < low <= high{'' if high == LARGEST else f' <= {high}'}", fits)


def each(rule: Rule, count: int | None = None) -> Rule:
    """Allow a list or tuple of values that ``rule`` allows; ``count`` is the required number of values."""

    def fits(value: Any) -> bool:
        entries = _entries(value)
        return isinstance(value, tuple) and count in (None, len(entries)) and all(map(rule.fits, entries))

    return Rule(f"a list{'' if count is None else f' of length {count}'} in which each entry is {rule.legal}", fits)


def optional(rule: Rule) -> Rule:
    """Allow None, or a value that ``rule`` allows."""
    return Rule(f"{rule.legal}, or None", lambda value: value is None or rule.fits(value))


def _entries(value: Any) -> tuple[Any, ...]:
    return cast(tuple[Any, ...], value) if isinstance(value, tuple) else ()


def instance(kind: type, *others: type, legal: str | None = None) -> Rule:
    """Allow a value of one of these types."""
    return Rule(legal or f"a {kind.__name__}", lambda value: isinstance(value, (kind, *others)))


FLAG = Rule("true or false", lambda value: isinstance(value, bool))
NAME = Rule("a name", lambda value: isinstance(value, str) and bool(value.strip()))
TEXT = instance(str, legal="text")
PLACE = instance(str, os.PathLike, legal="a path of a file or folder, as text or os.PathLike")
FUNCTION = Rule("a function", callable)
WHOLE_NUMBER = Rule("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool))
SHARE = number(0, 1)
"""A number in [0, 1]."""


# --- names ---------------------------------------------------------------------------------------------------


def near(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """List at most ``most`` of the ``known`` names that are similar to ``name``, the most similar first."""
    return difflib.get_close_matches(name, list(known), n=most)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Write ``did you mean …?`` with similar names, or ``there are …`` with the known names if no name is similar."""
    known = list(known)
    if close := near(name, known):
        return f"did you mean {' or '.join(close)}?"
    return f"there are {listed(known)}"


def listed(names: Collection[str], most: int = 12) -> str:
    """Write the first ``most`` names as ``a, b, c``, and then how many more names there are."""
    shown = ", ".join(list(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown or "none"
