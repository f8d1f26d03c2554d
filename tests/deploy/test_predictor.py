from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.modules.module import register_module_forward_hook

from conftest import child_environment
from polypath.deploy import AnytimePredictor, BudgetError, decoder, latency_profile
from polypath.deploy.bundle import rank
from polypath.deploy.latency import PathLatency
from polypath.deploy.manifest import Rung

pytest.importorskip("onnxruntime")


@pytest.fixture
def predictor(bundle, set_times):
    return AnytimePredictor(bundle, "onnxruntime", threads=1)


def test_answers_are_the_network_s_with_its_temperature(predictor, bundle, images):
    for path in bundle.paths:
        answer = predictor.predict(images, path=path.name)
        x = torch.from_numpy(bundle.preparation.normalised(images))
        with torch.inference_mode():
            wanted = (bundle.extracted(path.name)(x) / path.temperature).softmax(1).numpy()
        np.testing.assert_allclose(answer.probabilities, wanted, rtol=1e-4, atol=1e-4)
        assert (answer.labels == wanted.argmax(1)).all()
        assert answer.path == path.name
        assert answer.ms > 0
    one, other = (predictor.predict(images, path=p).probabilities for p in ("column=1", "whole"))
    assert not np.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_runtimes_agree(predictor, bundle, images, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    other = AnytimePredictor(bundle, runtime, threads=1)
    for name in ("column=1", "whole"):
        a, b = (p.predict(images, path=name).probabilities for p in (predictor, other))
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_predictors_and_answers_are_short_lines(predictor, bundle, images):
    assert (
        repr(predictor) == f"AnytimePredictor({bundle.name!r}, {len(bundle.paths)} paths, onnxruntime, f32, threads=1)"
    )
    one, many = predictor.predict(images[:1]), predictor.predict(images)
    assert one.top(1)[0][0][0] in repr(one)
    assert f"{len(images)} images" in repr(many)
    assert len(repr(many)) < 100


def test_the_most_accurate_path_within_the_budget_is_taken(predictor, bundle, images):
    """Times go from 1 to 5 ms; the last ones are the caller's own microseconds."""
    ranked = [p.name for p in rank(bundle.paths)]
    need = dict(zip([p.name for p in bundle.paths], np.linspace(1.0, 5.0, len(bundle.paths)), strict=True))
    for budget in (1.0, 1.5, 2.5, 4.0, 10.0):
        wanted = next(name for name in ranked if need[name] <= budget)
        assert predictor.choose(budget, 3) == wanted
    assert predictor.predict(images).path == ranked[0]
    assert predictor.predict(images, budget_ms=1e5).path == ranked[0]


def test_an_impossible_budget_is_refused_at_once(predictor, images, monkeypatch):
    monkeypatch.setattr(predictor, "prepared", lambda *asked: pytest.fail("decoded what cannot be answered"))
    with pytest.raises(BudgetError, match=r"cannot be met: the cheapest path needs 1 ms") as caught:
        predictor.predict(images, budget_ms=0.5)
    assert (caught.value.budget_ms, caught.value.needs_ms) == (0.5, 1.0)


def test_an_impossible_budget_is_tried_if_late_answers_are_allowed(predictor, bundle, images):
    cheapest = min(bundle.paths, key=lambda path: path.macs).name
    answer = predictor.predict(images, budget_ms=1e-6, allow_late=True)
    assert (answer.path, answer.budget_ms) == (cheapest, 1e-6)
    assert answer.ms > answer.budget_ms
    assert np.array_equal(answer.probabilities, predictor.predict(images, path=cheapest).probabilities)
    assert predictor.predict(images, budget_ms=1e5, allow_late=True).path == predictor.predict(images).path
    with pytest.raises(ValueError, match="allow_late = True: is only allowed with budget_ms"):
        predictor.predict(images, allow_late=True)


def test_decoding_counts_against_the_budget(predictor, images, monkeypatch):
    prepared = predictor.prepared
    monkeypatch.setattr(predictor, "prepared", lambda *asked: (time.sleep(0.02), prepared(*asked))[1])
    with pytest.raises(BudgetError, match="budget_ms 6 cannot"):
        predictor.predict(images, budget_ms=6.0)


def test_a_large_image_is_the_same_and_ends_with_the_budget(predictor, monkeypatch):
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(stream, "PNG")
    data = stream.getvalue()
    wanted = predictor.predict(data).probabilities
    monkeypatch.setattr(decoder, "LARGE", 0)
    assert (predictor.predict(data, budget_ms=1e6).probabilities == wanted).all()

    def late(*asked):
        time.sleep(0.05)
        raise decoder.DecodingLate(0.05)

    monkeypatch.setattr(decoder.Decoder, "apart", late)
    for ask_for in (
        lambda: predictor.predict(data, budget_ms=1e6),
        lambda: predictor.predict_confident(data, risk=0.9, budget_ms=1e6),
        lambda: list(predictor.predict_until(data, time.monotonic() + 1e3)),
    ):
        with pytest.raises(BudgetError) as caught:
            ask_for()
        assert caught.value.decoding_ms >= 50.0
    assert (predictor.predict(data).probabilities == wanted).all()  # no budget, no deadline


@pytest.mark.parametrize("budget", [math.nan, math.inf, 0.0, -1.0, True, "2"])
def test_illegal_budgets_are_refused(predictor, images, budget):
    with pytest.raises(ValueError, match="budget_ms"):
        predictor.predict(images, budget_ms=budget)
    with pytest.raises(ValueError, match="budget_ms"):
        predictor.predict_confident(images, risk=0.9, budget_ms=budget)


def test_other_mistakes_are_refused(predictor, images):
    for arguments, words in (
        ({"path": "column=9"}, "give one of column=1"),
        ({"path": "whole", "budget_ms": 3.0}, "give only one of them"),
        ({"top_k": 11}, "from 1 to 10"),
    ):
        with pytest.raises(ValueError, match=words):
            predictor.predict(images, **arguments)
    for ask in (predictor.profile, predictor.latencies):
        with pytest.raises(ValueError, match="batch = 0"):
            ask(0)
    with pytest.raises(ValueError, match="deadline = nan"):
        predictor.predict_until(images, math.nan)
    for name, words in (("tensorrt", "must be auto or one of"), ("cuda-graphs", "no CUDA device")):
        if name == "cuda-graphs" and torch.cuda.is_available():
            continue
        with pytest.raises(ValueError, match=words):
            AnytimePredictor(predictor.bundle, name)
    with pytest.raises(ValueError, match="threads"):
        AnytimePredictor(predictor.bundle, "torch", threads=0)
    with pytest.raises(ValueError, match="precision"):
        AnytimePredictor(predictor.bundle, "torch", precision="int8")


def test_a_missing_runtime_says_what_to_install(bundle, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'polypath\[deploy\]'"):
        AnytimePredictor(bundle, "onnxruntime")


def test_top_gives_names_and_probabilities(predictor, images):
    answer = predictor.predict(images)
    top = answer.top(3)
    assert len(top) == 3
    assert top[0][0][0] == answer.classes[answer.labels[0]]
    assert all(a[1] >= b[1] for row in top for a, b in itertools.pairwise(row))
    assert sum(p for _, p in answer.top(10)[0]) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(ValueError, match="top_k = 0"):
        answer.top(0)


def test_top_k_of_a_prediction_is_what_top_gives(predictor, images):
    assert [len(row) for row in predictor.predict(images, top_k=2).top()] == [2] * len(images)
    answer = predictor.predict(images, budget_ms=1e5, top_k=7)
    assert len(answer.top()[0]) == 7
    assert answer.top(1) == [row[:1] for row in answer.top()]
    assert len(predictor.predict(images).top()[0]) == 5
    two = dataclasses.replace(answer, probabilities=answer.probabilities[:, :2], classes=("a", "b"), top_k=None)
    assert len(two.top()[0]) == 2


def test_one_path_runs_on_prepared_images_and_is_not_timed(bundle, images):
    predictor = AnytimePredictor(bundle, "onnxruntime", threads=1)
    x, whole = predictor.prepared(images), predictor.latencies(3).paths["whole"]
    predictor.warm_up(3)
    before = whole.samples()
    probabilities = predictor.run_path("whole", x)
    assert whole.samples() == before
    np.testing.assert_array_equal(predictor.predict(images, path="whole").probabilities, probabilities)
    assert whole.samples()[:-1] == before[-len(whole.samples()) + 1 :]
    np.testing.assert_array_equal(predictor.run_path(bundle.path("whole").text, x), probabilities)
    for wrong in (x.astype(np.float64), x[:0], x[0], x.transpose(0, 2, 3, 1)):
        with pytest.raises(ValueError, match=r"must be float32 of shape \(N, 3, 32, 32\)"):
            predictor.run_path("whole", wrong)
    with pytest.raises(ValueError, match="column=9"):
        predictor.run_path("column=9", x)


def test_the_torch_runtime_leaves_the_number_of_threads_alone(bundle, images):
    before = torch.get_num_threads()
    predictor = AnytimePredictor(bundle, "torch", threads=before + 1)
    inside: set[int] = set()
    hook = register_module_forward_hook(lambda *_: inside.add(torch.get_num_threads()))
    predictor.predict(images, path="whole")
    hook.remove()
    assert inside == {before + 1}
    assert torch.get_num_threads() == before


# --- times ---------------------------------------------------------------------------------------------------


def test_profiles_are_made_once_a_batch_size_and_kept(bundle, set_times, images):
    first = AnytimePredictor(bundle, "onnxruntime", threads=1)
    first.predict(images, budget_ms=100.0)
    first.predict(images, budget_ms=100.0)
    assert len(set_times) == 1
    assert first.profile(4)["whole"].p99 == 5.0  # three images count as four
    second = AnytimePredictor(bundle, "onnxruntime", threads=1)
    second.predict(images, budget_ms=100.0)
    assert len(set_times) == 1
    second.profile(1)
    assert len(set_times) == 2
    AnytimePredictor(bundle, "onnxruntime", threads=2).profile(1)  # other threads, other times
    assert len(set_times) == 3


def test_a_damaged_cache_is_measured_again_and_rewritten(bundle, set_times, cache):
    AnytimePredictor(bundle, "onnxruntime", threads=1).profile(1)
    (file,) = (cache / "profiles").glob("*.json")
    file.write_text("{damaged")
    AnytimePredictor(bundle, "onnxruntime", threads=1).profile(1)
    assert len(set_times) == 2
    assert json.loads(file.read_text())["times"]["1"]["whole"] == [5.0] * 50


def test_a_profile_of_a_busy_machine_is_not_kept(bundle, monkeypatch, cache):
    monkeypatch.setattr(latency_profile, "measure", lambda tasks, seconds=None: {name: [5.0] * 50 for name in tasks})
    predictor = AnytimePredictor(bundle, "onnxruntime", threads=1)
    predictor.profile(1)
    for took, kept in ((2.0, False), (4.5, True)):  # of the 5 ms that were measured
        for _ in range(100):
            predictor.latencies(1).observe("whole", took, time.perf_counter())
        predictor.save_profile()
        (file,) = (cache / "profiles").glob("*.json")
        assert ("1" in json.loads(file.read_text())["times"]) == kept


BUSY = [1.0] * 45 + [60.0] * 5


@pytest.fixture
def busy(monkeypatch):
    """Profiles of a busy machine, until the list that this returns is emptied; ``measured`` holds their seconds."""
    load, measured = [True], []

    def measure(tasks, seconds=None):
        measured.append(seconds)
        return dict.fromkeys(tasks, BUSY if load else [2.0] * 50)

    monkeypatch.setattr(latency_profile, "measure", measure)
    return load, measured


def test_a_busy_machine_is_told_not_stored_and_measured_again_by_the_next_session(bundle, busy, cache, caplog):
    load, measured = busy
    first = AnytimePredictor(bundle, "onnxruntime", threads=1)
    assert first.profile(1)["whole"].p99 == 1.0
    assert caplog.text.count("the machine was busy while times were measured") == len(measured) == 1
    with pytest.raises(BudgetError, match="measured while the machine was busy: measure again with --profile fresh"):
        first.choose(0.5)
    load.clear()
    second = AnytimePredictor(bundle, "onnxruntime", threads=1)
    assert second.profile(1)["whole"].p99 == 2.0
    assert len(measured) == 2
    AnytimePredictor(bundle, "onnxruntime", threads=1).profile(1)
    assert len(measured) == 2  # stored now


def test_fresh_and_longer_profiles(bundle, busy, caplog):
    load, measured = busy
    load.clear()
    ask = {"runtime": "onnxruntime", "threads": 1}
    AnytimePredictor(bundle, **ask).profile(1)
    assert AnytimePredictor(bundle, **ask, profile="fresh").profile(1)["whole"].p99 == 2.0
    assert measured == [None] * 2
    load.append(True)
    longer = AnytimePredictor(bundle, **ask, profile=7)
    assert longer.profile(1)["whole"].p99 == 60.0  # a profile of given seconds is accepted
    assert measured == [None, None, 7.0]
    assert AnytimePredictor(bundle, **ask).profile(1)["whole"].p99 == 60.0
    assert not caplog.text
    wrongs: list[Any] = ["old", 0, -1.0, math.nan, True]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"profile = .*: must be stored, fresh or seconds above 0"):
            AnytimePredictor(bundle, **ask, profile=wrong)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "the cheapest path needs 3 ms for an image here"),
        (
            {"origin": "stored"},
            "needs 3 ms for an image here; times were stored by an earlier session: measure again with",
        ),
        ({"origin": "busy", "batch": 2}, "for 2 images here; times were measured while the machine was busy: measure"),
        (
            {"budget_ms": 5.0, "decoding_ms": 4.0, "waiting_ms": 0.5, "origin": "stored"},
            "budget_ms 5 cannot be met: decoding took 4 ms, waiting took 0.5 ms, and the cheapest path needs 3 ms for "
            "an image here; give smaller images, decoded pixels (a uint8 array), or more time",
        ),
        (
            {"budget_ms": 5.0, "waiting_ms": 9.0, "origin": "stored"},
            "waiting took 9 ms, and the cheapest path needs 3 ms for an image here; the machine is busy: try again",
        ),
    ],
)
def test_errors_say_what_helps(parts, text):
    error = BudgetError(**{"budget_ms": 2.0, "needs_ms": 3.0} | parts)
    assert text in str(error)
    assert ("--profile fresh" in str(error)) == (error.budget_ms == 2.0 and "origin" in parts)


