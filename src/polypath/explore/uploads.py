"""Limits the total size of uploads to the page. The service's :class:`~polypath.serve.limits.Guard` limits the size of
each upload."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from polypath.data.images import LIMITS
from polypath.serve.limits import App, Receive, RequestLimits, Send

MOST_BYTES = 4 * LIMITS.bytes  # limit in bytes for all stored uploads together
REQUESTS = RequestLimits(body_bytes=LIMITS.bytes + 2**16, buffered_bytes=2 * LIMITS.bytes)


class Uploads:
    """An ASGI middleware that deletes the oldest uploads to make room before it accepts a new one.

    Args:
        app: Gradio's app, which writes uploads below ``folder``.
        folder: the folder of uploads; files that exist before the first upload stay.
        most: limit for the total size of all uploads, in bytes.
    """

    def __init__(self, app: App, folder: Path, most: int) -> None:
        self.app, self.folder, self.most = app, folder, most
        self.kept: set[Path] | None = None
        self.coming = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].rstrip("/").endswith("/upload"):
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        size = int(length) if length.isdigit() else REQUESTS.body_bytes  # without the header, the guard sets a limit
        self.coming += size
        try:
            self._make_room()
            await self.app(scope, receive, send)
        finally:
            self.coming -= size

    def _make_room(self) -> None:
        files = {file: file.stat() for file in self.folder.rglob("*") if file.is_file()}
        if self.kept is None:
            self.kept = set(files)
        uploads = sorted(files.keys() - self.kept, key=lambda file: files[file].st_mtime)
        held = self.coming + sum(files[file].st_size for file in uploads)
        for file in uploads:
            if held <= self.most:
                return
            file.unlink(missing_ok=True)
            held -= files[file].st_size
