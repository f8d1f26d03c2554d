"""Digests of the code that made a run or a result. They cover only the modules that were used, so changes of other
modules do not affect them.

The modules are found by following ``import`` statements (lazy ones, too) through the sources. Comments, docstrings and
layout do not affect a digest. A digest is computed from the syntax tree as text, which may differ between Python
versions.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
TRAINING = ("polypath.training.loop", "polypath.training.own_process")
RECIPES = "polypath.training.recipes"


@functools.cache
def training_id() -> str:
    """Return a digest (12 digits) of the code that a training run uses. Named recipes are excluded, since the run
    stores its recipe."""
    found = modules_of(TRAINING)
    return _digest({name: file for name, file in found.items() if not name.startswith(RECIPES)})


@functools.cache
def code_id() -> str:
    """Return a digest (12 digits) of all code that makes a result: training, measuring, judging, the experiments."""
    own = sorted((PACKAGE / "reproduce").rglob("*.py"))
    return _digest(modules_of(_name(file) for file in own))


def modules_of(names: Iterable[str], package: Path = PACKAGE) -> dict[str, Path]:
    """Return the files of these modules and of all modules of ``package`` that they import, directly or indirectly,
    sorted by module name."""
    found: dict[str, Path] = {}
    left = list(names)
    while left:
        name = left.pop()
        if name in found or (file := _file(name, package)) is None:
            continue
        found[name] = file
        parent = name.rpartition(".")[0]  # an import also runs the parent package's __init__
        left += [parent] if parent != package.name else []
        left += _imported(ast.parse(file.read_bytes()), package.name)
    return dict(sorted(found.items()))


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield the dotted names in ``package`` that a module imports. Names that are imported from a module may be
    modules, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == package)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == package:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(name: str, package: Path) -> Path | None:
    """Return the file of a module or package; None if ``name`` is neither."""
    place = package.parent.joinpath(*name.split("."))
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None


def _name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _digest(files: dict[str, Path]) -> str:
    h = hashlib.sha256()
    for name, file in files.items():
        h.update(f"{name}\0{code_of(file.read_text(encoding='utf-8'))}\0".encode())
    return h.hexdigest()[:12]


def code_of(source: str) -> str:
    """Return the syntax tree of a module's ``source`` as text, without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)
