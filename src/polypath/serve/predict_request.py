"""Parses a request's body and query. They contain an image in one of three forms, and four options.

image/*, application/octet-stream    the body is the image; options are in the query
multipart/form-data                  the image is a file called ``image``; options are other fields, or in the query
application/json                     the image is ``{"image": BASE64, …}``; options are other entries, or in the query

BASE64 may use the standard or the URL-safe alphabet, and may be a ``data:`` URI. Line breaks and padding are optional.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from polypath.serve.errors import RequestRejected

OPTIONS = ("budget_ms", "top_k", "path", "allow_cheaper")
MOST_MS = 60_000.0
KINDS = "image/*, application/octet-stream, multipart/form-data, application/json"
MOST_OPTION_BYTES = 4096  # the longest JSON value or form field of one option
MOST_PARTS = 1 + len(OPTIONS)
ALPHABET = bytes.maketrans(b"-_", b"+/")
WORDS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class PredictRequest:
    """A request for a prediction. If an option is None, the server's default applies."""

    image: bytes
    budget_ms: float | None = None
    top_k: int | None = None
    path: str | None = None
    allow_cheaper: bool = False


def read_request(kind: str, query: bytes, body: bytes, paths: Sequence[str], classes: int) -> PredictRequest:
    """Parse a request.

    Args:
        kind: the Content-Type; empty means the bytes of an image.
        query: the query string.
        body: the complete body.
        paths: the legal values of ``path``.
        classes: the largest legal value of ``top_k``.

    Raises:
        RequestRejected: 400, the request is unreadable; 415, the Content-Type is not supported; 422, a value, field or
            type is wrong.
    """
    given = _query(query)
    kind = kind.partition(";")[0].strip().lower() if not kind.lower().startswith("multipart/") else kind
    if kind.startswith("image/") or kind in ("application/octet-stream", ""):
        image = body
    elif kind == "application/json":
        image = _merge(given, _json(body))
    elif kind.lower().startswith("multipart/form-data"):
        image = _merge(given, _multipart(kind, body))
    else:
        raise RequestRejected(415, "the type of the body is unknown", field="Content-Type", value=kind, legal=KINDS)
    if not image:
        raise RequestRejected(400, "there is no image", field="image", value="", legal="the bytes of an image file")
    return PredictRequest(
        image,
        _read(
            given,
            "budget_ms",
            lambda value: _number(value, float, 0.0, MOST_MS),
            f"a number above 0, at most {MOST_MS:g}",
        ),
        _read(given, "top_k", lambda value: _number(value, int, 0, classes), f"a whole number from 1 to {classes}"),
        _read(given, "path", lambda value: value if isinstance(value, str) and value in paths else None, list(paths)),
        bool(_read(given, "allow_cheaper", _truth, "true or false")),
    )


def _query(query: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=bool(query), max_num_fields=16)
    except ValueError:
        raise RequestRejected(
            400, "the query cannot be read", field="query", value=query.decode("latin-1"), legal=_options()
        ) from None
    return _merge_pairs(pairs, OPTIONS)


def _merge_pairs(pairs: Sequence[tuple[str, Any]], legal: Sequence[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name, value in pairs:
        if name not in legal:
            raise RequestRejected(
                422,
                f"unknown field {name[:40]!r}",
                field=name[:40],
                value=value,
                legal=list(legal),
                reason="unknown field",
            )
        if name in given:
            raise RequestRejected(422, f"{name} is given twice", field=name, value=value, legal="one value")
        given[name] = value
    return given


def _merge(given: dict[str, Any], more: Mapping[str, Any]) -> bytes:
    """Add the options in a body to those in the query, and return the image."""
    for name in OPTIONS:
        if name in more:
            if name in given:
                raise RequestRejected(422, f"{name} is given twice", field=name, value=more[name], legal="one value")
            given[name] = more[name]
    return more.get("image", b"")


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """A JSON body with unparsed values. They stay unparsed so that a body of many megabytes is read only once."""

    image: msgspec.Raw = msgspec.Raw()
    budget_ms: msgspec.Raw = msgspec.Raw()
    top_k: msgspec.Raw = msgspec.Raw()
    path: msgspec.Raw = msgspec.Raw()
    allow_cheaper: msgspec.Raw = msgspec.Raw()


def _json(body: bytes) -> dict[str, Any]:
    legal = "a JSON object"
    try:
        document = msgspec.json.decode(body, type=_Document)
    except msgspec.ValidationError as error:
        if unknown := re.search("unknown field `(.*)`", str(error), re.DOTALL):
            _merge_pairs([(unknown[1], "not shown")], ("image", *OPTIONS))
        raise RequestRejected(
            422, "the body is not a JSON object", field="body", value=None, legal=legal, reason="json"
        ) from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise RequestRejected(
            400, f"the body is not JSON: {why}", field="body", value=None, legal=legal, reason="json"
        ) from None
    given = {name: _option(raw) for name in OPTIONS if (raw := bytes(getattr(document, name)))}
    legal = "the bytes of an image file in base64"
    try:
        image = msgspec.json.decode(document.image, type=str)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        value = bytes(document.image)[:100].decode("utf-8", "replace")
        raise RequestRejected(422, "image is missing or not text", field="image", value=value, legal=legal) from None
    try:
        return given | {"image": _base64(image)}
    except ValueError:
        raise RequestRejected(422, "image is not base64", field="image", value=image, legal=legal) from None


def _option(raw: bytes) -> Any:
    """Parse a short JSON value. For a long or deeply nested one, return its text, which is illegal for all options."""
    try:
        return json.loads(raw[:MOST_OPTION_BYTES])
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "replace")


def _base64(text: str) -> bytes:
    """Decode base64.

    Raises:
        ValueError: the text is not base64.
    """
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise ValueError("the data URI is not in base64")
    data = text.encode("ascii").translate(ALPHABET, b" \t\r\n")
    return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)


