"""Imports between rooms (top-level packages) go one way, and no room uses another's private names."""

from __future__ import annotations

import ast
import graphlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import polypath

SOURCE = Path(polypath.__file__).parent
TESTS = Path(__file__).parent

ROOMS = (  # in order: a room may import only from earlier ones
    "core",
    "layers",
    "families",
    "fusion",
    "profiling",
    "storage",
    "ensemble",
    "timm",
    "data",
    "training",
    "functional",
    "analysis",
    "reproduce",
    "deploy",
    "worth",
    "search",
    "serve",
    "explore",
    "cli",
    "_moved",
    "__init__",
    "__main__",
)
LOOSE = 6  # modules at the top level, at most


class Import(NamedTuple):
    importer: str
    imported: str
    name: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.name or 'all'} of {self.imported}"


def modules(source: Path) -> dict[str, Path]:
    """Dotted name to file; a package's ``__init__`` has the package's name."""
    found = {}
    for file in sorted(source.rglob("*.py")):
        parts = file.relative_to(source.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(source: Path, package: str) -> list[Import]:
    """Every import of the package's own modules: lazy, type-only and literal ``import_module`` ones too."""
    known = modules(source)
    return [found for name, file in known.items() for found in _of(name, file, known, package)]


def _of(importer: str, file: Path, known: dict[str, Path], package: str) -> Iterator[Import]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == package:
                    yield Import(importer, alias.name, "", node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = importer.split(".") if file.name == "__init__.py" else importer.split(".")[:-1]
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])
            if base.split(".")[0] == package:
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    yield Import(importer, inner if inner in known else base, alias.name, node.lineno)
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            target = getattr(node.args[0], "value", None) if node.args else None
            if isinstance(target, str) and target.split(".")[0] == package:
                yield Import(importer, target, "", node.lineno)


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def room(module: str) -> str:
    """The room of a module: its top-level folder or file."""
    return [*module.split("."), "__init__"][1]


def upward(found: list[Import]) -> list[str]:
    wrong = [i for i in found if ROOMS.index(room(i.importer)) < ROOMS.index(room(i.imported))]
    return [str(i) for i in wrong]


def cycle(found: list[Import]) -> list[str]:
    """An import cycle, with its first module repeated at the end; empty if there is none."""
    graph: dict[str, set[str]] = {}
    for i in found:
        if i.imported != i.importer:
            graph.setdefault(i.importer, set()).add(i.imported)
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def private(found: list[Import]) -> list[str]:
    wrong = [i for i in found if room(i.importer) != room(i.imported) and i.name.startswith("_") and i.name != "_moved"]
    return [str(i) for i in wrong]


def test_every_module_is_in_a_room_and_few_are_loose():
    assert {room(name) for name in modules(SOURCE)} == set(ROOMS)
    assert len(list(SOURCE.glob("*.py"))) <= LOOSE


def test_imports_go_one_way():
    found = imports(SOURCE, "polypath")
    assert len(found) > 1000  # otherwise the search missed the code
    assert upward(found) == []
    assert cycle(found) == []
    assert private(found) == []


def test_no_module_calls_the_private_methods_of_another_rooms_objects():
    """``net._run(...)``: a private attribute of anything but ``self`` or ``cls`` must be defined in the same module."""
    defined: dict[str, set[str]] = {}
    trees = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in modules(SOURCE).items()}
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _private(node.name, torch.nn.Module()):
                defined.setdefault(node.name, set()).add(room(name))
    wrong = []
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and _private(node.attr) and defined.get(node.attr):
                own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                if not own and room(name) not in defined[node.attr]:
                    wrong.append(f"{name}:{node.lineno} uses {node.attr} of {', '.join(sorted(defined[node.attr]))}")
    assert wrong == []


def _private(name: str, known: object = None) -> bool:
    return name.startswith("_") and not name.startswith("__") and not hasattr(known, name)


@pytest.mark.parametrize(
    ("files", "wrong"),
    [
        ({"core/a.py": "def f():\n    from polypath.layers import b", "layers/b.py": ""}, "upward"),
        ({"core/a.py": "import importlib\nimportlib.import_module('polypath.layers.b')", "layers/b.py": ""}, "upward"),
        ({"core/a.py": "if TYPE_CHECKING:\n    from polypath.layers.b import C", "layers/b.py": ""}, "upward"),
        ({"core/a.py": "from ..layers import b", "layers/b.py": ""}, "upward"),
        ({"core/a.py": "from polypath.core import b", "core/b.py": "def f():\n    import polypath.core.a"}, "cycle"),
        ({"layers/a.py": "from polypath.core.b import _c", "core/b.py": ""}, "private"),
        ({"layers/a.py": "from polypath.core.b import c", "core/b.py": "from polypath.core import d"}, "none"),
    ],
)
def test_violations_are_detected(tmp_path, files, wrong):
    root = tmp_path / "polypath"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    found = imports(root, "polypath")
    assert found
    seen = {"upward": bool(upward(found)), "cycle": bool(cycle(found)), "private": bool(private(found))}
    assert seen == {kind: kind == wrong for kind in seen}


def test_no_two_test_files_share_a_name():
    """Outside packages pytest imports them by their bare names, so a second one would be an error."""
    here = Path(__file__).parent
    files = [file.name for file in here.rglob("test_*.py") if not (file.parent / "__init__.py").exists()]
    assert [name for name, times in Counter(files).items() if times > 1] == []
