"""Ray clusters: the one at an address, or a new one that only this machine reaches."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from types import ModuleType
from typing import Any

from polypath.core.extras import need
from polypath.core.silence import without_ray_usage

LOCAL = "local"
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # so Ray calls it; without: all servers on the machine's address


def join_cluster(address: str) -> ModuleType:
    """Ray, connected to the cluster at ``address``, unless it is connected already.

    Args:
        address: ``auto`` for the cluster that runs here, ``local`` for a new one.

    Raises:
        ImportError: Ray is missing, with the extra to install.
        ValueError: no cluster at ``address``, or a new one that does not start.
    """
    if address == LOCAL:
        os.environ.update(LOOPBACK)  # before Ray is imported
    ray = need("ray", "--cluster", "cluster")
    if not ray.is_initialized():
        try:
            with without_ray_usage():
                ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise ValueError(f"--cluster {address}: {error}; start one by `ray start --head`, or say local") from None
        except Exception as error:  # Ray raises it bare where a server of its own is late
            if address != LOCAL:
                raise
            reason = next(iter(str(error).splitlines()), "")
            raise ValueError(f"--cluster {address}: Ray could not start one here ({reason})") from None
    return ray


def listen_on_loopback() -> None:
    """In a replica of Ray Serve, before it is ready: its server for calls between deployments listens on 127.0.0.1.

    Ray would have it listen on all addresses, and no setting says where. Polypath calls replicas through Ray itself.
    """
    with contextlib.suppress(ImportError, AttributeError):  # a Ray of another structure
        replica: Any = importlib.import_module("ray.serve._private.replica")
        add_port = replica.add_port_to_grpc_server

        def add_local_port(server: Any, address: str) -> Any:
            return add_port(server, address.replace("[::]", "127.0.0.1"))

        replica.add_port_to_grpc_server = add_local_port
