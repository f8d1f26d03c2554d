"""The same application under Ray Serve, where one machine is not enough: one replica a machine or GPU, each with its
own queue, batches and inference thread; Ray's proxy spreads requests over them.

The proxy is Ray's: the limits on heads and connections of :mod:`polypath.serve.protocol` are not in it. Those on
bodies, images, keys, deadlines and concurrency are, since they are the application's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from polypath.core.extras import need
from polypath.serve.limits import KEY_VARIABLE, Key

if TYPE_CHECKING:
    from polypath.serve.model import Model
    from polypath.serve.service import Options

NAME = "polypath"


def start(
    make: Callable[[], Model],
    options: Options,
    *,
    address: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int = 1,
    cpus: float = 1,
    gpus: float = 0,
) -> Any:
    """Deploy on the cluster at ``address`` (``local``: one in this process) and return once the replicas are ready.

    Args:
        make: makes the model, on a replica; a module's function, or one that cloudpickle can send.
        options: as for one machine; its limit on requests bounds each replica.
        address: of the cluster, ``auto`` for the one that runs here, ``local`` for a new one.
        host, port: where the cluster's proxies listen.
        replicas: how many.
        cpus, gpus: of each replica.

    Raises:
        ImportError: Ray is missing, with the extra to install.
        ValueError: no cluster at ``address``.
    """
    ray = need("ray", "--cluster", "cluster")
    serve = need("ray.serve", "--cluster", "cluster")
    key = os.environ.get(KEY_VARIABLE)
    Key(key)  # a bad one is told here rather than by a replica
    if not ray.is_initialized():
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise ValueError(f"--cluster {address}: {error}; start one by `ray start --head`, or say local") from None
    serve.start(http_options={"host": host, "port": port}, logging_config={"enable_access_log": False})

    def build() -> Any:
        from polypath.serve.app import App
        from polypath.serve.limits import Key

        return App(make(), options, Key(key))

    deployment = serve.deployment(
        name=NAME,
        num_replicas=replicas,
        max_ongoing_requests=options.limits.requests,
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        graceful_shutdown_timeout_s=90,
    )(serve.ingress(build)())
    return serve.run(deployment.bind(), name=NAME, route_prefix="/")


def stop() -> None:
    """Take the application off the cluster; accepted requests are answered first."""
    from ray import serve  # pyright: ignore[reportMissingImports] (an extra)

    serve.delete(NAME)
