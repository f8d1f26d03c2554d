"""The site: it builds without a warning, its search works offline, and its pages cover the library."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import polypath
from conftest import ROOT, child_environment
from test_imports import ROOMS

DOCS = ROOT / "docs"


class Sources(HTMLParser):
    """The files that a page loads: scripts, styles, pictures, frames."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in {"script", "img", "iframe", "source"}:
            self.found.append(values.get("src") or "")
        elif tag == "link" and values.get("rel") in {"stylesheet", "preload", "icon"}:
            self.found.append(values.get("href") or "")


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package, reason=f"the site needs {package}: pip install 'polypath[docs]'")
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "trees"), str(DOCS), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        env=child_environment(),
    )
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "html").rglob("*.html"))
    assert len(pages) > 40
    outside = {source for page in pages for source in Sources(page).found if re.match(r"(https?:)?//", source)}
    assert outside == set()
    index = (tmp_path / "html/searchindex.js").read_text(encoding="utf-8")
    assert "polypath.core.extract" in index


def test_the_api_page_has_every_public_name():
    named = re.findall(r"^\.\. public-names:: (.+)$", (DOCS / "api/index.rst").read_text(), re.M)
    assert sorted(" ".join(named).split()) == polypath.__all__


def test_the_architecture_names_every_room():
    rooms = {room for room in ROOMS if not room.startswith("_")}
    assert set(re.findall(r'font-weight="bold" text-anchor="middle"[^>]*>(\w+)<', picture())) == rooms
    rows = [line for line in (DOCS / "architecture.md").read_text().splitlines() if line.startswith("| `")]
    listed = [room for row in rows for room in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert listed == [room for room in ROOMS if room in rooms]


def picture() -> str:
    return (DOCS / "images/rooms.svg").read_text()
