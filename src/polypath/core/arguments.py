"""Checks of the arguments of public functions. The error for an illegal value contains the argument's name.

@takes(net=NETWORK, paths=PATHS)
def extract(net, paths): ...                      # extract(net, 3): paths = 3: must be a choice of paths: …
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from polypath.core.checks import Rule, check, instance

P = ParamSpec("P")
T = TypeVar("T")


def takes(**rules: Rule) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Make a decorator that checks the arguments of a function, each by its rule in ``rules``.

    NumPy and torch numbers are converted to Python numbers; other values do not change. Omitted arguments are not
    checked.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)
        if unknown := rules.keys() - signature.parameters.keys():
            raise TypeError(f"{function.__name__}() has no argument {min(unknown)!r}")

        @functools.wraps(function)
        def checked(*args: P.args, **options: P.kwargs) -> T:
            try:
                given = signature.bind(*args, **options)
            except TypeError:
                return function(*args, **options)  # Python's own error
            for name, value in given.arguments.items():
                if name in rules and not rules[name].fits(value):  # check() would copy a long list that fits
                    given.arguments[name] = check(name, value, rules[name])
            return function(*given.args, **given.kwargs)

        return checked

    return decorate


def _several(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes)


TABLE = instance(Mapping, legal="a mapping, such as a dict")
SEVERAL = Rule("a list, or another iterable", _several)
SEVERAL_PATHS = Rule("a list of paths, or a mapping", _several)
TEXTS = Rule("a list of texts", lambda value: _several(value) and all(isinstance(entry, str) for entry in value))
