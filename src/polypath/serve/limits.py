"""The limits on a client's requests, enforced before anything is decoded: bytes, time, count, name, key.

:class:`Guard` is the outermost ASGI application. It answers requests that break a limit by itself, so that they cost
neither routing nor parsing, and passes the others on with their complete body.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from polypath.core.checks import check_fields, number
from polypath.serve.callers import Callers
from polypath.serve.errors import RequestRejected
from polypath.serve.pace import Pace

KEY_VARIABLE = "POLYPATH_API_KEY"
OPEN_PATHS = ("/healthz", "/readyz")
"""Answered without a key and beyond the limit on requests, so that a busy server does not look dead. They take no body,
or clients without a key could use up the memory for bodies."""
SMALL_BODY = 2**16  # bytes of a body for which there is always room, however much large ones take
LINGER_BYTES = 2**25  # of a refused request, read so that the client sees the answer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class RequestLimits:
    """Limits on the memory and time that a client can take. Bytes, pixels, seconds, counts; all above 0.

    Args:
        body_bytes: of one request's body.
        buffered_bytes: of all bodies held at a time, except the first 64 KiB of each.
        pixels: of one image, width times height, read from its header before it is decoded.
        head_bytes, head_lines, head_seconds: for a request's line and headers; a slow sender is cut off.
        framing_bytes: of one request without its body: the head, the lines of chunks, trailers.
        body_seconds: from the head to the body's end.
        linger_seconds: how long the rest of a refused request is read, so that the client sees the answer.
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
    head_lines: int = 100
    head_seconds: float = 5.0
    framing_bytes: int = 48 * 2**10
    body_seconds: float = 20.0
    linger_seconds: float = 2.0
    write_seconds: float = 10.0
    idle_seconds: float = 30.0
    connections: int = 1000
    requests: int = 512
    queue: int = 256
    decoders: int = 1

    def __post_init__(self) -> None:
        check_fields(self, **{field.name: number(above=0) for field in fields(self)})


