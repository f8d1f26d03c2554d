"""Lazy imports of a package's names, on first use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def looked_up(package: str, places: Mapping[str, str], name: str) -> Any:
    """Import and return the object ``package.NAME``. Call this from the package's ``__getattr__``.

    Args:
        places: for each name, its module within the package. If the module has no object of this name, the module
            itself is returned.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in places:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module = importlib.import_module(f"{package}.{places[name]}")
    return getattr(module, name, module)
