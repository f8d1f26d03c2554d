"""An evening of attacks on one service, and what its ordinary clients notice: overload, a retry storm, bombs, hostile
requests, idle connections; then SIGTERM and SIGKILL under load.

Each part is a function of its own that gives figures and verdicts (``{"what is promised": whether it was kept}``), so
that others can be added to ``PARTS``. Bundles and configs from others come from ``benchmarks/hostile_files.py``, where
there is one. ``POLYPATH_BENCH_ATTACKS`` scales seconds and numbers (0.05 is a short version).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import resource
import selectors
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.serve_load import call, drained, killed
from benchmarks.serving import BUNDLE, Served, Watch, running, versions, write_images
from polypath.profiling.cores import cores

SCALE = float(os.environ.get("POLYPATH_BENCH_ATTACKS", "1"))
BUDGET_MS = float(os.environ.get("POLYPATH_BENCH_BUDGET_MS", "200"))
OVERLOAD_S, STORM_S, BOMBS_S, WARMUP_S = 60.0 * SCALE, 20.0 * SCALE, 20.0 * SCALE, 3.0 * min(1.0, 4 * SCALE)
STORM_CLIENTS = 256
HOSTILE = max(20, int(2000 * SCALE))
IDLE = max(100, int(10_000 * SCALE))
BOMBERS = 3
MEMORY_PERCENT = 5.0
FILES_FROM_OTHERS = "benchmarks.hostile_files"
"""A module whose ``run()`` gives a dictionary with ``verdicts``, as the parts here do."""


def run() -> dict:
    from polypath.deploy import Bundle

    bundle = Bundle.open(BUNDLE)
    results: dict[str, Any] = {"versions": versions(), "bundle": bundle.name, "cores": cores(), "scale": SCALE}
    with tempfile.TemporaryDirectory() as folder:
        load = {
            "images": write_images(Path(folder), 64, bundle.size),
            "query": f"budget_ms={BUDGET_MS:g}",
            "budget_ms": BUDGET_MS,
        }
        with running("--threads", "1") as served:
            asked = load | {"port": served.port}
            closed = call(
                served, asked | {"mode": "closed", "clients": 32, "seconds": 8.0 * SCALE + 3, "warmup_s": 2.0}
            )
            capacity = results["capacity_per_s"] = max(
                1.0, closed["goodput_per_s"]
            )  # nothing is in time on a busy machine
            at_once = {"mode": "open", "warmup_s": WARMUP_S}
            calm = results["at_capacity"] = call(
                served, asked | at_once | {"rate": capacity, "seconds": STORM_S + WARMUP_S}
            )
            with Watch(served) as watch:  # over all that follows
                for name, part in PARTS.items():
                    print(f"--- {name}")
                    results[name] = part(served, asked, capacity, calm)
                results["still"] = still(served, asked, calm)
            results["memory"] = watch.memory(WARMUP_S)
            results["standard_error"] = served.errors
        with running("--threads", "1") as served:
            results["sigterm"] = sigterm(served, load | {"port": served.port, "rate": capacity})
        results["sigkill"] = sigkill(load | {"rate": capacity})
    if (files := files_from_others()) is not None:
        results["files_from_others"] = files
    results["verdicts"] = {
        f"{name}: {promise}": kept
        for name, part in results.items()
        if isinstance(part, dict)
        for promise, kept in part.get("verdicts", {}).items()
    } | {
        f"memory within {MEMORY_PERCENT:g}% over all of it": results["memory"]["deviation_percent"] <= MEMORY_PERCENT,
    }
    for promise, kept in results["verdicts"].items():
        print(f"{'kept  ' if kept else 'BROKEN'} {promise}")
    return results


# --- the parts ------------------------------------------------------------------------------------------------


def overload(served: Served, load: dict, capacity: float, calm: dict) -> dict:
    """Twice the capacity, whatever comes back."""
    found = call(
        served,
        load
        | {"mode": "open", "rate": 2 * capacity, "seconds": OVERLOAD_S + WARMUP_S, "warmup_s": WARMUP_S, "seed": 1},
    )
    return found | {
        "verdicts": {
            "no client lost, no status but 200 and 503": found["lost_all"] == 0 and not found["other_statuses"],
            "goodput at least 0.9 of that at capacity": found["goodput_per_s"] >= 0.9 * calm["goodput_per_s"],
            "accepted in time at least 99%": found["in_time"] >= 0.99,
            "every refusal with Retry-After": found["refusals_without_retry_after"] == 0,
            "memory within 5%": found["memory"]["deviation_percent"] <= MEMORY_PERCENT,
        }
    }


def storm(served: Served, load: dict, capacity: float, calm: dict) -> dict:
    """Clients that come again the moment they are refused; then silence, and one request."""
    found = call(
        served,
        load | {"mode": "closed", "clients": STORM_CLIENTS, "seconds": STORM_S + WARMUP_S, "warmup_s": WARMUP_S},
    )
    begun = time.perf_counter()
    after = [ask(served, Path(load["images"][0]).read_bytes(), f"budget_ms={BUDGET_MS:g}") for _ in range(5)]
    return found | {
        "goodput_of_that_at_capacity": found["goodput_per_s"] / calm["goodput_per_s"],
        "after": [status for status, _ in after],
        "after_s": time.perf_counter() - begun,
        "verdicts": {
            "no client lost, no status but 200 and 503": found["lost_all"] == 0 and not found["other_statuses"],
            "goodput at least 0.8 of that at capacity": found["goodput_per_s"] >= 0.8 * calm["goodput_per_s"],
            "every refusal with Retry-After": found["refusals_without_retry_after"] == 0,
            "the next requests are answered": [status for status, _ in after] == [200] * 5,
        },
    }


def bombs(served: Served, load: dict, capacity: float, calm: dict) -> dict:
    """Pictures that take long, over and over, from clients of which some leave at once, beside a tenth of the load."""
    quiet = {"mode": "open", "rate": capacity / 10, "seconds": BOMBS_S + WARMUP_S, "warmup_s": WARMUP_S}
    alone = call(served, load | quiet)
    statuses: Counter[str] = Counter()
    stop = threading.Event()
    pictures = [progressive(5700, 5800, 9), progressive(1000, 1000, 480), photo(5000, 4000), lying(8000)]

    def bomber(number: int) -> None:
        while not stop.is_set():
            for picture in pictures:
                if number % 2:
                    with contextlib.suppress(OSError):
                        leave(served.port, picture)
                    statuses["left"] += 1
                    stop.wait(0.2)
                else:
                    statuses[str(ask(served, picture, "budget_ms=20000")[0])] += 1

    with ThreadPoolExecutor(BOMBERS) as pool:
        futures = [pool.submit(bomber, number) for number in range(BOMBERS)]
        beside = call(served, load | quiet | {"seed": 2})
        stop.set()
        for future in futures:
            future.result()
    p99 = alone["answer_ms"]["p99"], beside["answer_ms"]["p99"]
    return {
        "alone": alone,
        "beside": beside,
        "bombs": dict(statuses),
        "p99_ratio": p99[1] / p99[0],
        "verdicts": {
            "ordinary p99 at most doubled": p99[1] <= 2 * p99[0],
            "ordinary clients are answered as before": beside["answered"] >= 0.95 * alone["answered"],
            "bombs get 200, 4xx or 503": all(name == "left" or name in "200 400 422 503" for name in statuses),
        },
    }


def hostile_requests(served: Served, load: dict, capacity: float, calm: dict) -> dict:
    """Drawn as in tests/serve/hostile.py; each must get a 4xx with a reason."""
    from benchmarks.serve_hostile import Case, judge, send_drawn

    def judged(case: Case, answer: bytes) -> str | None:
        """Without a key, what the cases call a wrong one is none."""
        return None if case.kind == "wrong key" else judge(case, answer)

    found = send_drawn(served.port, HOSTILE, judged)
    return {
        "requests": found.statuses.total(),
        "statuses": dict(found.statuses),
        "wrong": found.wrong,
        "slowest_answer_s": found.slowest_answer_s,
        "verdicts": {"every answer is right": not found.wrong, "no 5xx but 503": only_503(found.statuses)},
    }


def idle(served: Served, load: dict, capacity: float, calm: dict) -> dict:
    """Connections that say nothing: those beyond the limit are turned away, and ordinary clients are answered still."""
    wanted = IDLE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = hard if hard == resource.RLIM_INFINITY else max(0, hard - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    number = wanted if room == resource.RLIM_INFINITY else min(wanted, room)
    links: list[socket.socket] = []
    turned_away = refused = 0
    try:
        for _ in range(number):
            try:
                links.append(socket.create_connection(("127.0.0.1", served.port), timeout=5))
            except OSError:
                refused += 1
        with selectors.DefaultSelector() as selector:
            for link in links:
                selector.register(link, selectors.EVENT_READ)
            turned_away = len(selector.select(1.0))
        ready = json.loads(answered(served, "/healthz"))
    finally:
        for link in links:
            link.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    time.sleep(1.0)
    after = [ask(served, Path(load["images"][0]).read_bytes(), "budget_ms=2000")[0] for _ in range(5)]
    return {
        "wanted": wanted,
        "opened": len(links),
        "limited_by_files": number < wanted,
        "not_connected": refused,
        "turned_away": turned_away,
        "healthz_meanwhile": ready,
        "after": after,
        "verdicts": {"answered afterwards": after == [200] * 5, "the process lives": served.process.poll() is None},
    }


PARTS: dict[str, Callable[[Served, dict, float, dict], dict]] = {
    "overload": overload,
    "storm": storm,
    "bombs": bombs,
    "hostile_requests": hostile_requests,
    "idle": idle,
}


def still(served: Served, load: dict, calm: dict) -> dict:
    """After all of it the service does what it did before, and counted no defect."""
    again = call(served, load | {"mode": "closed", "clients": 16, "seconds": 5.0 * SCALE + 2, "warmup_s": 1.0})
    lines = served.get("/metrics").decode().splitlines()
    codes = Counter(
        {
            line.split('"')[1]: int(float(line.split()[1]))
            for line in lines
            if line.startswith("polypath_requests_total{")
        }
    )
    return again | {
        "statuses": dict(codes),
        "verdicts": {
            "no 5xx but 503": only_503(codes),
            "goodput at least 0.9 of that before": again["goodput_per_s"] >= 0.9 * calm["goodput_per_s"],
        },
    }


def sigterm(served: Served, load: dict) -> dict:
    """Under load, with a bomb under way."""
    with ThreadPoolExecutor(1) as pool:
        timer = threading.Timer(3.9, lambda: pool.submit(ask, served, progressive(5700, 5800, 9), "budget_ms=60000"))
        timer.start()
        found = drained(served, load)
        timer.join()
    verdicts = {
        "no client lost": found["lost_all"] == 0,
        "status 0": found["exit_status"] == 0,
        "within 10 s": found["took_s"] <= 10,
    }
    return found | {"verdicts": verdicts}


def sigkill(load: dict) -> dict:
    found = killed(load)
    return found | {"verdicts": {"answers again within 10 s": found["answers_again_s"] <= 10}}


def files_from_others() -> dict | None:
    """What hostile bundles and configs come to, where that part is there."""
    if importlib.util.find_spec(FILES_FROM_OTHERS) is None:
        return None
    return importlib.import_module(FILES_FROM_OTHERS).run()


# --- what they send -------------------------------------------------------------------------------------------


def progressive(width: int, height: int, scans: int) -> bytes:
    """A grey JPEG whose last scan comes so many times more."""
    data = encoded(Image.new("L", (width, height)), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


def photo(width: int, height: int) -> bytes:
    """A large picture of an ordinary client."""
    small = np.random.default_rng(0).integers(0, 256, (height // 50, width // 50, 3), dtype=np.uint8)
    return encoded(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), "JPEG")


def lying(side: int) -> bytes:
    """An AVIF that says it is small; a PNG where this Pillow has no AVIF."""
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


def ask(served: Served, image: bytes, query: str) -> tuple[int, bytes]:
    """(status, body); 0 where nothing came back."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{served.port}/v1/predict?{query}", image, {"Content-Type": "image/png"}
    )
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        return 0, str(error).encode()


def leave(port: int, image: bytes) -> None:
    """Ask, and hang up."""
    head = "POST /v1/predict?budget_ms=20000 HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as link:
        link.sendall(f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image)
        time.sleep(0.05)


def answered(served: Served, place: str) -> bytes:
    """``place``, asked until there is a connection for it."""
    for wait_s in attempts(30.0):
        with contextlib.suppress(OSError):
            return served.get(place)
        time.sleep(wait_s)
    return b'"no answer within 30 s"'


def attempts(seconds: float) -> Iterator[float]:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        yield 0.25


def only_503(statuses: Counter[str]) -> bool:
    return not any(code.startswith("5") and code != "503" for code in statuses)