def _multipart(kind: str, body: bytes) -> dict[str, Any]:
    from python_multipart.multipart import parse_options_header

    try:
        parts = _parts(body, parse_options_header(kind)[1].get(b"boundary", b""))
        pairs = [(about[b"name"].decode("utf-8", "replace"), b"filename" in about, data) for about, data in parts]
    except Exception as error:  # the parser raises errors of several types on unexpected bytes
        why = f"the multipart body cannot be read: {str(error)[:120]}"
        legal = "multipart/form-data with a file part called image"
        raise RequestRejected(400, why, field="body", value=None, legal=legal, reason="multipart") from None
    given = _merge_pairs(
        [(name, data if file else data.decode("utf-8", "replace")) for name, file, data in pairs], ("image", *OPTIONS)
    )
    if not isinstance(given.get("image"), bytes):
        raise RequestRejected(
            422,
            "image is missing or not a file",
            field="image",
            value=given.get("image"),
            legal="a file part called image",
        )
    return given


def _parts(body: bytes, boundary: bytes) -> list[tuple[dict[bytes, bytes], bytes]]:
    """Return the parameters of each part's Content-Disposition, and the part's data.

    Raises:
        ValueError: the multipart body is incomplete, or has more parts, headers or text than allowed.
    """
    from python_multipart.multipart import MultipartParser, parse_options_header

    parts: list[tuple[dict[bytes, bytes], bytearray]] = []
    name, value = bytearray(), bytearray()
    ended = False

    def begin() -> None:
        if len(parts) == MOST_PARTS:
            raise ValueError(f"there are more than {MOST_PARTS} parts")
        parts.append(({}, bytearray()))

    def header_end() -> None:
        if name.lower() == b"content-disposition":
            parts[-1][0].update(parse_options_header(bytes(value))[1])
        name.clear()
        value.clear()

    def data(data: bytes, start: int, end: int) -> None:
        about, held = parts[-1]
        held.extend(data[start:end])
        if b"filename" not in about and len(held) > MOST_OPTION_BYTES:
            raise ValueError(f"a text field has more than {MOST_OPTION_BYTES} bytes")

    def end() -> None:
        nonlocal ended
        ended = True

    if not boundary:
        raise ValueError("the Content-Type has no boundary")
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": begin,
            "on_header_field": lambda data, start, end: name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: value.extend(data[start:end]),
            "on_header_end": header_end,
            "on_part_data": data,
            "on_end": end,
        },
    )
    parser.write(body)
    if not ended:
        raise ValueError("the last boundary is missing")
    if any(b"name" not in about for about, _ in parts):
        raise ValueError("a part has no name")
    return [(about, bytes(data)) for about, data in parts]


def _read(given: Mapping[str, Any], name: str, read: Callable[[Any], Any], legal: Any) -> Any:
    if (value := given.get(name)) is None:
        return None
    if (result := read(value)) is None:
        raise RequestRejected(422, f"{name} has a wrong value", field=name, value=value, legal=legal)
    return result


def _number(value: Any, kind: type[int] | type[float], above: float, most: float) -> float | None:
    """Convert a number, or the text of one, to ``kind``. Return None if that fails or the number is out of bounds."""
    if isinstance(value, str):
        if not value.isascii() or "_" in value or len(value) > 40:
            return None
        try:
            value = kind(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        return None
    return kind(value) if above < value <= most else None  # NaN fails both comparisons


def _truth(value: Any) -> bool | None:
    return value if isinstance(value, bool) else WORDS.get(value.lower()) if isinstance(value, str) else None


def _options() -> str:
    return "&".join(f"{name}=…" for name in OPTIONS)
