"""Enforces limits on requests before anything is decoded: bytes, time, number of requests, host name, key.

:class:`Guard` is the outermost ASGI application. It refuses the requests that break a limit, without routing or parsing
them. It passes on all other requests, with their complete bodies.
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
"""URL paths that are answered without a key and beyond the limit on requests, so that a busy server does not look dead.
A body is not allowed; otherwise clients without a key could use up the memory for bodies."""
SMALL_BODY = 2**16  # the first bytes of each body, which do not count for the limit on all bodies
LINGER_BYTES = 2**25  # how many bytes of a refused request are read, so that the client sees the answer

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class RequestLimits:
    """Limits on the memory and time that clients can use. They are numbers of bytes, pixels, seconds and so on, and all
    must be above 0.

    Args:
        body_bytes: the largest body of a request.
        buffered_bytes: the largest total size of all bodies in memory, without the first 64 KiB of each body.
        pixels: the largest number of pixels of an image. It is compared with the image's header before decoding.
        head_bytes, head_lines, head_seconds: limits on a request's first line and headers. A client that sends them too
            slowly is disconnected.
        framing_bytes: the largest number of bytes of a request outside its body: the head, chunk lines, and trailers.
        body_seconds: the longest time from the head to the end of the body.
        linger_seconds: how long the rest of a refused request is read, so that the client sees the answer.
        write_seconds: how long a client may leave an answer unread.
        idle_seconds: how long a connection is kept open between requests.
        connections: the largest number of open connections. A connection above this gets 503 and is closed.
        requests: the largest number of requests that are answered at a time. A request above this gets 503.
        queue: the largest number of accepted requests that wait for the inference thread.
        decoders: number of threads that decode images.
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
    """The key that clients must send. It is compared in constant time. If ``text`` is empty or None, no key is needed.

    Raises:
        ValueError: the key cannot be sent in an HTTP header.
    """

    def __init__(self, text: str | None) -> None:
        if text and (not text.isascii() or not text.isprintable() or text != text.strip()):
            raise ValueError(f"{KEY_VARIABLE}: must be printable ASCII, without spaces at the start or end")
        self._digest = hashlib.sha256(text.encode()).digest() if text else None

    def __bool__(self) -> bool:
        return self._digest is not None

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Check the key in a request's headers.

        Raises:
            RequestRejected: 401, the key is missing or wrong. The answer is the same in both cases.
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
    """The outermost ASGI application, which enforces the limits (see the module's docstring).

    Args:
        app: the application that receives the requests within the limits.
        limits: the limits.
        key: the key that clients must send.
        watch: called with ``(status, reason)`` of every request that the guard refuses.
        callers: the allowed hosts and origins.
        cors: wraps an application so that web pages of other origins can read its answers, if such pages are allowed.
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
        self.requests = 0  # number of requests that are being answered, without those refused or still arriving
        self.buffered = 0
        self.draining = False
        self.pace = Pace()
        self.held: dict[object, Callable[[], object]] = {}  # functions that send the refusals that are held back
        self._loop: asyncio.AbstractEventLoop | None = None  # the loop on which refusals are held back

    def drain(self) -> None:
        """Accept no new requests from now on, and hold no refusals back. This method can be called from any thread."""
        self.draining = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._let_go)

    def _let_go(self) -> None:
        for release in list(self.held.values()):
            release()

    def check(self, scope: MutableMapping[str, Any]) -> dict[bytes, bytes]:
        """Check a request without reserving anything, and return its headers. The body must have arrived already, with
        at most :data:`SMALL_BODY` bytes.

        Raises:
            RequestRejected: the application would refuse the request.
        """
        headers = dict(scope["headers"])
        self._head(scope, headers)
        self._enter(scope, headers)
        self._check_length(headers)
        return headers

    def hold(self, owner: object, release: Callable[[], object]) -> None:
        """Record that ``owner`` holds a refusal back, until ``owner`` is removed from ``held``. Calling ``release``
        sends the refusal earlier. This method must be called on the event loop."""
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
                    self._check_room()  # only now: a request counts once its body is complete
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
        """Return the ``send`` function for an answer.

        A refused request frees its place. Its refusal is held back as :class:`Pace` requires. Meanwhile, ``receive``
        is watched, if given, to notice when the client leaves. If the server is draining, every answer closes its
        connection.
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
        """Check the head of a request.

        Raises:
            RequestRejected: 431, the head is too long or has too many headers; 400, the head asks for an upgrade or
                states two lengths; 421 or 403, see :class:`Callers`.
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
                400,
                "other protocols are not supported",
                field="Upgrade",
                value=None,
                legal="HTTP/1.1",
                reason="upgrade",
            )
        if b"content-length" in headers and b"transfer-encoding" in headers:  # a proxy may use the other length
            legal = "Content-Length or Transfer-Encoding"
            raise RequestRejected(400, "the body has two lengths", field="Content-Length", value="both", legal=legal)
        self.callers.check(headers, (scope.get("server") or (None,))[0])

    def _enter(self, scope: MutableMapping[str, Any], headers: dict[bytes, bytes]) -> None:
        if self.draining:
            raise RequestRejected(503, "the service is shutting down", retry_s=1.0, reason="draining")
        if not (self.cors and scope["method"] == "OPTIONS" and b"access-control-request-method" in headers):
            self.key.check(headers)  # except for preflight requests, which browsers send without keys
        self._check_room()

    def _check_room(self) -> None:
        """Check that another request may be answered now.

        Raises:
            RequestRejected: 503, too many requests are being answered.
        """
        if self.requests >= self.limits.requests:
            message = f"{self.limits.requests} requests are being answered already"
            raise RequestRejected(503, message, retry_s=1.0, reason="requests")

    async def _read(self, headers: dict[bytes, bytes], receive: Receive, place: _Place) -> bytes:
        """Read the complete body.

        Raises:
            RequestRejected: 413, the body is too long; 408, the body comes too slowly; 503, there is no memory for the
                body now; 400, the client has left.
        """
        self._check_length(headers)
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise RequestRejected(400, "the client left before its body was complete", reason="left")
                    chunk = message.get("body", b"")
                    place.fill(len(chunk))
                    if place.held > self.limits.body_bytes:
                        raise self._too_long(f"more than {self.limits.body_bytes}")
                    if place.counted and self.buffered > self.limits.buffered_bytes:
                        raise RequestRejected(
                            503, "there is no memory for the body now", retry_s=1.0, reason="buffered"
                        )
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks) if len(chunks) > 1 else chunks[0]
        except TimeoutError:
            message = f"the body did not come within {self.limits.body_seconds:g} s"
            raise RequestRejected(408, message, reason="slow body") from None

    def _check_length(self, headers: dict[bytes, bytes]) -> None:
        """Check the stated length of the body.

        Raises:
            RequestRejected: 413, the body is too long.
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
    """A request's share of the guard's limits, until the request is answered or refused.

    The request uses ``held`` bytes. The first 64 KiB of them are not ``counted``. Once it is complete, the request also
    counts as one of the guard's ``requests``. The ``body`` is kept until the application reads it.
    """

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
    """Check that a request has no body.

    Raises:
        RequestRejected: 413, the request has a body.
    """
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers or length.strip(b"0"):
        raise RequestRejected(413, "no body is allowed", field="body", value=length.decode("latin-1"), legal="none")