def test_errors_say_what_took_the_time(bundle, set_times, images, monkeypatch):
    ask = {"runtime": "onnxruntime", "threads": 1}
    predictor = AnytimePredictor(bundle, **ask)
    predictor.latencies(4)
    with pytest.raises(BudgetError, match=r"needs 1 ms for 3 images here$"):  # just measured, and not in doubt
        predictor.predict(images, budget_ms=0.5)
    stored = AnytimePredictor(bundle, **ask)
    with pytest.raises(BudgetError, match=r"stored by an earlier session: measure again with --profile fresh, or"):
        stored.predict(images, budget_ms=0.5)
    prepared = predictor.prepared

    def waits(*asked):
        time.sleep(0.05)
        return prepared(*asked)

    def works(*asked):
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        return prepared(*asked)

    for slow, words in ((waits, "waiting took .* needs 1 ms"), (works, "decoding took .* needs 1 ms")):
        monkeypatch.setattr(predictor, "prepared", slow)
        for ask_for in (
            lambda: predictor.predict(images, budget_ms=40.0),
            lambda: predictor.predict_confident(images, risk=0.9, budget_ms=40.0),
            lambda: list(predictor.predict_until(images, time.monotonic() + 0.04)),
        ):
            with pytest.raises(BudgetError, match=words) as caught:
                ask_for()
            assert (caught.value.decoding_ms >= 50.0) == (slow is works)
            assert caught.value.waiting_ms >= (50.0 if slow is waits else 0.0)


