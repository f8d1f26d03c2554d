"""Common code of the benchmarks of the service: a service process, its use of resources, images to send."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

BUNDLE = os.environ.get("POLYPATH_BENCH_BUNDLE")
"""Folder of the bundle to serve. The default is the pretrained bundle."""
PACKAGES = ("fastapi", "uvicorn", "h11", "uvloop", "starlette", "onnxruntime", "openvino", "pillow")
TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


@dataclass
class Served:
    """A service in a process. ``ready_s`` is the time from the start until /readyz answers."""

    process: subprocess.Popen
    port: int
    facts: dict[str, Any]
    ready_s: float
    errors: list[str] = field(default_factory=list)

    def get(self, place: str, key: str | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{place}")
        if key:
            request.add_header("X-API-Key", key)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()

    @property
    def rss(self) -> int:
        """The resident memory of the service in bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE

    @property
    def cpu_s(self) -> float:
        """The CPU seconds that the service has used so far."""
        return _cpu_s(Path(f"/proc/{self.process.pid}/stat"))

    @property
    def threads_cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds of each thread. The event loop's thread is called ``loop``."""
        found: dict[str, float] = {}
        for folder in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # the thread may have just ended
                found["loop" if folder.name == str(self.process.pid) else folder.name] = _cpu_s(folder / "stat")
        return found


def _cpu_s(stat: Path) -> float:
    fields = stat.read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def start(*options: str, key: str | None = None) -> Served:
    """Start ``polypath serve`` on a free port and wait until it is ready."""
    begun = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "polypath",
        "serve",
        *([BUNDLE] if BUNDLE else []),
        "--port",
        "0",
        "--json",
        *options,
    ]
    environment = {name: value for name, value in os.environ.items() if name != "POLYPATH_API_KEY"}
    if key:
        environment["POLYPATH_API_KEY"] = key
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    text = ""
    while not text.rstrip().endswith("}"):
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the service did not start: {process.stderr.read() if process.stderr else ''}")
        text += line
    facts = json.loads(text)
    served = Served(process, int(facts["url"].rsplit(":", 1)[1]), facts, 0.0)
    threading.Thread(target=_collect, args=(served,), daemon=True).start()
    while True:
        with contextlib.suppress(OSError):
            served.get("/readyz")
            break
        time.sleep(0.01)
    served.ready_s = time.perf_counter() - begun
    return served


def _collect(served: Served) -> None:
    assert served.process.stderr is not None
    served.errors.extend(line.rstrip() for line in served.process.stderr)


@contextlib.contextmanager
def running(*options: str, key: str | None = None) -> Iterator[Served]:
    """Start a service as :func:`start` does, and stop it at the end of the block, whatever happens."""
    served = start(*options, key=key)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.process.send_signal(signal.SIGTERM)
            try:
                served.process.wait(30)
            except subprocess.TimeoutExpired:
                served.process.kill()


class Watch:
    """A measurement of the memory and CPU time of a service during a block: ``with Watch(served) as seen: …``

    Attributes:
        cpu_share: number of cores that the process used.
        loop_share: number of cores that its event loop used.
        other_shares: number of cores that each other thread used, the busiest first (inference, then decoding).
    """

    def __init__(self, served: Served, every_s: float = 0.25) -> None:
        self._served, self._every = served, every_s
        self._done = threading.Event()
        self.rss: list[tuple[float, int]] = []

    def __enter__(self) -> Watch:
        self._begun, self._cpu, self._threads = time.perf_counter(), self._served.cpu_s, self._served.threads_cpu_s
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        took = time.perf_counter() - self._begun
        self.cpu_share = (self._served.cpu_s - self._cpu) / took
        used = {name: (s - self._threads.get(name, 0.0)) / took for name, s in self._served.threads_cpu_s.items()}
        self.loop_share = used.pop("loop", 0.0)
        self.other_shares = sorted((round(share, 3) for share in used.values() if share >= 0.01), reverse=True)

    def _look(self) -> None:
        while not self._done.wait(self._every):
            with contextlib.suppress(OSError):
                self.rss.append((time.perf_counter() - self._begun, self._served.rss))

    def memory(self, after_s: float = 0.0) -> dict[str, float]:
        """Return the resident memory in MiB, and its largest deviation from the median in percent. Samples before
        ``after_s`` are left out."""
        seen = [rss / 2**20 for at, rss in self.rss if at >= after_s]
        low, middle, high = min(seen), median(seen), max(seen)
        return {
            "median_mib": round(middle, 2),
            "min_mib": round(low, 2),
            "max_mib": round(high, 2),
            "deviation_percent": round(100 * max(high - middle, middle - low) / middle, 3),
            "samples": len(seen),
        }


def write_images(folder: Path, number: int, size: tuple[int, int]) -> list[str]:
    """Write PNG files of smooth random images of ``size`` (height, width). The predictions for them differ enough to
    identify each image."""
    rng = np.random.default_rng(0)
    names = []
    for i in range(number):
        small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        stream = io.BytesIO()
        small.resize((size[1], size[0]), Image.Resampling.BICUBIC).save(stream, "PNG")
        file = folder / f"{i}.png"
        file.write_bytes(stream.getvalue())
        names.append(str(file))
    return names


def versions() -> dict[str, str | None]:
    from importlib import metadata

    found: dict[str, str | None] = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
