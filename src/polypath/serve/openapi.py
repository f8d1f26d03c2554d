"""Describes ``POST /v1/predict`` for OpenAPI. FastAPI cannot generate this, since we parse the body by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi.responses import PlainTextResponse

from polypath.serve.predict_request import MOST_MS

SUMMARY = "A multi-path classifier with a time budget: the best answer that can be given in time."

_OPTIONS: dict[str, dict[str, Any]] = {
    "budget_ms": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": MOST_MS,
        "description": "milliseconds from the complete request to its answer (default: set by the server)",
    },
    "top_k": {
        "type": "integer",
        "minimum": 1,
        "description": "number of classes to return (default: set by the server)",
    },
    "path": {
        "type": "string",
        "description": "name of a path in /v1/paths (default: the most accurate path that fits the budget)",
    },
    "allow_cheaper": {
        "type": "boolean",
        "default": False,
        "description": "under load, answer by a cheaper path instead of refusing the request",
    },
}
_FILE = {"type": "string", "format": "binary"}
_BASE64 = {
    "type": "string",
    "format": "byte",
    "minLength": 1,
    "description": "an image file in base64 (standard or URL-safe; line breaks and padding are optional) or a data URI",
}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "field": {"type": "string"},
                "value": {},
                "legal": {},
                "retry_after_ms": {"type": "number"},
            },
            "required": ["message"],
        }
    },
}
_ANSWER = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "error_percent": {
            "type": ["number", "null"],
            "description": "top-1 error of this path on the bundle's held-out images",
        },
        "top": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "class": {"type": "string"},
                    "index": {"type": "integer"},
                    "probability": {"type": "number"},
                },
            },
        },
        "ms": {
            "type": "object",
            "properties": {name: {"type": "number"} for name in ("total", "decode", "inference")},
        },
        "batch": {"type": "integer", "description": "number of images in the batch of this image"},
    },
}


def _object(image: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": ["image"], "properties": {"image": image, **options}}


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ERROR}}}


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: _error("The request, its body or its image cannot be read"),
    401: _error("The key is missing or wrong"),
    403: _error("The request comes from a web page of another origin"),
    405: _error("The method is not allowed"),
    408: _error("The request came too slowly"),
    413: _error("The body is too long"),
    421: _error("The Host header is not a name of this service"),
    431: _error("The head is too long"),
    503: {
        **_error("The service is too busy to answer in time, is starting or is shutting down"),
        "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds to wait"}},
    },
}
"""The refusals that every route may send."""
METRICS: dict[str, Any] = {
    "response_class": PlainTextResponse,
    "responses": {200: {"description": "Prometheus's text format"}},
}
"""Arguments of ``add_api_route`` for the route ``/metrics``."""


def predict(paths: Sequence[str], classes: int) -> dict[str, Any]:
    """Return the arguments of ``add_api_route`` for a model with these paths and this many classes."""
    options = {**_OPTIONS, "path": {**_OPTIONS["path"], "enum": list(paths)}}
    options["top_k"] = {**_OPTIONS["top_k"], "maximum": classes}
    return {
        "openapi_extra": {
            "parameters": [
                {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in options.items()
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "image/*": {"schema": _FILE},
                    "application/octet-stream": {"schema": _FILE},
                    "multipart/form-data": {"schema": _object(_FILE, options)},
                    "application/json": {"schema": {**_object(_BASE64, options), "additionalProperties": False}},
                },
            },
        },
        "responses": {
            200: {"description": "The answer", "content": {"application/json": {"schema": _ANSWER}}},
            415: _error("The type of the body is not supported"),
            422: _error("A field has a wrong value, or no path meets the budget"),
        },
    }
