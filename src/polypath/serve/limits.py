"""What a client may ask of the service, enforced before anything is decoded: key, bytes, time, concurrency.

:class:`Guard` is the outermost ASGI application. It answers what breaks a limit by itself, so that such a request
costs neither routing nor parsing, and hands the rest on with the body read whole.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, fields
from typing import Any

from polypath.core.checks import check_fields, number
from polypath.serve.errors import RequestRejected

KEY_VARIABLE = "POLYPATH_API_KEY"
OPEN_PATHS = ("/healthz", "/readyz")
"""Answered without a key and beyond the limit on requests: a busy server is not a dead one."""
LINGER_S, LINGER_BYTES = 2.0, 2**25  # after a refusal the rest of a body is read, so that the client sees the answer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class RequestLimits:
    """Bounds on memory and time that a client can take. Bytes, pixels, seconds, counts; all above 0.

    Args:
        body_bytes: of one request's body.
        buffered_bytes: of all bodies held at a time.
        pixels: of one image, width times height, read from its header before it is decoded.
        head_bytes, head_seconds: for a request's line and headers; a slow sender is cut off.
        body_seconds: from the head to the body's end.
        write_seconds: how long a client may leave an answer unread.
        idle_seconds: how long a connection is kept between requests.
        connections: at a time; more get 503 and are closed.
        requests: being answered at a time; more get 503.
        queue: accepted and waiting for the inference thread.
        decoders: threads that decode images.
    """

    body_bytes: int = 8 * 2**20
    buffered_bytes: int = 128 * 2**20
    pixels: int = 2**25
    head_bytes: int = 16 * 2**10
    head_seconds: float = 5.0
    body_seconds: float = 20.0
    write_seconds: float = 10.0
    idle_seconds: float = 30.0
    connections: int = 1000
    requests: int = 512
    queue: int = 256
    decoders: int = 1

    def __post_init__(self) -> None:
        check_fields(self, **{field.name: number(above=0) for field in fields(self)})


class Key:
    """The key that clients must show, compared in a time that tells nothing; no text means that none is needed.

    Raises:
        ValueError: a key that no HTTP header can carry.
    """

    def __init__(self, text: str | None) -> None:
        if text and (not text.isascii() or not text.isprintable() or text != text.strip()):
            raise ValueError(f"{KEY_VARIABLE}: expected printable ASCII without spaces at its ends")
        self._digest = hashlib.sha256(text.encode()).digest() if text else None

    def __bool__(self) -> bool:
        return self._digest is not None

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Raises:
        RequestRejected: 401, no key or another one; the answer does not tell which.
        """
        if self._digest is None:
            return
        shown = headers.get(b"x-api-key", b"")
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            shown = token.strip()
        if not hmac.compare_digest(hashlib.sha256(shown).digest(), self._digest):
            legal = "Authorization: Bearer KEY, or X-API-Key: KEY"
            raise RequestRejected(401, "the key is missing or wrong", field="key", value="not shown", legal=legal)


class Guard:
    """See the module. ``watch(status, reason)`` is told about every request that it refuses by itself."""

    def __init__(self, app: App, limits: RequestLimits, key: Key, watch: Callable[[int, str], None]) -> None:
        self.app, self.limits, self.key, self.watch = app, limits, key, watch
        self.requests = 0
        self.buffered = 0
        self.draining = False

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        held = [0]  # bytes of this request's body that are counted in self.buffered
        self.requests += 1
        try:
            try:
                headers = dict(scope["headers"])
                if scope["path"] not in OPEN_PATHS:
                    self._enter(headers)
                body = await self._read(headers, receive, held)
            except RequestRejected as refusal:
                self.watch(refusal.status, refusal.reason)
                self.buffered -= held[0]  # now, or what is read and thrown away below would keep others out
                held[0] = 0
                await _refuse(refusal, receive, send)
                return
            await self.app(scope, _replay(body, receive), self._closing(send) if self.draining else send)
        finally:
            self.requests -= 1
            self.buffered -= held[0]

    def _enter(self, headers: dict[bytes, bytes]) -> None:
        if self.draining:
            raise RequestRejected(503, "the service is shutting down", retry_s=1.0, reason="draining")
        self.key.check(headers)
        if self.requests > self.limits.requests:
            message = f"{self.limits.requests} requests are being answered already"
            raise RequestRejected(503, message, retry_s=1.0, reason="requests")

    async def _read(self, headers: dict[bytes, bytes], receive: Receive, held: list[int]) -> bytes:
        """The body, whole.

        Raises:
            RequestRejected: 413 too long, 408 too slow, 503 no room for it now, 400 the client has left.
        """
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and (len(length) > 15 or int(length) > self.limits.body_bytes):
            raise self._too_long(length.decode())
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RequestRejected(400, "the client has left before its body was whole", reason="left")
                    chunk = message.get("body", b"")
                    held[0] += len(chunk)
                    self.buffered += len(chunk)
                    if held[0] > self.limits.body_bytes:
                        raise self._too_long(f"more than {self.limits.body_bytes}")
                    if self.buffered > self.limits.buffered_bytes:
                        raise RequestRejected(503, "no room for another body now", retry_s=1.0, reason="buffered")
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks) if len(chunks) > 1 else chunks[0]
        except TimeoutError:
            message = f"the body did not come within {self.limits.body_seconds:g} s"
            raise RequestRejected(408, message, reason="slow body") from None

    def _too_long(self, value: str) -> RequestRejected:
        return RequestRejected(
            413, "the body is too long", field="body", value=value, legal=f"at most {self.limits.body_bytes} bytes"
        )

    @staticmethod
    def _closing(send: Send) -> Send:
        """Every answer of a draining server ends its connection."""

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        return closing


def _replay(body: bytes, receive: Receive) -> Receive:
    rest: list[bytes] = [body]

    async def replay() -> Message:
        if rest:
            return {"type": "http.request", "body": rest.pop(), "more_body": False}
        return await receive()

    return replay


async def _refuse(refusal: RequestRejected, receive: Receive, send: Send) -> None:
    """Answer, then read a little of what is still coming: a connection closed with unread bytes in it is reset, and
    the client would not see why."""
    body = json.dumps(refusal.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers()}
    unread = refusal.status in (408, 413) or refusal.reason in ("buffered", "draining")
    if unread:
        headers["connection"] = "close"
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": unread})
    if unread:
        await _discard(receive, 0.1 if refusal.status == 408 else LINGER_S)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive, seconds: float) -> None:
    left = LINGER_BYTES
    try:
        async with asyncio.timeout(seconds):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
