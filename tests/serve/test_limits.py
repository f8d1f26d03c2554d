"""Refusals that the guard and the protocol hold back cost other requests nothing."""

from __future__ import annotations

import socket
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from polypath.serve.app import App
from polypath.serve.limits import Key, RequestLimits
from polypath.serve.pace import Pace
from polypath.serve.service import Options
from serve.fake import FakeModel, image_bytes, parsed, post, raw, served

KEY = "X-API-Key: secret\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Slow(Pace):
    """Holds each refusal for a given time, and counts answers."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.answers = seconds, 0

    def answered(self, now: float) -> None:
        self.answers += 1

    def hold(self, now: float, cost: float = 1.0) -> float:
        super().hold(now, cost)
        return self.seconds


def slow_app(seconds: float, limits: RequestLimits | None = None) -> App:
    app = App(FakeModel(), Options(budget_ms=60_000, limits=limits or RequestLimits()), Key("secret"))
    app.guard.pace = Slow(seconds)
    return app


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def asking(port: int, sent: bytes) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", port), timeout=30)
    link.sendall(sent)
    return link


def test_held_refusals_take_no_place_and_are_let_go_when_the_service_ends():
    app = slow_app(60.0, RequestLimits(requests=1))
    with served(app) as port, ThreadPoolExecutor(4) as pool:
        refused = [pool.submit(raw, port, post(image_bytes()), limit_s=40) for _ in range(4)]
        until(lambda: len(app.guard.held) == 4)
        assert app.guard.requests == 0
        assert app.guard.buffered == 0
        assert parsed(raw(port, post(image_bytes(), extra=KEY)))[0] == 200
        app.drain()
        for answer in refused:
            status, headers, _ = parsed(answer.result())
            assert (status, headers["connection"]) == (401, "close")
        assert parsed(raw(port, post(image_bytes(), extra=KEY)))[0] == 503  # at once


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(post(image_bytes()), id="by the guard"),
        pytest.param(post(image_bytes(), extra=KEY, query="top_k=0"), id="by the service"),
        pytest.param(post(b"none", extra=KEY), id="by the decoder"),
        pytest.param(b"GET /none HTTP/1.1\r\nHost: localhost\r\n" + KEY.encode() + b"\r\n", id="by the routes"),
    ],
)
def test_every_refusal_is_paced_until_its_client_leaves(sent):
    app = slow_app(60.0)
    with served(app) as port:
        link = asking(port, sent)
        until(lambda: len(app.guard.held) == 1)
        link.close()
        until(lambda: not app.guard.held)


def test_answers_and_probes_are_not_paced_and_answers_count():
    app = slow_app(60.0)
    with served(app) as port:
        assert parsed(raw(port, post(image_bytes(), extra=KEY)))[0] == 200
        app.guard.draining = True
        assert parsed(raw(port, HEALTH.replace(b"healthz", b"readyz")))[0] == 503
        assert parsed(raw(port, HEALTH))[0] == 200
        pace = app.guard.pace
        assert isinstance(pace, Slow)
        assert pace.answers == 1


def test_a_refusal_is_held_without_its_body():
    app, size, number = slow_app(60.0), 2**22, 8
    bodies = [
        post(bytes(size), extra=KEY, query="top_k=0"),
        post(bytes(size), extra=KEY),
        post(bytes(size), extra=KEY).replace(b"/v1/predict", b"/v1/none"),
    ]
    with served(app) as port:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            links = [asking(port, bodies[i % 3]) for i in range(number)]
            until(lambda: len(app.guard.held) == number)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        assert grown < size  # not that of a single one
        app.drain()
        for link in links:
            link.close()


def test_connections_above_the_limit_wait_for_their_503():
    app = slow_app(0.4, RequestLimits(connections=1))
    with served(app) as port:
        request = post(image_bytes(), extra=KEY)
        first = asking(port, request[:1])  # its head has begun, so it keeps its place
        time.sleep(0.05)
        held = asking(port, post(image_bytes(), extra=KEY))  # which is not read
        begun = time.monotonic()
        further = asking(port, b"")  # beyond twice the limit
        assert b" 503 " in further.recv(65536)
        assert b" 503 " in held.recv(65536)
        assert time.monotonic() - begun > 0.2
        first.sendall(request[1:])
        assert b" 200 " in first.recv(65536)
        for link in (first, held, further):
            link.close()
        until(lambda: parsed(raw(port, HEALTH) or b"HTTP/1.1 503 x\r\n\r\n")[0] == 200)


def test_idle_connections_give_way_to_others_the_oldest_first():
    """Otherwise silent connections, as many as are allowed, would keep all other clients out until they time out."""
    app = App(FakeModel(), Options(budget_ms=60_000, limits=RequestLimits(connections=3)), Key("secret"))
    with served(app) as port:
        kept = asking(port, HEALTH)
        assert b"\r\n\r\n{" in b"".join(iter(lambda: kept.recv(1), b"}"))  # and stays open
        time.sleep(0.02)
        silent = asking(port, b"")
        begun = asking(port, b"P")
        time.sleep(0.2)
        others = [asking(port, post(image_bytes(), extra=KEY)) for _ in range(2)]
        assert all(b" 200 " in other.recv(65536) for other in others)
        assert kept.recv(65536) == b""  # between requests a server may close a connection
        answer = silent.recv(65536)
        assert b" 503 " in answer
        assert b"retry-after: 1" in answer.lower()
        begun.sendall(post(image_bytes(), extra=KEY)[1:])
        assert b" 200 " in begun.recv(65536)
        assert b'polypath_refused_total{reason="silent"} 1.0' in app.metrics.text()
