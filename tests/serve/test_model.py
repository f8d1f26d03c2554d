"""The service over a bundle: it decodes clients' images, and gives the predictor's answers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from polypath.serve.app import App
from polypath.serve.decoding import Lane
from polypath.serve.limits import Key
from polypath.serve.model import BundleModel
from polypath.serve.service import Options
from serve.fake import parsed, post, raw, served
from serve.hostile import bomb, png


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from polypath.deploy import AnytimePredictor, Bundle

    patch = pytest.MonkeyPatch()
    patch.setenv("POLYPATH_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield BundleModel(AnytimePredictor(Bundle.open(), "torch", 1))
    patch.undo()


def encoded(kind: str, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).convert(mode).save(
        stream, kind
    )
    return stream.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("PNG", mode) for mode in ("RGB", "L", "RGBA", "P", "1")),
        *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
        *((kind, "RGB") for kind in ("WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO")),
    ],
)
def test_common_formats_are_read(model, kind, mode):
    height, width = model.predictor.bundle.size
    image = model.decode(encoded(kind, mode), 10_000)
    assert (image.shape, image.dtype) == ((3, height, width), np.float32)
    assert image.std() > 0.1


@pytest.mark.parametrize(
    "data", [b"", b"x" * 100, encoded("PNG")[:-200], bomb("PNG"), png(60_000, 60_000), encoded("ICO")]
)
def test_others_are_a_value_error(model, data):
    with pytest.raises(ValueError):
        model.decode(data, 2**25)


def test_the_pixel_limit_is_the_services(model):
    with pytest.raises(ValueError, match="50x40 pixels"):
        model.decode(encoded("PNG"), 1999)
    assert model.decode(encoded("PNG"), 2000) is not None


def test_paths_go_from_accurate_to_not(model):
    errors = [path.error for path in model.paths if path.error is not None]
    assert errors == sorted(errors)
    assert {path.name for path in model.paths} == {path.name for path in model.predictor.bundle.paths}


def test_images_are_normalised_when_they_are_decoded(model):
    data = encoded("PNG")
    np.testing.assert_array_equal(model.decode(data, 10_000), model.predictor.prepared(data)[0])


def test_a_batch_is_timed_once(model):
    """The service adds the time to the predictor's own estimates."""
    with served(App(model, Options(max_batch=1), Key(None))) as port:
        before = model.predictor.latencies(1).paths["whole"].samples()
        asked = post(encoded("PNG"), query="path=whole&budget_ms=20000")
        answers = [parsed(raw(port, asked))[2] for _ in range(3)]
        after = model.predictor.latencies(1).paths["whole"].samples()
    assert after[-3:] == pytest.approx([body["ms"]["inference"] for body in answers], abs=1e-3)
    assert after[-4] == before[-1]


def test_http_answers_are_the_predictors(model):
    data = encoded("PNG")
    with served(App(model, Options(max_batch=2), Key(None))) as port:
        for facts in model.paths:
            status, _, body = parsed(raw(port, post(data, query=f"path={facts.name}&top_k=10&budget_ms=20000")))
            assert (status, body["path"], body["error_percent"]) == (200, facts.name, facts.error)
            wanted = model.predictor.predict(data, path=facts.name)
            assert [row["class"] for row in body["top"]] == [name for name, _ in wanted.top(10)[0]]
            got = [row["probability"] for row in body["top"]]
            assert got == pytest.approx([p for _, p in wanted.top(10)[0]], abs=1e-5)


def test_only_what_is_not_tiny_waits_for_a_thread(model, monkeypatch):
    """A tiny image, and a file that is not an image, are handled on the event loop."""
    started = []
    start = Lane.start
    monkeypatch.setattr(
        Lane, "start", lambda self, function, *args: started.append(args) or start(self, function, *args)
    )
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)).save(
        noise, "JPEG", quality=20
    )
    wide = io.BytesIO()
    Image.new("RGB", (300, 300)).save(wide, "PNG")  # few bytes, many pixels
    with served(App(model, Options(), Key(None))) as port:
        for data, status, threads in (
            (encoded("PNG"), 200, 0),
            (encoded("JPEG"), 200, 0),
            (b"x" * 100, 400, 0),
            (noise.getvalue(), 200, 0),
            (wide.getvalue(), 200, 1),
        ):
            started.clear()
            found, _, body = parsed(raw(port, post(data, query="budget_ms=20000")))
            assert (found, len(started)) == (status, threads), body
