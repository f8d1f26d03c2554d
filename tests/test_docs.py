"""The code of the documentation runs, and its links lead to existing files."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import sys
import types
from pathlib import Path

import pytest

from conftest import ROOT
from polypath.families.registry import PRESETS

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NEEDS = ("onnx", "onnxscript", "onnxruntime", "fastapi", "uvicorn", "h11", "prometheus_client")
"""Packages of extras that the pages' code needs."""
LONG = ("docs/production.md",)
"""It trains, exports two bundles and serves them; each step has its own quick tests."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


def run(page: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Run a page's code from top to bottom in the working folder; returns its definitions."""
    module = types.ModuleType(page.stem)
    monkeypatch.setitem(sys.modules, page.stem, module)  # dataclasses look up their module
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), module.__dict__)
    return module


def in_order() -> list[Path]:
    """The pages with code, in the order of the site."""
    entries = re.findall(r"^   ([\w/]+)$", (ROOT / "docs/index.rst").read_text(), re.M)
    pages = [ROOT / "README.md", *(ROOT / f"docs/{entry}.md" for entry in entries)]
    return [page for page in pages if page.is_file() and blocks(page)]


def test_the_site_has_every_page_with_code():
    assert sorted(in_order()) == sorted(page for page in PAGES if blocks(page))


@pytest.mark.parametrize("page", [p for p in in_order() if name(p) not in LONG], ids=name)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path / "cache"))
    run(page, monkeypatch)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_reader_can_follow_all_pages_in_one_folder(tmp_path, monkeypatch):
    for package in NEEDS:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path / "cache"))
    for page in in_order():
        run(page, monkeypatch)
    for name in ("digits", "production"):
        assert json.loads((tmp_path / "runs" / name / "summary.json").read_text())["test_error"] < 20


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    missing = [t for t in targets if not (page.parent / t).exists()]
    assert not missing


def typed() -> dict[tuple[str, ...], set[str]]:
    """The commands in pages, each with the recipe or kind that its options depend on, and the options used."""
    found: dict[tuple[str, ...], set[str]] = {}
    for page in PAGES:
        for line in re.findall(r"^ {4}polypath ([a-z]+ [^#\n]*)", page.read_text(), re.M):
            command, *words = line.split()
            of = words[:1] if command in ("train", "ladder", "bench") else []
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            found.setdefault((command, *of), set()).update(options)
    return found


@pytest.mark.parametrize(("command", "options"), typed().items(), ids=lambda value: " ".join(sorted(value)))
def test_commands_of_pages_have_their_options(command, options, capsys):
    from polypath.cli import main

    for asked in (
        command,
        *([("train", *command[1:])] if command[0] == "ladder" else []),
    ):  # accepts train's options too
        with contextlib.suppress(SystemExit):
            assert main([*asked, "--help"]) == 0
    told = capsys.readouterr()
    assert {option for option in options if not re.search(rf"{option}(?![\w.-])", told.out + told.err)} == set()


def anchors(page: Path) -> set[str]:
    """The anchors of ``page``'s headings, by GitHub's rule, which the site also uses."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(next(s for s in (slug, *(f"{slug}-{i}" for i in range(1, 100))) if s not in found))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_to_headings_lead_to_one(page):
    links = re.findall(r"\]\(([^)#\s]*\.md)?#([^)\s]+)\)", page.read_text())
    assert [link for link in links if link[1] not in anchors(page.parent / link[0] if link[0] else page)] == []


def test_a_missing_heading_is_detected(tmp_path):
    (tmp_path / "page.md").write_text("# One `word`, and\n## Two\n## Two\n```\n# no heading\n```\n")
    assert anchors(tmp_path / "page.md") == {"one-word-and", "two", "two-1"}


def test_every_decision_has_date_status_and_what_decided():
    _, *subjects = re.split(r"^## ", (ROOT / "docs/decisions.md").read_text(), flags=re.M)
    entries = [entry.strip() for subject in subjects for entry in re.split(r"^- ", subject, flags=re.M)[1:]]
    form = r"\*\*.+?\*\*\s+\(20\d\d-\d\d-\d\d,\s+(holds|open).*?\).+?\n  - \*Decided by\*: .+"
    assert len(entries) > 100
    assert [entry[:80] for entry in entries if not re.match(form, entry, re.S)] == []


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


def test_no_page_has_the_name_of_one_that_sphinx_writes():
    """Sphinx would replace the page without a warning."""
    assert not {page.stem for page in PAGES} & {"search", "genindex", "py-modindex"}


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
