"""A sweep on a Ray cluster of this machine, run by tests/test_ray.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import tiny

from polypath.training.own_process import in_process_of_its_own
from polypath.training.sweep import sweep

RECIPE = tiny(epochs=1, data__train_images=64, model__scale=2)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    import ray  # pyright: ignore[reportMissingImports] (an extra)

    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    yield
    ray.shutdown()


def test_a_sweep_on_a_ray_cluster_is_the_one_on_this_machine(tmp_path: Path) -> None:
    there = sweep(RECIPE, [0, 1], {"optim.lr": (0.01, 0.02)}, tmp_path / "ray", cluster="auto", workers=2)
    here = sweep(RECIPE, [0, 1], {"optim.lr": (0.01, 0.02)}, tmp_path / "here", run=in_process_of_its_own)
    assert not there.failed
    assert [row.runs for row in there.rows] == [2, 2]
    assert there.rows == here.rows
    assert there.rows[0] != there.rows[1]
