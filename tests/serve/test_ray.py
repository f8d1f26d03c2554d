"""The application under Ray Serve, on a cluster of this machine; slow (a cluster starts). It writes
docs/results/serve_ray.json."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from polypath.serve.limits import KEY_VARIABLE, RequestLimits
from polypath.serve.service import Options
from polypath.storage.files import write_json
from polypath.training.run import environment
from serve.fake import FakeModel, image_bytes, parsed, post, raw

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_same_app_under_ray_serve(monkeypatch):
    ray = pytest.importorskip("ray")
    serve = pytest.importorskip("ray.serve")
    from polypath.serve import ray_app

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT / "src"), str(ROOT / "tests"))))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    key, port = "X-API-Key: secret\r\n", 18431
    begun = time.perf_counter()
    try:
        options = Options(limits=RequestLimits(body_bytes=2**20))
        ray_app.start(partial(FakeModel, scale=4.0), options, address="local", port=port, replicas=2, cpus=0.5)
        started_s = time.perf_counter() - begun

        def ask(i: int, query: str = "budget_ms=5000") -> tuple:
            return parsed(raw(port, post(image_bytes(i % 10), query=query, extra=key + "Connection: close\r\n")))

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(ask, range(100)))
        assert [(status, body["top"][0]["index"]) for status, _, body in answers] == [(200, i % 10) for i in range(100)]
        found = {
            "wrong key": parsed(raw(port, post(image_bytes(), extra="Connection: close\r\n")))[0],
            "nan budget": ask(1, "budget_ms=nan")[0],
            "no image": parsed(raw(port, post(b"x", extra=key + "Connection: close\r\n")))[0],
            "long body": parsed(raw(port, post(bytes(2**21), extra=key + "Connection: close\r\n")))[0],
            "budget that cannot be met": ask(1, "budget_ms=0.5")[0],
        }
        assert found == {
            "wrong key": 401,
            "nan budget": 422,
            "no image": 400,
            "long body": 413,
            "budget that cannot be met": 422,
        }
        with ThreadPoolExecutor(64) as pool:
            crowded = [status for status, _, _ in pool.map(partial(ask, query="budget_ms=120"), range(192))]
        assert set(crowded) <= {200, 503}
        assert 200 in crowded
        record = {
            "environment": environment(torch.device("cpu")),
            "ray": ray.__version__,
            "replicas": 2,
            "ready_s": started_s,
            "answers": len(answers),
            "statuses": found,
            "crowded": {str(status): crowded.count(status) for status in sorted(set(crowded))},
        }
        write_json(ROOT / "docs" / "results" / "serve_ray.json", record)
        print(json.dumps(record, indent=2))
        ray_app.stop()
    finally:
        serve.shutdown()
        ray.shutdown()
