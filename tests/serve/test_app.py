"""The service over HTTP on loopback: answers, refusals, keys, metrics, its page, its shutdown."""

from __future__ import annotations

import base64
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from polypath.cli import main
from polypath.serve.app import App
from polypath.serve.callers import is_loopback
from polypath.serve.limits import Key, RequestLimits
from polypath.serve.server import Server, listen
from polypath.serve.service import Options, batch_sizes
from serve.fake import FakeModel, Gate, image_bytes, parsed, post, raw, served, whole


@pytest.fixture(scope="module")
def server():
    app = App(FakeModel(), Options(top_k=3), Key(None))
    with served(app) as port:
        yield port, app


def get(port: int, place: str, extra: str = "") -> tuple:
    return parsed(raw(port, f"GET {place} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode()))


def ask(port: int, body: bytes, kind: str = "image/png", query: str = "", extra: str = "") -> tuple:
    return parsed(raw(port, post(body, kind, query, extra)))


def test_handlers_of_other_packages_stay_open():
    closed = []

    class Handler(logging.Handler):
        def close(self) -> None:
            closed.append(self)
            super().close()

    handler = Handler()  # like absl's, which OpenVINO imports: it also closes the stream that it writes to
    Server(App(FakeModel(), Options(top_k=3), Key(None)))
    assert not closed
    assert logging.getLogger("uvicorn.error").propagate  # so errors reach the handlers of the root logger
    handler.close()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_image_bytes(server, kind):
    status, _, body = ask(server[0], image_bytes(4, kind), f"image/{kind.lower()}", "budget_ms=20000&top_k=2")
    assert status == 200
    assert (body["path"], body["error_percent"], body["batch"]) == ("whole", 10.0, 1)
    assert [row["class"] for row in body["top"]] == ["class4", "class0"]
    assert body["top"][0] == {"class": "class4", "index": 4, "probability": 0.91}
    assert 0 < body["ms"]["inference"] < body["ms"]["total"] < 20_000


def test_json_and_multipart(server):
    document = json.dumps({"image": base64.b64encode(image_bytes(5)).decode(), "path": "cheap"}).encode()
    status, _, body = ask(server[0], document, "application/json")
    assert (status, body["path"], body["top"][0]["index"], len(body["top"])) == (200, "cheap", 5, 3)
    part = (
        b'--X\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + image_bytes(6) + b"\r\n--X--\r\n"
    )
    status, _, body = ask(server[0], part, "multipart/form-data; boundary=X", "path=middle")
    assert (status, body["path"], body["top"][0]["index"]) == (200, "middle", 6)


def test_a_long_body_is_parsed_off_the_event_loop(server):
    image = image_bytes(2, "BMP", (300, 300))
    document = json.dumps({"image": base64.b64encode(image).decode(), "top_k": 1}).encode()
    assert len(document) > 2**17
    assert ask(server[0], document, "application/json")[2]["top"][0]["index"] == 2


def test_the_budget_chooses_the_path(server):
    chosen = {ms: ask(server[0], image_bytes(), query=f"budget_ms={ms}")[2].get("path") for ms in (20_000, 5000)}
    assert chosen == {20_000: "whole", 5000: "whole"}
    status, _, body = ask(server[0], image_bytes(), query="budget_ms=1.0")  # the cheapest needs 1.44 ms
    assert (status, body["error"]["field"]) == (422, "budget_ms")
    assert "cheap" in body["error"]["legal"]
    status, _, body = ask(server[0], image_bytes(), query="budget_ms=2&path=whole")
    assert (status, body["error"]["field"]) == (422, "budget_ms")


def test_paths_health_and_page(server):
    port, _ = server
    status, _, body = get(port, "/v1/paths")
    assert status == 200
    assert [row["name"] for row in body["paths"]] == ["whole", "middle", "cheap"]
    assert {row["precision"] for row in body["paths"]} == {"f32"}
    assert 1.2 <= body["paths"][2]["p99_idle_ms"] <= 1.44  # by the profile, or what other tests' requests took
    assert len(body["classes"]) == 10
    assert get(port, "/healthz")[2] == {"status": "ok"}
    assert get(port, "/readyz")[2] == {"status": "ready"}
    api = get(port, "/openapi.json")[2]
    assert set(api["paths"]) == {"/v1/predict", "/v1/paths", "/healthz", "/readyz", "/metrics"}
    predict = api["paths"]["/v1/predict"]["post"]
    assert {parameter["name"] for parameter in predict["parameters"]} == {"budget_ms", "top_k", "path", "allow_cheaper"}
    assert {"200", "401", "413", "422", "503"} <= set(predict["responses"])
    page = get(port, "/docs")[2].decode()
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert any("swagger-ui-bundle.js" in source for source in sources)
    assert all(source.startswith("/") for source in sources)  # nothing comes from another host
    assert {get(port, source)[0] for source in sources} == {200}


def test_unknown_routes_and_methods(server):
    status, _, body = get(server[0], "/v1/nope")
    assert status == 404
    assert "POST /v1/predict" in body["error"]["legal"]
    status, headers, body = get(server[0], "/v1/predict")
    assert (status, headers["allow"]) == (405, "POST")
    assert body["error"]["value"] == "GET /v1/predict"


def test_metrics_count(server):
    def count(name: str) -> float:
        lines = get(server[0], "/metrics")[2].decode().splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " ")), 0.0)

    good, bad = 'polypath_answered_total{path="cheap"}', 'polypath_refused_total{reason="top_k"}'
    before = count(good), count(bad), count("polypath_batch_images_count")
    ask(server[0], image_bytes(), query="path=cheap")
    ask(server[0], image_bytes(), query="top_k=0")
    assert (count(good), count(bad), count("polypath_batch_images_count")) == (
        before[0] + 1,
        before[1] + 1,
        before[2] + 1,
    )
    assert count("polypath_queue") == 0
    assert count("process_resident_memory_bytes") > 1e7


