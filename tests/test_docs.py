"""The documents' code runs, and the files that they point to are there."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from pathlib import Path

import pytest

from conftest import ROOT
from polypath.families.registry import PRESETS

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NEEDS = {"docs/production.md": ("onnx", "onnxscript", "onnxruntime", "fastapi", "uvicorn", "h11", "prometheus_client")}
"""Packages of extras that a page's code needs; it skips where they are absent."""
LONG = ("docs/production.md",)
"""It trains, exports two bundles and serves them; the steps have quick tests of their own."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.slow if name(p) in LONG else ()) for p in PAGES if blocks(p)],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    for package in NEEDS.get(name(page), ()):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path / "cache"))
    module = types.ModuleType(page.stem)
    monkeypatch.setitem(sys.modules, page.stem, module)  # dataclasses look their module up
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), module.__dict__)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    missing = [t for t in targets if not (page.parent / t).exists()]
    assert not missing


def test_the_new_family_is_short():
    block = next(b for b in blocks(ROOT / "docs/new_family.md") if "class Exchange" in b)
    assert len([line for line in block.splitlines() if line.strip()]) <= 40


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    return generate


SLOW_PAGES = {"models.md"}  # builds every network: a minute


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW_PAGES else ()) for n in generator().PAGES]
)
def test_generated_pages_are_current(name):
    assert (ROOT / "docs" / name).read_text() == generator().PAGES[name](), f"docs/{name} is old: run `make docs`"


def test_the_models_page_has_every_network_and_current_rows():
    rows = {line.split("`")[1]: line for line in (ROOT / "docs/models.md").read_text().splitlines() if "| `" in line}
    assert list(rows) == list(PRESETS)
    first_of_family = {preset.spec.family: name for name, preset in reversed(PRESETS.items())}
    assert len(first_of_family) >= 10
    for name in first_of_family.values():
        assert rows[name] == generator().model_row(name), "docs/models.md is old: run `make docs`"