def test_everything_has_run_before_a_budget_counts(bundle, set_times, images, monkeypatch):
    """Of each batch size, every path; nothing is compiled or measured while an answer's time runs."""
    from polypath.deploy.runtimes.onnxruntime_ import OnnxRuntime

    monkeypatch.setattr(OnnxRuntime, "per_batch", True)  # as OpenVINO
    predictor = AnytimePredictor(bundle, "onnxruntime", threads=1)
    ran: set[tuple[str, int]] = set()
    prepare = predictor.runtime.prepare
    monkeypatch.setattr(predictor.runtime, "prepare", lambda path, n: (ran.add((path, n)), prepare(path, n))[1])
    everything = {(path.name, n) for path in bundle.paths for n in (3, 4)}
    begun: list[set[tuple[str, int]]] = []
    prepared = predictor.prepared
    monkeypatch.setattr(predictor, "prepared", lambda *asked: (begun.append(set(ran)), prepared(*asked))[1])
    predictor.predict(images, budget_ms=1e5)
    assert begun.pop() == ran == everything
    assert len(set_times) == 1
    many = np.concatenate([images] * 4)
    answer = predictor.predict_confident(many, risk=0.5, budget_ms=1e5)
    assert begun.pop() == ran  # images that go on fill batches that were compiled
    wanted = predictor.predict_confident(many, risk=0.5)
    np.testing.assert_allclose(answer.probabilities, wanted.probabilities, atol=1e-5)


