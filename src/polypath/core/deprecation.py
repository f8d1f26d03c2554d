"""Warnings for deprecated names and options."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_OLD_METHODS: dict[str, dict[str, Callable[..., Any]]] = {}


def warn_renamed(old: str, new: str, level: int) -> None:
    """Warn that ``old`` is now called ``new``. The warning points to the line ``level`` calls above the caller.

    ``from package import name`` looks the name up twice. The first lookup, by importlib, does not warn.
    """
    asker = sys._getframe(level + 1)  # pyright: ignore[reportPrivateUsage] (documented in spite of its name)
    if asker.f_globals.get("__name__") != "importlib._bootstrap":
        message = f"{old} is now {new}; the next release removes the old name"
        warnings.warn(message, DeprecationWarning, stacklevel=level + 2)


def notes_are_logged(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function accept its former argument ``say=``: the decorated function ignores the argument and warns."""

    @functools.wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> T:
        if "say" in options:
            del options["say"]
            message = f"{function.__name__}() ignores the argument say, because notes now go to polypath's logger"
            warnings.warn(f"{message}; the next release rejects say", DeprecationWarning, stacklevel=2)
        return function(*args, **options)

    return call


def add_old_method(owner: str, name: str, method: Callable[..., Any]) -> None:
    """Register a deprecated method for the class ``owner`` (``package.module.Class``), before the class is imported."""
    _OLD_METHODS.setdefault(owner, {})[name] = method


def with_old_methods(cls: type[T]) -> type[T]:
    """Decorate a class: add the methods registered by :func:`add_old_method`."""
    for name, method in _OLD_METHODS.get(f"{cls.__module__}.{cls.__qualname__}", {}).items():
        setattr(cls, name, method)
    return cls
