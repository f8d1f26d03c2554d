"""Sends 2,000 hostile requests to ``polypath serve``. Each must get a 4xx with a reason, the process must survive, and
its memory must stay bounded. Requests are generated as in tests/serve/hostile.py. There are also slow senders and giant
bodies."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings

from benchmarks.serving import Watch, running, versions
from polypath.cli.patience import PREPARING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from serve.fake import parsed, post, raw
from serve.hostile import AUTH, KEY, Case, cases, judge, picture

NUMBER = int(os.environ.get("POLYPATH_BENCH_HOSTILE", "2000"))
SLOW, HUGE = 30, 20


@dataclass
class Drawn:
    """The results of the generated requests: the number of each kind and of each status, and the wrong answers."""

    kinds: Counter[str] = field(default_factory=Counter[str])
    statuses: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    slowest_answer_s: float = 0.0


def send_drawn(port: int, number: int, judged: Callable[[Case, bytes], str | None] = judge) -> Drawn:
    """Send ``number`` requests generated as in tests/serve/hostile.py with a fixed seed. ``judged`` returns the reason
    why an answer is wrong, or None if it is right."""
    found = Drawn()

    @settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),  # pyright: ignore[reportArgumentType] (its metaclass iterates)
    )
    @given(case=cases)
    def send(case: Case) -> None:
        begun = time.perf_counter()
        answer = raw(port, case.sent, limit_s=30)
        found.slowest_answer_s = max(found.slowest_answer_s, time.perf_counter() - begun)
        found.kinds[case.kind] += 1
        found.statuses[str(parsed(answer)[0]) if answer else "closed"] += 1
        if (wrong := judged(case, answer)) is not None:
            found.wrong.append(f"{case.kind}: {wrong}")

    send()
    print("\n".join(found.wrong[:20]))
    return found


def run() -> dict:
    with running("--threads", "1", key=KEY) as served, ThreadPoolExecutor(2 * SLOW) as pool:
        served.get("/v1/paths", KEY)
        before = served.rss
        with Watch(served) as watch:
            slow = [pool.submit(slow_sender, served.port, i) for i in range(SLOW)]
            found = send_drawn(served.port, NUMBER)
            huge = [pool.submit(raw, served.port, post(bytes(2**25), extra=AUTH), limit_s=30) for _ in range(HUGE)]
            slow_statuses = Counter(future.result() for future in slow)
            huge_statuses = Counter(parsed(answer)[0] if answer else 0 for answer in (f.result() for f in huge))
        status, _, body = parsed(raw(served.port, post(picture("PNG"), extra=AUTH)))
        metrics = served.get("/metrics", KEY).decode()
        defects = [line for line in metrics.splitlines() if 'status="5' in line and "_created" not in line]
        verdicts = {
            "every answer is right": not found.wrong,
            "no 500": not any('"500"' in line for line in defects),
            "slow senders are cut off": set(slow_statuses) == {408},
            "giant bodies are refused": set(huge_statuses) == {413},
            "the process lives": served.process.poll() is None and status == 200,
            "memory bounded (256 MiB above the start)": watch.memory()["max_mib"] - before / 2**20 <= 256,
            "nothing on standard error": not set(served.errors) - {PREPARING},
        }
    for name, kept in verdicts.items():
        print(f"{'kept  ' if kept else 'BROKEN'} {name}")
    return {
        "versions": versions(),
        "requests": found.kinds.total(),
        "kinds": dict(found.kinds.most_common()),
        "statuses": dict(found.statuses.most_common()),
        "wrong": found.wrong,
        "slowest_answer_s": found.slowest_answer_s,
        "slow_senders": dict(slow_statuses),
        "giant_bodies": {str(code): count for code, count in huge_statuses.items()},
        "rss_before_mib": before / 2**20,
        "memory": watch.memory(),
        "last_answer": body["top"][0] if status == 200 else json.dumps(body),
        "server_errors": defects,
        "standard_error": served.errors,
        "verdicts": verdicts,
    }


def slow_sender(port: int, number: int) -> int:
    """Send a request slowly: its head, or for every second ``number`` its body. Return the status."""
    if number % 2:
        parts = [b"POST /v1/predict HTTP/1.1\r\n", *(b"X: a\r\n" for _ in range(60))]
        return parsed(raw(port, parts, pause_s=0.25, limit_s=60))[0]
    parts = [post(picture("PNG"), extra=AUTH)[:-200], *(b"a" for _ in range(60))]
    return parsed(raw(port, parts, pause_s=0.5, limit_s=60))[0]