def test_a_first_run_is_not_taken_for_the_path_s_time(bundle, images, monkeypatch):
    """Where it is not warmed, as without a budget, it may be compiled in that time."""
    predictor = AnytimePredictor(bundle, "onnxruntime", threads=1)
    predictor.latencies(4)
    observed = []
    monkeypatch.setattr(PathLatency, "observe", lambda self, ms, now: observed.append(ms))
    predictor.predict(images, path="whole")
    assert observed == []
    predictor.predict(images, path="whole")
    assert len(observed) == 1


def test_decoders_are_loaded_when_a_predictor_is_made(tmp_path):
    """In a new process: Pillow loads its plugins and codecs at first use."""
    code = (
        "import sys; from polypath.deploy import Bundle; from polypath.deploy.warm import warm_decoders\n"
        "warm_decoders(Bundle.open().preparation)\n"
        "from PIL import Image, features\n"
        "before = set(sys.modules); import io; from polypath.data.images import open_image\n"
        "for kind in ('JPEG', 'PNG', 'WEBP', 'GIF', 'TIFF'):\n"
        "    f = io.BytesIO(); Image.new('RGB', (64, 64)).save(f, kind); open_image(f.getvalue())\n"
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_longer_profile_tells_more(bundle):
    predictor = AnytimePredictor(bundle, "onnxruntime", threads=1)
    few = predictor.profile(1, seconds=1e-9)["whole"]
    assert predictor.profile(1)["whole"].samples == few.samples == latency_profile.LEAST
    longer = 3 * latency_profile.LEAST * few.p99 / 1000
    assert predictor.profile(1, fresh=True, seconds=longer)["whole"].samples > few.samples
    for bad in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"seconds .*: must be a finite number above 0"):
            predictor.profile(1, seconds=bad)


