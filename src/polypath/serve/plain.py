"""A request for a prediction in the form that most have, read by one regular expression.

Under overload most requests are refused, and h11, uvicorn's request cycle and ASGI cost several times what deciding
does. So while there are refusals, a connection looks first whether what came is one whole request of this form that is
refused at once (:mod:`polypath.serve.protocol`). Whatever else came, h11 reads, from its first byte: it stays the
reference, and what is read here it would read alike (tests/serve/test_plain.py).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from polypath.serve.limits import SMALL_BODY

PREDICT_PATH = "/v1/predict"
MOST_HEAD = 2**14  # bytes
_HEAD = re.compile(  # nothing is tried twice (possessive quantifiers), or a long line could take long
    rb"POST " + PREDICT_PATH.encode() + rb"(?:\?([!-~]*+))? HTTP/1\.1\r\n"
    rb"((?>[!#$%&'*+\-.^_`|~0-9A-Za-z]++: ?[!-~](?:[ -~]*[!-~])?\r\n)++)\r\n"
)
_UNUSUAL = {b"expect", b"origin", b"transfer-encoding", b"upgrade"}  # they change what is answered, or how


class PlainHead(NamedTuple):
    """``lines``: names of headers in lower case, and values. ``size``: bytes up to the body; ``whole``: with it."""

    query: bytes
    lines: list[tuple[bytes, bytes]]
    size: int
    whole: int


def plain_head(data: bytes) -> PlainHead | None:
    """The head that ``data`` begins with, if it is of this form.

    One header of a name, values of visible ASCII, a Host, a Content-Length in digits of at most 64 KiB (for which there
    is always room), nothing that asks for more than an answer over a connection that stays open.
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
