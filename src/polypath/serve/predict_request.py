"""What a request asks for, from its body and query: an image in one of three wrappings, and four options.

image/*, application/octet-stream    the body is the image, options stand in the query
multipart/form-data                  a file called ``image``; options are fields, or stand in the query
application/json                     ``{"image": BASE64, …}``; options beside it, or in the query
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from polypath.serve.errors import RequestRejected

T = TypeVar("T")
OPTIONS = ("budget_ms", "top_k", "path", "allow_cheaper")
MOST_MS = 60_000.0
KINDS = "image/*, application/octet-stream, multipart/form-data, application/json"
WORDS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class PredictRequest:
    """One request. ``budget_ms``, ``path`` None: the server's choice."""

    image: bytes
    budget_ms: float | None = None
    top_k: int | None = None
    path: str | None = None
    allow_cheaper: bool = False


def read_request(kind: str, query: bytes, body: bytes, paths: Sequence[str], classes: int) -> PredictRequest:
    """What is asked for.

    Args:
        kind: the Content-Type; empty counts as bytes of an image.
        query: the query string.
        body: whole.
        paths: names that ``path`` may have.
        classes: the most that ``top_k`` may be.

    Raises:
        RequestRejected: 400 unreadable, 415 another kind, 422 a wrong value, field or type.
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
        raise RequestRejected(415, "a body of an unknown kind", field="Content-Type", value=kind, legal=KINDS)
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
    """Add a body's options to the query's; returns the image."""
    for name in OPTIONS:
        if name in more:
            if name in given:
                raise RequestRejected(422, f"{name} is given twice", field=name, value=more[name], legal="one value")
            given[name] = more[name]
    return more.get("image", b"")


def _json(body: bytes) -> dict[str, Any]:
    def refuse(text: str) -> Any:
        raise ValueError(f"{text} is not JSON")

    try:
        document = json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise RequestRejected(
            400, f"the body is no JSON: {why}", field="body", value=None, legal="a JSON object", reason="json"
        ) from None
    if not isinstance(document, dict):
        raise RequestRejected(
            422, "the body is no JSON object", field="body", value=document, legal="a JSON object", reason="json"
        )
    given = _merge_pairs(list(document.items()), ("image", *OPTIONS))
    image = given.get("image")
    legal = "the bytes of an image file in base64"
    if not isinstance(image, str):
        raise RequestRejected(422, "image is missing or no text", field="image", value=image, legal=legal)
    try:
        return given | {"image": base64.b64decode(image, validate=True)}
    except (binascii.Error, ValueError):
        raise RequestRejected(422, "image is no base64", field="image", value=image, legal=legal) from None


def _multipart(kind: str, body: bytes) -> dict[str, Any]:
    from starlette.datastructures import Headers, UploadFile
    from starlette.formparsers import MultiPartParser

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    async def parts() -> list[tuple[str, Any]]:
        form = await parser.parse()
        try:
            items = form.multi_items()
            return [(name, await part.read() if isinstance(part, UploadFile) else part) for name, part in items]
        finally:
            await form.close()

    size = len(body) + 1
    parser = MultiPartParser(Headers({"content-type": kind}), stream(), max_files=1, max_fields=8, max_part_size=size)
    parser.spool_max_size = size  # the body is in memory and bounded already: nothing goes to a disk
    try:
        pairs = _drive(parts())
    except Exception as error:  # of several kinds, on foreign bytes
        why = f"the multipart body cannot be read: {str(getattr(error, 'message', error))[:120]}"
        legal = "multipart/form-data with a file part called image"
        raise RequestRejected(400, why, field="body", value=None, legal=legal, reason="multipart") from None
    given = _merge_pairs(pairs, ("image", *OPTIONS))
    if not isinstance(given.get("image"), bytes):
        raise RequestRejected(
            422,
            "image is missing or no file",
            field="image",
            value=given.get("image"),
            legal="a file part called image",
        )
    return given


def _drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits: Starlette's parser is one where everything is in memory."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("the parser waited")


def _read(given: Mapping[str, Any], name: str, read: Callable[[Any], Any], legal: Any) -> Any:
    if (value := given.get(name)) is None:
        return None
    if (result := read(value)) is None:
        raise RequestRejected(422, f"{name} has a wrong value", field=name, value=value, legal=legal)
    return result


def _number(value: Any, kind: type[int] | type[float], above: float, most: float) -> float | None:
    """``value``, a number or the text of one, if it lies within bounds and is of its kind; else None."""
    if isinstance(value, str):
        if not value.isascii() or "_" in value or len(value) > 40:
            return None
        try:
            value = kind(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        return None
    return kind(value) if above < value <= most else None  # not a number is neither


def _truth(value: Any) -> bool | None:
    return value if isinstance(value, bool) else WORDS.get(value.lower()) if isinstance(value, str) else None


def _options() -> str:
    return "&".join(f"{name}=…" for name in OPTIONS)
