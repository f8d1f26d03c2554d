"""Attacks a service, and measures the effect on ordinary clients. The attacks are requests at twice the service's
capacity, retry storms, bombs (images that are slow to decode), hostile requests and idle connections. Then the service
gets SIGTERM and SIGKILL under load, and hostile bundles and configs are opened.

    python -m benchmarks attacks

Each part returns measurements and verdicts (``{promise: whether it was kept}``). If a part raises an exception, its
promises count as broken. ``POLYPATH_BENCH_ATTACKS`` scales seconds and numbers (0.05 is a short version; 1 takes about
8 minutes). ``POLYPATH_BENCH_PARTS=storm,idle`` runs only some parts. ``POLYPATH_BENCH_SEED`` changes the random loads
and files. Run nothing else at the same time: capacity is measured first, and later parts are compared with it.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import hostile_files, idle_client
from benchmarks.serve_load import call, drained, generator, killed
from benchmarks.serving import BUNDLE, Served, Watch, running, versions, write_images
from polypath.profiling.cores import cores

SCALE = float(os.environ.get("POLYPATH_BENCH_ATTACKS", "1"))
SEED = hostile_files.SEED
BUDGET_MS = float(os.environ.get("POLYPATH_BENCH_BUDGET_MS", "200"))
WARMUP_S = 3.0 * min(1.0, 4 * SCALE)
CALM_S, OVERLOAD_S, STORM_S, BOMBS_S = 15.0 * SCALE, 60.0 * SCALE, 15.0 * SCALE, 15.0 * SCALE
STORMS = ((256, "at once"), (512, "at once"), (1024, "at once"), (1024, "header"))
"""For each storm, the number of clients and when they retry."""
HOSTILE = max(20, int(2000 * SCALE))
FILES = max(14, int(500 * SCALE))
IDLE, IDLE_S, IDLE_EACH = max(100, int(10_000 * SCALE)), max(3.0, 10.0 * SCALE), 4000
BOMBERS = 3
MEMORY_PERCENT = 5.0


@dataclass(frozen=True)
class Scene:
    """A service, the requests of its ordinary clients, and the results of a load at the service's capacity."""

    served: Served
    load: dict[str, Any]
    capacity: float
    calm: dict[str, Any]

    def call(self, **load: Any) -> dict[str, Any]:
        return call(self.served, self.load | {"port": self.served.port, "warmup_s": WARMUP_S} | load)

    def ask(self, image: bytes | None = None, budget_ms: float = BUDGET_MS) -> int:
        """Send a request and return the status, or 0 if there is no answer."""
        data = Path(self.load["images"][0]).read_bytes() if image is None else image
        return ask(self.served.port, data, f"budget_ms={budget_ms:g}")


def run() -> dict:
    from polypath.deploy import Bundle

    chosen = chosen_parts()
    bundle = Bundle.open(BUNDLE)
    results: dict[str, Any] = {
        "scale": SCALE,
        "seed": SEED,
        "parts": chosen,
        "bundle": bundle.name,
        "budget_ms": BUDGET_MS,
        "cores": cores(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "versions": versions(),
        "load_average_before": os.getloadavg(),  # if far above 0, the machine was busy and results are unreliable
    }
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder), 64, bundle.size)
        load = {"images": images, "query": f"budget_ms={BUDGET_MS:g}", "budget_ms": BUDGET_MS, "seed": SEED}
        if set(chosen) != {"hostile_files"}:
            results |= on_services(load, chosen)
    if "hostile_files" in chosen:
        results["hostile_files"] = attempted("hostile_files", lambda: hostile_files.run(FILES, SEED))
    parts = {name: part for name, part in results.items() if isinstance(part, dict) and "verdicts" in part}
    results["verdicts"] = {
        f"{name}: {said}": kept for name, part in parts.items() for said, kept in part["verdicts"].items()
    }
    for promise, kept in results["verdicts"].items():
        print(f"{'kept  ' if kept else 'BROKEN'} {promise}")
    return results


def chosen_parts() -> list[str]:
    """Return the parts to run.

    Raises:
        ValueError: a part is unknown.
    """
    every = [*ON_ONE, *ON_ITS_OWN, "hostile_files"]
    wanted = [name.strip() for name in os.environ.get("POLYPATH_BENCH_PARTS", "").split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in every]:
        raise ValueError(f"POLYPATH_BENCH_PARTS: {unknown[0]!r}: must be one or more of {', '.join(every)}")
    return [name for name in every if not wanted or name in wanted]


