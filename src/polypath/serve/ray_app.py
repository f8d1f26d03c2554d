"""Runs the service on a Ray cluster, if one machine is not enough. There is one replica for each machine or GPU. Each
replica has its own queue, batches and inference thread.

This process serves HTTP instead of Ray's proxies, which are not started. It listens, limits requests, parses them and
passes them to a replica (:class:`ClusterApp`). So every option and limit of the single service applies. A request is
refused with 503 when its budget is over, even if the replica has died.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from polypath.core.cluster import LOCAL, join_cluster, listen_on_loopback
from polypath.core.extras import need
from polypath.serve.app import INLINE_BYTES, App, path_rows
from polypath.serve.callers import Callers
from polypath.serve.crowd import Crowd
from polypath.serve.errors import RequestRejected
from polypath.serve.limits import Key
from polypath.serve.metrics import Metrics
from polypath.serve.predict_request import PredictRequest, read_request
from polypath.serve.service import Options, Service, batch_sizes, check_budget
from polypath.serve.times import Times

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

    from polypath.deploy import BundlePath
    from polypath.serve.model import Model

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Facts:
    """Facts about the replicas' model that the front end needs. ``idle_ms`` is each path's time on an idle replica."""

    name: str
    classes: tuple[str, ...]
    paths: tuple[BundlePath, ...]
    idle_ms: dict[str, float]


class Replica:
    """A service on a node of the cluster. It returns refusals instead of raising them, since Ray wraps exceptions."""

    def __init__(self, make: Callable[[], Model], options: Options, local: bool) -> None:
        if local:
            listen_on_loopback()
        self.model, self.options = make(), options
        self.times = Times(self.model.latencies(batch_sizes(options.max_batch)))
        self.model.warm_up(self.times.sizes)
        self.service: Service | None = None

    def _running(self) -> Service:
        if self.service is None:  # only now, since the service must be made on the event loop that answers
            self.service = Service(self.model, self.times, self.options, Metrics())
        return self.service

    async def facts(self) -> Facts:
        now = time.perf_counter()
        idle = {path.name: 1000 * self.times.idle(path.name, now) for path in self.model.paths}
        return Facts(self.model.name, tuple(self.model.classes), tuple(self.model.paths), idle)

    async def rows(self) -> list[dict[str, Any]]:
        return path_rows(self._running())

    async def answer(self, request: PredictRequest, spent_s: float) -> dict[str, Any] | RequestRejected:
        """Answer a request. ``spent_s`` seconds of its budget were spent before this replica received it."""
        try:
            return (await self._running().answer(request, time.perf_counter() - spent_s))[1]
        except RequestRejected as refusal:
            return refusal

    async def check_health(self) -> None:
        if self.service is not None and not self.service.scheduler.healthy:
            raise RuntimeError("the inference thread hangs")


class ClusterApp(App):
    """The application, with replicas that answer. ``handle`` is Ray's handle to :class:`Replica`."""

    def __init__(self, handle: Any, facts: Facts, options: Options, key: Key, callers: Callers | None = None) -> None:
        self.idle_ms = facts.idle_ms
        super().__init__(cast("Model", facts), options, key, callers)  # App uses only these facts of a model
        self.handle, self.up, self.crowd = handle, False, Crowd()

    def measure(self) -> None:
        """Do nothing, since each replica has measured its own times."""

    @property
    def ready(self) -> bool:
        return self.up and not self.guard.draining

    @contextlib.asynccontextmanager
    async def _lifespan(self, api: FastAPI) -> AsyncIterator[None]:
        self.metrics.gauges(lambda: 0, lambda: self.guard.requests)
        self.up = True
        try:
            yield
        finally:
            self.drain()

    async def predict(self, request: Request) -> Response:
        """Classify one image by the most accurate path that fits `budget_ms`, or by `path`. A request that cannot be
        answered in time is refused with status 503 and Retry-After. With `allow_cheaper`, a cheaper path may answer."""
        from fastapi.responses import Response

        arrived = time.perf_counter()
        names = [path.name for path in self.model.paths]
        body, classes = await request.body(), len(self.model.classes)
        asked = request.headers.get("content-type", ""), request.scope["query_string"], body, names, classes
        wanted = read_request(*asked) if len(body) <= INLINE_BYTES else await asyncio.to_thread(read_request, *asked)
        budget_ms = self._budget(wanted)
        budget_s, spent_s = budget_ms / 1000, time.perf_counter() - arrived
        reply = await self._ask("answer", budget_s - spent_s, wanted, spent_s)
        self.metrics.answer(reply["path"], time.perf_counter() - arrived, budget_s, wanted.path or reply["path"])
        return Response(json.dumps(reply, separators=(",", ":")), media_type="application/json")

    def check(self, kind: str, query: bytes, body: bytes) -> None:
        """Check a request as :meth:`predict` does, except whether a replica has time, which only replicas can check."""
        self._budget(read_request(kind, query, body, [path.name for path in self.model.paths], len(self.model.classes)))

    def _budget(self, wanted: PredictRequest) -> float:
        """Return the budget in milliseconds.

        Raises:
            RequestRejected: 422, even an idle replica would need more time.
        """
        budget_ms = self.options.budget_ms if wanted.budget_ms is None else wanted.budget_ms
        cheapest = min(self.idle_ms, key=lambda name: self.idle_ms[name])
        least = cheapest if wanted.path is None or wanted.allow_cheaper else wanted.path
        check_budget(least, self.idle_ms[least], budget_ms)
        return budget_ms

    async def paths(self) -> Any:
        from fastapi.responses import JSONResponse

        rows = await self._ask("rows", self.options.budget_ms / 1000)
        return JSONResponse({"bundle": self.model.name, "classes": list(self.model.classes), "paths": rows})

    async def _ask(self, method: str, within_s: float, *args: Any) -> Any:
        """Call a method of a replica, and return its result.

        Raises:
            RequestRejected: the replica refuses the request; 503, no replica can answer in time, none has answered in
                time, or the replica has died.
        """
        from ray.exceptions import RayError, RayTaskError  # pyright: ignore[reportMissingImports] (an extra)
        from ray.serve.exceptions import RayServeException  # pyright: ignore[reportMissingImports] (an extra)

        now = time.perf_counter()
        if (expected_s := self.crowd.expected(now)) > within_s:
            message = f"the service is too busy to answer within the remaining budget of {1000 * within_s:.1f} ms"
            raise RequestRejected(503, message, retry_s=expected_s, reason="busy")
        sent, answered = self.crowd.send(now), False
        pending = getattr(self.handle, method).remote(*args)
        try:
            result = await asyncio.wait_for(_result(pending), within_s)
            answered = True
        except TimeoutError:
            raise RequestRejected(503, "no replica answered in time", retry_s=1.0, reason="replica late") from None
        except RayTaskError:  # a bug in the replica is a bug in the service
            raise
        except (RayError, RayServeException) as error:
            LOG.warning("a replica failed: %s", type(error).__name__)
            raise RequestRejected(503, "the replica failed", retry_s=1.0, reason="replica failed") from None
        finally:
            self.crowd.back(sent, time.perf_counter(), answered=answered)
            pending.cancel()  # has no effect if the call is done
        if isinstance(result, RequestRejected):
            raise result
        return result