class Key:
    """The key that clients must send, compared in constant time; without a text, none is needed.

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
        RequestRejected: 401, no key or a wrong one; the answer does not say which.
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
    """The outermost ASGI application, see the module.

    Args:
        app: gets the requests within the limits.
        limits: the limits.
        key: what clients must send.
        watch: called with ``(status, reason)`` of every request that is refused here.
        callers: hosts and origins.
        cors: wraps the answers to pages of other origins, if such pages are allowed.
    """

    def __init__(
        self,
        app: App,
        limits: RequestLimits,
        key: Key,
        watch: Callable[[int, str], None],
        callers: Callers | None = None,
        cors: Callable[[App], App] | None = None,
    ) -> None:
        self.app, self.limits, self.key, self.watch = app, limits, key, watch
        self.callers, self.cors = callers or Callers(), cors
        self.requests = 0  # being answered: neither refused nor still arriving
        self.buffered = 0
        self.draining = False
        self.pace = Pace()
        self.held: dict[object, Callable[[], object]] = {}  # functions that release the refusals held back
        self._loop: asyncio.AbstractEventLoop | None = None  # where refusals are held

    def drain(self) -> None:
        """Accept nothing new from now on, and hold no refusal back. From any thread."""
        self.draining = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._let_go)

    def _let_go(self) -> None:
        for release in list(self.held.values()):
            release()

    def check(self, scope: MutableMapping[str, Any]) -> dict[bytes, bytes]:
        """The headers of a request whose body, of at most :data:`SMALL_BODY` bytes, is here already; reserves nothing.

        Raises:
            RequestRejected: as a call would.
        """
        headers = dict(scope["headers"])
        self._head(scope, headers)
        self._enter(scope, headers)
        self._check_length(headers)
        return headers

    def hold(self, owner: object, release: Callable[[], object]) -> None:
        """Record that ``owner`` holds a refusal back, until it removes itself from ``held``; ``release`` sends it
        earlier. On the event loop."""
        self._loop = asyncio.get_running_loop()
        self.held[owner] = release

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = dict(scope["headers"])
        place = _Place(self)
        try:
            answer, before = self.app, None if b"expect" in headers else receive
            try:
                self._head(scope, headers)
                if scope["path"] in OPEN_PATHS:
                    _check_no_body(headers)
                else:
                    self._enter(scope, headers)
                    place.body.append(await self._read(headers, receive, place))
                    self._check_room()  # a slow sender takes no place before its body is complete
                    place.enter()
                    before, receive = receive, _replay(place.body, receive)
            except RequestRejected as refusal:
                self.watch(refusal.status, refusal.reason)
                answer = partial(_refuse, refusal, self.limits.linger_seconds)
            if self.cors and b"origin" in headers and (answer == self.app or scope["method"] != "OPTIONS"):
                answer = self.cors(answer)
            await answer(scope, receive, self._sending(scope, before, send, place))
        finally:
            place.leave()

    def _sending(self, scope: MutableMapping[str, Any], receive: Receive | None, send: Send, place: _Place) -> Send:
        """``send`` for an answer: a refusal frees its place, and is held back by the pace; every answer of a draining
        server ends its connection. A refusal that is held back watches ``receive``, if given, for clients that leave.
        """

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] < 400:
                    if scope["method"] == "POST":
                        self.pace.answered(time.perf_counter())
                else:
                    place.leave()
                    if scope["path"] not in OPEN_PATHS:
                        await self._hold(receive)
                if self.draining:
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        return sending

    async def _hold(self, receive: Receive | None) -> None:
        seconds = 0.0 if self.draining else self.pace.hold(time.perf_counter())
        if not seconds:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds) as hold:
                self.hold(hold, lambda: None if hold.expired() else hold.reschedule(0.0))
                try:
                    await (asyncio.sleep(seconds) if receive is None else _left(receive))
                finally:
                    del self.held[hold]

    def _head(self, scope: MutableMapping[str, Any], headers: dict[bytes, bytes]) -> None:
        """Raises:
        RequestRejected: 431 too long or too many headers; 400 an upgrade or two lengths; 421, 403 see :class:`Callers`.
        """
        lines, limits = scope["headers"], self.limits
        target = scope.get("raw_path") or scope["path"].encode()
        length = len(target) + len(scope["query_string"]) + sum(len(name) + len(value) + 4 for name, value in lines)
        if length > limits.head_bytes or len(lines) > limits.head_lines:
            legal = f"at most {limits.head_bytes} bytes and {limits.head_lines} headers"
            raise RequestRejected(
                431, "the request's head is too long", field="head", value=f"{length} bytes, {len(lines)}", legal=legal
            )
        if b"upgrade" in headers or scope["method"] == "CONNECT":
            raise RequestRejected(
                400, "no other protocol is supported", field="Upgrade", value=None, legal="HTTP/1.1", reason="upgrade"
            )
        if b"content-length" in headers and b"transfer-encoding" in headers:  # a proxy before us may believe the other
            legal = "Content-Length or Transfer-Encoding"
            raise RequestRejected(400, "two lengths of one body", field="Content-Length", value="both", legal=legal)
        self.callers.check(headers, (scope.get("server") or (None,))[0])

    def _enter(self, scope: MutableMapping[str, Any], headers: dict[bytes, bytes]) -> None:
        if self.draining:
            raise RequestRejected(503, "the service is shutting down", retry_s=1.0, reason="draining")
        if not (self.cors and scope["method"] == "OPTIONS" and b"access-control-request-method" in headers):
            self.key.check(headers)  # browsers send preflights without keys
        self._check_room()

    def _check_room(self) -> None:
        """Raises:
        RequestRejected: 503.
        """
        if self.requests >= self.limits.requests:
            message = f"{self.limits.requests} requests are being answered already"
            raise RequestRejected(503, message, retry_s=1.0, reason="requests")

    async def _read(self, headers: dict[bytes, bytes], receive: Receive, place: _Place) -> bytes:
        """The complete body.

        Raises:
            RequestRejected: 413 too long, 408 too slow, 503 no room for it now, 400 the client has left.
        """
        self._check_length(headers)
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RequestRejected(400, "the client has left before its body was complete", reason="left")
                    chunk = message.get("body", b"")
                    place.fill(len(chunk))
                    if place.held > self.limits.body_bytes:
                        raise self._too_long(f"more than {self.limits.body_bytes}")
                    if place.counted and self.buffered > self.limits.buffered_bytes:
                        raise RequestRejected(503, "no room for another body now", retry_s=1.0, reason="buffered")
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks) if len(chunks) > 1 else chunks[0]
        except TimeoutError:
            message = f"the body did not come within {self.limits.body_seconds:g} s"
            raise RequestRejected(408, message, reason="slow body") from None

    def _check_length(self, headers: dict[bytes, bytes]) -> None:
        """Raises:
        RequestRejected: 413.
        """
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and (len(length) > 15 or int(length) > self.limits.body_bytes):
            raise self._too_long(length.decode())

    def _too_long(self, value: str) -> RequestRejected:
        return RequestRejected(
            413, "the body is too long", field="body", value=value, legal=f"at most {self.limits.body_bytes} bytes"
        )


@dataclass(eq=False)
class _Place:
    """What a request takes of its guard's limits until it is answered or refused: ``held`` bytes, of which the first
    few are not ``counted``, and a place among the requests once it is complete. The ``body`` is kept until the
    application reads it."""

    guard: Guard
    body: list[bytes] = field(default_factory=list[bytes], init=False)
    held: int = field(default=0, init=False)
    entered: bool = field(default=False, init=False)
    left: bool = field(default=False, init=False)

    @property
    def counted(self) -> int:
        return max(0, self.held - SMALL_BODY)

    def fill(self, number: int) -> None:
        before = self.counted
        self.held += number
        self.guard.buffered += self.counted - before

    def enter(self) -> None:
        self.entered = True
        self.guard.requests += 1

    def leave(self) -> None:
        if not self.left:
            self.left = True
            self.guard.requests -= self.entered
            self.guard.buffered -= self.counted
            self.body.clear()


def _check_no_body(headers: dict[bytes, bytes]) -> None:
    """Raises:
    RequestRejected: 413.
    """
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers or length.strip(b"0"):
        raise RequestRejected(413, "no body is read here", field="body", value=length.decode("latin-1"), legal="none")


def _replay(body: list[bytes], receive: Receive) -> Receive:
    async def replay() -> Message:
        if body:
            return {"type": "http.request", "body": body.pop(), "more_body": False}
        return await receive()

    return replay


async def _refuse(
    refusal: RequestRejected, linger_s: float, scope: MutableMapping[str, Any], receive: Receive, send: Send
) -> None:
    """Answer. An incomplete request ends its connection, after some of its remaining bytes have been read: closing a
    connection with unread bytes resets it, and the client would not see the answer."""
    body = refusal.json()
    unread = not await _is_whole(scope, receive)
    close = unread or refusal.status == 431 or refusal.reason in ("upgrade", "Content-Length")
    await send({"type": "http.response.start", "status": refusal.status, "headers": refusal.headers(body, close)})
    await send({"type": "http.response.body", "body": body, "more_body": unread})
    if unread:
        await _discard(receive, 0.1 if refusal.status == 408 else linger_s)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _is_whole(scope: MutableMapping[str, Any], receive: Receive) -> bool:
    """Whether a request is complete already."""
    if any(name == b"expect" for name, _ in scope["headers"]):
        return False  # reading the body would tell the client to send it
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            return not (await receive()).get("more_body", False)
    return False


async def _left(receive: Receive) -> None:
    """Return when the client has left; drops at most as many bytes as after a refusal."""
    left = LINGER_BYTES
    while left > 0:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        left -= len(message.get("body", b""))
    await asyncio.get_running_loop().create_future()


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