def test_load_is_shed_with_retry_after_and_no_answer_is_another_ones():
    def one(i: int) -> tuple:
        return i % 10, *ask(port, image_bytes(i % 10), query="budget_ms=500&path=whole")

    with served(App(FakeModel(scale=10), Options(), Key(None))) as port, ThreadPoolExecutor(80) as pool:
        results = list(pool.map(one, range(160)))
    answered = [(wanted, body) for wanted, status, _, body in results if status == 200]
    refused = [(headers, body) for _, status, headers, body in results if status == 503]
    assert len(answered) + len(refused) == 160
    assert answered
    assert refused
    assert all(body["top"][0]["index"] == wanted for wanted, body in answered)
    assert max(body["batch"] for _, body in answered) > 1
    for headers, body in refused:
        assert int(headers["retry-after"]) >= 1
        assert body["error"]["retry_after_ms"] >= 0


def test_keys():
    with served(App(FakeModel(), Options(), Key("secret"))) as port:
        assert ask(port, image_bytes(), extra="Authorization: Bearer secret\r\n")[0] == 200
        assert ask(port, image_bytes(), extra="X-API-Key: secret\r\n")[0] == 200
        for wrong in (
            "",
            "Authorization: Bearer Secret\r\n",
            "Authorization: Basic secret\r\n",
            "X-API-Key: secret2\r\n",
        ):
            status, headers, body = ask(port, image_bytes(), extra=wrong)
            assert (status, headers["www-authenticate"], body["error"]["field"]) == (401, "Bearer", "key")
        for place, status in (
            ("/v1/paths", 401),
            ("/metrics", 401),
            ("/docs", 401),
            ("/healthz", 200),
            ("/readyz", 200),
        ):
            assert get(port, place)[0] == status
    with pytest.raises(ValueError, match="POLYPATH_API_KEY"):
        Key("tab\there")


def test_a_defect_is_a_500_without_its_text_and_others_are_answered():
    model = FakeModel()
    with served(App(model, Options(), Key(None))) as port:
        model.fail = True
        status, _, body = ask(port, image_bytes())
        assert (status, "bug in the service" in body["error"]["message"]) == (500, True)
        model.fail = False
        assert ask(port, image_bytes())[0] == 200


def test_requests_and_connections_are_bounded():
    model, limits = FakeModel(), RequestLimits(requests=1, connections=3)
    with served(App(model, Options(budget_ms=60_000, limits=limits), Key(None))) as port:
        model.gate = Gate()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(ask, port, image_bytes())
            assert model.gate.reached.wait(30)
            status, headers, body = ask(port, image_bytes())
            assert (status, headers["retry-after"]) == (503, "1")
            assert "1 requests" in body["error"]["message"]
            assert get(port, "/healthz")[0] == 200  # a busy server still answers health checks
            model.gate.open()
            assert first.result()[0] == 200
        links = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(3)]
        for link in links:
            link.sendall(b"P")  # a head has begun, so each keeps its place
        time.sleep(0.2)
        links.append(socket.create_connection(("127.0.0.1", port), timeout=30))
        assert b" 503 " in links[3].recv(65536)
        for link in links:
            link.close()


