"""Parsing requests: three forms of the image, four options, and every way to get them wrong."""

from __future__ import annotations

import base64
import json

import pytest

from polypath.serve.errors import RequestRejected
from polypath.serve.predict_request import PredictRequest, read_request

PATHS = ("whole", "branches=1,3")
BOUNDARY = "multipart/form-data; boundary=XX"


def read(kind: str = "image/png", query: str = "", body: bytes = b"bytes") -> PredictRequest:
    return read_request(kind, query.encode(), body, PATHS, 10)


def document(**fields) -> bytes:
    return json.dumps({"image": base64.b64encode(b"bytes").decode()} | fields).encode()


def parts(**fields: str | bytes) -> bytes:
    lines = []
    for name, value in fields.items():
        file = '; filename="a.png"\r\nContent-Type: image/png' if isinstance(value, bytes) else ""
        head = f'--XX\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        lines.append(head + (value if isinstance(value, bytes) else value.encode()) + b"\r\n")
    return b"".join(lines) + b"--XX--\r\n"


WANTED = PredictRequest(b"bytes", 2.5, 3, "branches=1,3", True)
QUERY = "budget_ms=2.5&top_k=3&path=branches%3D1%2C3&allow_cheaper=true"


@pytest.mark.parametrize(
    ("kind", "query", "body"),
    [
        ("image/png", QUERY, b"bytes"),
        ("application/octet-stream", QUERY, b"bytes"),
        ("", QUERY, b"bytes"),
        (
            "application/json; charset=utf-8",
            "",
            document(budget_ms=2.5, top_k=3, path="branches=1,3", allow_cheaper=True),
        ),
        ("application/json", "budget_ms=2.5&top_k=3", document(path="branches=1,3", allow_cheaper=True)),
        (BOUNDARY, "", parts(image=b"bytes", budget_ms="2.5", top_k="3", path="branches=1,3", allow_cheaper="1")),
        ("Multipart/Form-Data; boundary=XX", QUERY, parts(image=b"bytes")),
    ],
)
def test_all_forms_give_the_same_request(kind, query, body):
    assert read(kind, query, body) == WANTED


BYTES = bytes(range(256)) + b"\xfb\xff"  # holds both characters by which the alphabets differ
TEXT = base64.b64encode(BYTES).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        base64.urlsafe_b64encode(BYTES).decode(),
        TEXT.rstrip("="),
        base64.encodebytes(BYTES).decode(),
        "\r\n".join(TEXT[i : i + 64] for i in range(0, len(TEXT), 64)),
        f"data:image/png;base64,{TEXT}",
        f"DATA:;BASE64,{TEXT}",
    ],
)
def test_base64_in_every_form(text):
    assert read("application/json", "", json.dumps({"image": text}).encode()).image == BYTES


@pytest.mark.parametrize("text", ["data:image/png,abcd", "data:abcd", "A", "AA=A", "AAA*", "A\u00a0AAA"])
def test_no_base64(text):
    with pytest.raises(RequestRejected, match="not base64"):
        read("application/json", "", json.dumps({"image": text}).encode())


def test_options_are_optional():
    assert read() == PredictRequest(b"bytes")
    assert read("application/json", "", document(budget_ms=None, path=None)) == PredictRequest(b"bytes")