def test_observed_times_change_the_choice(bundle, images, monkeypatch):
    cost = {p.name: 1.0 + i for i, p in enumerate(bundle.paths)}
    monkeypatch.setattr(
        "polypath.deploy.latency_profile.measure", lambda tasks, seconds=None: {n: [cost[n]] * 50 for n in tasks}
    )
    predictor = AnytimePredictor(bundle, "onnxruntime", threads=1)
    best = predictor.choose(50.0)
    later = time.perf_counter() + 1e6  # so it is not retried meanwhile
    for _ in range(200):
        predictor.latencies(1).observe(best, 80.0, later)
    assert predictor.choose(50.0) != best
    predictor.save_profile()
    assert AnytimePredictor(bundle, "onnxruntime", threads=1).needs_ms(best) == pytest.approx(80.0)


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Auto chooses from two runtimes, in which all paths take ``TOOK`` ms; those that were opened, in order."""
    from polypath.deploy import predictor as module

    names: list[str] = []
    open_runtime = module.open_runtime
    monkeypatch.setattr(module, "candidates", lambda bundle: ["onnxruntime", "torch"])
    monkeypatch.setattr(module, "open_runtime", lambda name, *rest: (names.append(name), open_runtime(name, *rest))[1])
    monkeypatch.setattr(latency_profile, "measure", lambda tasks, seconds=None: dict.fromkeys(tasks, TOOK[names[-1]]))
    return names


TOOK = {"onnxruntime": [1.0] * 50, "torch": [0.25] * 50}


def chosen(bundle, opened: list[str], profile: Any) -> tuple[str, list[str]]:
    """What auto takes, and what it opens for that."""
    opened.clear()
    return AnytimePredictor(bundle, threads=1, profile=profile).runtime.name, list(opened)


def test_auto_takes_the_fastest_of_those_here(bundle, opened, monkeypatch):
    """By stored times, if there are any: then no other runtime is opened, which takes seconds for torch alone."""
    both = ["onnxruntime", "torch"]
    assert chosen(bundle, opened, "stored") == ("torch", both)
    assert chosen(bundle, opened, "stored") == ("torch", ["torch"])
    monkeypatch.setitem(TOOK, "torch", [2.0] * 50)
    assert chosen(bundle, opened, "fresh") == ("onnxruntime", both)
    assert chosen(bundle, opened, "stored") == ("onnxruntime", ["onnxruntime"])


def test_with_given_seconds_the_other_runtimes_times_are_accepted_too(bundle, opened, monkeypatch):
    """Or a machine that is never calm would measure them at every start."""
    for name, ms in (("onnxruntime", 1.0), ("torch", 0.25)):
        monkeypatch.setitem(TOOK, name, [ms] * 40 + [100 * ms] * 10)
    both = ["onnxruntime", "torch"]
    assert chosen(bundle, opened, "stored") == ("torch", both)
    assert chosen(bundle, opened, "stored") == ("torch", both)  # nothing was stored
    assert chosen(bundle, opened, 0.1) == ("torch", both)
    assert chosen(bundle, opened, "stored") == ("torch", ["torch"])


@pytest.mark.parametrize("fails", ["__init__", "prepare"])
def test_auto_leaves_out_a_runtime_that_cannot_run_the_bundle(bundle, set_times, monkeypatch, caplog, fails):
    from polypath.deploy import predictor as module
    from polypath.deploy.runtimes.onnxruntime_ import OnnxRuntime

    def refuse(*_):
        raise ValueError("column=1.onnx: outside of its folder")

    monkeypatch.setattr(module, "candidates", lambda bundle: ["onnxruntime", "torch"])
    AnytimePredictor(bundle, "onnxruntime", threads=1)  # its times are known: nothing needs to be run to profile it
    monkeypatch.setattr(OnnxRuntime, fails, refuse)
    assert AnytimePredictor(bundle, threads=1).runtime.name == "torch"
    (told,) = (r.getMessage() for r in caplog.records if r.levelname == "WARNING")
    assert told == "runtime 'onnxruntime' cannot run this bundle here and is left out: " + (
        "column=1.onnx: outside of its folder"
    )
    with pytest.raises(ValueError, match="outside of its folder"):  # asked for by name, it is not replaced
        AnytimePredictor(bundle, "onnxruntime", threads=1)
    monkeypatch.setattr(module, "candidates", lambda bundle: ["onnxruntime"])
    with pytest.raises(ValueError, match="outside of its folder"):
        AnytimePredictor(bundle, threads=1)


# --- better and better ---------------------------------------------------------------------------------------


def ladder(monkeypatch, predictor, *rungs):
    monkeypatch.setattr(type(predictor.bundle), "ladder", property(lambda self: rungs))


def test_answers_follow_the_ladder_and_average_what_it_says(predictor, images, monkeypatch):
    both = ("column=1", "whole")
    ladder(monkeypatch, predictor, Rung(path="column=1", combine=("column=1",)), Rung(path="whole", combine=both))
    answers = list(predictor.predict_until(images, time.monotonic() + 100))
    assert [(a.path, a.combined) for a in answers] == [("column=1", ("column=1",)), ("whole", both)]
    alone = [predictor.predict(images, path=name).probabilities for name in both]
    np.testing.assert_allclose(answers[0].probabilities, alone[0], atol=1e-6)
    np.testing.assert_allclose(answers[1].probabilities, np.mean(alone, axis=0), atol=1e-6)
    assert answers[0].ms < answers[1].ms


def test_what_would_be_late_is_not_begun(predictor, bundle, images, monkeypatch):
    names = ("column=1", bundle.paths[1].name, "whole")
    ladder(monkeypatch, predictor, *(Rung(path=n, combine=(n,)) for n in names))
    need = dict(zip(names, (1.0, 1e6, 1.0), strict=True))
    paths = predictor.latencies(len(images)).paths
    for name, ms in need.items():
        paths[name] = PathLatency([ms], time.perf_counter())
    assert [a.path for a in predictor.predict_until(images, time.monotonic() + 10)] == ["column=1"]
    with pytest.raises(BudgetError, match="cannot be met"):
        list(predictor.predict_until(images, time.monotonic() - 1))


# --- sure enough ---------------------------------------------------------------------------------------------


def test_each_image_stops_where_it_is_sure(predictor, monkeypatch):
    from polypath.deploy.stopping import Stopping

    images = np.random.default_rng(1).integers(0, 256, (24, 32, 32, 3), np.uint8)
    names = ("column=1", "whole")
    ladder(monkeypatch, predictor, *(Rung(path=n, combine=(n,)) for n in names))
    first, last = (predictor.predict(images, path=n) for n in names)
    threshold = float(np.median(first.confidence))
    monkeypatch.setattr(predictor, "stopping", lambda risk, trust: Stopping(risk, trust, (threshold, 2.0), (), (), 0))
    sizes = []
    run_path = predictor.run_path
    monkeypatch.setattr(predictor, "run_path", lambda name, x: (sizes.append(len(x)), run_path(name, x))[1])
    answer = predictor.predict_confident(images, risk=0.2)
    early = first.confidence >= threshold
    assert 0 < early.sum() < 24
    assert (answer.sure == early).all()
    assert [p == "column=1" for p in answer.paths] == early.tolist()
    assert sizes == [24, 24 - int(early.sum())]  # those that stop cost nothing further
    wanted = np.where(early[:, None], first.probabilities, last.probabilities)
    np.testing.assert_allclose(answer.probabilities, wanted, atol=1e-5)


def test_without_enough_held_out_answers_it_says_how_many_are_needed(predictor, images):
    with pytest.raises(ValueError, match=r"needs at least .* held-out answers"):
        predictor.predict_confident(images, risk=1e-6)
    with pytest.raises(ValueError, match="risk = 1"):
        predictor.predict_confident(images, risk=1.0)