async def _result(pending: Any) -> Any:
    return await pending


def start(
    make: Callable[[], Model],
    options: Options,
    *,
    address: str,
    name: str,
    replicas: int = 1,
    cpus: float = 1,
    gpus: float = 0,
) -> tuple[Any, Facts]:
    """Deploy replicas on the cluster at ``address``. Once they are ready, return Ray's handle and the model's facts.

    Args:
        make: makes the model on a replica. It must be a function of a module, or one that cloudpickle can send.
        options: options as for one machine. The limit on requests applies to each replica.
        address: address of the cluster, ``auto`` for the cluster that runs on this machine, or ``local`` for a new
            cluster that only this machine can reach.
        name: name of the application on the cluster. An application with the same name is replaced.
        replicas: number of replicas.
        cpus, gpus: number of CPU cores and GPUs for each replica.

    Raises:
        ImportError: Ray is missing. The message says which extra to install.
        ValueError: there is no cluster at ``address``, or this machine is too small for a new one.
    """
    ray = join_cluster(address)
    serve = need("ray.serve", "--cluster", "cluster")
    there = ray.cluster_resources()
    if address == LOCAL and (replicas * cpus > there.get("CPU", 0) or replicas * gpus > there.get("GPU", 0)):
        raise ValueError(
            f"--replicas {replicas}: must fit on this machine; it has {there.get('CPU', 0):g} cores and each replica "
            f"needs {cpus:g}"
        )
    serve.start(proxy_location="Disabled", logging_config={"enable_access_log": False})
    deployment = serve.deployment(
        name=name,
        num_replicas=replicas,
        max_ongoing_requests=options.limits.requests,
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        graceful_shutdown_timeout_s=90,
    )(Replica)
    handle = serve.run(deployment.bind(make, options, address == LOCAL), name=name, route_prefix=None)
    return handle, handle.facts.remote().result()


def stop(name: str) -> None:
    """Remove the application from the cluster, if it still exists."""
    from ray import serve  # pyright: ignore[reportMissingImports] (an extra)
    from ray.exceptions import RayError  # pyright: ignore[reportMissingImports] (an extra)

    try:
        serve.delete(name)
    except RayError as error:
        LOG.warning("the application %s could not be removed from the cluster: %s", name, type(error).__name__)
