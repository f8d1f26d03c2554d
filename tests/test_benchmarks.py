"""The counts and checks of the benchmarks, apart from their times, and their page."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import time
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import ablate, deadline, first_answer, harness, models, page, page_ablation, page_worth, roof
from benchmarks.__main__ import main
from PIL import Image

import polypath as pp
from contracts.small import small_net
from polypath.data.config import AugmentConfig, DataConfig
from polypath.data.sources import load_images
from polypath.families.crescendonet import CrescendoNet
from polypath.storage.files import write_json
from polypath.training.muon import products
from polypath.training.objectives import Whole
from polypath.training.optim import OptimConfig, conv_matrices
from polypath.training.path_objectives import DropPath
from polypath.training.recipe import Recipe, recipe_to_json, replace
from polypath.training.result import RunResult
from polypath.training.schedules import ScheduleConfig
from polypath.worth.result import LadderResult, LadderRow, TwinRow


@pytest.mark.parametrize("name", ["crescendonet_128", "fractalnet20", "gunn15", "dfn_mr14", "dr_resnet16_cifar"])
def test_the_roof_counts_every_product(name):
    net = small_net(name).eval()
    found = roof.products(net)
    total = sum(found.macs[shape] * n for shape, n in found.found.items())
    gated = any(join.gates for join in net.wiring.joins.values())
    assert total == pp.cost(net, "loops=max" if gated else None).macs
    assert gated or total == models.macs(net)


def test_what_a_step_holds_grows_with_the_batch_and_counts_no_weights():
    net = CrescendoNet(widths=(4, 6), hidden=(8,)).build(0)
    held = [harness.held_bytes(harness.Step(net, batch).loss, net) for batch in (2, 4, 8)]
    assert held[0] < held[1] < held[2]
    assert held[2] - held[1] == pytest.approx(2 * (held[1] - held[0]), rel=0.01)
    with torch.no_grad():
        assert harness.held_bytes(harness.Step(net, 2).loss, net) == 0


def test_turns_are_as_many_as_the_time_allows(monkeypatch):
    monkeypatch.setattr(harness, "BURST", 0.0)
    calls = []
    times = harness.by_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, seconds=1.0, most=4)
    assert "".join(calls) == "ab" * 5  # including a turn to measure its length
    assert times["a"]["turns"] == 4
    assert times["a"]["min_s"] <= times["a"]["median_s"] <= times["a"]["max_s"]
    calls.clear()
    slow = harness.by_turns({"a": lambda: (calls.append("a"), time.sleep(0.02))}, seconds=0.01)
    assert (len(calls), slow["a"]["turns"]) == (2, 2)  # the first counts


def test_a_turn_of_a_short_task_is_a_burst(monkeypatch):
    monkeypatch.setattr(harness, "BURST", 0.05)
    calls = []
    tasks = {name: (lambda n=name: (calls.append(n), time.sleep(0.01))) for name in "ab"}
    times = harness.by_turns(tasks, seconds=0.1, most=2)
    turns = [len(list(group)) for _, group in itertools.groupby(calls[2:])]
    assert len(turns) == 4
    assert all(2 <= n <= 5 for n in turns)
    assert 0.01 <= times["a"]["min_s"] < 0.04  # of a call


def first(begun_ms: float, path: str | None, ms: float) -> dict[str, Any]:
    """The output of a process: time until a path could start, then the path and its time."""
    said: dict[str, Any] = {"error": "cannot be met"}
    if path is not None:
        said = {"path": path, "path_ms": ms, "ms": begun_ms + ms, "runtime": "torch"}
    times = {"begun_ms": begun_ms, "decoding_ms": 0.75 * begun_ms, "process_s": 2.0, "cpu_s": 1.0}
    return said | times | {"needs_ms": {"whole": 2.0, "column": 1.0}, "typical_ms": {"whole": 1.0, "column": 0.5}}


def test_first_answers_are_in_time_late_or_refused(tmp_path):
    answers = [first(0.5, "whole", 0.5), first(4.0, "column", 1.0), first(4.0, "column", 1.1)]
    found = first_answer.counted([*answers, first(4.5, None, 0.0)])
    assert [found[name] for name in ("processes", "in_time", "late", "refused", "kept")] == [4, 2, 1, 1, False]
    assert found["errors"] == {"cannot be met": 1}
    assert found["waiting_ms"]["max"] == pytest.approx(4.5 / 4)
    assert found["path_ms"]["p50"] == 1.0
    assert first_answer.counted(answers[:2])["kept"]
    first_answer.write_photo(tmp_path / "photo.jpg")
    with Image.open(tmp_path / "photo.jpg") as photo:
        assert (photo.format, photo.size) == ("JPEG", (640, 480))


def test_the_smallest_budget_of_first_answers_is_found_from_their_times():
    """Refused below 4 + 1; the one disturbed row, of a hundred, may be late."""
    rows = [first(4.0, "whole", 1.0)] * 99
    assert first_answer.smallest_budget([*rows, first(50.0, None, 0.0)]) == {"budget_ms": 5.0, "share": 0.99}
    late = first(4.0, "whole", 3.0)  # from 6 on the whole network is chosen, and takes until 7
    assert first_answer.smallest_budget([*rows[1:], late, late]) == {"budget_ms": 7.0, "share": 1.0}
    assert first_answer.smallest_budget([first(4.0, "whole", 2.0), first(1.0, "whole", 2.0)]) == {
        "budget_ms": 5.0,
        "share": 1.0,
    }
    unread = {"error": "cannot be met", "needs_ms": {}, "typical_ms": {}}
    assert first_answer.smallest_budget([*rows, unread]) is None


def test_first_answers_that_are_there_are_not_asked_for_again(tmp_path):
    asked: list[tuple[str, ...]] = []

    def predict(photo, environment, *options):
        asked.append(options)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return {"ms": float(len(asked))}

    with pytest.raises(KeyboardInterrupt):
        first_answer.recorded(tmp_path / "parts", {"cores": 2}, 3, predict)
    with (tmp_path / "parts/rows.jsonl").open("a") as stream:
        stream.write('{"ms": 4')  # killed while it wrote
    rows = first_answer.recorded(tmp_path / "parts", {"cores": 2}, 3, predict)
    assert [row["ms"] for row in rows] == [2.0, 3.0, 5.0]
    assert asked == [("--profile", "3"), *[("--budget-ms", "5")] * 4]
    again = first_answer.recorded(tmp_path / "parts", {"cores": 4}, 1, predict)  # of another machine
    assert [row["ms"] for row in again] == [7.0]


def test_an_unknown_benchmark_is_told(capsys):
    assert main(["nothing"]) == 2
    assert "must be one of startup, roof" in capsys.readouterr().err


def times(**more):
    return {"median_s": 0.2, "min_s": 0.1, "max_s": 0.3, "turns": 3, "precision": "float32", "batch": 64} | more


def made_up() -> dict:
    """Results in the form of the benchmarks, with made-up numbers."""
    rates = {"images_per_s": 320.0, "gmacs_per_s": 21.0, "of_roof": 0.7}
    own = [("eager", 1.0, 0.4), ("eager, channels-last", 0.9, 0.3), ("fused", 2.0, 0.85)]
    infer = [
        times(model=model, whose="ours", way=way, over_eager=x, **rates | {"of_roof": roof, "gmacs_per_s": 30 * roof})
        for model in ("crescendonet_128", "dfn_mr56")
        for way, x, roof in own
    ]
    infer.append(times(model="dfn_mr56", whose="ours", way="fused", over_eager=3.0, **rates) | {"batch": 1})
    ratio = {"model": "gunn15", "rival": "a ResNet", "batch": 64, "precision": "float32", "ratio": 0.5}
    return {
        "training": {
            "environment": {"device_name": "a processor", "threads": 2, "torch": "2", "started": "2020-01-01T00:00:00"},
            "precisions": {"float32": "", "bf16": "not measured: why"},
            "ratios": [ratio, ratio | {"model": "dfn_il56"}],
            "rows": [times(model="crescendonet_128", held_mib=10.0, **rates)],
        },
        "inference": {"rows": infer},
        "roof": {
            "batch_size": 64,
            "rows": [
                {"model": "crescendonet_128", "precision": "float32", "macs": 10**9, "shapes": 4, "gmacs_per_s": 30.0}
            ],
        },
        "gunn": {
            "inference_factor": 2.6,
            "training_factor": 1.4,
            "training_factor_as_written": 2.1,
            "held_over_sunn": 1.0,
            "process_peak_bytes": {},
            "inference_factor_of_roof": 3.0,
            "training_factor_of_roof": 1.8,
        },
        "choices": {"intercept_share": -0.02, "r_squared": 0.99},
        "switches": {
            "rows": [
                {"model": "dfn_il56", "batch": 1, "form": form, "over_eager": 1.5}
                for form in ("folded", "packed", "summed", "all")
            ]
        },
    }


def test_the_page_says_what_holds_what_does_not_and_what_has_not_run():
    results = made_up()
    holds = {what: holds for what, _, _, holds in page.promises(results)}
    assert sum(holds.values()) == 10
    assert [what for what, held in holds.items() if not held] == [
        "GUNN-15 training step, batch 64: speed relative to the concatenating version in its better layout "
        "(the roof allows 1.80)",
        "training step of dfn_il56, batch 64, float32: MACs/s relative to a ResNet",
        "dfn_mr56 inference, batch 1, float32, fused: speed relative to the better eager form",
    ]
    text = page.page({"avx2": results})
    assert "bf16: not measured: why." in text
    assert "Not measured yet: scaling, feeding, gates, startup." in text
    assert "| dfn_il56 | 1 | 1.50 | 1.50 | 1.50 | 1.50 |" in text
    assert "(images/speed.svg)" in text
    ET.fromstring(page.figure(results))
    results["training_bf16"] = {
        "rows": [row | {"precision": "bf16"} for row in results["training"]["rows"]],
        "ratios": [row | {"precision": "bf16"} for row in results["training"]["ratios"]],
    }
    found = {what: measured for what, _, measured, _ in page.promises(results)}
    for what in [what for what in found if "float32: MACs/s relative" in what]:
        assert found[what.replace("float32", "bf16")] == found[what]
    assert "bf16: not measured: why; training steps at batch 64 were measured all the same." in page.page(
        {"avx2": results}
    )
    del results["roof"]
    assert "(images/speed.svg)" not in page.page({"avx2": results})


def test_kinds_of_machine_stand_side_by_side():
    fast, slow = made_up(), made_up()
    slow["training"]["ratios"] = []
    for row in slow["inference"]["rows"]:
        row["over_eager"] *= 0.1
    text = page.page({"amx": fast, "avx2": slow})
    assert "amx: measured on" in text
    assert "avx2: measured on" in text
    assert "| what | aim | amx, measured | holds | avx2, measured | holds |" in text
    lines = [line for line in text.splitlines() if line.startswith("| training step of dfn_il56")]
    assert [line.count("|") for line in lines] == [7]
    assert lines[0].endswith("| not measured | |")
    assert text.index("# On amx") < text.index("# On avx2")
    assert "# On" not in page.page({"avx2": fast})


def test_the_page_judges_gunns_speed_beside_resnext_and_densenet():
    rows = [
        {"model": name, "params": 10**6, "inference_s": seconds, "training_s": 3 * seconds}
        for name, seconds in (("GUNN-24", 0.2), ("ResNeXt", 0.1), ("DenseNet", 0.3))
    ]
    environment = {"device": "cpu", "device_name": "a processor", "threads": 1}
    results = {"gunn_speed": {"environment": environment, "rows": rows}, **made_up()}
    assert "in inference it **holds** and in training it **holds**" in page.page({"avx2": results})
    rows[0]["training_s"] = 1.0
    text = page.page({"avx2": results})
    assert "in inference it **holds** and in training it **does not hold**" in text
    assert "| GUNN-24 | 1,000,000 | 0.2000 | 1.0000 |" in text
    assert "a processor, 1 thread." in text


def test_a_roof_of_a_slow_moment_is_not_believed():
    results = made_up()
    for row in results["inference"]["rows"][:3]:  # those of crescendonet_128
        row["of_roof"] *= 1.5
    found = {what: value for what, _, value, _ in page.promises(page._one_roof(results))}
    assert found["crescendonet_128 inference, batch 64, float32, fused: share of the roof"] == "0.85"
    results["roof"]["rows"][0]["gmacs_per_s"] = 50.0
    found = {what: value for what, _, value, _ in page.promises(page._one_roof(results))}
    assert found["crescendonet_128 inference, batch 64, float32, fused: share of the roof"] == "0.51"
    assert found["crescendonet_128 training step, batch 64, float32: share of the roof"] == "0.42"


def test_the_page_tells_of_budgets_and_gates():
    cell = {"budget_ms": 2.5, "in_time": 0.995, "used_right": 0.96, "used": {"whole": 1500, "half": 500}}
    steps = {"error": 7.25, "macs": 4e6, "macs_forced": 8e6, "ms_an_image": 0.25, "ms_an_image_forced": 0.5}
    results = {
        "anytime": {"requests": 2000, "networks": {"a net": {
            "runtime": "torch", "overhead_p50_ms": {"whole": 0.1, "half": 0.19}, "below_the_cheapest": {"p50_ms": 0.01},
            "budgets": [cell | {"p50": 1.0, "p99": 2.25}],
        }}},
        "dynamic_steps": {"images": 5, "limit": 0.85, "rows": [{
            "batch": 64, "dynamic": steps | {"ratio": 0.9},
            "static": [{"name": "loops=0", "error": 9.0, "macs": 2e6, "ms_an_image": 0.125}],
        }]},
    }  # fmt: skip
    text = page.page({"avx2": results})
    assert "**a net** (torch, overhead 0.19 ms" in text
    assert "| 2.50 | 99.50% | 96.0% | whole 75.0%, half 25.0% | 1.00 | 2.25 |" in text
    assert "| 64 | with gates | 7.2 | 4.0 | 0.250 | 0.900 |" in text
    assert "| 64 | with gates, all open |  | 8.0 | 0.500 |  |" in text
    assert "| 64 | loops=0 | 9.0 | 2.0 | 0.125 |  |" in text


def test_parts_of_the_attacks_are_chosen_and_one_that_fails_counts_as_broken(monkeypatch, capsys):
    from benchmarks import attacks

    assert attacks.chosen_parts() == [*attacks.ON_ONE, *attacks.ON_ITS_OWN, "hostile_files"]
    monkeypatch.setenv("POLYPATH_BENCH_PARTS", "sigkill, storm")
    assert attacks.chosen_parts() == ["storm", "sigkill"]
    monkeypatch.setenv("POLYPATH_BENCH_PARTS", "rain")
    with pytest.raises(ValueError, match="POLYPATH_BENCH_PARTS: 'rain': must be one or more of overload, storm"):
        attacks.chosen_parts()

    def fails() -> dict:
        raise OSError("no more files")

    assert attacks.attempted("idle", fails)["verdicts"] == {"runs to its end": False}
    assert "no more files" in capsys.readouterr().err


@pytest.mark.parametrize("retry", ["at once", "header"])
def test_clients_that_are_turned_away_are_not_lost(retry, tmp_path, capsys):
    from benchmarks.serve_client import Load, drive

    from polypath.serve.app import App
    from polypath.serve.limits import Key, RequestLimits
    from polypath.serve.service import Options
    from serve.fake import FakeModel, image_bytes, served

    (tmp_path / "a.png").write_bytes(image_bytes())
    limits = RequestLimits(connections=2)
    with served(App(FakeModel(), Options(budget_ms=20_000, limits=limits), Key(None))) as port:
        load = Load(port, "closed", 0.5, [str(tmp_path / "a.png")], "path=cheap", 20_000, clients=6, retry=retry)
        found = asyncio.run(drive(load))
    assert found["lost_all"] == found["not_connected"] == found["refusals_without_retry_after"] == 0
    assert found["answered"] > 0
    assert found["refused"] > 0
    assert found["other_statuses"] == []
    if retry == "header":
        assert found["refused"] <= 4 * 2  # each waits for a second


@pytest.mark.slow
def test_a_trace_is_played_on_paths_and_separate_networks(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path))
    monkeypatch.setattr(deadline, "PROFILE_RUNS", 5)
    bundle = pp.Bundle.open()
    draw = np.random.default_rng(0)
    pixels, labels = draw.integers(0, 256, (20, 32, 32, 3), np.uint8), draw.integers(0, 10, 20)
    trace = deadline.deadline.bursty_trace(12, seed=0, busy_spell=4.0)
    found = deadline.measure(bundle, [bundle.with_paths(["column=1"])], pixels, labels, trace)
    ways = {row["way"]: row for row in found["rows"]}
    assert ways["AnytimePredictor"]["value"] <= 1.0
    assert ways["oracle of times and answers"]["value"] >= ways["the best fixed path"]["value"]
    assert ways["oracle of times and answers"]["value"] >= ways["the same rule, measured times"]["value"]
    assert {row["bundle"] for row in found["paths"]} == {bundle.name}
    assert len(found["paths"]) == len(bundle.paths) + 1
    assert found["hypervolume"]["gain"]["value"] >= 0  # the one network is one of the paths
    assert sum(found["used"].values()) == 12


def trace_of(ours: float, fixed: float) -> dict:
    rows = [
        {"way": way, "value": value, "low": value - 0.01, "high": value + 0.01, "only_ours": 3, "only_theirs": 2}
        for way, value in (("AnytimePredictor", ours), ("the best fixed path", fixed))
    ]
    path = {"bundle": "b", "path": "whole", "error": 12.5, "calm_p50_p99_ms": [1.0, 1.5]}
    known = {
        "bundle": "b",
        "runtime": "openvino",
        "requests": 2000,
        "fixed": "column=1",
        "rows": rows,
        "used": {"refused": 990},
    }
    return {"shipped": known | {"paths": [path], "hypervolume": {}}}


def ladder_of(tax: float) -> LadderResult:
    low, high = tax - 1, tax + 1
    alone = TwinRow(tax=tax, low=low, high=high, most=high, error=20 - tax, errors=(20 - tax,), epochs=5, pflop=0.01)
    sizes = {"macs": 24_300_000, "params": 10, "bytes": 40, "shared": 0.5}
    row = LadderRow(name="whole", paths="whole", error=20, error_own=21, errors=(20,), alone={"epochs": alone}, **sizes)
    about = {"device_name": "a processor", "instructions": "AVX2", "torch": "2", "revision": "0123456789abcdef"}
    counted = {"images": 10_000, "recalibrated": 2000, "test_evaluations": 2, "environment": about}
    return LadderResult(
        recipe={"name": page_worth.RECIPES[0]},
        seeds=(0,),
        rows=(row,),
        tax={"epochs": alone},
        pflop={"net": 0.01, "epochs": 0.02},
        bytes={"net": 40, "twins": 40},
        data="images",
        note="",
        **counted,
    )


@pytest.mark.parametrize(
    ("tax", "sentence"), [(1.5, "on average +1.5 points in a FractalNet."), (-0.5, "on average -0.5 points in a")]
)
def test_the_page_of_worth_begins_with_what_was_measured_and_ends_with_what_was_not(tax, sentence):
    text = page_worth.page({"avx2": {"deadline": trace_of(0.8, 0.7)}}, {page_worth.RECIPES[0]: ladder_of(tax)})
    first, _, last = (text.partition("\n\n")[2].partition("\n\n")[0], *text.rpartition("## Not measured yet")[1:])
    said = " ".join(first.split())
    assert "gives 80.0% of answers correctly and in time. Its best single path gives 70.0%." in said
    assert "refuses 990 of 2,000 requests" in said
    assert sentence in said
    assert "| the best fixed path, `column=1` | 70.0% | 69.0% to 71.0% | 3 | 2 |" in text
    assert "| one network | `whole` | 12.50 | 1.00, 1.50 | – |" in text
    assert f"| whole | 24.3 M | – | 21.00 | 20.00 | {20 - tax:.2f} | {tax:+.2f} [" in text
    assert "`crescendonet-cifar10-fast`" in last
    assert "The tax of `fractalnet-cifar10-fast`" not in last
    assert "More than 1 seed of `fractalnet-cifar10-fast`" in last
    assert "python -m benchmarks outside" in last


def test_the_page_of_worth_says_if_nothing_was_measured():
    text = page_worth.page({"": {}}, {})
    assert "Nothing has been measured yet." in text
    assert "python -m benchmarks deadline" in text


MUON = OptimConfig(kind="muon", lr=0.05, rest_lr=0.05, nesterov=True)
ABLATED = {"model.whitening": 4, "data.augment": AugmentConfig(mirror=True, alternate=True), "label_smoothing": 0.1}


def ablated(**changes):
    return replace(tiny_recipe(), ABLATED | {"optim": MUON, "schedule": ScheduleConfig(kind="one-cycle")} | changes)


def tiny_recipe():
    return Recipe(
        name="tiny-fast",
        model=CrescendoNet(widths=(4, 4), scale=2, hidden=(8,), in_chans=1),
        data=DataConfig(validation=60, train_images=160, cache=False),
        objective=DropPath(rate=0.4),
        epochs=3,
        batch_size=32,
        device="cpu",
    )


def test_an_ablation_takes_techniques_out_and_puts_them_in_one_by_one():
    recipe = ablated()
    arms = ablate.arms_of(recipe)
    there = ["muon", "nesterov", "one-cycle", "label smoothing", "alternating flips", "whitening"]
    assert ablate.techniques(recipe) == there
    assert list(arms) == ["all", *(f"without {t}" for t in there), "none", *(f"only {t}" for t in there)]
    assert arms["all"] == recipe
    assert ablate.techniques(arms["none"]) == []
    for name in there:
        left = ablate.techniques(arms[f"without {name}"])
        assert left == [t for t in there if t != name]
        assert ablate.techniques(arms[f"only {name}"]) == [name]
    assert arms["only whitening"].model.whitening == 4
    with pytest.raises(ValueError, match="has none of the techniques muon, nesterov"):
        ablate.arms_of(arms["none"])


def test_epochs_are_those_of_equal_pflop(monkeypatch):
    monkeypatch.setattr(ablate, "DRAWS", 3)
    recipe = ablated()
    prices = ablate.Prices(load_images(recipe.data))
    flop, seconds = prices.epoch(recipe)
    assert seconds > 0
    assert ablate.at_budget(recipe, prices, 5.2 * flop / 1e15).epochs == 5
    assert ablate.at_budget(recipe, prices, 0.01 * flop / 1e15).epochs == 1
    exact = replace(recipe, {"objective": Whole()})
    price, net = prices.price(exact), exact.model.build(0)
    assert price.image == 6 * pp.cost(net, size=8).macs
    assert price.step == 2 * sum(products(len(p), p[0].numel()) for p in conv_matrices(net).values())
    assert prices.price(replace(recipe, {"objective": Whole(), "optim": OptimConfig()})).step == 0


def test_an_ablation_goes_on_and_its_table_holds_errors_on_held_out_images_only(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ablate, "DRAWS", 3)
    trained = []

    def run(recipe, path, slot):
        trained.append((path.name, recipe.epochs))
        path.mkdir()
        write_json(path / "recipe.json", recipe_to_json(recipe))
        off = 10 + recipe.seed + ("nesterov" not in str(path)) - 2 * (path.name.startswith("all"))
        write_json(path / "summary.json", summary(path, off, recipe))
        if len(trained) == 3:
            raise ValueError("it is tried again, and its run is there")

    recipe = replace(tiny_recipe(), {"optim": OptimConfig(nesterov=True), "label_smoothing": 0.1})
    file, out = tmp_path / "ablation.json", tmp_path / "out"
    assert ablate.ablate(recipe, 1e-6, 2, out, plan_only=True, file=file) == {}
    assert not out.exists()
    assert "6 arms, 2 seeds" in capsys.readouterr().out
    assert ablate.ablate(recipe, 1e-6, 2, out, run=run, file=file) == {}
    before = list(trained)
    assert len({name for name, _ in before}) == 12
    assert ablate.ablate(recipe, 1e-6, 2, out, run=run, file=file) == {}
    assert trained == before  # finished runs are only read
    table = json.loads(file.read_text())["recipes"]["tiny-fast"]
    rows = {row["arm"]: row for row in table["rows"]}
    assert "test_error" not in file.read_text()
    assert rows["all"]["val_errors"] == [9, 10]
    assert rows["without nesterov"]["change"] == pytest.approx(1)
    assert rows["without label smoothing"]["change"] == pytest.approx(2)
    assert rows["only nesterov"]["change"] == pytest.approx(-1)
    assert rows["all"]["change"] is None
    with pytest.raises(ValueError, match="an ablation with another pflop"):
        ablate.ablate(recipe, 2e-6, 2, out, run=run, file=file)
    text = page_ablation.page({"tiny-fast": table})
    assert "| without nesterov | " in text
    assert "+1.00 ± 0.00 | -1.00 ± 0.00 |" in text
    assert "Not measured yet: `fractalnet-cifar10-fast`" in text


def summary(path, off, recipe):
    fields = {f.name: None for f in dataclasses.fields(RunResult)}
    known = {"run_dir": str(path), "name": recipe.name, "reported": "last", "epoch": 1, "val_error": float(off)}
    known |= {"test_error": 50.0, "test_loss": 1.0, "test_images": 10, "parameters": 1, "steps": 1, "seconds": 2.0}
    known |= {"device": "cpu", "precision": "fp32", "seed": recipe.seed, "revision": "r", "notes": [], "snapshots": {}}
    return fields | known | {"pflop": 1e-6, "processes": 1, "test_evaluations": 1}


def test_bad_ablations_are_told(tmp_path, capsys):
    options = ["--data", "digits", "--out", str(tmp_path / "out"), "--pflop"]
    for more, message in (
        (["fractalnet-cifar10-fas", *options, "1"], "unknown recipe 'fractalnet-cifar10-fas'"),
        (["fractalnet-cifar10-fast", *options, "0"], "pflop = 0.0: must be a finite number above 0"),
        (["fractalnet-cifar10-fast", *options, "1", "--seeds", "0"], "seeds = 0: must be a whole number of at least 1"),
        (["fractalnet20-cifar10", *options, "1"], "has no held-out images"),
    ):
        assert ablate.main(more) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
