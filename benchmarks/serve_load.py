"""Checks whether the service keeps its promises at twice its capacity. The capacity is measured first, with clients
that wait for their answers. Then requests are sent at twice that rate for 60 s, without waiting for answers. Then
SIGTERM and SIGKILL are sent under load.

The load generator runs on the same machine. Its share of the cores is reported. Times are measured by the client, from
the last byte sent to the last byte read. The times measured by the service are also reported.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.serving import BUNDLE, Served, Watch, running, start, versions, write_images
from polypath.profiling.cores import cores

BUDGET_MS = float(os.environ.get("POLYPATH_BENCH_BUDGET_MS", "200"))
SECONDS = float(os.environ.get("POLYPATH_BENCH_SECONDS", "60"))
WARMUP_S, CAPACITY_S, CLIENTS = 5.0, 8.0, (8, 16, 32, 48)
IMAGES = 64
SENDING_ON_S = 0.15  # seconds that the generator continues after SIGTERM, less than the service's 0.3 s of grace


def run() -> dict:
    from polypath.deploy import AnytimePredictor, Bundle

    bundle = Bundle.open(BUNDLE)
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder), IMAGES, bundle.size)
        predictor = AnytimePredictor(bundle, threads=1)
        order = predictor.profile(16)
        path = max(bundle.paths, key=lambda p: (-(p.error if p.error is not None else 100.0), p.macs)).name
        labels = [int(predictor.predict([name], path=path).labels[0]) for name in images]
        common: dict[str, Any] = {
            "images": images,
            "query": f"budget_ms={BUDGET_MS:g}&path={path}",
            "budget_ms": BUDGET_MS,
        }
        with running("--threads", "1") as served:
            common["port"] = served.port
            first_start_s = served.ready_s
            closed = [
                {
                    "clients": n,
                    **call(
                        served,
                        common
                        | {"mode": "closed", "clients": n, "seconds": CAPACITY_S, "warmup_s": 2.0, "labels": labels},
                    ),
                }
                for n in CLIENTS
            ]
            capacity = max(row["goodput_per_s"] for row in closed)
            alone = 16e3 / order[path].p50
            print(f"capacity {capacity:.0f} images/s by {path}; {predictor.runtime.name} alone {alone:.0f}/s")
            load = {"mode": "open", "rate": 2 * capacity, "seconds": SECONDS + WARMUP_S, "warmup_s": WARMUP_S}
            over = call(served, common | load | {"seed": 1})
            cheaper = call(
                served,
                common | load | {"seconds": 20 + WARMUP_S, "seed": 2, "query": common["query"] + "&allow_cheaper=1"},
            )
            alive = json.loads(served.get("/readyz"))
        with running("--threads", "1") as served:
            drain = drained(served, common | {"port": served.port, "rate": 1.5 * capacity})
        kill = killed(common | {"rate": capacity})
    good = over["goodput_per_s"] / capacity
    verdicts = {
        "no request lost or hung": over["lost_all"] + over["not_connected"] == 0 and not over["other_statuses"],
        "no answer of another image": over["answers_of_other_images"] == 0,
        "goodput at least 0.9 of capacity": good >= 0.9,
        "accepted in time at least 99%": over["in_time"] >= 0.99,
        "refused within 50 ms (99%)": over["refused_within_50_ms"] >= 0.99
        and over["refusals_without_retry_after"] == 0,
        "memory within 5%": over["memory"]["deviation_percent"] <= 5,
        "drained": drain["lost_all"] == 0 and drain["exit_status"] == 0,
        "restarted within 10 s": kill["answers_again_s"] <= 10,
    }
    for name, kept in verdicts.items():
        print(f"{'kept  ' if kept else 'BROKEN'} {name}")
    return {
        "versions": versions(),
        "bundle": bundle.name,
        "path": path,
        "runtime": predictor.runtime.name,
        "inference_threads": 1,
        "budget_ms": BUDGET_MS,
        "cores": cores(),
        "first_start_s": first_start_s,
        "runtime_alone_per_s_at_16": alone,
        "capacity_per_s": capacity,
        "closed": closed,
        "overload": over | {"goodput_of_capacity": good},
        "overload_cheaper_allowed": cheaper,
        "ready_after": alive,
        "drain": drain,
        "kill": kill,
        "verdicts": verdicts,
    }


def generator(load: dict) -> tuple[subprocess.Popen, float]:
    """Start a load generator. Return its process and its start time."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serve_client"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(load) + "\n")
    process.stdin.flush()
    process.stdout.readline()
    return process, time.perf_counter()


def call(served: Served, load: dict) -> dict:
    """Run one load. Return its results, with memory and CPU time of the service."""
    process, _ = generator(load)
    assert process.stdout is not None
    with Watch(served) as watch:
        result = json.loads(process.stdout.readline())
        process.wait(60)
    result["service_cpu_share"] = watch.cpu_share
    result["service_loop_share"], result["service_other_shares"] = watch.loop_share, watch.other_shares
    result["memory"] = watch.memory(load.get("warmup_s", 0.0))
    print(
        f"{load['mode']:6} answered {result['answered_per_s']:.0f}/s of {result['offered_per_s']:.0f}/s, in time "
        f"{result['in_time']:.2%}, {result['answer_ms']}, refusals {result['refusal_ms']}, "
        f"lost {result['lost_all']}, cores: service {watch.cpu_share:.2f} (event loop {watch.loop_share:.2f}), "
        f"generator {result['cpu_share']:.2f}"
    )
    return result


def drained(served: Served, load: dict) -> dict:
    """Send SIGTERM during a load."""
    process, _ = generator(load | {"mode": "open", "seconds": 20.0, "stop_on_line": True})
    assert process.stdin is not None
    assert process.stdout is not None
    time.sleep(4)
    served.process.send_signal(signal.SIGTERM)
    begun = time.perf_counter()
    time.sleep(SENDING_ON_S)
    process.stdin.write("\n")
    process.stdin.flush()
    status = served.process.wait(60)
    took = time.perf_counter() - begun
    result = json.loads(process.stdout.readline())
    process.wait(60)
    return result | {"exit_status": status, "took_s": took, "said": served.errors}


def killed(load: dict) -> dict:
    """Send SIGKILL during a load, then restart."""
    served = start("--threads", "1")
    process, _ = generator(load | {"port": served.port, "mode": "open", "seconds": 20.0, "stop_on_line": True})
    assert process.stdin is not None
    time.sleep(2)
    served.process.kill()
    served.process.wait(10)
    begun = time.perf_counter()
    process.stdin.write("\n")
    process.stdin.flush()
    with running("--threads", "1") as again:
        result = call(again, load | {"port": again.port, "mode": "closed", "clients": 1, "seconds": 0.5})
        answers_s = time.perf_counter() - begun - 0.5
        process.kill()
        process.wait(10)
        return {"ready_s": again.ready_s, "answers_again_s": answers_s, "answered": result["answered"]}
