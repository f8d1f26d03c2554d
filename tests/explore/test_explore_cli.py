"""How ``polypath explore`` refuses what it cannot do, before anything is measured."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys

import pytest
from subjects import Given

from polypath import cli


def refused(capsys, *argv: str) -> str:
    assert cli.main(["explore", *argv]) == 2
    line = capsys.readouterr().err
    assert len(line.splitlines()) == 1
    return line


def test_a_missing_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'polypath[explore]'" in refused(capsys)


@pytest.mark.parametrize("port", ["0", "70000", "many"])
def test_ports_that_are_none_are_refused(capsys, port):
    assert "--port" in refused(capsys, "--port", port)


def test_a_wrong_profile_is_refused(capsys):
    assert "--profile: '-1' is not stored, fresh or a number of seconds above 0" in refused(capsys, "--profile=-1")


def test_folders_without_a_network_are_refused(capsys, tmp_path):
    pytest.importorskip("gradio")
    assert "no such folder" in refused(capsys, str(tmp_path / "nowhere"))


def test_a_port_that_is_taken_is_told():
    pytest.importorskip("gradio")
    from polypath.explore.page import serving

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} on 127.0.0.1 is in use"), serving(Given(), port=port):
            raise AssertionError("it serves")


@pytest.mark.parametrize(
    ("host", "warned"),
    [("127.0.0.1", False), ("127.0.0.2", False), ("localhost", False), ("::1", False), ("0.0.0.0", True)],
)
def test_a_page_that_others_reach_is_warned_of(host, warned, monkeypatch, capsys):
    pytest.importorskip("gradio")
    from polypath.explore import anytime, page

    @contextlib.contextmanager
    def serving(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)  # which is how it ends
        yield "http://somewhere"

    monkeypatch.setattr(anytime, "open_subject", lambda *_: Given())
    monkeypatch.setattr(page, "serving", serving)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        cli.main(["explore", "--host", host])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ("it has no password" in capsys.readouterr().err) == warned