def on_services(load: dict, chosen: list[str]) -> dict[str, Any]:
    """Run on one service all parts that the service should survive, so that effects that accumulate are seen. Other
    parts have separate services."""
    results: dict[str, Any] = {}
    with running("--threads", "1") as served:
        begin = Scene(served, load, 1.0, {})
        closed = begin.call(mode="closed", clients=32, seconds=8.0 * SCALE + 3, warmup_s=2.0)
        capacity = max(1.0, closed["goodput_per_s"])  # on a busy machine, perhaps no answer is in time
        calm = begin.call(mode="open", rate=capacity, seconds=CALM_S + WARMUP_S)
        results |= {"closed": closed, "capacity_per_s": capacity, "at_capacity": calm}
        scene = Scene(served, load, capacity, calm)
        with Watch(served) as watch:
            for name in chosen:
                if name in ON_ONE:
                    results[name] = attempted(name, lambda name=name: ON_ONE[name](scene))
            results["still"] = attempted("still", lambda: still(scene))
        memory = watch.memory(WARMUP_S)
        kept = memory["deviation_percent"] <= MEMORY_PERCENT
        results["memory"] = memory | {"verdicts": {f"within {MEMORY_PERCENT:g}% over all of it": kept}}
        results["standard_error"] = list(served.errors)
    for name in chosen:
        if name in ON_ITS_OWN:
            results[name] = attempted(name, lambda name=name: ON_ITS_OWN[name](load | {"rate": capacity}))
    return results


def attempted(name: str, part: Callable[[], dict]) -> dict:
    print(f"--- {name}", flush=True)
    begun = time.perf_counter()
    try:
        found = part()
    except Exception as error:
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {error}", "verdicts": {"runs to its end": False}}
    return {"part_took_s": round(time.perf_counter() - begun, 1), **found}


# --- the parts on one service ---------------------------------------------------------------------------------


def overload(scene: Scene) -> dict:
    """Send requests at twice the capacity, without waiting for answers."""
    found = scene.call(mode="open", rate=2 * scene.capacity, seconds=OVERLOAD_S + WARMUP_S, seed=SEED + 1)
    return found | {
        "verdicts": {
            **civil(found),
            "goodput at least 0.9 of that at capacity": found["goodput_per_s"] >= 0.9 * scene.calm["goodput_per_s"],
            "accepted in time at least 99%": found["in_time"] >= 0.99,
            "refused within 50 ms (99%)": found["refused_within_50_ms"] >= 0.99 or not found["refused"],
            "memory within 5%": found["memory"]["deviation_percent"] <= MEMORY_PERCENT,
            "the generator sends in time (99% within 20 ms)": found["generator_late"] <= 0.01,
        }
    }


def storm(scene: Scene) -> dict:
    """Let clients retry at once when they are rejected, or after ``Retry-After``. Then send a few requests."""
    storms, verdicts = {}, {}
    for clients, retry in STORMS:
        name = f"{clients} clients, {retry}"
        found = scene.call(mode="closed", clients=clients, retry=retry, seconds=STORM_S + WARMUP_S)
        share = found["goodput_per_s"] / max(1e-9, scene.calm["goodput_per_s"])
        begun = time.perf_counter()
        after = [scene.ask() for _ in range(5)]
        storms[name] = found | {"of_capacity": share, "after": after, "after_s": time.perf_counter() - begun}
        verdicts |= {f"{name}: {said}": kept for said, kept in civil(found).items()} | {
            f"{name}: goodput at least 0.8 of that at capacity": share >= 0.8,
            f"{name}: the next requests are answered": after == [200] * 5,
        }
    return {"storms": storms, "verdicts": verdicts}


