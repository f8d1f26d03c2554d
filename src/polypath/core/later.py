"""Config fields that older saved files do not have. The field's default must not change the meaning of such a file."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import field, fields, is_dataclass
from typing import Any

_LATER = "later"


def later(default: Any) -> Any:
    """Make a dataclass field that files of version 0.1 do not have. ``default`` must give the behaviour of 0.1."""
    return field(default=default, metadata={_LATER: True})


def is_later(of: Any) -> bool:
    """Return whether a field from :func:`dataclasses.fields` was made by :func:`later`."""
    return bool(of.metadata.get(_LATER))


def leave_out_later(config: Any, values: MutableMapping[str, Any]) -> None:
    """Remove fields made by :func:`later` from a config's JSON values, if they have their default value.

    This includes the fields of nested configs.

    The JSON is then the same as before these fields existed, so the config's digest does not change.
    """
    for f in fields(config):
        value = getattr(config, f.name)
        if is_later(f) and value == f.default:
            values.pop(f.name, None)
        elif is_dataclass(value) and f.name in values:
            part: MutableMapping[str, Any] = values[f.name]
            leave_out_later(value, part.get("arguments", part))  # a model's fields are in a table "arguments"
