"""Parses the usual form of a prediction request with one regular expression.

Under overload, most requests are refused. h11, uvicorn's request cycle and ASGI then cost several times as much as the
decision to refuse. So while there are refusals, a connection first checks for one complete request of this form that
can be refused at once (:mod:`polypath.serve.protocol`). All other data is read by h11 from the first byte on. h11 is
the reference: it would read requests of this form in the same way (tests/serve/test_plain.py).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from polypath.serve.limits import SMALL_BODY

PREDICT_PATH = "/v1/predict"
MOST_HEAD = 2**14  # bytes
_HEAD = re.compile(  # possessive quantifiers: without backtracking, a long line cannot take long
    rb"POST " + PREDICT_PATH.encode() + rb"(?:\?([!-~]*+))? HTTP/1\.1\r\n"
    rb"((?>[!#$%&'*+\-.^_`|~0-9A-Za-z]++: ?[!-~](?:[ -~]*[!-~])?\r\n)++)\r\n"
)
_UNUSUAL = {b"expect", b"origin", b"transfer-encoding", b"upgrade"}  # these headers change the answer or its form


class PlainHead(NamedTuple):
    """The head of a request. ``lines`` contains the headers, with names in lower case. ``size`` is the number of bytes
    before the body, and ``whole`` is the number of bytes including the body."""

    query: bytes
    lines: list[tuple[bytes, bytes]]
    size: int
    whole: int


def plain_head(data: bytes) -> PlainHead | None:
    """Parse the head at the start of ``data``, if it has the usual form; otherwise return None.

    In the usual form, each header occurs once and has a value of visible ASCII. There is a Host header, and a
    Content-Length header in digits of at most 64 KiB (for which there is always memory). No header asks for more than
    an answer and a connection that stays open.
    """
    if (found := _HEAD.match(data, 0, MOST_HEAD)) is None:
        return None
    query, text = found.groups(b"")
    lines: list[tuple[bytes, bytes]] = []
    for line in text.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        lines.append((name.lower(), value.lstrip(b" ")))
    headers = dict(lines)
    if len(headers) < len(lines) or b"host" not in headers or not _UNUSUAL.isdisjoint(headers):
        return None
    if headers.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    length = headers.get(b"content-length", b"")
    if not length.isdigit() or len(length) > 15 or int(length) > SMALL_BODY:
        return None
    return PlainHead(query, lines, found.end(), found.end() + int(length))