@pytest.mark.parametrize(
    ("status", "field", "kind", "query", "body"),
    [
        *(
            (422, "budget_ms", "image/png", f"budget_ms={text}", b"x")
            for text in ("nan", "inf", "-1", "0", "1e999", "1_0", "", "x", "1" * 50, "60001", "0x10", "%FF")
        ),
        *((422, "top_k", "image/png", f"top_k={text}", b"x") for text in ("0", "-1", "11", "2.5", "nan", "", "1e0")),
        *((422, "path", "image/png", f"path={text}", b"x") for text in ("", "Whole", "whole%00", "../etc")),
        *((422, "allow_cheaper", "image/png", f"allow_cheaper={text}", b"x") for text in ("", "maybe", "2")),
        (422, "colour", "image/png", "colour=red", b"x"),
        (422, "top_k", "image/png", "top_k=1&top_k=2", b"x"),
        (400, "query", "image/png", "&".join(f"a{i}=1" for i in range(40)), b"x"),
        (400, "query", "image/png", "nonsense", b"x"),
        (400, "image", "image/png", "", b""),
        (415, "Content-Type", "text/html", "", b"x"),
        (415, "Content-Type", "application/x-www-form-urlencoded", "", b"x"),
        (400, "body", "application/json", "", b"{"),
        (400, "body", "application/json", "", b"\xff\xfe{}"),
        (400, "body", "application/json", "", '{"image": ""}'.encode("utf-16")),
        (422, "body", "application/json", "", b"[" * 100_000),
        (422, "a", "application/json", "", b'{"a":' * 100_000),
        (400, "body", "application/json", "", b'{"path":' * 100_000),
        (422, "path", "application/json", "", document(path=[]).replace(b"[]", b"[" * 900 + b"]" * 900)),
        (400, "body", "application/json", "", b'{"\\ud800": 1}'),
        (400, "body", "application/json", "", b'{"image": "AA==", "path": "\\ud800"}'),
        (422, "path", "application/json", "", document(path="\U0001f600" * 2000)),
        (400, "body", "application/json", "", b'{"image": "\\udfff"}'),
        (400, "body", "application/json", "", b'{"image": "", "budget_ms": NaN}'),
        (422, "top_k", "application/json", "", document().replace(b"}", b', "top_k": ' + b"9" * 5000 + b"}")),
        (422, "body", "application/json", "", b"[1, 2]"),
        (422, "body", "application/json", "", b"null"),
        (422, "image", "application/json", "", b"{}"),
        (422, "image", "application/json", "", document(image=5)),
        (422, "image", "application/json", "", document(image="*no base64*")),
        (422, "image", "application/json", "", document(image="ä")),
        (400, "image", "application/json", "", document(image="")),
        (422, "budget_ms", "application/json", "", document(budget_ms=True)),
        (422, "budget_ms", "application/json", "", document(budget_ms=[1])),
        (422, "budget_ms", "application/json", "", document(budget_ms=10**400)),
        (422, "budget_ms", "application/json", "", document().replace(b"}", b', "budget_ms": 1e999}')),
        (422, "top_k", "application/json", "", document(top_k=1.5)),
        (422, "path", "application/json", "", document(path={"a": 1})),
        (422, "allow_cheaper", "application/json", "", document(allow_cheaper=1)),
        (422, "budget_ms", "application/json", "budget_ms=3", document(budget_ms=3)),
        (422, "extra", "application/json", "", document(extra=1)),
        (400, "body", "multipart/form-data", "", b"x"),
        (400, "body", BOUNDARY, "", b"no parts"),
        (400, "body", BOUNDARY, "", b"--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n--XX--"),
        (422, "image", BOUNDARY, "", parts(image="text")),
        (422, "image", BOUNDARY, "", parts(budget_ms="1")),
        (422, "other", BOUNDARY, "", parts(image=b"x", other=b"y")),
        (422, "image", BOUNDARY, "", parts(image=b"x").replace(b"--XX--\r\n", parts(image=b"y"))),
        (422, "path", BOUNDARY + "; charset=unicode_escape", "", parts(image=b"x", path="\\ud800")),
        (400, "body", BOUNDARY, "", parts(image=b"x", path="p" * 5000)),
        (400, "body", BOUNDARY, "", parts(image=b"x")[:-8]),
        (400, "body", BOUNDARY, "", parts(image=b"x").replace(b"a.png", b"a" * 5000)),
        (
            400,
            "body",
            BOUNDARY,
            "",
            parts(image=b"x").replace(b"\r\nContent-Type", b"\r\nA: b" * 9 + b"\r\nContent-Type"),
        ),
        (400, "body", BOUNDARY, "", parts(image=b"x", **{f"f{i}": "1" for i in range(20)})),
    ],
)
def test_refusals_name_field_value_and_legal_values(status, field, kind, query, body):
    with pytest.raises(RequestRejected) as caught:
        read(kind, query, body)
    error = caught.value.body()["error"]
    assert (caught.value.status, error["field"]) == (status, field)
    assert error["message"]
    assert error["legal"]
    assert len(json.dumps(caught.value.body())) < 800


def test_long_values_come_back_shortened():
    with pytest.raises(RequestRejected) as caught:
        read(query="path=" + "a" * 5000)
    assert len(caught.value.body()["error"]["value"]) < 100
