"""Opens silent connections from a separate process: ``python -m benchmarks.idle_client``. The process reads one JSON
object of arguments from standard input, and writes one JSON object of results to standard output."""

from __future__ import annotations

import json
import resource
import selectors
import socket
import sys
import time

SPARE_FILES = 50  # descriptors that the process itself needs


def room() -> int:
    """Return the largest number of connections that one process can open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if hard == resource.RLIM_INFINITY else max(1, hard - SPARE_FILES)


def stay(port: int, number: int, seconds: float) -> dict[str, int]:
    """Open ``number`` connections and listen for ``seconds``."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    turned_away = not_connected = 0
    with selectors.DefaultSelector() as selector:
        for _ in range(number):
            try:
                link = socket.create_connection(("127.0.0.1", port), timeout=10)
            except OSError:
                not_connected += 1
            else:
                link.setblocking(False)
                selector.register(link, selectors.EVENT_READ)
        opened, end = len(selector.get_map()), time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and selector.get_map():
            for key, _ in selector.select(left):
                turned_away += 1
                selector.unregister(key.fileobj)
                key.fileobj.close()  # pyright: ignore[reportAttributeAccessIssue] (they are sockets)
        for key in list(selector.get_map().values()):
            key.fileobj.close()  # pyright: ignore[reportAttributeAccessIssue] (they are sockets)
    return {"opened": opened, "not_connected": not_connected, "turned_away": turned_away}


if __name__ == "__main__":
    print(json.dumps(stay(**json.loads(sys.stdin.readline()))), flush=True)
