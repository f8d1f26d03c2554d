"""Decodes large images in a separate process, which :mod:`polypath.deploy.decoder` starts and may kill.

This script receives one image at a time over its standard input, a socket, and sends back pixels of the network's input
size. It imports Polypath's packages without their ``__init__`` modules, which set up libraries that it does not need.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, cast

LENGTH = struct.Struct(">I")
"""The start of a request: the length of the JSON object that follows. The image's bytes come after that object."""
ANSWER = struct.Struct(">?dI")
"""The start of an answer: whether pixels or an error message follow, the seconds of processor time, and the number of
bytes that follow."""
READY = b"!"
LONGEST_REASON = 2000
MEMORY = 2**32  # limit in bytes; the largest image that is decoded needs a quarter of it
SMALLEST = b"P6 1 1 255 \0\0\0"
ROOMS = ("core", "storage", "data", "deploy")


def main(parent: int, niceness: int, places: list[str]) -> None:
    """Answer requests until standard input closes or the process ``parent`` ends. ``sys.path`` becomes ``places``."""
    sys.path[:] = places
    _enter_packages(Path(__file__).resolve().parent.parent)

    import resource  # not available on Windows, where this process is never started

    from polypath.core.parent import belong_to
    from polypath.data.images import open_image

    belong_to(parent)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.nice(niceness)
    open_image(SMALLEST)  # loads the decoders
    with socket.socket(fileno=0) as link, cast(BinaryIO, link.makefile("rwb")) as stream:
        stream.write(READY)
        stream.flush()
        while length := stream.read(LENGTH.size):
            asked = json.loads(stream.read(LENGTH.unpack(length)[0]))
            data = stream.read(asked["bytes"])
            signal.setitimer(signal.ITIMER_REAL, asked["seconds"])  # ends this process, in case its parent does not
            begun = time.process_time()
            good, body = _decoded(data, asked)
            signal.setitimer(signal.ITIMER_REAL, 0)
            stream.write(ANSWER.pack(good, time.process_time() - begun, len(body)))
            stream.write(body)
            stream.flush()


def _enter_packages(package: Path) -> None:
    for name in ("", *ROOMS):
        room = ModuleType(".".join(filter(None, ("polypath", name))))
        room.__path__ = [str(package / name)]
        sys.modules[room.__name__] = room


def _decoded(data: bytes, asked: dict[str, Any]) -> tuple[bool, bytes]:
    from polypath.data.images import ImageLimits, open_image
    from polypath.deploy.images import Preparation

    try:
        preparation = Preparation(tuple(asked["size"]), *([(0.0,) * asked["channels"]] * 2), *asked["resize"])
        return True, preparation.pixels(open_image(data, ImageLimits(*asked["limits"]))).tobytes()
    except Exception as error:  # decoders raise many types for broken images
        return False, (str(error) or type(error).__name__).encode(errors="replace")[:LONGEST_REASON]


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
