"""Runs the application in uvicorn. The port is bound before anything is loaded. At shutdown, every accepted request is
still answered."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import uvicorn

from polypath.serve.app import App
from polypath.serve.protocol import bounded

LOG = logging.getLogger(__name__)
GRACE_S = 0.3  # how long requests over open connections still get "503, shutting down" at shutdown
MOST_DRAIN_S = 90
FILES = 200  # file descriptors for purposes other than connections
SWITCH_S = 0.0005  # the inference thread waits no longer than this for Python (default 5 ms)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to ``host:port`` but does not listen yet. So a port in use is noticed before
    anything is loaded.

    Raises:
        ValueError: the host does not exist, or the port is in use or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host {host}: {error}") from None
    bound = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # otherwise a restart may have to wait a minute
        bound.bind(address)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"--port {port}: is in use on {host}; choose another port, or 0 for any free one"
            ) from None
        raise ValueError(f"--host {host} --port {port}: {error.strerror}") from None
    return bound


def allow_connections(number: int) -> None:
    """Raise this process's limit on open files, which is often 1,024. If the system allows it, the new limit suffices
    for ``number`` open connections, for as many connections that wait for a refusal, and for decoding."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * number + FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        told = "%d connections need up to %d open files, but this process may have %d: raise the limit (ulimit -n)"
        LOG.warning(told, number, wanted, most)


class Server(uvicorn.Server):
    """A uvicorn server that shuts down on SIGTERM or Ctrl-C: it accepts no new requests, answers the accepted ones, and
    closes connections. A second Ctrl-C ends the server at once. ``stopped_by`` is the signal that was received."""

    def __init__(self, app: App, ready: Callable[[], None] = lambda: None) -> None:
        limits = app.options.limits
        config = uvicorn.Config(
            app,
            http=bounded(app.guard, app.refusal),
            h11_max_incomplete_event_size=limits.head_bytes,
            ws="none",
            lifespan="on",
            log_config=None,  # uvicorn's default closes the handlers that other packages of this process installed
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=limits.idle_seconds,  # pyright: ignore[reportArgumentType] (any number of seconds)
            timeout_graceful_shutdown=MOST_DRAIN_S,
        )
        super().__init__(config)
        self.app, self.ready = app, ready
        self.stopped_by: int | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:  # unlike uvicorn's, this lets the process end with status 0
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: object) -> None:
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True
        self.stopped_by = self.stopped_by or sig

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.app.drain()
        for server in self.servers:
            server.close()
        await asyncio.sleep(GRACE_S)  # requests that still arrive over open connections are refused, not cut off
        await super().shutdown(sockets)


def serve(app: App, bound: socket.socket, ready: Callable[[], None] = lambda: None) -> int:
    """Serve ``app`` until a signal comes, and return that signal. ``ready`` is called when clients can connect."""
    sys.setswitchinterval(SWITCH_S)
    allow_connections(app.options.limits.connections)
    gc.collect()
    gc.freeze()  # otherwise each full collection walks through all of torch: 0.1 to 0.3 s without any answer
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # clients must not be able to fill the log
    server = Server(app, ready)
    try:
        server.run(sockets=[bound])
    finally:
        gc.unfreeze()  # extensions would report frozen objects as leaks
    return server.stopped_by or 0
