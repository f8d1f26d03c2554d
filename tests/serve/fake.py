"""A model that sleeps a known time, and a service over it in a process or on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from polypath.data.images import LargeImage
from polypath.deploy.decoder import Cancellation, DecodingCancelled, DecodingLate
from polypath.deploy.latency import Latencies
from polypath.deploy.manifest import BundlePath

CLASSES = tuple(f"class{i}" for i in range(10))
PATHS = {"whole": (10.0, 0.004, 0.001), "middle": (15.0, 0.002, 0.0005), "cheap": (25.0, 0.001, 0.0002)}
"""Name → (error, seconds of a batch, further seconds of each image)."""
LARGE_SIDE = 64
"""Images as wide as this are large."""


def profile(p50: float, p99: float | None = None) -> list[float]:
    """Measured milliseconds with these percentiles in seconds."""
    return [1e3 * p50] * 97 + [1e3 * (p50 if p99 is None else p99)] * 3


class Gate:
    """Callers wait here until it is open. ``reached`` signals that one waits, so that tests need no sleep."""

    def __init__(self) -> None:
        self.reached, self._open = threading.Event(), threading.Event()

    def open(self) -> None:
        self._open.set()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def pass_through(self) -> None:
        self.reached.set()
        assert self._open.wait(30)

    async def waiting(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, 30)


@dataclass
class FakeModel:
    """Answers with class = value of the first pixel modulo ten, after the path's time and once the gates are open."""

    name: str = "fake"
    scale: float = 1.0  # factor on all times, also in the profile
    slower: float = 1.0  # factor on all times, but not in the profile
    fail: bool = False
    ran: list[tuple[str, int]] = field(default_factory=list)
    gate: Gate | None = None  # before a batch
    decodes_tiny: bool = False  # on the event loop, as the real one; off, since a waiting decoder would block the loop
    decode_gate: Gate | None = None
    apart: list[str] = field(default_factory=list)  # outcomes of large images
    apart_gate: Gate | None = None
    classes: Sequence[str] = CLASSES

    @property
    def paths(self) -> Sequence[BundlePath]:
        about = {"macs": 1000, "params": 10, "depth": (1, 1)}
        return [BundlePath(name=name, text=name, error=error, **about) for name, (error, _, _) in PATHS.items()]

    def seconds(self, path: str, size: int) -> float:
        _, fixed, each = PATHS[path]
        return self.scale * (fixed + each * size)

    def latencies(self, sizes: Sequence[int]) -> Mapping[int, Latencies]:
        seconds = {n: {path: self.seconds(path, n) for path in PATHS} for n in sizes}
        now = time.perf_counter()
        return {n: Latencies({path: profile(s, 1.2 * s) for path, s in row.items()}, now) for n, row in seconds.items()}

    def warm_up(self, sizes: Sequence[int]) -> None:
        for path in PATHS:
            for size in sizes:
                self.run(path, np.zeros((size, 3, 4, 4), np.uint8))

    def run(self, path: str, images: np.ndarray) -> np.ndarray:
        self.ran.append((path, len(images)))
        if self.gate is not None:
            self.gate.pass_through()
        time.sleep(self.seconds(path, len(images)) * self.slower)
        if self.fail:
            raise RuntimeError("a defect")
        result = np.full((len(images), 10), 0.01, dtype=np.float32)
        result[np.arange(len(images)), images[:, 0, 0, 0] % 10] = 0.91
        return result

    def decode(self, data: bytes, pixels: int, most: int | None = None) -> np.ndarray:
        if most is not None and not self.decodes_tiny:
            raise LargeImage(most + 1)
        if self.decode_gate is not None:
            self.decode_gate.pass_through()
        try:
            image = Image.open(io.BytesIO(data))
            if image.width * image.height > pixels:
                raise ValueError(f"{image.width}x{image.height} pixels, more than {pixels}")
            if image.width >= LARGE_SIDE:
                raise LargeImage(image.width * image.height)
            image.load()
            small = image.convert("RGB").resize((4, 4), Image.Resampling.NEAREST)
        except (ValueError, LargeImage):
            raise
        except Exception as error:
            raise ValueError(f"not an image: {type(error).__name__}") from None
        return np.asarray(small).transpose(2, 0, 1)

    def decode_apart(self, data: bytes, pixels: int, deadline: float, cancellation: Cancellation) -> np.ndarray:
        """Waits at its gate, as a decoder with a deadline and a cancellation would."""
        self.apart.append("begun")
        begun, ended = time.perf_counter(), threading.Event()
        with cancellation.ends(ended.set):
            if self.apart_gate is not None:
                self.apart_gate.reached.set()
                while not self.apart_gate.is_open and time.perf_counter() < deadline and not ended.wait(0.002):
                    pass
        self.apart[-1] = "cancelled" if ended.is_set() else "late" if time.perf_counter() >= deadline else "done"
        if ended.is_set():
            raise DecodingCancelled
        if self.apart[-1] == "late":
            raise DecodingLate(time.perf_counter() - begun)
        try:
            small = Image.open(io.BytesIO(data)).convert("RGB").resize((4, 4), Image.Resampling.NEAREST)
        except Exception as error:
            raise ValueError(f"not an image: {type(error).__name__}") from None
        return np.asarray(small).transpose(2, 0, 1)

    def renew(self) -> None:
        self.apart.append("renewed")


def image_bytes(value: int = 3, kind: str = "PNG", size: tuple[int, int] = (8, 8)) -> bytes:
    """An image file of one colour whose class is ``value``."""
    stream = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(stream, kind, lossless=True)
    return stream.getvalue()


@contextlib.contextmanager
def served(app: Any) -> Iterator[int]:
    """The port of ``app`` served by our own server on a thread."""
    from polypath.serve.server import Server, listen

    bound = listen("127.0.0.1", 0)
    port = bound.getsockname()[1]
    server = Server(app)
    thread = threading.Thread(target=lambda: server.run(sockets=[bound]), daemon=True)
    thread.start()
    try:
        end = time.monotonic() + 60
        while not server.started and time.monotonic() < end:
            time.sleep(0.005)
        assert server.started
        yield port
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def raw(port: int, data: bytes | list[bytes], *, pause_s: float = 0.0, limit_s: float = 15.0) -> bytes:
    """Send bytes as they are and read until the server closes or ``limit_s`` is over."""
    parts = [data] if isinstance(data, bytes) else data
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=limit_s) as link:
        end = time.monotonic() + limit_s
        with contextlib.suppress(OSError):
            for part in parts:
                link.sendall(part)
                time.sleep(pause_s)
        with contextlib.suppress(OSError):
            while time.monotonic() < end and (got := link.recv(65536)):
                answer += got
                if whole(answer):
                    break
    return answer


def whole(answer: bytes) -> bool:
    """Whether an answer with a Content-Length is complete."""
    head, gap, body = answer.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(gap) and bool(lengths) and len(body) >= int(lengths[0].split(b":")[1])


def post(body: bytes, kind: str = "image/png", query: str = "", extra: str = "") -> bytes:
    """A request to /v1/predict as bytes."""
    target = "/v1/predict" + (f"?{query}" if query else "")
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    head += f"Content-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode("latin-1") + body


def parsed(answer: bytes) -> tuple[int, dict[str, str], Any]:
    """(status, headers, JSON or bytes) of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    with contextlib.suppress(ValueError):
        return int(first.split()[1]), headers, json.loads(body)
    return int(first.split()[1]), headers, body


def on_loop(coroutine: Any) -> Any:
    """Run a coroutine to its end."""
    return asyncio.run(coroutine)
