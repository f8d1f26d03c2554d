"""Joining and starting Ray clusters, with a fake Ray; tests/test_silence.py uses the real one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from polypath.core.cluster import LOOPBACK, join_cluster


@pytest.fixture
def ray(monkeypatch) -> Any:
    """A fake ``ray``; ``ray.started``: by address, the function to start the reporter that ``ray.init`` found."""
    package, private, services = (ModuleType(name) for name in ("ray", "ray._private", "ray._private.services"))
    fake: Any = package
    fake.started, fake.services, fake.error = {}, services, None
    fake.is_initialized = lambda: False

    def init(address: str, **options: Any) -> None:
        if fake.error is not None:
            raise fake.error
        assert options["include_dashboard"] is False
        fake.started[address] = getattr(services, "start_api_server", None)

    fake.init = init
    vars(services)["start_api_server"] = lambda *_, **__: pytest.fail("the reporter was started")
    for module in (package, private, services):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in LOOPBACK:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    return fake


def test_a_new_cluster_is_on_loopback_and_has_no_reporter(ray):
    before: Callable[..., Any] = ray.services.start_api_server
    assert join_cluster("local") is ray
    assert {name: os.environ[name] for name in LOOPBACK} == LOOPBACK
    assert ray.started["local"]("any", port=1) == ("", None)
    assert ray.services.start_api_server is before


def test_a_user_may_agree_to_reports(ray, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    join_cluster("local")
    assert ray.started["local"] is ray.services.start_api_server


def test_another_version_of_ray_runs_unchanged(ray, monkeypatch):
    del ray.services.start_api_server
    join_cluster("local")
    monkeypatch.setitem(sys.modules, "ray._private.services", None)
    join_cluster("auto")
    assert ray.started == {"local": None, "auto": None}


def test_a_connected_ray_stays_connected(ray):
    ray.is_initialized = lambda: True
    assert join_cluster("auto") is ray
    assert ray.started == {}


@pytest.mark.parametrize(
    ("address", "error", "told"),
    [
        ("10.0.0.1:6379", ConnectionError("nothing there"), "--cluster 10.0.0.1:6379: nothing there; run `ray start"),
        ("local", Exception("a node timed out\nand so on"), r"could not start a cluster here \(a node timed out\)"),
    ],
)
def test_a_failed_start_reports_the_reason(address, error, told, ray):
    before, ray.error = ray.services.start_api_server, error
    with pytest.raises(ValueError, match=told):
        join_cluster(address)
    assert ray.services.start_api_server is before
