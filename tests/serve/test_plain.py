"""Plain predictions that are refused without h11: parsed as h11 does, answered as in the usual way."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator

import h11
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from polypath.serve import protocol
from polypath.serve.app import App
from polypath.serve.limits import SMALL_BODY, Key, RequestLimits
from polypath.serve.pace import Pace
from polypath.serve.plain import plain_head
from polypath.serve.service import Options
from serve.fake import FakeModel, Gate, image_bytes, parsed, post, raw, served, whole

KEY = "X-API-Key: secret\r\n"
CLIENTS = {
    "curl": "Host: localhost:8000\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nContent-Type: image/png\r\n"
    "Content-Length: 3\r\n",
    "requests": "Host: 127.0.0.1:8000\r\nUser-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate\r\n"
    "Accept: */*\r\nConnection: keep-alive\r\nContent-Length: 3\r\n",
    "browser-like": "Host: [::1]:8000\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101\r\n"
    "Content-Type: multipart/form-data; boundary=----geckoform\r\nContent-Length: 3\r\nCookie: a=b; c=d\r\n",
    "bare": "host:localhost\r\ncontent-length:3\r\n",
}


def plain(lines: str, target: str = "/v1/predict", body: bytes = b"abc") -> bytes:
    return f"POST {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


@pytest.mark.parametrize("client", CLIENTS)
def test_common_clients_are_plain(client):
    head = plain_head(plain(CLIENTS[client], "/v1/predict?top_k=1&budget_ms=50"))
    assert head is not None
    assert head.query == b"top_k=1&budget_ms=50"
    assert dict(head.lines)[b"content-length"] == b"3"


BARE = CLIENTS["bare"]
OTHERS = {
    "another place": plain(BARE, "/v1/paths"),
    "a longer place": plain(BARE, "/v1/predict/"),
    "an absolute target": plain(BARE, "http://localhost/v1/predict"),
    "another method": plain(BARE).replace(b"POST", b"PUT"),
    "HTTP/1.0": plain(BARE).replace(b"/1.1", b"/1.0"),
    "no host": plain("Content-Length: 3\r\n"),
    "two hosts": plain(BARE + "Host: localhost\r\n"),
    "no length": plain("Host: localhost\r\n"),
    "two lengths": plain(BARE + "Content-Length: 3\r\n"),
    "a list of lengths": plain("Host: localhost\r\nContent-Length: 3, 3\r\n"),
    "a signed length": plain("Host: localhost\r\nContent-Length: +3\r\n"),
    "a long body": plain(f"Host: localhost\r\nContent-Length: {SMALL_BODY + 1}\r\n"),
    "chunks": plain("Host: localhost\r\nTransfer-Encoding: chunked\r\n"),
    "an upgrade": plain(BARE + "Upgrade: h2c\r\n"),
    "expects 100": plain(BARE + "Expect: 100-continue\r\n"),
    "closes": plain(BARE + "Connection: close\r\n"),
    "names what is hop by hop": plain(BARE + "Connection: keep-alive, x\r\n"),
    "a page's": plain(BARE + "Origin: http://localhost\r\n"),
    "bare line feeds": plain(BARE).replace(b"\r\n", b"\n"),
    "a folded header": plain(BARE + "X: a\r\n b\r\n"),
    "a space before the colon": plain(BARE + "X : a\r\n"),
    "an empty value": plain(BARE + "X:\r\n"),
    "a control character": plain(BARE + "X: a\x01b\r\n"),
    "no ASCII": plain(BARE + "X: \xe9\r\n"),
    "an unfinished head": plain(BARE)[:-5],
    "an empty line before it": b"\r\n" + plain(BARE),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_everything_else_is_left_to_h11(kind):
    assert plain_head(OTHERS[kind]) is None


token = st.text("abcXYZ019-_.!~", min_size=1, max_size=8)
value = st.text(st.characters(max_codepoint=255), max_size=12) | st.sampled_from(
    ["3", "03", "close", "keep-alive", "a  b"]
)
name = token | st.sampled_from(
    ["Host", "Content-Length", "CONTENT-LENGTH", "Connection", "Upgrade", "Transfer-Encoding", "Expect", "Keep-Alive"]
)
lines = st.lists(
    st.builds("{}{}{}\r\n".format, name, st.sampled_from([": ", ":", ":  ", ":\t", " : "]), value), max_size=4
)
edits = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), st.binary(max_size=3)), max_size=2)


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType] (its metaclass iterates)
)
@given(more=lines, query=st.text("ab=&%?#/", max_size=6), body=st.binary(max_size=5), edits=edits)
@example(more=[], query="", body=b"abc", edits=[])
@example(more=["Content-Length: 3\r\n"], query="?", body=b"abc", edits=[])
def test_what_is_plain_h11_reads_alike(more, query, body, edits):
    data = plain(BARE + "".join(more), f"/v1/predict?{query}", body)
    for at, cut, put in edits:
        data = data[:at] + put + data[at + cut :]
    head = plain_head(data)
    if head is None or head.whole > len(data):
        return
    connection = h11.Connection(h11.SERVER, 2**14)
    connection.receive_data(data)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.http_version) == (b"POST", b"1.1")
    assert request.target.partition(b"?") == (b"/v1/predict", b"?" * (b"?" in request.target), head.query)
    assert [(name.lower(), value) for name, value in request.headers] == head.lines
    got = b""
    while isinstance(event := connection.next_event(), h11.Data):
        got += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert got == data[head.size : head.whole]
    assert connection.their_state is h11.DONE  # and would stay open
    assert connection.trailing_data[0] == data[head.whole :]
    assert not connection.they_are_waiting_for_100_continue


def test_the_comparison_meets_plain_requests_and_others():
    """As drawn above: an edit can leave a request plain, or not."""
    data = plain(BARE + "X: a b\r\n")
    assert plain_head(data.replace(b"a b", b"a c")) is not None
    assert plain_head(data.replace(b"a b", b"a b ")) is None


@pytest.mark.parametrize("value", [b"a" * 2**18, b"a " * 2**17, b"a \0" * 2**16, b"\r\nb: a" * 2**15])
def test_a_long_head_is_told_quickly(value):
    data = plain(BARE)[:-5] + b"a: " + value
    begun = time.thread_time()
    for _ in range(100):
        assert plain_head(data) is None
    assert time.thread_time() - begun < 1.0


class Always(Pace):
    """A pace under which every connection looks for plain requests, or none does."""

    def __init__(self, pressed: bool, seconds: float = 0.0) -> None:
        super().__init__()
        self.is_pressed, self.seconds = pressed, seconds

    def pressed(self, now: float) -> bool:
        return self.is_pressed

    def hold(self, now: float, cost: float = 1.0) -> float:
        return self.seconds


class Counting(App):
    """Counts what is refused without h11."""

    plain = 0

    def refusal(self, *args):
        found = super().refusal(*args)
        self.plain += found is not None
        return found


def app_with(pressed: bool, model: FakeModel | None = None, seconds: float = 0.0, **limits) -> Counting:
    found = Counting(model or FakeModel(), Options(budget_ms=60_000, limits=RequestLimits(**limits)), Key("secret"))
    found.guard.pace = Always(pressed, seconds)
    return found


def asked_twice(port: int, sent: bytes) -> list[bytes]:
    """The answers to a request, and to one behind it on the same connection, where it stays open."""
    answers = []
    with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
        for part in (sent, sent):
            link.sendall(part)
            got = b""
            while not whole(got) and (piece := link.recv(65536)):
                got += piece
            answers.append(re.sub(rb"date: [^\r]*|budget of [0-9.]+ ms|_ms\": [0-9.]+|length: \d+", b"", got))
    return answers


REFUSED = {
    "no key": post(image_bytes()),
    "a wrong key": post(image_bytes(), extra="Authorization: Bearer none\r\n"),
    "another host": post(image_bytes(), extra=KEY).replace(b"Host: localhost", b"Host: example.org"),
    "a wrong value": post(image_bytes(), extra=KEY, query="top_k=0"),
    "an unknown field": post(image_bytes(), extra=KEY, query="x=1"),
    "a query that is none": post(image_bytes(), extra=KEY, query="%ff&&"),
    "an unknown kind": post(image_bytes(), "text/plain", extra=KEY),
    "no image": post(b"", extra=KEY),
    "no JSON": post(b"{", "application/json", extra=KEY),
    "no form": post(b"x", "multipart/form-data; boundary=b", extra=KEY),
    "a budget that no path meets": post(image_bytes(), extra=KEY, query="budget_ms=0.001"),
    "a budget that this path does not meet": post(image_bytes(), extra=KEY, query="budget_ms=0.001&path=whole"),
    "too long": post(bytes(3000), extra=KEY),
}


def test_refusals_have_the_bytes_of_the_ordinary_way():
    seen: dict[bool, dict[str, list[bytes]]] = {}
    for pressed in (False, True):
        app = app_with(pressed, body_bytes=2000)
        with served(app) as port:
            seen[pressed] = {kind: asked_twice(port, sent) for kind, sent in REFUSED.items()}
            assert app.plain == 2 * len(REFUSED) * pressed
            text = app.metrics.text().decode()
        assert f'polypath_refused_total{{reason="key"}} {4.0}' in text  # counted once each
        assert app.guard.requests == app.guard.buffered == 0
    assert seen[True] == seen[False]
    assert all(answer.startswith(b"HTTP/1.1 4") for answers in seen[True].values() for answer in answers)


@pytest.mark.parametrize("limits", [{"queue": 1}, {"requests": 2}])
def test_a_busy_service_refuses_with_the_same_bytes(limits):
    seen = []
    sent = post(image_bytes(), extra=KEY)
    for pressed in (False, True):
        gate = Gate()
        app = app_with(pressed, FakeModel(), **limits)
        with served(app) as port:
            assert isinstance(app.model, FakeModel)
            app.model.gate = gate
            links = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(2)]
            links[0].sendall(sent)
            assert gate.reached.wait(30)
            links[1].sendall(sent)
            end = time.monotonic() + 30
            while app.guard.requests < 2 and time.monotonic() < end:
                time.sleep(0.002)
            seen.append(asked_twice(port, sent))
            assert app.plain == 2 * pressed
            gate.open()
            assert all(b" 200 " in link.recv(65536) for link in links)  # looked at, and then read by h11
            for link in links:
                link.close()
    assert seen[0] == seen[1]
    assert all(b" 503 " in answer and b"retry-after: " in answer for answer in seen[0])


@pytest.fixture
def pressed() -> Iterator[tuple[int, Counting]]:
    app = app_with(True, head_seconds=1.0)
    with served(app) as port:
        yield port, app


def test_a_request_that_comes_in_pieces_is_refused_as_cheaply(pressed, monkeypatch):
    monkeypatch.setattr(protocol, "REST_S", 30.0)  # on a busy machine too
    port, app = pressed
    head, gap, body = post(image_bytes()).partition(b"\r\n\r\n")
    assert parsed(raw(port, [head + gap, body[:10], body[10:]], pause_s=0.01))[0] == 401
    assert app.plain == 1


def test_a_request_whose_body_is_slow_goes_the_ordinary_way(pressed):
    port, app = pressed
    sent = post(image_bytes(7), extra=KEY)
    status, _, body = parsed(raw(port, [sent[:-20], sent[-20:]], pause_s=1.2))
    assert (status, body["top"][0]["index"]) == (200, 7)  # later than a head may be
    assert app.plain == 0


def test_a_connection_is_idle_after_a_plain_refusal_not_slow(pressed):
    port, app = pressed
    with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
        link.sendall(post(image_bytes()))
        assert b" 401 " in link.recv(65536)
        time.sleep(1.3)
        link.sendall(post(image_bytes(), extra=KEY))
        assert b" 200 " in link.recv(65536)
        link.sendall(b"POST /v1/pre")
        assert b" 408 " in link.recv(65536)
    assert app.plain == 1


def test_pipelined_requests_are_answered_in_their_order(pressed):
    port, _ = pressed
    sent = post(image_bytes()) + post(image_bytes(), extra=KEY) + post(image_bytes(), extra="Connection: close\r\n")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as link:
        link.sendall(sent)
        got = b"".join(iter(lambda: link.recv(65536), b""))
    assert re.findall(rb"HTTP/1\.1 (\d+) ", got) == [b"401", b"200", b"401"]


def test_what_comes_behind_a_held_refusal_waits_for_it():
    app = app_with(True, seconds=0.3)
    with served(app) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as link:
        begun = time.monotonic()
        link.sendall(post(image_bytes()))
        while not app.guard.held:
            time.sleep(0.002)
        link.sendall(post(image_bytes(), extra=KEY + "Connection: close\r\n"))
        got = b"".join(iter(lambda: link.recv(65536), b""))
    assert re.findall(rb"HTTP/1\.1 (\d+) ", got) == [b"401", b"200"]
    assert time.monotonic() - begun >= 0.3
    assert not app.guard.held


def test_a_held_plain_refusal_ends_with_its_client_or_with_the_service():
    app = app_with(True, seconds=60.0)
    with served(app) as port:
        left = socket.create_connection(("127.0.0.1", port), timeout=20)
        stays = socket.create_connection(("127.0.0.1", port), timeout=20)
        for number, link in enumerate((left, stays), 1):
            link.sendall(post(image_bytes()))
            end = time.monotonic() + 30
            while len(app.guard.held) < number and time.monotonic() < end:
                time.sleep(0.002)
        left.close()
        while len(app.guard.held) > 1 and time.monotonic() < end:
            time.sleep(0.002)
        assert len(app.guard.held) == 1
        app.drain()
        status, headers, _ = parsed(stays.recv(65536))
        assert (status, headers["connection"]) == (401, "close")
        assert stays.recv(10) == b""
        stays.close()
    assert app.plain == 2
