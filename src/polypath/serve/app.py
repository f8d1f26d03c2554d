"""Defines the HTTP service as an ASGI application: FastAPI behind the guard of :mod:`polypath.serve.limits`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, MutableMapping
from functools import partial
from importlib import metadata
from typing import Any

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from polypath.serve.callers import Callers
from polypath.serve.errors import RequestRejected
from polypath.serve.limits import Guard, Key, Receive, Send
from polypath.serve.metrics import Metrics
from polypath.serve.model import Model
from polypath.serve.openapi import METRICS, REFUSALS, SUMMARY
from polypath.serve.openapi import predict as predict_page
from polypath.serve.plain import PREDICT_PATH, PlainHead
from polypath.serve.predict_request import read_request
from polypath.serve.service import Options, Service, batch_sizes
from polypath.serve.times import Times

LOG = logging.getLogger(__name__)
CORS: Any = {
    "allow_methods": ("GET", "POST"),
    "allow_headers": ("authorization", "content-type", "x-api-key"),
    "expose_headers": ("retry-after",),
}
INLINE_BYTES = 2**17  # longer bodies are parsed on a decoder thread


class App:
    """The ASGI application. Its service starts and ends with the application's lifespan.

    Args:
        model: the model that answers.
        options: options such as budgets, batch sizes and limits.
        key: the key that clients must send.
        callers: the host names under which the service may be called, and the web pages that may call it.
    """

    def __init__(self, model: Model, options: Options, key: Key, callers: Callers | None = None) -> None:
        self.model, self.options = model, options
        self.times: Times | None = None
        self.metrics = Metrics()
        self.service: Service | None = None
        self.api = self._routes()
        callers = callers or Callers()
        cors = partial(CORSMiddleware, allow_origins=callers.origins, **CORS) if callers.origins else None
        self.guard = Guard(self._dispatch, options.limits, key, self.metrics.refuse, callers, cors)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await self.guard(scope, receive, send)

    async def _dispatch(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer prediction requests directly, and pass all other requests to FastAPI. FastAPI's routing costs twice as
        much as a refusal, and refusals must stay cheap under overload. A HEAD request is handled as a GET request; the
        server leaves out the body of the answer."""
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        if scope["type"] != "http" or scope["path"] != PREDICT_PATH or scope["method"] != "POST":
            await self.api(scope, receive, send)
            return
        response = await self._predicted(Request(scope, receive))  # the request is freed while a refusal is held back
        await response(scope, receive, send)

    def refusal(self, head: PlainHead, body: bytes, server: tuple[str, int | None] | None) -> RequestRejected | None:
        """Check a complete prediction request to the address ``server`` before its image is decoded. If the request is
        refused, count the refusal in the metrics and return it. Otherwise return None."""
        scope = {"method": "POST", "path": PREDICT_PATH, "query_string": head.query, "headers": head.lines}
        try:
            headers = self.guard.check(scope | {"server": server})
            self.check(headers.get(b"content-type", b"").decode("latin-1"), head.query, body)
        except RequestRejected as refusal:
            refusal.__traceback__ = None  # the traceback would keep the body in memory
            self.metrics.refuse(refusal.status, refusal.reason)
            return refusal
        return None

    async def _predicted(self, request: Request) -> Response:
        try:
            return await self.predict(request)
        except RequestRejected as refusal:
            refusal.__traceback__ = None  # it may be in a reference cycle with a future, which keeps the body
            return await self._refused(request, refusal)
        except Exception as error:
            LOG.exception("a prediction failed because of a bug")
            return await self._defect(request, error)

    def drain(self) -> None:
        """Accept no new requests from now on. Accepted requests are still answered."""
        self.guard.drain()
        if self.service is not None:
            self.service.drain()

    def measure(self) -> None:
        """Profile the model, load decoders and compile graphs for every batch size, so that the first request is as
        fast as any other. This happens automatically at the start, and only once."""
        if self.times is not None:
            return
        times = Times(self.model.latencies(batch_sizes(self.options.max_batch)))
        self.model.warm_up(times.sizes)
        self.times = times

    @property
    def ready(self) -> bool:
        return self.service is not None and self.service.scheduler.healthy and not self.guard.draining

    @contextlib.asynccontextmanager
    async def _lifespan(self, api: FastAPI) -> AsyncIterator[None]:
        await anyio.to_thread.run_sync(self.measure)
        assert self.times is not None
        service = Service(self.model, self.times, self.options, self.metrics)
        self.metrics.gauges(lambda: len(service.scheduler), lambda: self.guard.requests)
        self.service = service
        try:
            yield
        finally:
            self.drain()
            await service.close()

    def _routes(self) -> FastAPI:
        api = FastAPIOffline(  # its documentation page loads nothing from other servers
            redoc_url=None,
            title="Polypath",
            description=SUMMARY,
            version=metadata.version("polypath"),
            lifespan=self._lifespan,
            responses=REFUSALS,
            redirect_slashes=False,
        )
        about = predict_page([path.name for path in self.model.paths], len(self.model.classes))
        api.add_api_route(PREDICT_PATH, self.predict, methods=["POST"], summary="Classify an image", **about)
        api.add_api_route("/v1/paths", self.paths, methods=["GET"], summary="The paths, the most accurate first")
        api.add_api_route("/healthz", self.healthz, methods=["GET"], summary="Whether the process works")
        api.add_api_route("/readyz", self.readyz, methods=["GET"], summary="Whether requests are accepted")
        api.add_api_route("/metrics", self.scrape, methods=["GET"], summary="Counters for Prometheus", **METRICS)
        api.add_exception_handler(RequestRejected, self._refused)  # pyright: ignore[reportArgumentType] (starlette types handlers by Exception)
        api.add_exception_handler(HTTPException, self._not_here)  # pyright: ignore[reportArgumentType] (starlette types handlers by Exception)
        api.add_exception_handler(Exception, self._defect)
        return api

    async def predict(self, request: Request) -> Response:
        """Classify one image by the most accurate path that fits `budget_ms`, or by `path`. A request that cannot be
        answered in time is refused at once, with status 503 and Retry-After. With `allow_cheaper`, a cheaper path may
        answer."""
        arrived = time.perf_counter()
        service = self._running()
        body = await request.body()
        names, classes = list(service.paths), len(self.model.classes)
        asked = request.headers.get("content-type", ""), request.scope["query_string"], body, names, classes
        if len(body) <= INLINE_BYTES:
            wanted = read_request(*asked)
        else:
            wanted = await asyncio.wrap_future(service.decoders.start(read_request, *asked))
        done, reply = await service.answer(wanted, arrived, request.receive)
        response = Response(json.dumps(reply, separators=(",", ":")), media_type="application/json")
        now = time.perf_counter()
        service.times.observe_reply(now - done.finished, now)
        return response

    def check(self, kind: str, query: bytes, body: bytes) -> None:
        """Check a request with a small ``body``, without decoding its image or reserving anything.

        Raises:
            RequestRejected: :meth:`predict` would refuse the request.
        """
        service = self._running()
        wanted = read_request(kind, query, body, list(service.paths), len(self.model.classes))
        service.check(wanted, time.perf_counter())

    async def paths(self) -> JSONResponse:
        rows = path_rows(self._running())
        return JSONResponse({"bundle": self.model.name, "classes": list(self.model.classes), "paths": rows})

    async def healthz(self) -> JSONResponse:
        service = self.service
        well = service is None or service.scheduler.healthy
        return JSONResponse({"status": "ok" if well else "the inference thread hangs"}, 200 if well else 503)

    async def readyz(self) -> JSONResponse:
        if self.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "draining" if self.guard.draining else "starting"}, 503, {"retry-after": "1"})

    async def scrape(self) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def _running(self) -> Service:
        if self.service is None:
            raise RequestRejected(503, "the service is starting", retry_s=1.0, reason="starting")
        return self.service

    async def _refused(self, request: Request, refusal: RequestRejected) -> Response:
        self.metrics.refuse(refusal.status, refusal.reason)
        body = refusal.json()
        response = Response(body, refusal.status)
        response.raw_headers = refusal.headers(body)
        return response

    async def _not_here(self, request: Request, error: HTTPException) -> Response:
        routes = [route for route in self.api.routes if isinstance(route, Route)]
        legal = [f"{'/'.join(sorted(route.methods or ()))} {route.path}" for route in routes]
        value = f"{request.method} {request.url.path}"
        refusal = RequestRejected(
            error.status_code, str(error.detail), field="path", value=value, legal=legal, reason="route"
        )
        self.metrics.refuse(refusal.status, refusal.reason)
        return Response(refusal.json(), refusal.status, error.headers, media_type="application/json")

    async def _defect(self, request: Request, error: Exception) -> JSONResponse:
        self.metrics.refuse(500, "defect")
        return JSONResponse(
            {"error": {"message": "this is a bug in the service; the server's log contains details"}}, 500
        )


def path_rows(service: Service) -> list[dict[str, Any]]:
    """Return each path with its times on this machine, the most accurate first."""
    now = time.perf_counter()
    return [
        {
            "name": path.name,
            "paths": path.text,
            "error_percent": path.error,
            "precision": path.precision,
            "macs": path.macs,
            "p50_ms": round(1000 * service.times.typical(path.name, 1, now), 3),
            "p99_idle_ms": round(1000 * service.times.idle(path.name, now), 3),
        }
        for path in service.paths.values()
    ]
