"""Terminals that cannot show all our characters get plain ones; names from files cannot control a terminal."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import sys
from pathlib import Path

import pytest

from polypath import cli
from polypath.cli.notes import notes
from polypath.cli.output import PLAIN, plain_where_needed, say
from polypath.cli.tables import RowPrinter, print_json, print_table


@pytest.fixture
def terminal(monkeypatch):
    """Standard output and error with an encoding, strict as Python opens them."""

    def make(encoding: str) -> io.BytesIO:
        shown = io.BytesIO()
        stream = io.TextIOWrapper(shown, encoding=encoding, errors="strict", write_through=True)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        return shown

    return make


@pytest.mark.parametrize("encoding", ["ascii", "cp1251", "cp437", "cp932", "latin-1", "utf-8"])
@pytest.mark.parametrize("argv", [["models", "gunn_small"], ["recipes", "gunn*"], ["reproduce", "--list"], ["--help"]])
def test_whole_tables_in_any_encoding(terminal, encoding, argv):
    shown = terminal(encoding)
    assert cli.main(argv) in (0, 2)
    text = shown.getvalue().decode(encoding)
    assert len(text.splitlines()) > 5 or argv[0] == "reproduce"
    assert text.isascii() or encoding != "ascii"
    assert ("²" in text or "^2" in text) == (argv[0] == "models")


def test_rows_line_up_when_characters_become_longer(terminal):
    shown = terminal("ascii")
    with plain_where_needed():
        print_table("± …", ["a", "b"], [["3 ± 1", "1"], ["32²", "22"]])
        rows = RowPrinter("title", [("a", 8), ("b", 3), ("c", 1)], left=("a", "c"))
        rows.add(["3 ± 1", "1", "x"])
        rows.add(["…", "22", "y"])
    lines = shown.getvalue().decode().splitlines()
    assert lines[0] == "+- ..."
    assert [line.strip() for line in lines[4:6]] == ["3 +- 1    1", "32^2     22"]
    assert lines[-2:] == ["3 +- 1      1  x", "...        22  y"]


def test_errors_and_notes_too(terminal, tmp_path):
    shown = terminal("ascii")
    assert cli.main(["predict", str(tmp_path / os.fsdecode(b"\xe9\xc3\xb6\x1b[31m")), "--json"]) == 2
    assert json.loads(shown.getvalue())["error"].endswith(r"\xe9ö\x1b[31m: no such file or folder")
    shown.truncate(0)
    with plain_where_needed(), notes(as_json=False):
        logging.getLogger("polypath.somewhere").info("a\x1b[2Jb ± 1\nnext")
        print("日本 – λ")
    assert shown.getvalue().lstrip(b"\0") == b"a\\x1b[2Jb +- 1\nnext\n\\u65e5\\u672c - lambda\n"


def test_streams_are_left_as_they_were(terminal):
    terminal("ascii")
    stream = sys.stdout
    assert cli.main([]) == 0
    assert isinstance(stream, io.TextIOWrapper)
    assert stream.errors == "strict"
    with pytest.raises(UnicodeEncodeError):
        print("±")


def test_every_plain_text_is_plain():
    assert all(text.isascii() and not character.isascii() for character, text in PLAIN.items())


def test_json_shows_names_that_are_not_utf_8(capsys):
    print_json({"a": ["b", {"c": os.fsdecode(b"caf\xe9")}], "d": 1, "e": "ö\n"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": ["b", {"c": r"caf\xe9"}], "d": 1, "e": "ö\n"}
    assert "\\udc" not in out


ESCAPES = "a\x1b]0;owned\x07\x9b31m\u202egpj\u2066\u200f\r\x7f"


def test_one_place_prints_and_shows_escapes_as_text(terminal):
    """Titles, names of classes and paths, messages: any text from a file."""
    shown = terminal("utf-8")
    with plain_where_needed(), notes(as_json=False):
        say(ESCAPES, f"{ESCAPES}\nnext", error=True)
        say(ESCAPES)
        print_table(ESCAPES, [ESCAPES, "b"], [[ESCAPES, ESCAPES]], notes=[ESCAPES])
        RowPrinter(ESCAPES, [("a", 8)], left=("a",)).add([ESCAPES])
        print_json({ESCAPES: ESCAPES})
        logging.getLogger("polypath.somewhere").warning(ESCAPES)
    text = shown.getvalue().decode()
    assert not {c for c in ESCAPES if not c.isprintable()} & set(text)
    assert text.count(r"a\x1b]0;owned\x07\x9b31m\u202egpj\u2066\u200f\r\x7f") >= 9
    begin, end = text.index("{"), text.rindex("}") + 1
    assert json.loads(text[begin:end]) == {ESCAPES: ESCAPES}


def test_nothing_else_of_the_command_prints():
    for file in Path(cli.__file__).parent.glob("*.py"):
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        names = [ast.unparse(call.func) for call in calls]
        assert file.name in ("output.py", "tables.py") or not [n for n in names if n.split(".")[-1] == "print"], (
            file.name
        )
