"""Hostile requests drawn by hypothesis: a few for the test suite, many for the benchmark.

A :class:`Case` is what goes down a connection and what may come back. Everything must be answered by a 4xx with a
reason; ``200`` is allowed only where a damaged image may still be one.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st
from PIL import Image

from serve.fake import post

KEY = "correct horse"
AUTH = f"Authorization: Bearer {KEY}\r\n"
SIDE = 24
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


@dataclass(frozen=True)
class Case:
    """``sent`` as one piece; ``may`` are the legal statuses, 4xx if empty; ``closing``: the connection may be closed
    without an answer (it was not HTTP, or never became a complete request)."""

    kind: str
    sent: bytes
    may: tuple[int, ...] = ()
    closing: bool = False


@cache
def picture(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((SIDE, SIDE), 80).convert("RGB").save(stream, kind)
    return stream.getvalue()


def png(width: int, height: int, *, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG file, well-formed except for its header's claims."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@cache
def bomb(kind: str) -> bytes:
    """A small file that claims, or decompresses to, far too much."""
    zeros = zlib.compress(bytes(2**24), 9)
    if kind == "rows":  # 2 x 2 pixels by its header, 16 MiB of rows
        return png(2, 2, data=zeros)
    if kind == "text":
        body = b"a\0\0" + zeros
        text = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
        return png(2, 2, data=zlib.compress(b"\0" + bytes(6) + b"\0" + bytes(6)), extra=text)
    stream = io.BytesIO()
    options = {"compression": "group4"} if kind == "TIFF" else {}
    Image.new("1", (9000, 9000)).save(stream, kind, **options)  # 81 million pixels in some kilobytes
    return stream.getvalue()


images = st.one_of(
    st.tuples(st.sampled_from(FORMATS), st.floats(0, 0.95)).map(
        lambda t: ("cut image", picture(t[0])[: int(t[1] * len(picture(t[0])))])
    ),
    st.tuples(
        st.sampled_from(FORMATS), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=20)
    ).map(lambda t: ("damaged image", _flip(picture(t[0]), t[1]))),
    # Hypothesis also draws constants of the code, and one of ours is a picture
    st.binary(max_size=300).filter(lambda data: not data.startswith(b"P6")).map(lambda data: ("noise", data)),
    st.sampled_from(
        (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\xff\xff\xff\xffWEBP", b"BM", b"II*\0")
    ).flatmap(lambda magic: st.binary(max_size=200).map(lambda data: ("noise behind a magic", magic + data))),
    st.tuples(st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1)).map(lambda t: ("giant image", png(*t))),
    st.sampled_from(("rows", "text", "PNG", "GIF", "TIFF")).map(lambda kind: ("bomb", bomb(kind))),
)
"""(kind, bytes) of bad images."""

numbers = st.one_of(
    st.sampled_from(
        (
            "nan",
            "NaN",
            "inf",
            "-inf",
            "1e999",
            "-0",
            "0",
            "-1",
            "1_0",
            "0x10",
            "1e-400",
            "٣",
            "",
            " ",
            "null",
            "2" * 400,
        )
    ),
    st.text(max_size=30),
)
values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
GOOD = base64.b64encode(picture("PNG")).decode()


def _flip(data: bytes, changes: list[tuple[float, int]]) -> bytes:
    out = bytearray(data)
    for place, value in changes:
        out[int(place * len(out))] = value
    return bytes(out)


def _query(pair: tuple[str, str]) -> Case:
    name, text = pair
    # a number among the texts may be a right one; a budget that cannot be met is 422, one that is just met 200 or 503
    return Case(
        "wrong option", post(picture("PNG"), query=f"{name}={quote(text, safe='')}", extra=AUTH), _right(name, text)
    )


def _right(name: str, value: Any) -> tuple[int, ...]:
    try:
        fine = (name == "budget_ms" and 0 < float(value) <= 60_000) or (name == "top_k" and 1 <= int(value) <= 10)
    except (TypeError, ValueError, OverflowError):
        fine = False
    fine = fine or value in ("true", "false", "1", "0", "True", "False", True, False, None)
    return (200, 422, 503) if fine else ()


def _image(found: tuple[str, bytes]) -> Case:
    kind, data = found
    may = (200, 400) if kind in ("damaged image", "bomb") else ()
    return Case(kind, post(data, extra=AUTH), may)


def _wrapped(found: tuple[str, bytes]) -> Case:
    kind, data = found
    may = (200, 400) if kind in ("damaged image", "bomb") else ()
    body = json.dumps({"image": base64.b64encode(data).decode()}).encode()
    return Case(f"{kind} in JSON", post(body, "application/json", extra=AUTH), may)


def _document(pair: tuple[str, Any]) -> Case:
    name, value = pair
    body = json.dumps({"image": GOOD, name: value}).encode()
    return Case("wrong type", post(body, "application/json", extra=AUTH), _right(name, value))


def _deep(pair: tuple[str, int]) -> Case:
    opening, depth = pair
    return Case("deep JSON", post((opening * depth).encode(), "application/json", extra=AUTH))


def _multipart(pair: tuple[bytes, str]) -> Case:
    body, boundary = pair
    return Case("multipart", post(body, f"multipart/form-data; boundary={boundary}", extra=AUTH))


def _key(text: str) -> Case:
    line = f"Authorization: Bearer {text}\r\n" if len(text) % 2 else f"X-API-Key: {text}\r\n"
    return Case("wrong key", post(picture("PNG"), extra=line), (401,))


def _head(line: bytes) -> Case:
    return Case("no HTTP", line + b"\r\n\r\n", (), True)


def _odd(lines: str) -> Case:
    sent = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n{AUTH}{lines}\r\n".encode("latin-1")
    return Case("odd head", sent, (), True)


ODD = (
    "Content-Length: -1\r\n",
    "Content-Length: 1e3\r\n",
    "Content-Length: 3\r\nContent-Length: 5\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Content-Length: 999999999999\r\n",
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    "A B: c\r\n",
    ": empty\r\n",
    "X: " + "a" * 20_000 + "\r\n",
    "".join(f"X{i}: a\r\n" for i in range(3000)),
    "Content-Length: 0\r\nContent-Type: image/png; " + "a=b; " * 500 + "\r\n",
    "Content-Length: 0\r\nContent-Encoding: gzip\r\n",
)
PLACES = (
    "/",
    "/v1",
    "/v1/predict/",
    "/v1/predict/../paths",
    "//v1/predict",
    "/%00",
    "/..%2f..%2fetc/passwd",
    "/v1/" + "a" * 8000,
)
METHODS = ("GET", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "HEAD")
keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60).filter(lambda text: text != KEY)
kinds = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40).filter(
    lambda kind: (
        not kind.lower().startswith(("image/", "multipart/form-data", "application/json", "application/octet"))
        and kind.strip()
        and not kind.startswith(";")
    )
)

cases = st.one_of(
    images.map(_image),
    images.map(_wrapped),
    st.tuples(st.sampled_from(("budget_ms", "top_k", "path", "allow_cheaper")), numbers).map(_query),
    st.tuples(st.sampled_from(("budget_ms", "top_k", "path", "allow_cheaper", "image", "more")), values).map(_document),
    st.tuples(st.sampled_from(("[", '{"a":', '{"image":[')), st.sampled_from((50, 900, 5_000, 200_000))).map(_deep),
    values.map(lambda value: Case("other JSON", post(json.dumps(value).encode(), "application/json", extra=AUTH))),
    st.binary(max_size=200).map(lambda data: Case("no JSON", post(data, "application/json", extra=AUTH))),
    st.tuples(st.binary(max_size=300), st.sampled_from(("XX", "", '"', "a" * 300, "XX; boundary=YY"))).map(_multipart),
    kinds.map(lambda kind: Case("unknown kind", post(b"x", kind, extra=AUTH))),
    keys.map(_key),
    st.tuples(st.sampled_from(METHODS), st.sampled_from((*PLACES, "/v1/predict"))).map(
        lambda t: Case(
            "no such place",
            f"{t[0]} {t[1]} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{AUTH}\r\n".encode(),
            (),
            t[0] == "HEAD",
        )
    ),
    st.binary(min_size=1, max_size=100).filter(lambda data: b"\n" not in data).map(_head),
    st.sampled_from(ODD).map(_odd),
)
"""All cases except slow senders and bodies of many megabytes, which take long."""


def judge(case: Case, answer: bytes) -> str | None:
    """What is wrong with an answer; None if it is as it should be."""
    if not answer:
        return None if case.closing else "no answer"
    try:
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
    except (ValueError, IndexError):
        return f"no HTTP: {answer[:80]!r}"
    if status not in case.may and (case.may or not 400 <= status < 500):
        return f"status {status}, expected {case.may or '4xx'}: {body[:200]!r}"
    if status >= 400 and not (case.closing and not body):
        try:
            if not json.loads(body)["error"]["message"]:
                return "no reason"
        except (ValueError, KeyError, TypeError):
            return f"status {status} without a reason: {body[:200]!r}"
    return None
