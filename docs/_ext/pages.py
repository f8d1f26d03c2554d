"""Markdown links that lead out of ``docs``: to pages of the site where there is one, to a copy of a file, or nowhere.

The pages are written to be read in the repository too, so they link to files and folders of it.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
PAGES = {"README.md": "index.rst", "CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the repository that pages of the site stand for."""
SHOWN = {"changes": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}
"""Pages that are such a file; in the repository they only link to it."""
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")


def in_site(text: str, folder: Path, page: Path) -> str:
    """``text``, a page whose links count from ``folder``, with links that count from where ``page`` is in the site."""
    return LINK.sub(partial(_led, folder=folder, page=page), text)


def _led(link: re.Match[str], folder: Path, page: Path) -> str:
    words, target, anchor = link[1], (folder / link[2]).resolve(), link[3] or ""
    up = "../" * len(page.parent.relative_to(DOCS).parts)
    if target.is_dir():  # a web server need not list it
        return words
    if target.is_relative_to(DOCS):
        return f"[{words}]({up}{target.relative_to(DOCS).as_posix()}{anchor})"
    name = target.relative_to(DOCS.parent).as_posix()
    if name in PAGES:
        return f"[{words}]({up}{PAGES[name]}{anchor})"
    return f"[{words}]({up}../{name}{anchor})"


def read_page(app: Sphinx, docname: str, content: list[str]) -> None:
    page = Path(app.env.doc2path(docname))
    if page.suffix != ".md":
        return
    folder = page.parent
    if docname in SHOWN:
        shown = DOCS.parent / SHOWN[docname]
        content[0], folder = shown.read_text(encoding="utf-8"), shown.parent
        app.env.note_dependency(shown, docname=docname)
    content[0] = in_site(content[0], folder, page)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", read_page)
    return {"parallel_read_safe": True}
