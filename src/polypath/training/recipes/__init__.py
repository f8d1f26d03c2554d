"""Recipes by name. There are recipes of the papers (``crescendonet_128-cifar10``), small recipes for two CPU cores
(``-small``, ``-digits``) and modern recipes (``-modern``). Others are for small budgets and for ``polypath ladder``
(``-fast``, ``-sandwich``), and for your own images (``my-images``).

A name is MODEL-DATASET, with a suffix for variants. A "+" after the dataset means that images are augmented as in the
papers. If a paper does not state a value, the recipe's ``assumed`` contains the reason for the value. ``_`` and ``-``
in a name are equivalent.
"""

from __future__ import annotations

import fnmatch
import functools

from polypath.core.arguments import takes
from polypath.core.checks import NAME, TEXT, check, did_you_mean
from polypath.training.recipe import Recipe
from polypath.training.recipes.common import Entry, derive

__all__ = ["about", "derive", "get_recipe", "list_recipes"]


def get_recipe(name: str) -> Recipe:
    """Return the recipe called ``name``.

    Raises:
        ValueError: the name is unknown; the message lists similar names.
    """
    return _entry(name).recipe


def about(name: str) -> str:
    """Return the place in the paper that states the recipe's result (for example, a table), or the recipe's purpose.

    Raises:
        ValueError: as for :func:`get_recipe`.
    """
    return _entry(name).about


@takes(pattern=TEXT)
def list_recipes(pattern: str = "*") -> list[str]:
    """List the names of the recipes that match a shell-style pattern."""
    plain = _plain(pattern)
    return [entry.recipe.name for name, entry in _entries().items() if fnmatch.fnmatchcase(name, plain)]


def _entry(name: str) -> Entry:
    check("recipe", name, NAME)
    known = _entries()
    entry = known.get(_plain(name))
    if entry is None:
        names = [entry.recipe.name for entry in known.values()]
        raise ValueError(f"unknown recipe {name!r}; {did_you_mean(_plain(name), names)} (`polypath recipes` lists all)")
    return entry


@functools.cache
def _entries() -> dict[str, Entry]:
    from polypath.training.recipes import crescendonet, dfn, drnn, fast, fractalnet, gunn, modern, own, sandwich, small

    known: dict[str, Entry] = {}
    for group in (crescendonet, fractalnet, dfn, gunn, drnn, small, modern, sandwich, fast, own):
        for entry in group.entries():
            name = _plain(entry.recipe.name)
            if name in known:
                raise RuntimeError(f"two recipes are called {entry.recipe.name!r}")
            known[name] = entry
    return known


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")