def _replay(body: list[bytes], receive: Receive) -> Receive:
    async def replay() -> Message:
        if body:
            return {"type": "http.request", "body": body.pop(), "more_body": False}
        return await receive()

    return replay


async def _refuse(
    refusal: RequestRejected, linger_s: float, scope: MutableMapping[str, Any], receive: Receive, send: Send
) -> None:
    """Send a refusal. If the request is incomplete, close its connection, but first read some of the remaining bytes.
    Otherwise the unread bytes would reset the connection, and the client would not see the answer."""
    body = refusal.json()
    unread = not await _is_whole(scope, receive)
    close = unread or refusal.status == 431 or refusal.reason in ("upgrade", "Content-Length")
    await send({"type": "http.response.start", "status": refusal.status, "headers": refusal.headers(body, close)})
    await send({"type": "http.response.body", "body": body, "more_body": unread})
    if unread:
        await _discard(receive, 0.1 if refusal.status == 408 else linger_s)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _is_whole(scope: MutableMapping[str, Any], receive: Receive) -> bool:
    """Return whether a request is complete already."""
    if any(name == b"expect" for name, _ in scope["headers"]):
        return False  # reading the body would tell the client to send it
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            return not (await receive()).get("more_body", False)
    return False


async def _left(receive: Receive) -> None:
    """Wait until the client has left. Meanwhile, read and drop at most :data:`LINGER_BYTES` bytes."""
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
