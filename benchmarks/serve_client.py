"""The load generator of ``serve_load``, a separate process: ``python -m benchmarks.serve_client``. It reads one JSON
object of arguments from standard input, and writes one JSON object of results to standard output.

It is an HTTP/1.1 client on bare asyncio. httpx would need more CPU time per request than the service, and both run on
this machine. The mode ``closed`` keeps a number of requests open for some seconds, to measure the capacity. The mode
``open`` sends at random times with a fixed rate, without waiting for answers, to overload the service. ``retry`` says
when a rejected client of ``closed`` retries: ``at once``, or after ``Retry-After`` (``header``). All traffic is on
loopback, and limited in number and time.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

MOST_OPEN = 900  # largest number of connections
NOT_SENT = "too many requests are open"
LATE_S = 0.02  # a request of `open` counts as sent late this long after its scheduled time
PATIENCE_S = 10.0  # an answer that takes longer counts as hung
RETRY_AFTER = re.compile(rb"retry-after: (\d+)")


@dataclass
class Load:
    """A load to generate. ``images`` are files, which are sent in turn. The first ``warmup_s`` seconds are left out of
    the results."""

    port: int
    mode: str
    seconds: float
    images: list[str]
    query: str
    budget_ms: float
    rate: float = 0.0
    clients: int = 0
    retry: str = "at once"
    seed: int = 0
    warmup_s: float = 0.0
    labels: list[int] = field(default_factory=list)
    stop_on_line: bool = False  # stop sending when a line arrives on standard input


class Connection(asyncio.Protocol):
    """A connection that sends one request at a time."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[int, bytes, bytes]] | None = None
        self.data = b""
        self.open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.look()

    def look(self) -> None:
        head, gap, body = self.data.partition(b"\r\n\r\n")
        if not gap:
            return
        low = head.lower()
        start = low.find(b"content-length:")
        length = int(low[start + 15 :].split(b"\r\n", 1)[0])
        if len(body) >= length and self.answer is not None and not self.answer.done():
            self.data = b""
            if b"connection: close" in low:
                self.open = False
            self.answer.set_result((int(head[9:12]), low, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionError("the connection was closed without an answer"))

    async def ask(self, request: bytes) -> tuple[int, bytes, bytes]:
        self.answer = asyncio.get_running_loop().create_future()
        self.look()  # a connection above the limit may have been closed before it was used
        if not self.open and not self.answer.done():
            raise ConnectionError("the connection was closed without an answer")
        self.transport.write(request)
        return await asyncio.wait_for(self.answer, PATIENCE_S)


class Client:
    def __init__(self, load: Load) -> None:
        self.load = load
        self.requests = [self._request(Path(name).read_bytes()) for name in load.images]
        self.free: list[Connection] = []
        self.rows: list[tuple[float, float, int, bool, float]] = []  # sent, taken, status, right, server's total ms
        self.lost: list[tuple[float, str]] = []
        self.retry_missing = self.unconnected = 0
        self.paths: dict[str, int] = {}
        self.batches: dict[int, int] = {}
        self.lag: list[tuple[float, float]] = []  # a request's scheduled time, and its delay
        self.stopping = False

    def _request(self, image: bytes) -> bytes:
        head = f"POST /v1/predict?{self.load.query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        return f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image

    async def one(self, number: int) -> float:
        """Send a request. Return the number of seconds to wait before a retry."""
        while self.free and not self.free[-1].open:
            self.free.pop()
        try:
            if self.free:
                connection = self.free.pop()
            else:
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(Connection, "127.0.0.1", self.load.port)
        except OSError:
            self.unconnected += 1
            return 0.1
        sent = time.perf_counter()
        try:
            status, head, body = await connection.ask(self.requests[number % len(self.requests)])
        except (OSError, TimeoutError) as error:
            self.lost.append((sent, type(error).__name__ + ": " + str(error)))
            return 0.1
        taken = time.perf_counter() - sent
        right, total = True, 0.0
        if status == 200:
            answer = json.loads(body)
            total = answer["ms"]["total"]
            self.paths[answer["path"]] = self.paths.get(answer["path"], 0) + 1
            self.batches[answer["batch"]] = self.batches.get(answer["batch"], 0) + 1
            if self.load.labels:
                right = answer["top"][0]["index"] == self.load.labels[number % len(self.requests)]
        elif b"retry-after:" not in head:
            self.retry_missing += 1
        self.rows.append((sent, taken, status, right, total))
        if connection.open:
            self.free.append(connection)
        if status == 503 and self.load.retry == "header" and (found := RETRY_AFTER.search(head)) is not None:
            return float(found[1])
        return 0.0

    async def closed(self) -> None:
        end, numbers = time.perf_counter() + self.load.seconds, iter(range(10**9))

        async def client() -> None:
            while time.perf_counter() < end:
                if wait_s := await self.one(next(numbers)):
                    await asyncio.sleep(wait_s)

        await asyncio.gather(*(client() for _ in range(self.load.clients)))

    async def open(self) -> None:
        draw, due, number = random.Random(self.load.seed), time.perf_counter(), 0
        end, tasks = due + self.load.seconds, set()
        while due < end and not self.stopping:
            if (wait := due - time.perf_counter()) > 0.0005:
                await asyncio.sleep(wait)
            self.lag.append((due, time.perf_counter() - due))
            if len(tasks) < MOST_OPEN:
                task = asyncio.create_task(self.one(number))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            else:
                self.lost.append((due, NOT_SENT))
            number += 1
            due += draw.expovariate(self.load.rate)
            if number % 16 == 0:
                await asyncio.sleep(0)
        if tasks:
            await asyncio.wait(tasks)


async def drive(load: Load) -> dict:
    client = Client(load)
    cpu, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    if load.stop_on_line:

        def stop() -> None:
            sys.stdin.readline()
            client.stopping = True

        asyncio.get_running_loop().run_in_executor(None, stop)
    print(json.dumps({"begun": begun}), flush=True)
    await (client.closed() if load.mode == "closed" else client.open())
    wall, now = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    used = now.ru_utime + now.ru_stime - cpu.ru_utime - cpu.ru_stime
    return {"wall_s": wall, "cpu_share": used / wall, **figures(client, begun)}


def figures(client: Client, begun: float) -> dict:
    """Compute the counts and percentiles of the requests after the warm-up."""
    load = client.load
    since, until = begun + load.warmup_s, begun + load.seconds
    rows = [row for row in client.rows if since <= row[0] < until]
    good = [row for row in rows if row[2] == 200]
    refused = [row for row in rows if row[2] == 503]
    in_time = [row for row in good if 1000 * row[1] <= load.budget_ms]
    in_time_server = [row for row in good if row[4] <= load.budget_ms]
    seconds = load.seconds - load.warmup_s
    lost = Counter(text for at, text in client.lost if since <= at < until)
    lag = [late for at, late in client.lag if since <= at < until]
    return {
        "sent": len(rows) + lost.total() - lost[NOT_SENT],
        "answered": len(good),
        "refused": len(refused),
        "other_statuses": sorted({row[2] for row in rows} - {200, 503}),
        "lost": lost.total(),
        "lost_reasons": dict(Counter(text for _, text in client.lost)),
        "lost_all": len(client.lost),
        "not_connected": client.unconnected,
        "answers_of_other_images": sum(not row[3] for row in good),
        "offered_per_s": len(rows) / seconds,
        "answered_per_s": len(good) / seconds,
        "goodput_per_s": len(in_time) / seconds,
        "in_time": len(in_time) / max(1, len(good)),
        "in_time_by_server_clock": len(in_time_server) / max(1, len(good)),
        "answer_ms": percentiles([1000 * row[1] for row in good]),
        "answer_ms_by_server_clock": percentiles([row[4] for row in good]),
        "refusal_ms": percentiles([1000 * row[1] for row in refused]),
        "refused_within_50_ms": sum(row[1] <= 0.05 for row in refused) / max(1, len(refused)),
        "refusals_without_retry_after": client.retry_missing,
        "paths": client.paths,
        "batches": {str(size): count for size, count in sorted(client.batches.items())},
        "generator_lag_ms_p99": 1000 * float(np.percentile(lag, 99)) if lag else None,
        "generator_late": sum(late > LATE_S for late in lag) / len(lag) if lag else None,
        "generator_not_sent": lost[NOT_SENT],
    }


def percentiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    found = np.percentile(values, (50, 95, 99, 100)).tolist()
    return {name: round(value, 3) for name, value in zip(("p50", "p95", "p99", "max"), found, strict=True)}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(drive(Load(**json.loads(sys.stdin.readline()))))), flush=True)
