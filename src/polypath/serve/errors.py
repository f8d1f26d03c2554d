"""Defines the refusals that are sent to clients."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import partial
from http import HTTPStatus
from typing import Any

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
SHOWN = 80  # how many characters of a wrong value are sent back


class RequestRejected(Exception):
    """An exception that refuses a request. Instead of a prediction, the client gets an error.

    Args:
        status: HTTP status: 4xx if the request is wrong, 503 if there is no time for the request.
        message: a sentence that says what is wrong.
        field: the field that is wrong, such as ``budget_ms``.
        value: the value of that field. It is shortened in the answer.
        legal: the legal values.
        retry_s: number of seconds after which the client should retry (for 503).
        reason: a short word for the metrics.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        field: str | None = None,
        value: Any = None,
        legal: Any = None,
        retry_s: float | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field = status, message, field
        self.value, self.legal, self.retry_s = value, legal, retry_s
        self.reason = reason or field or str(status)

    def __reduce__(self) -> tuple[Any, ...]:
        told = {name: getattr(self, name) for name in ("field", "value", "legal", "retry_s", "reason")}
        return partial(type(self), **told), (self.status, self.message)

    def body(self) -> dict[str, Any]:
        """Return ``{"error": {"message": …, "field": …, "value": …, "legal": …}}``, without the entries that do not
        apply."""
        error: dict[str, Any] = {"message": _sendable(self.message)}
        if self.field is not None:
            error |= {"field": _sendable(self.field), "value": shown(self.value), "legal": self.legal}
        if self.retry_s is not None:
            error["retry_after_ms"] = max(0.1, math.ceil(10_000 * self.retry_s) / 10)
        return {"error": error}

    def json(self) -> bytes:
        """Return :meth:`body` as JSON in ASCII."""
        return json.dumps(self.body()).encode()

    def headers(self, body: bytes, close: bool = False) -> list[tuple[bytes, bytes]]:
        """Return all headers of an answer with this ``body``. They include ``Retry-After`` (whole seconds, at least 1)
        for 503, ``WWW-Authenticate`` for 401, and ``Connection`` if the answer closes the connection."""
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if self.retry_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, math.ceil(self.retry_s))))
        elif self.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if close:
            headers.append((b"connection", b"close"))
        return headers

    def http(self, before: Iterable[tuple[bytes, bytes]] = (), close: bool = False) -> bytes:
        """Return the complete answer in HTTP/1.1. ``before`` are headers that precede those of the refusal."""
        body = self.json()
        lines = b"".join(b"%s: %s\r\n" % line for line in (*before, *self.headers(body, close)))
        return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (self.status, _PHRASES[self.status], lines, body)


def shown(value: Any) -> Any:
    """Return a client's value, short enough to send back."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and abs(value) < 1e15:  # excludes NaN and infinity, which JSON lacks
        return value
    text = value if isinstance(value, str) else type(value).__name__ if isinstance(value, dict | list) else str(value)
    return _sendable(text if len(text) <= SHOWN else text[:SHOWN] + "…")


def _sendable(text: str) -> str:
    """Return the text with unpaired surrogates escaped. JSON can contain them, but UTF-8 cannot encode them."""
    return text.encode("utf-8", "backslashreplace").decode()