def bombs(scene: Scene) -> dict:
    """Send slow images repeatedly, together with ordinary requests at a tenth of the capacity. Some clients that send
    slow images disconnect at once."""
    quiet = {"mode": "open", "rate": scene.capacity / 10, "seconds": BOMBS_S + WARMUP_S}
    alone = scene.call(**quiet)
    statuses: Counter[str] = Counter()
    stop = threading.Event()
    pictures = [progressive(5700, 5800, 9), progressive(1000, 1000, 480), photo(5000, 4000), lying(8000)]

    def bomber(number: int) -> None:
        while not stop.is_set():
            for picture in pictures:
                if number % 2:
                    with contextlib.suppress(OSError):
                        leave(scene.served.port, picture)
                    statuses["left"] += 1
                    stop.wait(0.2)
                else:
                    statuses[str(scene.ask(picture, 20_000))] += 1
                if stop.is_set():
                    return

    with ThreadPoolExecutor(BOMBERS) as pool:
        futures = [pool.submit(bomber, number) for number in range(BOMBERS)]
        try:
            beside = scene.call(**quiet, seed=SEED + 2)
        finally:
            stop.set()
        for future in futures:
            future.result()
    p99 = [math.inf if one["answer_ms"] is None else one["answer_ms"]["p99"] for one in (alone, beside)]
    return {
        "alone": alone,
        "beside": beside,
        "bombs": dict(statuses),
        "p99_ms": p99,
        "verdicts": {
            **civil(beside),
            "ordinary p99 at most doubled": p99[1] <= 2 * p99[0] < math.inf,
            "ordinary clients are answered as before": beside["answered"] >= 0.95 * alone["answered"],
            "bombs get 200, 4xx or 503": set(statuses) <= {"left", "200", "400", "413", "422", "503"},
        },
    }


def hostile_requests(scene: Scene) -> dict:
    """Send random requests as in tests/serve/hostile.py, with a fixed seed. Each must get a 4xx with a reason."""
    from benchmarks.serve_hostile import Case, judge, send_drawn

    def judged(case: Case, answer: bytes) -> str | None:
        """Judge an answer, but accept all answers to requests with a wrong key, since this service has no key."""
        return None if case.kind == "wrong key" else judge(case, answer)

    found = send_drawn(scene.served.port, HOSTILE, judged)
    return {
        "requests": found.statuses.total(),
        "statuses": dict(found.statuses),
        "wrong": found.wrong,
        "slowest_answer_s": found.slowest_answer_s,
        "verdicts": {"every answer is right": not found.wrong, "no 5xx but 503": only_503(found.statuses)},
    }


def idle(scene: Scene) -> dict:
    """Open silent connections while ordinary clients are connected. Several processes open them, since each process can
    open only a limited number. The service closes connections beyond its limit at once, the others after a timeout."""
    ordinary, _ = generator(
        scene.load | {"port": scene.served.port, "mode": "closed", "clients": 4, "seconds": IDLE_S + 4, "warmup_s": 1.0}
    )
    time.sleep(1.0)
    each = min(IDLE_EACH, idle_client.room())
    numbers = [min(each, IDLE - begin) for begin in range(0, IDLE, each)]
    clients = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.idle_client"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in numbers
    ]
    begun = time.perf_counter()
    for client, number in zip(clients, numbers, strict=True):
        assert client.stdin is not None
        client.stdin.write(json.dumps({"port": scene.served.port, "number": number, "seconds": IDLE_S}) + "\n")
        client.stdin.flush()
    time.sleep(min(2.0, IDLE_S / 2))
    found_again_s = next((time.perf_counter() - begun for _ in attempts(30.0) if is_well(scene.served)), math.inf)
    seen = Counter[str]()
    for client in clients:
        assert client.stdout is not None
        seen.update(json.loads(client.stdout.readline()))
        client.wait(60)
    assert ordinary.stdout is not None
    beside = json.loads(ordinary.stdout.readline())
    ordinary.wait(60)
    time.sleep(1.0)
    after = [scene.ask(budget_ms=2000) for _ in range(5)]
    return {
        "wanted": IDLE,
        "processes": len(numbers),
        **seen,
        "descriptors_of_the_service": Path(f"/proc/{scene.served.process.pid}/limits")
        .read_text()
        .split("open files")[1]
        .split()[:2],
        "healthz_on_a_new_connection_after_s": found_again_s,
        "beside": beside,
        "after": after,
        "verdicts": {
            "all connect": seen["opened"] == IDLE,
            "clients that were there before are answered": beside["lost_all"] == 0
            and beside["answered"] > 0
            and not beside["other_statuses"],
            "/healthz answers a new connection within 10 s": found_again_s <= 10,
            "answered afterwards": after == [200] * 5,
            "the process lives": scene.served.process.poll() is None,
        },
    }


