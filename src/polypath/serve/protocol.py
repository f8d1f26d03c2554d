"""Adds limits on connections to uvicorn, which lacks them.

uvicorn's h11 protocol answers pipelined requests one after another and ignores upgrades. It limits a head, a chunk's
line, and trailers, if they come in several pieces (``h11_max_incomplete_event_size``). But it waits forever for a first
request, for the rest of a head ("slowloris"), and for a client that does not read its answer. It does not limit heads
in one piece, or the sum of all chunk lines. This module adds these limits.

Under overload, most requests are refused, and the usual routing costs several times as much as the decision to refuse.
So after a refusal, each connection first checks for one plain prediction request that can be refused at once
(:mod:`polypath.serve.plain`). The connection then sends the refusal itself, with the same bytes as the usual routing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from polypath.serve.errors import RequestRejected
from polypath.serve.limits import LINGER_BYTES, Guard
from polypath.serve.pace import CHEAP
from polypath.serve.plain import PlainHead, plain_head

IDLE = {h11.CLIENT: h11.IDLE, h11.SERVER: h11.IDLE}
PIECE = 2**13  # bytes that the parser gets between two checks of the limits
IDLE_S = 0.1  # a connection may be closed for another after so many idle seconds; first requests come sooner
REST_S = 0.1  # how long to wait for the rest of a plain request's body before h11 gets what has arrived
Refuse = Callable[[PlainHead, bytes, tuple[str, int | None] | None], RequestRejected | None]
"""``refuse(head, body, server)`` returns the refusal of a request to the address ``server``, or None if the request may
be answered."""


def bounded(guard: Guard, refuse: Refuse) -> type[H11Protocol]:
    """Return uvicorn's protocol with the limits of ``guard``.

    Each connection that is closed early is reported to ``guard``. Refusals are held back as ``guard.pace`` requires. A
    connection above the limit takes the place of the connection that has been idle longest. If none is idle, the new
    connection is not read, and waits for its refusal. At most ``guard.limits.connections`` connections wait.
    """
    limits, surplus = guard.limits, set[H11Protocol]()
    idle: dict[Any, float] = {}  # when each connection without a current request became idle

    def make_room(now: float) -> bool:
        """Close the connection that has been idle longest, if it was idle for at least :data:`IDLE_S`. Return whether
        a connection was closed."""
        oldest = next(iter(idle), None)
        if oldest is None or now - idle[oldest] < IDLE_S:
            return False
        del idle[oldest]
        surplus.add(oldest)  # until it is closed
        oldest.make_way()
        return True

    class Bounded(H11Protocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.head_timer: asyncio.TimerHandle | None = None
            self.write_timer: asyncio.TimerHandle | None = None
            self.surplus_timer: asyncio.TimerHandle | None = None
            self.held_timer: asyncio.TimerHandle | None = None
            self.plain_timer: asyncio.TimerHandle | None = None
            self.plain: PlainHead | None = None  # head of the plain request that waits for the rest of its body
            self.refusal: RequestRejected | None = None  # refusal of a plain request, before it is sent
            self.asked = False  # whether a complete request has arrived
            self.waiting = b""  # bytes that are not parsed yet, since an earlier request is being answered
            self.framing = 0  # bytes of the current request outside its body
            self.cut_off = False

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            transport.set_write_buffer_limits(high=0)  # so that pause_writing is called for a single unread byte
            now = time.perf_counter()
            if len(self.connections) - len(surplus) > limits.connections and not make_room(now):
                held_s = guard.pace.hold(now) if len(surplus) < limits.connections else 0.0
                surplus.add(self)
                self.surplus_timer = self.loop.call_later(held_s, self.turn_away)
            else:
                idle[self] = now
                self.watch_head()

        def make_way(self) -> None:
            """Close this idle connection, since another client needs its place."""
            if self.asked or self.cycle is not None:
                self.transport.close()  # as after idle_seconds, only sooner
            else:
                message = "no request came on this connection, and another client needs its place"
                self.cut(503, "silent", message, linger_s=0)

        def turn_away(self) -> None:
            self.cut(503, "connections", f"{limits.connections} connections are open already", linger_s=0)

        def data_received(self, data: bytes) -> None:
            if self.cut_off:
                self.framing += len(data)
                if self.framing > LINGER_BYTES:
                    self.transport.abort()
                return
            if self in surplus:
                self.flow.pause_reading()
                return
            idle.pop(self, None)
            self.waiting += data
            if self.refusal is None:
                self.parse()
            else:
                self.flow.pause_reading()

        def parse(self) -> None:
            if self.waiting and guard.pace.pressed(time.perf_counter()) and self.look_for_plain():
                return
            self.parse_by_h11()

        def parse_by_h11(self) -> None:
            self.plain = None
            self.stop("plain_timer")
            while self.waiting and self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self.closing():
                piece, self.waiting = self.waiting[:PIECE], self.waiting[PIECE:]
                before = self.body_held()
                super().data_received(piece)
                self.framing += len(piece) - (self.body_held() - before)
                if self.framing > limits.framing_bytes:
                    self.cut(
                        431, "long framing", f"the head, chunk lines and trailers exceed {limits.framing_bytes} bytes"
                    )
            if self.waiting:
                self.flow.pause_reading()  # uvicorn resumes after the answer
            self.watch_head()

        def look_for_plain(self) -> bool:
            """Refuse the waiting request if it is plain and can be refused. Return whether it was refused, or may be
            refused once it is complete."""
            head = self.plain
            if head is None:
                if guard.draining or self.closing() or self.flow.write_paused:
                    return False
                if self.conn.states != IDLE or self.conn.trailing_data[0]:
                    return False  # a request is being answered, or its head has begun
                head = plain_head(self.waiting)
                if head is None or not self.is_short(head):
                    return False
                self.plain = head
                self._unset_keepalive_if_required()
                self.stop("head_timer")
            if len(self.waiting) < head.whole:
                if self.plain_timer is None:
                    self.plain_timer = self.loop.call_later(REST_S, self.parse_by_h11)
                return True
            if len(self.waiting) > head.whole:
                return False
            refusal = refuse(head, self.waiting[head.size :], self.server)
            if refusal is not None:
                self.refuse_plain(refusal)
            return refusal is not None

        def is_short(self, head: PlainHead) -> bool:
            """Return whether a head is within all limits. Otherwise its connection will be closed."""
            return len(head.lines) <= limits.head_lines and head.size <= min(limits.head_bytes, limits.framing_bytes)

        def refuse_plain(self, refusal: RequestRejected) -> None:
            self.waiting, self.plain, self.refusal, self.asked = b"", None, refusal, True
            self.stop("plain_timer")
            if held_s := guard.pace.hold(time.perf_counter(), CHEAP):
                self.held_timer = self.loop.call_later(held_s, self.send_refusal)
                guard.hold(self, self.send_refusal)
            else:
                self.send_refusal()

        def send_refusal(self) -> None:
            assert self.refusal is not None
            self.transport.write(self.refusal.http(self.server_state.default_headers, close=guard.draining))
            self.forget_refusal()
            if guard.draining:
                self.transport.close()
            self.on_response_complete()

        def forget_refusal(self) -> None:
            self.refusal = None
            self.stop("held_timer")
            guard.held.pop(self, None)

        def on_response_complete(self) -> None:
            self.framing = 0
            super().on_response_complete()
            if not self.waiting and not self.closing():
                idle[self] = time.perf_counter()
            self.parse()

        def body_held(self) -> int:
            return 0 if self.cycle is None or self.cycle.response_complete else len(self.cycle.body)

        def closing(self) -> bool:
            return self.cut_off or self.transport.is_closing()

        def watch_head(self) -> None:
            """Start or stop the timer for a head. The timer of the first head runs from the start of the connection;
            for later heads, it runs from the first byte. It ends when the head is complete."""
            begun = (self.cycle is None and not self.asked) or bool(self.conn.trailing_data[0])
            if self.conn.their_state is not h11.IDLE or not begun or self.closing():
                self.stop("head_timer")
            elif self.head_timer is None:
                self.head_timer = self.loop.call_later(limits.head_seconds, self.head_is_late)

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop("head_timer")
            self.stop("write_timer")
            self.stop("surplus_timer")
            self.stop("plain_timer")
            self.forget_refusal()
            surplus.discard(self)
            idle.pop(self, None)
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self.stop("write_timer")
            self.write_timer = self.loop.call_later(limits.write_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            self.stop("write_timer")
            super().resume_writing()

        def send_400_response(self, msg: str) -> None:
            if getattr(sys.exception(), "error_status_hint", 400) == 431:  # the limit of h11
                self.cut(431, "long head", f"the request's head or trailers are longer than {limits.head_bytes} bytes")
            else:
                self.cut(400, "not HTTP", "this is not a readable HTTP request")

        def head_is_late(self) -> None:
            self.head_timer = None
            self.cut(408, "slow head", f"the request's head did not come within {limits.head_seconds:g} s")

        def cut(self, status: int, reason: str, message: str, linger_s: float = limits.linger_seconds) -> None:
            """Send a refusal, if no answer has begun, and close the connection. Bytes that still arrive are read and
            dropped; otherwise the client would see a reset instead of the answer."""
            if self.closing():
                return
            guard.watch(status, reason)
            idle.pop(self, None)
            self.cut_off, self.waiting, self.framing = True, b"", 0
            self.stop("head_timer")
            cycle = self.cycle
            if cycle is None or cycle.response_complete or not cycle.response_started:
                refusal = RequestRejected(status, message, retry_s=1.0 if status == 503 else None)
                self.transport.write(refusal.http(close=True))
            if cycle is not None:
                cycle.disconnected = True  # tells the application that the client has left
                cycle.message_event.set()
            self.flow.resume_reading()
            if linger_s:
                self.loop.call_later(linger_s, self.transport.close)
            else:
                self.transport.close()

        def stop(self, timer: str) -> None:
            if (handle := getattr(self, timer)) is not None:
                handle.cancel()
                setattr(self, timer, None)

    return Bounded
