"""Limits of a connection: heads, chunks, trailers, pipelines, upgrades, answers that are not read."""

from __future__ import annotations

import re
import socket
import time

import pytest

from polypath.serve.app import App
from polypath.serve.limits import Key, RequestLimits
from polypath.serve.service import Options
from serve.fake import FakeModel, image_bytes, post, served

KEY = "secret"
AUTH = f"X-API-Key: {KEY}\r\n"
LIMITS = RequestLimits(write_seconds=0.5, body_seconds=2.0, linger_seconds=0.2)
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n%s\r\n"
PREDICT = CHUNKED % (b"/v1/predict", AUTH.encode())


@pytest.fixture(scope="module")
def server():
    app = App(FakeModel(), Options(limits=LIMITS, budget_ms=60_000), Key(KEY))
    with served(app) as port:
        yield port, app


def exchange(port: int, *parts: bytes, limit_s: float = 10.0) -> tuple[list[int], bytes]:
    """Send the parts for as long as the server takes them, then read until it closes; statuses, and all that came."""
    got, end = b"", time.monotonic() + limit_s
    with socket.create_connection(("127.0.0.1", port), timeout=0.2) as link:
        for part in parts:
            try:
                link.sendall(part)
            except OSError:
                break
        while time.monotonic() < end:
            try:
                piece = link.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            if not piece:
                break
            got += piece
        else:
            raise AssertionError(f"the connection stays open after {got[:200]!r}")
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", got)], got


def closing(request: bytes) -> bytes:
    return request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)


@pytest.mark.parametrize("place", [b"/healthz", b"/v1/predict"])
def test_trailers_without_end_are_cut_off_before_the_key_is_asked(server, place):
    sent = CHUNKED % (place, b"") + b"1\r\nx\r\n0\r\n", *(b"X: b\r\n" * 10_000 for _ in range(200))
    statuses, _ = exchange(server[0], *sent)
    # what is refused for its key, or since there is no body to send, may be told before the trailers are read
    assert statuses in ([431], [401] if place == b"/v1/predict" else [413])


