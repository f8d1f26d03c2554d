"""What cross-references lead to: names of this package that have no entry of their own must at least exist."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

PACKAGE = "polypath"


def leave_builtins(app: Sphinx, doctree: nodes.document) -> None:
    """``bytes`` in a signature is Python's, not some attribute of that name; a number in a type is no class."""
    for node in list(doctree.findall(pending_xref)):
        target = node.get("reftarget", "")
        if node["reftype"] == "class" and (hasattr(builtins, target) or target[:1].isdigit()):
            node.replace_self(node.children)


def link(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element) -> nodes.Node | None:
    """A link to the entry of what a name means in its module; the bare name where that exists and has no entry."""
    if node["refdomain"] != "py":
        return None
    domain = env.domains.python_domain
    target = node["reftarget"].lstrip(".")
    name = real_name(target, node.get("py:module") or PACKAGE, node.get("py:class"))
    if name is None:
        alike = [known for known in domain.objects if known.endswith(f".{target}")]
        name = alike[0] if len(alike) == 1 else None
    if name is None:
        return None
    entry = domain.objects.get(name) or domain.modules.get(name)
    return (
        contnode if entry is None else make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode)
    )


@cache
def real_name(target: str, module: str, owner: str | None) -> str | None:
    """Where the thing that a docstring of ``module`` calls ``target`` is defined; None if it is not found."""
    tried = (resolved(*place) for place in places(target, module, owner))
    return next(filter(None, tried), None)


def places(target: str, module: str, owner: str | None) -> list[tuple[str, list[str]]]:
    """Where a name may be looked up: modules, and what is to be found in each."""
    parts = target.split(".")
    tried = [(module, [*owner.split("."), *parts])] if owner else []
    tried += [(module, parts), (PACKAGE, parts)]
    if parts[0] == PACKAGE:
        tried += [(".".join(parts[:n]), parts[n:]) for n in range(len(parts), 0, -1)]
    packages = (module, module.rpartition(".")[0])
    return [*tried, *((f"{package}.{target}", []) for package in packages if package)]


def resolved(module: str, parts: list[str]) -> str | None:
    """The full name of what is called so in ``module``, where it is."""
    try:
        value: Any = importlib.import_module(module)
    except ImportError:
        return None
    if not parts:
        return module
    names = for_types(module)
    if parts[0] in names and not hasattr(value, parts[0]):
        module, _, first = names[parts[0]].rpartition(".")
        return resolved(module, [first, *parts[1:]])
    place = module
    for part in parts:
        if not hasattr(value, part):
            if part not in getattr(value, "__annotations__", {}):
                return None
            return ".".join([module, *parts])
        value = getattr(value, part)
        if inspect.ismodule(value):
            place = value.__name__
    if inspect.ismodule(value):
        return value.__name__
    owner = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None)
    if owner and name and name.split(".")[-1] == parts[-1]:
        return f"{owner}.{name}"
    return f"{place}.{'.'.join(parts)}"


@cache
def for_types(module: str) -> dict[str, str]:
    """Names that a module imports for annotations only, and where from."""
    source = inspect.getsourcefile(importlib.import_module(module))
    found: dict[str, str] = {}
    for block in ast.parse(Path(source).read_text(encoding="utf-8")).body if source else []:
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            for line in block.body:
                if isinstance(line, ast.ImportFrom):
                    found |= {name.asname or name.name: f"{line.module}.{name.name}" for name in line.names}
    return found


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", leave_builtins)
    app.connect("missing-reference", link)
    return {"parallel_read_safe": True}
