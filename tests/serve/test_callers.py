"""Hosts and origins: DNS rebinding, foreign pages, allowed ones."""

from __future__ import annotations

import pytest

from polypath.cli import main
from polypath.serve.app import App
from polypath.serve.callers import Callers
from polypath.serve.errors import RequestRejected
from polypath.serve.limits import Key
from polypath.serve.service import Options
from serve.fake import FakeModel, image_bytes, parsed, raw, served


def status(callers: Callers, host: str | None, origin: str | None = None, local: str = "127.0.0.1") -> int:
    headers = {b"host": host, b"origin": origin}
    try:
        callers.check({name: text.encode() for name, text in headers.items() if text is not None}, local)
    except RequestRejected as refusal:
        return refusal.status
    return 200


@pytest.mark.parametrize(
    ("host", "local", "expected"),
    [
        ("localhost", "127.0.0.1", 200),
        ("LOCALHOST:8000", "127.0.0.1", 200),
        ("127.0.0.1:8000", "127.0.0.1", 200),
        ("127.8.9.1", "10.0.0.5", 200),
        ("[::1]:8000", "::1", 200),
        ("10.0.0.5:8000", "10.0.0.5", 200),
        ("10.0.0.5", "::ffff:10.0.0.5", 200),
        ("[fe80::0:1]", "fe80::1", 200),
        (None, "127.0.0.1", 200),
        ("evil.example", "127.0.0.1", 421),
        ("localhost.evil.example", "127.0.0.1", 421),
        ("127.0.0.1.evil.example", "127.0.0.1", 421),
        ("10.0.0.6", "10.0.0.5", 421),
        ("0.0.0.0:8000", "127.0.0.1", 421),
        ("evil@localhost", "127.0.0.1", 421),
        ("localhost/evil", "127.0.0.1", 421),
        ("localhost:x", "127.0.0.1", 421),
        ("local host", "127.0.0.1", 421),
        ("[::1", "::1", 421),
        ("", "127.0.0.1", 421),
    ],
)
def test_hosts(host, local, expected):
    assert status(Callers(), host, local=local) == expected
    assert status(Callers(("*",)), "evil.example", local=local) == 200


def test_allowed_hosts():
    callers = Callers(("Example.org", "*.inner.example", "2001:DB8:0::1"))
    for host in ("example.org", "EXAMPLE.ORG:80", "a.b.inner.example", "[2001:db8::1]:8000"):
        assert status(callers, host) == 200
    for host in ("www.example.org", "inner.example", "notinner.example", "example.org.evil.example"):
        assert status(callers, host) == 421


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, 200),
        ("http://localhost:8000", 200),
        ("https://localhost:8000", 200),
        ("http://localhost:9000", 403),
        ("http://localhost", 403),
        ("http://evil.example", 403),
        ("http://localhost:8000.evil.example", 403),
        ("null", 403),
        ("", 403),
        ("file://", 403),
    ],
)
def test_origins(origin, expected):
    assert status(Callers(), "localhost:8000", origin) == expected
    assert status(Callers(origins=("*",)), "localhost:8000", origin) == 200


def test_allowed_origins_and_bad_ones():
    callers = Callers(origins=("https://a.example", "null"))
    assert status(callers, "localhost", "https://a.example") == 200
    assert status(callers, "localhost", "null") == 200
    assert status(callers, "localhost", "https://b.example") == 403
    for wrong in ("http://a.example", "a.example/", "x y", "a@b", "*.a*", ""):
        with pytest.raises(ValueError, match="hosts"):
            Callers(hosts=(wrong,))
    for wrong in ("a.example", "https://a.example/", "https://", "ftp://a.example", ""):
        with pytest.raises(ValueError, match="origins"):
            Callers(origins=(wrong,))


@pytest.fixture(scope="module")
def port():
    callers = Callers(origins=("https://a.example",))
    with served(App(FakeModel(), Options(), Key("secret"), callers)) as port:
        yield port


def ask(port: int, method: str, place: str, *lines: str, body: bytes = b"") -> tuple:
    head = "\r\n".join((f"{method} {place} HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""))
    return parsed(raw(port, head.encode() + body, limit_s=5))


HOST, AUTH = "Host: localhost", "X-API-Key: secret"


def test_a_rebound_name_and_a_foreign_page_are_refused(port):
    found, _, body = ask(port, "POST", "/v1/predict", "Host: evil.example", AUTH, body=image_bytes())
    assert (found, body["error"]["field"], body["error"]["value"]) == (421, "Host", "evil.example")
    assert "--allow-host" in body["error"]["legal"]
    found, headers, body = ask(
        port, "POST", "/v1/predict", HOST, AUTH, "Origin: http://evil.example", body=image_bytes()
    )
    assert (found, body["error"]["field"]) == (403, "Origin")
    assert "access-control-allow-origin" not in headers
    assert ask(port, "GET", "/healthz", "Host: evil.example")[0] == 421
    assert ask(port, "GET", "/healthz", f"Host: 127.0.0.1:{port}", f"Origin: http://127.0.0.1:{port}")[0] == 200


def test_an_allowed_page_may_ask_and_read_refusals(port):
    origin = "Origin: https://a.example"
    preflight = "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-api-key, content-type"
    found, headers, _ = ask(port, "OPTIONS", "/v1/predict", HOST, origin, *preflight)
    assert (found, headers["access-control-allow-origin"]) == (200, "https://a.example")
    assert "x-api-key" in headers["access-control-allow-headers"]
    for lines, body, expected in (((AUTH,), image_bytes(), 200), ((AUTH,), b"x", 400), ((), image_bytes(), 401)):
        found, headers, _ = ask(port, "POST", "/v1/predict", HOST, origin, *lines, body=body)
        assert (found, headers["access-control-allow-origin"]) == (expected, "https://a.example")
    found, headers, _ = ask(port, "OPTIONS", "/v1/predict", HOST, "Origin: https://b.example", *preflight)
    assert found == 403
    assert ask(port, "OPTIONS", "/v1/predict", HOST, *preflight)[0] in (400, 405)  # no page: no answer but to the key


def test_head_is_get_without_a_body(port):
    for place in ("/healthz", "/readyz", "/v1/paths", "/docs", "/metrics"):
        found, headers, body = ask(port, "HEAD", place, HOST, AUTH, "Connection: close")
        same, like, _ = ask(port, "GET", place, HOST, AUTH, "Connection: close")
        assert (found, body) == (same, b"") == (200, b"")
        assert headers["content-type"] == like["content-type"]
    assert ask(port, "HEAD", "/v1/predict", HOST, AUTH, "Connection: close")[0] == 405


@pytest.mark.parametrize(
    ("args", "told"),
    [(["--allow-host", "http://a"], "hosts: 'http://a'"), (["--cors", "a.example"], "origins: 'a.example'")],
)
def test_bad_options_are_one_line_and_status_2(args, told, capsys):
    assert main(["serve", *args]) == 2
    error = capsys.readouterr().err.strip()
    assert told in error
    assert error.count("\n") == 0
