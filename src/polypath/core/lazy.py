"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def looked_up(package: str, places: Mapping[str, str], name: str) -> Any:
    """What ``package.NAME`` is, for its ``__getattr__``.

    Args:
        places: the module within the package by name; a module that has no such name is itself what is meant.

    Raises:
        AttributeError: no such name.
    """
    if name not in places:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module = importlib.import_module(f"{package}.{places[name]}")
    return getattr(module, name, module)
