"""Config fields that are newer than some saved files: their default is what files without them meant."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import field, fields, is_dataclass
from typing import Any

_LATER = "later"


def later(default: Any) -> Any:
    """A dataclass field that files of 0.1 do not have; ``default`` must mean what those files meant without it."""
    return field(default=default, metadata={_LATER: True})


def is_later(of: Any) -> bool:
    """Whether a field of :func:`dataclasses.fields` was made by :func:`later`."""
    return bool(of.metadata.get(_LATER))


def leave_out_later(config: Any, values: MutableMapping[str, Any]) -> None:
    """Remove later fields with their default value from ``values``, a config's JSON values, and from nested configs.

    The result is what was written before these fields existed, so its digests do not change.
    """
    for f in fields(config):
        value = getattr(config, f.name)
        if is_later(f) and value == f.default:
            values.pop(f.name, None)
        elif is_dataclass(value) and f.name in values:
            part: MutableMapping[str, Any] = values[f.name]
            leave_out_later(value, part.get("arguments", part))  # a model's fields are in a table "arguments"