def still(scene: Scene) -> dict:
    """Check that, after all attacks, the service works as before and has counted no internal error."""
    again = scene.call(mode="open", rate=scene.capacity, seconds=CALM_S / 2 + WARMUP_S, seed=SEED + 3)
    codes: Counter[str] = Counter()
    for line in scene.served.get("/metrics").decode().splitlines():
        if line.startswith("polypath_requests_total{"):
            codes[line.split('"')[1]] += int(float(line.split()[1]))
    return again | {
        "statuses": dict(codes),
        "verdicts": {
            **civil(again),
            "no 5xx but 503 was counted": only_503(codes),
            "goodput at least 0.9 of that before": again["goodput_per_s"] >= 0.9 * scene.calm["goodput_per_s"],
        },
    }


ON_ONE: dict[str, Callable[[Scene], dict]] = {
    "overload": overload,
    "storm": storm,
    "bombs": bombs,
    "hostile_requests": hostile_requests,
    "idle": idle,
}


# --- the parts that end a service -----------------------------------------------------------------------------


def sigterm(load: dict) -> dict:
    """Send SIGTERM under load, with a bomb in progress."""
    with running("--threads", "1") as served, ThreadPoolExecutor(1) as pool:
        bomb = progressive(5700, 5800, 9)
        timer = threading.Timer(3.9, lambda: pool.submit(ask, served.port, bomb, "budget_ms=60000"))
        timer.start()
        found = drained(served, load | {"port": served.port})
        timer.join()
    verdicts = {
        "no client lost": found["lost_all"] == 0 and not found["other_statuses"],
        "status 0": found["exit_status"] == 0,
        "within 10 s": found["took_s"] <= 10,
    }
    return found | {"verdicts": verdicts}


def sigkill(load: dict) -> dict:
    found = killed(load)
    kept = found["answers_again_s"] <= 10 and found["answered"] > 0
    return found | {"verdicts": {"answers again within 10 s": kept}}


ON_ITS_OWN: dict[str, Callable[[dict], dict]] = {"sigterm": sigterm, "sigkill": sigkill}


def civil(found: dict) -> dict[str, bool]:
    """Return the verdicts that apply to every load."""
    return {
        "no client lost": found["lost_all"] == 0,
        "no status but 200 and 503": not found["other_statuses"],
        "every refusal with Retry-After": found["refusals_without_retry_after"] == 0,
    }


# --- inputs ---------------------------------------------------------------------------------------------------


def progressive(width: int, height: int, scans: int) -> bytes:
    """Make a grey JPEG whose last scan is repeated ``scans`` times."""
    data = encoded(Image.new("L", (width, height)), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


def photo(width: int, height: int) -> bytes:
    """Make a large image, as an ordinary client may send."""
    small = np.random.default_rng(0).integers(0, 256, (height // 50, width // 50, 3), dtype=np.uint8)
    return encoded(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), "JPEG")


def lying(side: int) -> bytes:
    """Make an AVIF image whose header claims a small size, or a PNG image if Pillow has no AVIF."""
    Image.init()
    if "AVIF" not in Image.SAVE:
        return encoded(Image.new("L", (side // 2, side // 2)), "PNG")
    data = bytearray(encoded(Image.new("RGB", (side, side)), "AVIF", speed=10))
    place = data.index(b"ispe") + 8
    data[place : place + 8] = (100).to_bytes(4, "big") * 2
    return bytes(data)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def ask(port: int, image: bytes, query: str) -> int:
    """Send a request and return the status, or 0 if there is no answer."""
    place = f"http://127.0.0.1:{port}/v1/predict?{query}"
    request = urllib.request.Request(place, image, {"Content-Type": "image/png"})
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            answer.read()
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def leave(port: int, image: bytes) -> None:
    """Send a request, and disconnect."""
    head = "POST /v1/predict?budget_ms=20000 HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        link.sendall(f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image)
        time.sleep(0.05)


def is_well(served: Served) -> bool:
    with contextlib.suppress(OSError):
        return json.loads(served.get("/healthz")) == {"status": "ok"}
    return False


def attempts(seconds: float) -> Iterator[None]:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        yield
        time.sleep(0.25)


def only_503(statuses: Counter[str]) -> bool:
    return not any(code.startswith("5") and code != "503" for code in statuses)
