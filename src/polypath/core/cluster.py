"""Connect to a Ray cluster at an address, or start a cluster that only this machine can reach."""

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
# with this setting, Ray's servers listen on 127.0.0.1 instead of the machine's address
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def join_cluster(address: str) -> ModuleType:
    """Import Ray and connect it to the cluster at ``address``, unless it is already connected.

    Args:
        address: the cluster's address, ``auto`` for a running cluster on this machine, or ``local`` for a new cluster.

    Raises:
        ImportError: Ray is not installed; the message says what to install.
        ValueError: there is no cluster at ``address``, or a new cluster does not start.
    """
    if address == LOCAL:
        os.environ.update(LOOPBACK)  # must be set before Ray is imported
    ray = need("ray", "--cluster", "cluster")
    if not ray.is_initialized():
        try:
            with without_ray_usage():
                ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
        except ConnectionError as error:
            raise ValueError(f"--cluster {address}: {error}; run `ray start --head` first, or use 'local'") from None
        except Exception as error:  # Ray raises a bare Exception if one of its servers starts too late
            if address != LOCAL:
                raise
            reason = next(iter(str(error).splitlines()), "")
            raise ValueError(f"--cluster {address}: Ray could not start a cluster here ({reason})") from None
    return ray


def listen_on_loopback() -> None:
    """Make the gRPC server of a Ray Serve replica listen on 127.0.0.1; call this before the replica is ready.

    By default the server listens on all addresses, and Ray has no setting for that. Polypath does not use this server.
    """
    with contextlib.suppress(ImportError, AttributeError):  # in another version of Ray, names may differ
        replica: Any = importlib.import_module("ray.serve._private.replica")
        add_port = replica.add_port_to_grpc_server

        def add_local_port(server: Any, address: str) -> Any:
            return add_port(server, address.replace("[::]", "127.0.0.1"))

        replica.add_port_to_grpc_server = add_local_port
