"""Several processes: the same as one that accumulates, ranks alike to the bit, parts that cover a batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import NET, images, tiny
from torch import nn

from conftest import child_environment
from polypath.core.batchnorm import buffers
from polypath.families.recursive import RecursiveResNet
from polypath.layers.ghost import GhostBatchNorm2d, ghost_norms
from polypath.training.build import eval_batches, train_batches
from polypath.training.distributed import World, buckets, join_world, reduce_gradients
from polypath.training.engine import Engine
from polypath.training.evaluate import evaluate
from polypath.training.path_objectives import SharedEnsemble, TargetRate
from polypath.training.prepare import shard
from polypath.training.recipe import ParallelConfig

HERE = Path(__file__).parent
GATED = RecursiveResNet(blocks=(1, 2), loops=(1, 2), width=4, in_chans=1)
TOLERANCE = 1e-12  # of float64


@pytest.fixture(scope="module", params=[pytest.param(None, marks=pytest.mark.slow)], ids=["two processes"])
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The output of ``ranks.py``, which takes most of a minute, so tests that use it are slow."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, str(HERE / "ranks.py"), str(folder)]
    done = subprocess.run(command, env=child_environment(HERE), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return {row.pop("case"): row for row in map(json.loads, done.stdout.splitlines())}


def test_two_ranks_equal_one_that_accumulates(rows: dict[str, dict[str, Any]]) -> None:
    compared = {name: row for name, row in rows.items() if "off" in row}
    assert len(compared) == len(rows) - 1  # but of "rank"
    for name, row in compared.items():
        assert row["off"] <= TOLERANCE, name
        assert row["off_loss"] <= TOLERANCE, name
        assert row["keys"], name  # the same weights have momentum, so the same ones were alive
        assert row["moved"] > 0.1, name  # the comparison is not of nets that stood still


def test_ranks_are_alike_to_the_bit(rows: dict[str, dict[str, Any]]) -> None:
    for name, row in rows.items():
        assert row["same"], name
        assert row["told"], name


def test_running_statistics_are_those_of_rank_0(rows: dict[str, dict[str, Any]]) -> None:
    for name, row in rows.items():
        assert row["statistics"] == (name == "sync"), name  # each rank sees other images, unless they synchronise
        assert row["shared"], name


def test_parts_of_the_ranks_are_the_batch() -> None:
    recipe = tiny()
    whole = train_batches(images(), recipe, torch.device("cpu"), World())
    halves = [train_batches(images(), recipe, torch.device("cpu"), World(rank, 2)) for rank in range(2)]
    for (x, y), *parts in zip(whole, *halves, strict=True):
        assert torch.equal(x, torch.cat([p[0] for p in parts]))
        assert torch.equal(y, torch.cat([p[1] for p in parts]))
    tests = [eval_batches("test", images(), recipe, torch.device("cpu"), World(rank, 2)) for rank in range(2)]
    assert sum(len(y) for batches in tests for _, y in batches) == len(images().test)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_an_image_counts_once(strategy: Any) -> None:
    """Also under FSDP2, where every rank scores all of them."""

    class Together(World):
        def gather(self, value: Any) -> list[Any]:
            given.append(value)
            return given

    recipe, net, given = tiny(parallel=ParallelConfig(strategy=strategy)), NET.build(0), []
    for rank in range(2):
        world = Together(rank, 2)
        batches = eval_batches("test", images(), recipe, torch.device("cpu"), world)
        scores = evaluate(net, net, batches, world)
    alone = evaluate(net, net, eval_batches("test", images(), recipe, torch.device("cpu"), World()), World())
    assert scores.images == alone.images == len(images().test)
    assert scores.error == pytest.approx(alone.error)
    assert scores.loss == pytest.approx(alone.loss)
    assert scores.balanced_error == pytest.approx(alone.balanced_error)


def test_a_last_batch_that_is_too_small_for_its_parts_is_left_out() -> None:
    train = len(images().train)
    kept = train_batches(images(), tiny(batch_size=train - 4, accumulate=2), torch.device("cpu"), World())
    left = train_batches(images(), tiny(batch_size=train - 3, accumulate=2), torch.device("cpu"), World())
    assert (len(kept), len(left)) == (2, 1)
    with pytest.raises(ValueError, match=r"batch_size = 161.*160 training images"):
        train_batches(images(), tiny(batch_size=161), torch.device("cpu"), World())


def test_buckets_hold_everything_in_order() -> None:
    tensors = [torch.zeros(n) for n in (10, 3, 200, 1)] + [torch.zeros(2, dtype=torch.float64)]
    found = buckets(tensors, limit=60)
    assert [t.numel() for row in found for t in row] == [10, 3, 200, 1, 2]
    assert [len(row) for row in found] == [2, 1, 1, 1]


def test_one_process_exchanges_nothing() -> None:
    p = nn.Parameter(torch.ones(2))
    assert reduce_gradients([p], World(), flag=15) == 15
    assert p.grad is None
    assert World().gather("a") == ["a"]
    with pytest.raises(ValueError, match="needs several processes"):
        shard(NET.build(0), World())


def test_half_set_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ValueError, match="RANK is not"):
        join_world()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strategy": "fsdp", "paths": "rank"}, "same path on every rank"),
        ({"batch_norm": "sync", "paths": "rank"}, "same path on every rank"),
        ({"batch_norm": "ghost"}, "ghost_images"),
        ({"ghost_images": 4}, "ghost_images"),
        ({"strategy": "zero"}, "ddp, fsdp"),
    ],
)
def test_what_cannot_be_shared_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ParallelConfig(**fields)


def test_objectives_and_networks_that_cannot_be_shared_are_refused_before_they_train() -> None:
    ensemble = tiny(objective=SharedEnsemble(routes=("branches=1",)), parallel=ParallelConfig(strategy="fsdp"))
    gated = tiny(model=GATED, objective=TargetRate(), parallel=ParallelConfig(batch_norm="ghost", ghost_images=4))
    for recipe, message in (
        (ensemble, "objective 'ensemble' with parallel.strategy 'fsdp' is not possible: .*use strategy 'ddp'"),
        (gated, "parallel.batch_norm = 'ghost': behind this network's gates.*use 'rank'"),
    ):
        with pytest.raises(ValueError, match=message):
            Engine(recipe, recipe.model.build(0), torch.device("cpu"), World(), 3)


# --- ghost batch-norm --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ghost_norm_is_each_part_by_itself(dtype: torch.dtype, rng: torch.Generator) -> None:
    x = torch.randn(12, 3, 5, 5, generator=rng).to(dtype)
    plain, ghost = nn.BatchNorm2d(3, dtype=dtype), GhostBatchNorm2d(3, dtype=dtype)
    ghost.images = 4
    expected = torch.cat([plain(part) for part in x.split(4)])
    assert torch.equal(ghost(x), expected)
    assert not torch.allclose(nn.BatchNorm2d(3, dtype=dtype)(x), expected, atol=1e-3)
    mean = torch.stack([part.mean((0, 2, 3)) for part in x.split(4)]).mean(0)
    var = torch.stack([part.var((0, 2, 3)) for part in x.split(4)]).mean(0)
    torch.testing.assert_close(ghost.running_mean, 0.1 * mean)
    torch.testing.assert_close(ghost.running_var, 0.9 + 0.1 * var)
    assert ghost.num_batches_tracked == 1


def test_ghost_norm_at_its_extremes(rng: torch.Generator) -> None:
    x = torch.randn(7, 3, 5, 5, generator=rng)
    plain, ghost = nn.BatchNorm2d(3), GhostBatchNorm2d(3)
    ghost.images = 7
    assert torch.equal(ghost(x), plain(x))
    assert torch.equal(buffers(ghost)[1], buffers(plain)[1])
    assert torch.equal(ghost.eval()(x), plain.eval()(x))
    ghost.images = 3
    assert ghost.train()(x).shape == x.shape  # 3, 2, 2
    assert ghost(x[:0]).shape == (0, 3, 5, 5)
    assert buffers(ghost)[1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ghost_norm_takes_the_types_that_batch_norm_takes(dtype: torch.dtype, rng: torch.Generator) -> None:
    x = torch.randn(8, 3, 5, 5, generator=rng)
    for autocast in (False, True):  # weights of the input's type, and of float32
        of_weights = torch.float32 if autocast else dtype
        plain, ghost = nn.BatchNorm2d(3, dtype=of_weights), GhostBatchNorm2d(3, dtype=of_weights)
        ghost.images = 4
        expected = torch.cat([plain(part) for part in x.to(dtype).split(4)])
        assert torch.equal(ghost(x.to(dtype)), expected)
        assert expected.dtype == dtype


def test_ghost_norms_keep_weights_and_names() -> None:
    net = NET.build(0)
    before = {name: p.data_ptr() for name, p in net.state_dict(keep_vars=True).items()}
    ghost_norms(net, 4)
    assert {name: p.data_ptr() for name, p in net.state_dict(keep_vars=True).items()} == before
    assert sum(isinstance(m, GhostBatchNorm2d) for m in net.modules()) == 12
    with pytest.raises(ValueError, match="no batch-norm"):
        ghost_norms(nn.Linear(2, 2), 4)
