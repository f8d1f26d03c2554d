"""Bundles and saved networks as the page's subject."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from PIL import Image
from subjects import Given, crescendo, picture, pixels, png, recursive, saved

import polypath as pp
from polypath.core.execute import Trace
from polypath.deploy import decoder, latency_profile
from polypath.explore.anytime import AnytimeSubject, open_subject
from polypath.explore.examples import digits, drawings, example_files
from polypath.explore.loops import loops_taken
from polypath.explore.view import look


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POLYPATH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def branches(tmp_path_factory) -> AnytimeSubject:
    errors = {"whole": 9.0, "branches=1": 30.0, "branches=2": 20.0, "branches=3": 12.0, "branches=1,2": 15.0}
    return open_subject(saved(crescendo(), tmp_path_factory.mktemp("nets") / "net", errors))


def test_every_path_is_there_with_its_times(branches):
    assert set(branches.paths) == set(branches.predictor.bundle.net.named_paths())
    for path in branches.paths.values():
        assert 0 < path.p50_ms <= path.p99_ms
    assert branches.paths["branches=2"].error == 20.0
    assert branches.title == "net"
    assert "torch" in branches.machine


def test_its_answers_are_the_networks_own(branches):
    x = (torch.from_numpy(pixels(1)).float()[None, None] / 255 - 0.3) / 0.35
    run = branches.run(picture(1), 1e6)
    assert run.path == branches.choose(1e6) == "whole"
    with torch.inference_mode():
        net = branches.predictor.bundle.net
        want, other = net(x).softmax(1)[0].numpy(), net(x, paths="branches=2").softmax(1)[0].numpy()
    np.testing.assert_allclose(run.probabilities, want, atol=1e-5)
    assert not np.allclose(want, other, atol=1e-5)
    assert run.ms > 0
    assert run.loops == ()
    assert branches.run(picture(1, 64), 1e6).probabilities.shape == (10,)


def test_decoding_a_large_image_ends(branches, monkeypatch):
    """In the process that the predictor uses, after a time that is not the budget's."""
    wanted, asked = branches.run(picture(1), 1e6).probabilities, []
    monkeypatch.setattr(decoder, "LARGE", 0)
    assert (branches.run(picture(1), 1e6).probabilities == wanted).all()

    def late(self, data, preparation, limits, deadline):
        asked.append(deadline - time.perf_counter())
        raise decoder.DecodingLate(5.0)

    monkeypatch.setattr(decoder.Decoder, "apart", late)
    assert "the image was not decoded in time" in look(branches, picture(1), 1e6).message
    assert 0 < asked[0] <= 5.0


def test_what_cannot_be_met_runs_nothing(branches):
    too_little = 0.5 * min(path.p99_ms for path in branches.paths.values())
    assert branches.choose(too_little) is None
    assert branches.run(picture(), too_little) is None
    with pytest.raises(ValueError, match="not an image"):
        branches.run(b"no image", 1e6)


def test_times_are_measured_again_when_asked(tmp_path, monkeypatch):
    taken = [1.0] * 90 + [50.0] * 10
    monkeypatch.setattr(latency_profile, "measure", lambda tasks, seconds=None: dict.fromkeys(tasks, taken))
    subject = open_subject(saved(crescendo(), tmp_path / "net"), "torch")
    assert subject.busy
    assert {path.p99_ms for path in subject.paths.values()} == {1.0}  # without the disturbed ones
    taken = [2.0] * 100
    subject.measure()
    assert not subject.busy
    assert {path.p99_ms for path in subject.paths.values()} == {2.0}


def test_gated_paths_have_run_before_the_first_image(tmp_path, monkeypatch):
    ran = []
    followed = AnytimeSubject._followed
    monkeypatch.setattr(
        AnytimeSubject, "_followed", lambda self, pixels, name: (ran.append(name), followed(self, pixels, name))[1]
    )
    subject = open_subject(saved(recursive(), tmp_path / "net"))
    assert ran == [name for name in subject.paths if subject._gated(name)] != []


def test_the_loops_of_an_image_are_those_that_reproduce_its_answer(tmp_path):
    subject = open_subject(
        saved(recursive(), tmp_path / "net", {"whole": 5.0, "loops=max": 5.0, "loops=1": 5.0, "loops=0": 50.0})
    )
    net = subject.predictor.bundle.net
    seen, wrong = set(), 0
    for seed in range(10):
        run = subject.run(picture(seed), 1e6)
        assert run is not None
        assert run.path == "whole"  # the gates decide there
        x = torch.from_numpy(subject.predictor.prepared(picture(seed)))
        with torch.inference_mode():
            static, most = net(x, paths=pp.Paths.of(net.wiring, run.choice)), net(x, paths="loops=max")
        np.testing.assert_allclose(static.softmax(1)[0].numpy(), run.probabilities, atol=1e-5)
        wrong += not np.allclose(most.softmax(1)[0].numpy(), run.probabilities, atol=1e-5)
        seen.add(run.loops)
        assert [most for _, _, most in run.loops] == [2, 3]
    assert len(seen) > 1  # images differ
    assert wrong  # and the loops matter
    assert not subject._gated("loops=max")


def test_a_trace_of_many_images_is_refused():
    net, trace = recursive(), Trace()
    with torch.inference_mode():
        net(torch.randn(2, 1, 8, 8), trace=trace)
    with pytest.raises(ValueError, match="2 images"):
        loops_taken(net.wiring, trace)


def test_folders_that_hold_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"manifest\.json is missing"):
        open_subject(tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        open_subject(tmp_path / "nowhere")
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(ValueError, match="not finished"):
        open_subject(tmp_path)
    with pytest.raises(ValueError, match="runtime 'openvino'"):
        open_subject(saved(crescendo(), tmp_path / "net"), "openvino")


def test_examples_suit_the_network(branches, tmp_path):
    assert [f.name for f in example_files(branches, tmp_path, 3)] == ["digit-0.png", "digit-1.png", "digit-2.png"]
    first = next(iter(digits(1).values()))
    x = branches.predictor.prepared(png(first))
    np.testing.assert_allclose((x * 0.35 + 0.3)[0, 0] * 255, np.array(first), atol=0.01)
    colour = Given()
    colour.channels = 3
    files = example_files(colour, tmp_path)
    assert len(files) == len(drawings()) == 6
    assert {Image.open(file).size for file in files} == {(256, 256)}
