"""What a connection may do, where uvicorn sets no bounds of its own.

uvicorn ends a connection that is idle after an answer. It waits forever for a first request, for the rest of a head
that comes byte by byte ("slowloris"), and for a client that does not read its answer; with httptools a head may have
any length. These four are bounded here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from polypath.serve.limits import RequestLimits

STATUS = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


def bounded(limits: RequestLimits, watch: Callable[[int, str], None]) -> type[HttpToolsProtocol]:
    """uvicorn's protocol under ``limits``; ``watch(status, reason)`` is told of what it cuts off."""

    class Bounded(HttpToolsProtocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.head_timer: asyncio.TimerHandle | None = None
            self.write_timer: asyncio.TimerHandle | None = None
            self.head_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                self.cut(503, "connections", f"{limits.connections} connections are open already")
                return
            self.head_timer = self.loop.call_later(limits.head_seconds, self.head_is_late)

        def data_received(self, data: bytes) -> None:
            if self.transport.is_closing():
                return
            before, between = self.cycle, self.between_requests()
            super().data_received(data)
            if self.cycle is not before:  # a head is whole; what follows it is body, which the application bounds
                self.stop("head_timer")
                self.head_bytes = 0
            elif between:  # this is the next head, or a part of it
                self.head_bytes += len(data)
                if self.head_bytes > limits.head_bytes:
                    self.cut(431, "long head", f"the request's head is longer than {limits.head_bytes} bytes")
                elif self.head_timer is None and not self.transport.is_closing():
                    self.head_timer = self.loop.call_later(limits.head_seconds, self.head_is_late)

        def between_requests(self) -> bool:
            return self.cycle is None or self.cycle.response_complete or not self.cycle.more_body

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop("head_timer")
            self.stop("write_timer")
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self.stop("write_timer")
            self.write_timer = self.loop.call_later(limits.write_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            self.stop("write_timer")
            super().resume_writing()

        def send_400_response(self, msg: str) -> None:
            self.cut(400, "not HTTP", "this is no HTTP request that can be read")

        def head_is_late(self) -> None:
            self.head_timer = None
            self.cut(408, "slow head", f"the request's head did not come within {limits.head_seconds:g} s")

        def cut(self, status: int, reason: str, message: str) -> None:
            """Say why, where no answer is on its way already, and close."""
            if self.transport.is_closing():
                return
            watch(status, reason)
            self.stop("head_timer")
            if self.cycle is None or self.cycle.response_complete:
                body = json.dumps({"error": {"message": message}}).encode()
                head = [f"HTTP/1.1 {status} {STATUS[status]}", "content-type: application/json"]
                head += [
                    f"content-length: {len(body)}",
                    "connection: close",
                    *(["retry-after: 1"] if status == 503 else []),
                ]
                self.transport.write("\r\n".join([*head, "\r\n"]).encode() + body)
            self.transport.close()

        def stop(self, timer: str) -> None:
            if (handle := getattr(self, timer)) is not None:
                handle.cancel()
                setattr(self, timer, None)

    return Bounded
