"""Fields that a config got after files of it had been written: their default is what those files meant."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import field, fields, is_dataclass
from typing import Any

_LATER = "later"


def later(default: Any) -> Any:
    """A dataclass field that files of 0.1 do not have; ``default`` has to mean what they meant without it."""
    return field(default=default, metadata={_LATER: True})


def is_later(of: Any) -> bool:
    """Whether a field of :func:`dataclasses.fields` was made by :func:`later`."""
    return bool(of.metadata.get(_LATER))


def leave_out_later(config: Any, values: MutableMapping[str, Any]) -> None:
    """Take out of ``values``, a config's JSON values, the later fields that say nothing new, in its parts as well.

    What is left is what was written before these fields were there, so digests of it stay.
    """
    for f in fields(config):
        value = getattr(config, f.name)
        if is_later(f) and value == f.default:
            values.pop(f.name, None)
        elif is_dataclass(value) and f.name in values:
            part: MutableMapping[str, Any] = values[f.name]
            leave_out_later(value, part.get("arguments", part))  # a model's are a table of their own
