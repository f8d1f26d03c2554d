"""Recipes by name: the papers' (``crescendonet_128-cifar10``), small ones for two CPU cores (``-small``, ``-digits``),
modern ones (``-modern``), recipes for small budgets (``-fast``), recipes for ``polypath ladder`` (``-ladder``,
``-sandwich``), and one for your own images (``my-images``).

A name is MODEL-DATASET and a suffix for variants. Datasets with "+" are augmented as in the papers. A field that a
paper does not state is in the recipe's ``assumed``, with the reason for our value. In names, ``_`` and ``-`` are equal.
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
    """The recipe called ``name``.

    Raises:
        ValueError: no such name; the message lists near ones.
    """
    return _entry(name).recipe


def about(name: str) -> str:
    """The place of the recipe's result in its paper, or the purpose of the recipe.

    Raises:
        ValueError: as :func:`get_recipe`.
    """
    return _entry(name).about


@takes(pattern=TEXT)
def list_recipes(pattern: str = "*") -> list[str]:
    """Names of the recipes that match a shell-style pattern."""
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
    from polypath.training.recipes import crescendonet, dfn, drnn, fast, fractalnet, gunn, ladder, modern, own, small

    known: dict[str, Entry] = {}
    for group in (crescendonet, fractalnet, dfn, gunn, drnn, small, modern, ladder, fast, own):
        for entry in group.entries():
            name = _plain(entry.recipe.name)
            if name in known:
                raise RuntimeError(f"two recipes are called {entry.recipe.name!r}")
            known[name] = entry
    return known


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")
