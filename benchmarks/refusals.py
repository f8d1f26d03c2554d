"""Measures the cost of a rejected request for the service's event loop, in CPU microseconds. There are two ways to
reject: in the application, and in the connection alone.

    python -m benchmarks refusals

Bytes go directly into the protocol, and from it to a fake transport. So the kernel's part (one read, one or two writes)
is not included. The measure is the thread's CPU time, the minimum over several rounds, so other work on the machine has
little effect. The queue is that of a service at twice its capacity: it is full, and a new request is rehearsed with all
queued requests. Single stages are timed separately, with the same request.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import h11
import uvloop

from benchmarks.serving import versions
from polypath.serve import app as app_module
from polypath.serve import decoding, scheduler
from polypath.serve import service as service_module
from polypath.serve.app import App
from polypath.serve.errors import RequestRejected
from polypath.serve.limits import Key
from polypath.serve.pace import Pace
from polypath.serve.plain import plain_head
from polypath.serve.predict_request import read_request
from polypath.serve.server import Server
from polypath.serve.service import Options, batch_sizes
from polypath.serve.times import Times

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from serve.fake import FakeModel, Gate, image_bytes, post

CONNECTIONS, TURNS, ROUNDS = 20, 5, 60
SLOW = 2.0  # slowness of the fake model: a batch of 16 takes 40 ms, as with the pretrained bundle
BUDGET_MS = 200.0
KEY = "X-API-Key: secret\r\n"


class NoTransport(asyncio.Transport):
    """A transport that keeps the written bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": ("127.0.0.1", 8000), "peername": ("127.0.0.1", 50000)}.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Fixed(Pace):
    """A pace that delays no request."""

    looks = False

    def pressed(self, now: float) -> bool:
        return self.looks

    def hold(self, now: float, cost: float = 1.0) -> float:
        return 0.0


class Stopped:
    """A clock that does not advance. The queue does not advance, either, so all further requests are rejected."""

    def __init__(self) -> None:
        self.now = time.perf_counter()

    def perf_counter(self) -> float:
        return self.now


class Standing(Gate):
    """A gate of the fake model that stays shut, so that no batch finishes."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def pass_through(self) -> None:
        self.opened.wait()


def run() -> dict:
    return uvloop.run(measured())


async def measured() -> dict:
    clock, model, gate = Stopped(), FakeModel(scale=SLOW), Standing()
    for module in (app_module, decoding, scheduler, service_module):
        vars(module)["time"] = clock
    app = App(model, Options(budget_ms=BUDGET_MS), Key("secret"))
    app.guard.pace = Fixed()
    app.times = Times(model.latencies(batch_sizes(app.options.max_batch)))  # given, so that no path has to be timed
    model.gate = gate
    config = Server(app).config
    config.load()
    async with app._lifespan(app.api):
        try:
            return await compared(app, Links(config, app))
        finally:
            gate.opened.set()


async def compared(app: App, links: Links) -> dict:
    service, pace = app.service, app.guard.pace
    assert service is not None
    assert isinstance(pace, Fixed)
    request = post(image_bytes(), query=f"budget_ms={BUDGET_MS:g}", extra=KEY)
    while not (answer := await links.first_words(request)):
        pass
    await asyncio.sleep(0.1)  # time for accepted requests to be decoded
    assert b" 503 " in answer
    results: dict[str, Any] = {"versions": versions(), "waiting": len(service.scheduler), "us": {}}
    for kind, sent, status in (
        ("too busy", request, b" 503 "),
        ("a wrong key", request.replace(b"secret", b"public"), b" 401 "),
        ("a wrong value", request.replace(b"budget_ms", b"budget_xy"), b" 422 "),
    ):
        row = results["us"][kind] = {}
        for way, pace.looks in (("ordinary", False), ("plain", True)):
            row[way] = round(await links.least_us(sent, status), 1)
        print(f"{kind:14} {row}")
    results["stages_us"] = stages(app, request)
    print(results["stages_us"])
    return results


class Links:
    """A set of connections to the application."""

    def __init__(self, config: Any, app: App) -> None:
        from uvicorn.server import ServerState

        self.config, self.state = config, ServerState()
        self.state.default_headers = [(b"date", b"Sun, 29 Nov 2026 12:00:00 GMT")]
        self.all = [self.one() for _ in range(CONNECTIONS)]

    def one(self) -> tuple[Any, NoTransport]:
        protocol = self.config.http_protocol_class(config=self.config, server_state=self.state, app_state={})
        transport = NoTransport()
        protocol.connection_made(transport)
        return protocol, transport

    async def first_words(self, request: bytes) -> bytes:
        """Return the bytes that a new connection receives within a few turns of the event loop."""
        protocol, transport = self.one()
        protocol.data_received(request)
        for _ in range(20):
            await asyncio.sleep(0)
        return transport.written

    async def turn(self, request: bytes, status: bytes) -> None:
        for protocol, _ in self.all:
            protocol.data_received(request)
        while not all(transport.written for _, transport in self.all):
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        for _, transport in self.all:
            assert status in transport.written
            transport.written = b""

    async def least_us(self, request: bytes, status: bytes) -> float:
        await self.turn(request, status)
        least = float("inf")
        for _ in range(ROUNDS):
            begun = time.thread_time()
            for _ in range(TURNS):
                await self.turn(request, status)
            least = min(least, time.thread_time() - begun)
        return 1e6 * least / (TURNS * CONNECTIONS)


def stages(app: App, request: bytes) -> dict[str, float]:
    """Measure separately the cost of the stages of both ways."""
    service = app.service
    assert service is not None
    found = plain_head(request)
    assert found is not None
    head, body = found, request[found.size :]
    names = list(service.paths)
    scope = {"method": "POST", "path": "/v1/predict", "query_string": head.query, "headers": head.lines}
    wanted = read_request("image/png", head.query, body, names, len(app.model.classes))

    def refusal() -> RequestRejected:
        try:
            service.check(wanted, service_module.time.perf_counter())
        except RequestRejected as refusal:
            return refusal
        raise AssertionError("the full queue did not reject the request")

    def read_by_h11() -> h11.Connection:
        connection = h11.Connection(h11.SERVER, 2**14)
        connection.receive_data(request)
        while not isinstance(connection.next_event(), h11.EndOfMessage):
            pass
        return connection

    def read_and_written_by_h11() -> None:
        connection = read_by_h11()
        fields = cast(Any, [(b"date", b"x"), *refused.headers(told)])
        connection.send(h11.Response(status_code=503, headers=fields, reason=b"Service Unavailable"))
        connection.send(h11.Data(data=told))
        connection.send(h11.EndOfMessage())
        connection.start_next_cycle()

    refused = refusal()
    told = refused.json()
    tasks: dict[str, Callable[[], Any]] = {
        "h11 reads": read_by_h11,
        "h11 reads and writes": read_and_written_by_h11,
        "plain head": lambda: plain_head(request),
        "head and key": lambda: app.guard.check(scope | {"server": ("127.0.0.1", 8000)}),
        "query": lambda: read_request("image/png", head.query, body, names, len(app.model.classes)),
        "rehearsal": refusal,
        "answer's bytes": lambda: refused.http([(b"date", b"x")]),
        "counters": lambda: app.metrics.refuse(503, "busy"),
    }
    return {name: round(least_us(task), 1) for name, task in tasks.items()}


def least_us(task: Callable[[], Any], calls: int = 50) -> float:
    least = float("inf")
    for _ in range(ROUNDS):
        begun = time.thread_time()
        for _ in range(calls):
            task()
        least = min(least, time.thread_time() - begun)
    return 1e6 * least / calls