def test_the_event_loop_goes_on_while_an_image_is_decoded():
    model = FakeModel()
    with served(App(model, Options(budget_ms=60_000), Key(None))) as port, ThreadPoolExecutor(1) as pool:
        model.decode_gate = Gate()
        slow = pool.submit(ask, port, image_bytes())
        assert model.decode_gate.reached.wait(30)
        assert get(port, "/healthz")[0] == 200
        assert not slow.done()
        model.decode_gate.open()
        assert slow.result()[0] == 200


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: RequestLimits(queue=0), "queue = 0"),
        (lambda: RequestLimits(head_seconds=float("nan")), "head_seconds = nan"),
        (lambda: RequestLimits(pixels=True), "pixels = True"),
        (lambda: Options(budget_ms=0), "budget_ms = 0"),
        (lambda: Options(top_k=0), "top_k = 0"),
        (lambda: Options(max_batch=1000), "max_batch = 1000"),
    ],
)
def test_options_are_checked(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_batch_sizes_and_loopback():
    assert batch_sizes(16) == (1, 2, 4, 8, 16)
    assert batch_sizes(1) == (1,)
    assert batch_sizes(12) == (1, 2, 4, 8)
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.5", "example.org")] == [False] * 4


# --- processes -----------------------------------------------------------------------------------------


def start(*args: str) -> tuple[subprocess.Popen, int]:
    command = [sys.executable, str(Path(__file__).parent / "process.py"), *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "[]\n"  # nothing of the service is imported before it is used
    port = int(process.stdout.readline())
    assert get(port, "/readyz")[0] == 200  # the announced port answers at once
    return process, port


def test_sigterm_answers_everything_accepted_and_leaves_with_status_0():
    process, port = start("10")  # 40 images take half a second
    bystander = socket.create_connection(("127.0.0.1", port), timeout=30)  # an open connection that says nothing yet
    try:
        with ThreadPoolExecutor(40) as pool:
            asked = [pool.submit(ask, port, image_bytes(i % 10), "image/png", "budget_ms=60000") for i in range(40)]
            in_flight = 0.0
            while in_flight - 1 + sum(future.done() for future in asked) < 40:  # all are accepted; 1 is this question
                lines = get(port, "/metrics")[2].decode().splitlines()
                in_flight = next(float(line.split()[1]) for line in lines if line.startswith("polypath_in_flight "))
            process.send_signal(signal.SIGTERM)
            bystander.sendall(post(image_bytes()))
            late = b""
            while not whole(late):
                late += bystander.recv(65536)
            answers = [future.result() for future in asked]
        assert process.wait(30) == 0
        assert parsed(late)[0] in (200, 503)  # before or after the signal was seen, but answered
        assert [(status, body["top"][0]["index"]) for status, _, body in answers] == [(200, i % 10) for i in range(40)]
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1)
        assert process.stderr is not None
        told = process.stderr.read().splitlines()
        # extensions of other packages may report leaked objects when the interpreter ends
        ours = [line for line in told if "leak" not in line and not line.startswith(("nanobind:", " - "))]
        assert ours == []
    finally:
        bystander.close()
        process.kill()


def test_everything_has_run_once_before_the_first_request():
    model = FakeModel()
    App(model, Options(max_batch=4), Key(None)).measure()
    assert set(model.ran) == {(path, size) for path in ("whole", "middle", "cheap") for size in (1, 2, 4)}


def test_a_draining_service_refuses_and_closes():
    app = App(FakeModel(), Options(), Key(None))
    with served(app) as port:
        app.drain()
        status, headers, body = ask(port, image_bytes())
        assert (status, headers["connection"], headers["retry-after"]) == (503, "close", "1")
        assert "shutting down" in body["error"]["message"]
        status, headers, body = get(port, "/readyz")
        assert (status, headers["connection"], body["status"]) == (503, "close", "draining")
        assert get(port, "/healthz")[0] == 200


@pytest.mark.parametrize(("soft", "hard", "then", "told"), [(64, 4096, 2200, False), (64, 300, 300, True)])
def test_the_limit_on_open_files_is_raised_for_all_connections(soft, hard, then, told):
    resource = pytest.importorskip("resource")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip("the system allows fewer files")
    code = f"""
import resource
from polypath.serve.server import allow_connections
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
allow_connections(1000)
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == f"({then}, {hard})\n"
    assert ("ulimit -n" in found.stderr) == told


def test_a_port_in_use_is_one_line_and_status_2(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match="in use"):
            listen("127.0.0.1", port)
        assert main(["serve", "--port", str(port)]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--host", "0.0.0.0"], "POLYPATH_API_KEY"),
        (["--port", "70000"], "--port: '70000' is not a whole number from 0 to 65535"),
        (["--budget-ms", "nan"], "budget_ms = nan"),
        (["--profile", "never"], "--profile: 'never' is not stored, fresh or a number"),
        (["--max-batch", "1000"], "max_batch = 1000"),
        (["--max-body-mb", "0"], "--max-body-mb: '0'"),
        (["--host", "no.such.host.invalid", "--without-key"], "no.such.host.invalid"),
        (["no/such/bundle", "--port", "0"], "no/such/bundle"),
    ],
)
def test_bad_commands_are_one_line_and_status_2(args, told, capsys, monkeypatch):
    monkeypatch.delenv("POLYPATH_API_KEY", raising=False)
    assert main(["serve", *args]) == 2
    error = capsys.readouterr().err.strip()
    assert told in error
    assert error.count("\n") == 0


def test_a_missing_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve"]) == 2
    assert "pip install 'polypath[serve]'" in capsys.readouterr().err


def test_event_loop_lag_is_taken_off_the_budget():
    """Where the event loop is late, a request has waited before it was read."""
    model = FakeModel()
    app = App(model, Options(), Key(None))
    with served(app) as port:
        assert parsed(raw(port, post(image_bytes(3), query="budget_ms=1500")))[0] == 200
        assert app.service is not None
        app.service.times.lag = lambda now: 2.0
        status, _, body = parsed(raw(port, post(image_bytes(3), query="budget_ms=1500")))
        assert (status, "too busy" in body["error"]["message"]) == (503, True)
        assert parsed(raw(port, post(image_bytes(3), query="budget_ms=5000")))[0] == 200
