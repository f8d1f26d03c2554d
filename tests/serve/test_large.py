"""Large images beside small ones: only their own clients wait for them."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from polypath.serve import service as module
from polypath.serve.app import App
from polypath.serve.decoding import Lane
from polypath.serve.limits import Key
from polypath.serve.service import Options
from serve.fake import FakeModel, Gate, image_bytes, parsed, post, raw, served

LARGE = image_bytes(7, size=(100, 100))


def ask(port: int, body: bytes, query: str = "budget_ms=60000") -> tuple[int, dict[str, str], Any]:
    return parsed(raw(port, post(body, query=query), limit_s=60))


def until(condition, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@pytest.fixture
def model():
    return FakeModel(apart_gate=Gate())


@pytest.fixture
def running(model):
    app = App(model, Options(), Key(None))
    with served(app) as port, ThreadPoolExecutor(16) as pool:
        yield app, port, pool
        model.apart_gate.open()


def test_small_images_are_answered_while_a_large_one_is_decoded(model, running):
    _, port, pool = running
    large = pool.submit(ask, port, LARGE)
    assert model.apart_gate.reached.wait(30)
    answers = [ask(port, image_bytes(i)) for i in range(5)]
    assert [(status, body["top"][0]["index"]) for status, _, body in answers] == [(200, i) for i in range(5)]
    assert not large.done()
    model.apart_gate.open()
    status, _, body = large.result()
    assert (status, body["top"][0]["index"]) == (200, 7)
    assert model.apart == ["done", "renewed"]


def test_decoding_ends_at_the_deadline_and_says_so(model, running):
    _, port, _ = running
    status, _, body = ask(port, LARGE, "budget_ms=300")
    assert (status, body["error"]["field"], body["error"]["value"]) == (422, "budget_ms", 300.0)
    assert "decoding this image takes longer" in body["error"]["message"]
    assert model.apart == ["late", "renewed"]


def test_a_client_that_left_costs_nothing_more(model, running):
    app, port, pool = running
    with socket.create_connection(("127.0.0.1", port)) as link:
        link.sendall(post(LARGE, query="budget_ms=60000"))
        assert model.apart_gate.reached.wait(30)
        waiting = pool.submit(ask, port, LARGE)
        assert until(lambda: app.service.large.pieces == 2)
        with socket.create_connection(("127.0.0.1", port)) as second:
            second.sendall(post(LARGE, query="budget_ms=60000"))
            assert until(lambda: app.service.large.pieces == 3)
        assert until(lambda: app.service.large.pieces == 2)  # it was only waiting
    assert until(lambda: model.apart[:2] == ["cancelled", "renewed"])
    model.apart_gate.open()
    assert waiting.result()[0] == 200
    assert model.apart == ["cancelled", "renewed", "done", "renewed"]
    assert until(lambda: len(app.service.scheduler) == 0)
    assert app.guard.requests == 0


def test_a_client_that_left_before_its_batch_is_not_run(model, running):
    app, port, _ = running
    model.gate = Gate()
    with socket.create_connection(("127.0.0.1", port)) as first:
        first.sendall(post(image_bytes(1), query="budget_ms=60000"))
        assert model.gate.reached.wait(30)
        ran = len(model.ran)
        with socket.create_connection(("127.0.0.1", port)) as second:
            second.sendall(post(image_bytes(2), query="budget_ms=60000"))
            assert until(lambda: len(app.service.scheduler) == 1)
        assert until(lambda: len(app.service.scheduler) == 0)
        model.gate.open()
        assert b" 200 " in first.recv(65536)
    assert len(model.ran) == ran


def test_large_images_that_would_wait_too_long_are_refused_at_once(model, running, monkeypatch):
    app, port, pool = running
    monkeypatch.setattr(module, "WAIT_S", 2.5 * 100 * 100 * module.WORK_S)
    asked = [pool.submit(ask, port, LARGE) for _ in range(2)]
    assert until(lambda: app.service.large.pieces == 2)
    status, headers, body = ask(port, LARGE)
    assert (status, "large images" in body["error"]["message"]) == (503, True)
    assert int(headers["retry-after"]) >= 1
    assert body["error"]["retry_after_ms"] > 0
    assert ask(port, image_bytes(3))[0] == 200
    model.apart_gate.open()
    assert [future.result()[0] for future in asked] == [200, 200]


def test_a_service_that_ends_does_not_wait_for_a_bomb(model, monkeypatch):
    monkeypatch.setattr(module, "DRAIN_S", 0.1)
    app = App(model, Options(), Key(None))
    with served(app) as port, ThreadPoolExecutor(1) as pool:
        large = pool.submit(ask, port, LARGE)
        assert model.apart_gate.reached.wait(30)
        app.drain()
        status, _, body = large.result()
        assert (status, body["error"]["message"]) == (503, "the service is shutting down")
        assert until(lambda: model.apart == ["cancelled", "renewed"])


def test_without_a_process_large_images_are_503(model, running, monkeypatch):
    _, port, _ = running

    def fails(*_: Any) -> None:
        raise RuntimeError("no process")

    monkeypatch.setattr(model, "decode_apart", fails)
    assert ask(port, LARGE)[0] == 503
    assert ask(port, image_bytes(3))[0] == 200


def test_past_slow_work_refuses_nothing_in_an_idle_lane():
    lane, gate = Lane("test", 1, 0.001), Gate()
    assert lane.expected(3.0) == 0.003
    lane.start(time.sleep, 0.0005).result()
    for _ in range(10):
        lane.start(time.sleep, 0.03).result()
    assert until(lambda: lane.pieces == 0)
    assert lane.expected() < 0.03
    lane.start(gate.pass_through)
    waiting = lane.start(time.sleep, 0.0, units=3.0)
    assert lane.expected() >= 5 * 0.03
    assert waiting.cancel()
    assert 2 * 0.03 <= lane.expected() < 5 * 0.03
    gate.open()
    lane.close()
