"""The service on a Ray cluster of this machine, run by tests/test_ray.py. It writes docs/results/serve_ray.json."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from polypath.serve.callers import is_loopback
from polypath.serve.limits import Key, RequestLimits
from polypath.serve.service import Options
from polypath.storage.files import write_json
from polypath.training.run import environment
from serve.fake import FakeModel, image_bytes, parsed, post, raw, served

ROOT = Path(__file__).resolve().parents[2]
NAME = "polypath-test"
AUTH = "X-API-Key: secret\r\n"


@pytest.fixture(scope="module")
def cluster():
    """(port, seconds until it was ready) of two replicas."""
    from polypath.serve import ray_app

    begun = time.perf_counter()
    options = Options(limits=RequestLimits(body_bytes=2**20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT / "src"), str(ROOT / "tests"))))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        try:
            make = partial(FakeModel, scale=4.0)
            handle, facts = ray_app.start(make, options, address="local", name=NAME, replicas=2, cpus=0.5)
            with served(ray_app.ClusterApp(handle, facts, options, Key("secret"))) as port:
                yield port, time.perf_counter() - begun
            ray_app.stop(NAME)
        finally:
            import ray  # pyright: ignore[reportMissingImports] (an extra)
            from ray import serve  # pyright: ignore[reportMissingImports] (an extra)

            serve.shutdown()
            ray.shutdown()


def ask(port: int, i: int, query: str = "budget_ms=5000", extra: str = AUTH, body: bytes | None = None) -> tuple:
    data = image_bytes(i % 10) if body is None else body
    return parsed(raw(port, post(data, query=query, extra=extra + "Connection: close\r\n")))


def processes(title: str) -> Iterator[int]:
    """Ids of the processes below this one whose command line holds ``title``."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
    for pid in parents:
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        with contextlib.suppress(OSError):
            if above == os.getpid() and title in Path(f"/proc/{pid}/cmdline").read_text():
                yield pid


def listening() -> set[tuple[str, str]]:
    """Addresses on which this process and those below it listen, with the command that does."""
    owners = {}
    for pid in processes(""):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            owners |= dict.fromkeys((os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()), command)
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and (owner := owners.get(f"socket:[{rest[5]}]")) is not None:
                packed = bytes.fromhex(local.split(":")[0])
                words = b"".join(packed[i : i + 4][::-1] for i in range(0, len(packed), 4))
                found.add((socket.inet_ntop(family, words), owner))
    return found


def test_answers_and_refusals_are_those_of_the_single_service(cluster):
    import ray  # pyright: ignore[reportMissingImports] (an extra)

    port, ready_s = cluster
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(partial(ask, port), range(100)))
    assert [(status, body["top"][0]["index"]) for status, _, body in answers] == [(200, i % 10) for i in range(100)]
    found = {
        "wrong key": ask(port, 1, extra="")[0],
        "another host": parsed(raw(port, post(image_bytes(), extra=AUTH).replace(b"localhost", b"evil.example")))[0],
        "long head": ask(port, 1, extra=AUTH + "X: " + "a" * 20_000 + "\r\n")[0],
        "nan budget": ask(port, 1, "budget_ms=nan")[0],
        "no image": ask(port, 1, body=b"x")[0],
        "long body": ask(port, 1, body=bytes(2**21))[0],
        "surrogate": parsed(raw(port, post(b'{"image": "\\ud800"}', "application/json", extra=AUTH)))[0],
        "budget that cannot be met": ask(port, 1, "budget_ms=0.5")[0],
    }
    assert list(found.values()) == [401, 421, 431, 422, 400, 413, 400, 422]
    with ThreadPoolExecutor(64) as pool:
        crowded = [
            status for status, _, _ in pool.map(partial(ask, port, query="budget_ms=500"), range(192))
        ]  # one process asks and serves
    assert set(crowded) <= {200, 422, 503}
    record = {
        "environment": environment(torch.device("cpu")),
        "ray": ray.__version__,
        "replicas": 2,
        "ready_s": ready_s,
        "answers": len(answers),
        "statuses": found,
        "crowded": {str(status): crowded.count(status) for status in sorted(set(crowded))},
    }
    write_json(ROOT / "docs" / "results" / "serve_ray.json", record)
    print(json.dumps(record, indent=2))


def test_paths_and_metrics(cluster):
    def get(place: str) -> tuple:
        head = f"GET {place} HTTP/1.1\r\nHost: localhost\r\n{AUTH}Connection: close\r\n\r\n"
        return parsed(raw(cluster[0], head.encode()))

    assert [row["name"] for row in get("/v1/paths")[2]["paths"]] == ["whole", "middle", "cheap"]
    assert get("/readyz")[0] == 200
    assert ask(cluster[0], 1, "path=cheap")[0] == 200
    assert b'polypath_answered_total{path="cheap"}' in get("/metrics")[2]


def test_a_local_cluster_listens_on_loopback_only(cluster):
    assert listening()
    assert [found for found in listening() if not is_loopback(found[0])] == []


def test_when_replicas_die_the_budget_holds(cluster):
    port, _ = cluster
    ends = time.monotonic() + 8

    def client(_: int) -> list[tuple[int, float]]:
        seen = []
        while time.monotonic() < ends:
            begun = time.perf_counter()
            status, headers, _ = ask(port, 1, "budget_ms=1000")
            seen.append((status, time.perf_counter() - begun))
            assert status == 200 or int(headers["retry-after"]) >= 1
        return seen

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(client, i) for i in range(4)]
        time.sleep(1)
        killed = list(processes("ray::ServeReplica"))
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        seen = [one for future in futures for one in future.result()]
    assert len(killed) == 2
    assert {status for status, _ in seen} == {200, 503}
    assert max(seconds for _, seconds in seen) < 2.5  # a budget of 1 s, and a machine that may be busy
    end = time.monotonic() + 90
    while ask(port, 1)[0] != 200:
        assert time.monotonic() < end, "the replicas do not come back"
        time.sleep(0.5)


def test_a_local_cluster_that_is_too_small_is_refused(cluster):
    from polypath.serve import ray_app

    with pytest.raises(ValueError, match="--replicas 1000"):
        ray_app.start(FakeModel, Options(), address="local", name="other", replicas=1000)