def test_trailers_within_the_bounds_are_dropped(server):
    body = image_bytes(5)
    sent = PREDICT.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    statuses, got = exchange(server[0], sent + b"%x\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(body), body))
    assert statuses == [200]
    assert b'"index":5' in got


@pytest.mark.parametrize("extension", [b"", b";a=" + b"b" * 1000])
def test_chunk_lines_are_bounded_in_all(server, extension):
    few = b"".join(b"1%s\r\n%c\r\n" % (extension, byte) for byte in image_bytes(5)[:40])
    rest = image_bytes(5)[40:]
    sent = closing(PREDICT) + few + b"%x\r\n%s\r\n0\r\n\r\n" % (len(rest), rest)
    assert exchange(server[0], sent)[0] == [200]
    assert exchange(server[0], PREDICT, *((b"1%s\r\nx\r\n" % extension) * 1000 for _ in range(30)))[0] == [431]


def test_chunks_that_are_none(server):
    for wrong in (b"ZZ\r\nabc\r\n0\r\n\r\n", b"FFFFFFFFFFFFFFFFFFFFFF\r\nabc\r\n", b"1\r\nab\r\n0\r\n\r\n"):
        assert exchange(server[0], PREDICT + wrong)[0] == [400]


def test_heads_are_bounded_in_one_piece_too(server):
    long = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n"
    assert exchange(server[0], closing(long % (b"a" * 15_000)))[0] == [200]
    for size in (17_000, 250_000):
        assert exchange(server[0], long % (b"a" * size))[0] == [431]
        assert exchange(server[0], HEALTH + long % (b"a" * size))[0] == [200, 431]
    many = b"".join(b"X%d: a\r\n" % i for i in range(120))
    assert exchange(server[0], HEALTH.replace(b"\r\n\r\n", b"\r\n" + many + b"\r\n"))[0] == [431]
    assert exchange(server[0], long.replace(b"/healthz", b"/" + b"a" * 17_000) % b"")[0] == [431]


def test_pipelined_requests_are_answered_in_turn(server):
    ask = [post(image_bytes(i), extra=AUTH + ("Connection: close\r\n" if i == 5 else "")) for i in range(6)]
    statuses, got = exchange(server[0], b"".join(ask))
    assert statuses == [200] * 6
    assert re.findall(rb'"top":\[\{"class":"class(\d)"', got) == [b"%d" % i for i in range(6)]
    assert exchange(server[0], HEALTH * 300 + closing(HEALTH), limit_s=60)[0] == [200] * 301


@pytest.mark.parametrize("bad", [b"\0\1garbage\r\n\r\n", b"GET /healthz HTTP/1.1\r\n\r\n", PREDICT + b"ZZ\r\n"])
def test_a_good_request_is_answered_before_the_bad_one_behind_it(server, bad):
    statuses, got = exchange(server[0], post(image_bytes(7), extra=AUTH) + bad)
    assert statuses == [200, 400]
    assert b'"index":7' in got


def test_bytes_behind_the_last_request_change_nothing(server):
    assert exchange(server[0], closing(post(image_bytes(), extra=AUTH)) + b"\r\n\0" * 5)[0] == [200]


@pytest.mark.parametrize(
    "head",
    [
        "POST /v1/predict HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n",
        "POST /v1/predict HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
        "POST /healthz HTTP/1.1\r\nUpgrade: h2c\r\n",
        "CONNECT example.com:80 HTTP/1.1\r\n",
    ],
)
def test_upgrades_are_refused_and_their_body_is_no_request(server, head):
    smuggled = b"GET /v1/paths HTTP/1.1\r\nHost: localhost\r\n" + AUTH.encode() + b"\r\n"
    sent = f"{head}Host: localhost\r\n{AUTH}Content-Length: {len(smuggled)}\r\n\r\n".encode() + smuggled
    statuses, got = exchange(server[0], sent + HEALTH)
    assert statuses == [400]
    assert b"other protocols are not supported" in got
    assert b'"paths"' not in got


def test_two_lengths_of_one_body_are_refused(server):
    sent = PREDICT.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n") + b"0\r\n\r\n" + HEALTH
    assert exchange(server[0], sent)[0] == [400]


def test_a_refused_client_does_not_go_on_sending(server):
    endless = CHUNKED % (b"/v1/predict", b""), *(b"%x\r\n%s\r\n" % (2**16, bytes(2**16)) for _ in range(2000))
    begun = time.monotonic()
    assert exchange(server[0], *endless, limit_s=30)[0] == [401]
    with socket.create_connection(("127.0.0.1", server[0]), timeout=10) as link:  # announced, sent slowly or never
        link.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\nx")
        answer = link.recv(65536)
        assert b" 401 " in answer
        assert b"connection: close" in answer
        while link.recv(65536):
            pass
    assert time.monotonic() - begun < 30


def test_a_refused_request_that_is_whole_keeps_its_connection(server):
    wrong = post(image_bytes(), extra="X-API-Key: wrong\r\n")
    assert exchange(server[0], wrong + wrong + closing(HEALTH))[0] == [401, 401, 200]


def test_a_client_that_expects_100_is_refused_without_being_asked_for_its_body(server):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    assert exchange(server[0], head)[0] == [401]


def test_answers_that_are_not_read_end_the_connection(server):
    ask = f"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n{AUTH}\r\n".encode()
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.connect(("127.0.0.1", server[0]))
        link.sendall(ask * 200)
        end = time.monotonic() + 30
        while server[1].guard.requests and time.monotonic() < end:
            time.sleep(0.05)
        assert server[1].guard.requests == 0
        time.sleep(2 * LIMITS.write_seconds)
        link.settimeout(5)
        got = 0
        try:
            while piece := link.recv(2**20):
                got += len(piece)
        except OSError:
            pass
    statuses, one = exchange(server[0], closing(ask))
    assert statuses == [200]
    assert 0 < got < 200 * len(one)
