"""Large images are decoded by a process that can be killed: the same pixels, none beyond its deadline, no orphan."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import polypath
from polypath.data.images import LIMITS, BrokenImage, ImageLimits, LargeImage, open_image
from polypath.deploy import decoder as module
from polypath.deploy.budget import Spent
from polypath.deploy.decoder import Cancellation, Decoder, DecodingCancelled, DecodingLate
from polypath.deploy.images import Preparation

PREP = Preparation((16, 16), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
ANY = ImageLimits(pixels=2**25, passes=10**6)
SOON, NEVER = 0.3, 3600.0


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (60, 44)) -> Image.Image:
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8)).convert(mode)


@cache
def bomb(scans: int = 3000) -> bytes:
    """A JPEG of 16 million pixels whose last scan comes over and over: seconds of work in less than a megabyte."""
    data = encoded(Image.new("L", (4000, 4000)), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


def spent(seconds: float) -> Spent:
    return Spent(1e3 * seconds, time.perf_counter())


@pytest.fixture(scope="module")
def decoder():
    one = Decoder()
    one.ready()
    yield one
    one.close()


@pytest.fixture
def all_large(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 0)


def apart(decoder: Decoder, data: bytes, preparation: Preparation = PREP, limits: ImageLimits = LIMITS) -> np.ndarray:
    return decoder.apart(data, preparation, limits, time.perf_counter() + NEVER)[0]


def running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def until(condition, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
@pytest.mark.parametrize(
    "prep", [PREP, Preparation((20, 12), (0.5,), (0.5,), "pad", 24), Preparation((9, 9), (0.5,), (0.5,), "squash")]
)
def test_the_same_pixels_as_in_this_process(decoder, kind, prep):
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow has no {kind}")
    data = encoded(noise(), kind)
    assert (apart(decoder, data, prep) == prep.pixels(open_image(data))).all()


def test_modes_and_orientation_come_through(decoder):
    exif = Image.Exif()
    exif[0x0112] = 6
    for data in (
        encoded(noise(), "JPEG", exif=exif),
        encoded(noise("RGBA"), "PNG"),
        encoded(noise("P"), "GIF"),
        encoded(noise("CMYK"), "JPEG"),
        encoded(noise(size=(1500, 1100)), "JPEG", progressive=True),
    ):
        assert (apart(decoder, data) == PREP.pixels(open_image(data))).all()


@pytest.mark.parametrize("data", [b"", b"no image", encoded(noise(), "PNG")[:-900], encoded(noise(), "ICO")])
def test_errors_are_the_same_as_in_this_process(decoder, data):
    with pytest.raises(BrokenImage) as here:
        open_image(data)
    with pytest.raises(BrokenImage) as there:
        apart(decoder, data)
    assert str(there.value) == str(here.value)
    assert apart(decoder, encoded(noise(), "PNG")).shape == (16, 16, 3)


def test_limits_hold_in_the_worker(decoder):
    with pytest.raises(BrokenImage, match="60x44 pixels, more than the 100 allowed"):
        apart(decoder, encoded(noise(), "PNG"), limits=ImageLimits(pixels=100))


# --- what is large ------------------------------------------------------------------------------------------


def test_small_images_start_no_process():
    decoder = Decoder()
    for source in (encoded(noise(), "JPEG"), encoded(noise(), "PNG"), noise()):
        assert (decoder.decode(source, PREP, LIMITS, spent(NEVER)) == PREP.pixels(open_image(source))).all()
    assert decoder._worker is None


def test_large_images_and_their_files_go_to_the_worker(decoder, tmp_path, monkeypatch):
    data, asked = encoded(noise(size=(1200, 1000)), "JPEG"), []
    with pytest.raises(LargeImage):
        open_image(data, most=module.LARGE)
    real = decoder.apart
    monkeypatch.setattr(decoder, "apart", lambda *a: asked.append(a) or real(*a))
    (tmp_path / "a.jpg").write_bytes(data)
    for source in (data, bytearray(data), tmp_path / "a.jpg", str(tmp_path / "a.jpg")):
        assert (decoder.decode(source, PREP, LIMITS, spent(NEVER)) == PREP.pixels(open_image(data))).all()
    assert len(asked) == 4
    (tmp_path / "b.jpg").write_bytes(data[:-5000])
    with pytest.raises(BrokenImage, match=r"b\.jpg: .*truncated"):
        decoder.decode(tmp_path / "b.jpg", PREP, LIMITS, spent(NEVER))


def test_without_a_deadline_no_worker_is_used(all_large):
    decoder, data = Decoder(), encoded(noise(), "PNG")
    assert decoder.decode(data, PREP, LIMITS, Spent(float("inf"), 0.0)).shape == (16, 16, 3)
    assert decoder._worker is None


def lying_avif() -> bytes:
    """400 x 400 pixels that say they are 10 x 10; 8000 x 8000 of them take 1 kB and are decoded as well."""
    data = bytearray(encoded(Image.new("RGB", (400, 400)), "AVIF", speed=10))
    place = data.index(b"ispe") + 8
    data[place : place + 8] = struct.pack(">II", 10, 10)
    assert open_image(bytes(data)).size == (10, 10)
    return bytes(data)


def tiled_tiff(side: int, tile: int) -> bytes:
    """One grey tile, of which the image is a corner."""
    body = zlib.compress(bytes(min(tile, 256) ** 2))
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 0, 325: len(body)}
    tags[324] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + body


def test_what_hides_its_size_is_large():
    with pytest.raises(BrokenImage, match="decoding 100x100 pixels in 40,000 passes is too much work"):
        open_image(tiled_tiff(100, 20_000), ImageLimits(pixels=2**24))
    with pytest.raises(LargeImage):
        open_image(tiled_tiff(100, 2048), most=module.LARGE)
    assert open_image(tiled_tiff(100, 128), most=module.LARGE).size == (100, 100)
    if "AVIF" in Image.SAVE:
        with pytest.raises(LargeImage):
            open_image(lying_avif(), most=module.LARGE)


# --- deadlines ----------------------------------------------------------------------------------------------


def test_decoding_ends_at_the_deadline_and_the_next_image_has_a_fresh_worker(decoder):
    decoder.ready()
    before = decoder._worker._process.pid
    data = bomb()
    with pytest.raises(DecodingLate) as caught:
        decoder.apart(data, PREP, ANY, time.perf_counter() + SOON)
    assert caught.value.seconds > 0
    assert not running(before)
    assert apart(decoder, encoded(noise(), "PNG")).shape == (16, 16, 3)
    assert decoder._worker._process.pid != before


def test_time_of_the_worker_is_decoding_and_its_start_is_not_counted(all_large):
    decoder = Decoder()
    budget = spent(NEVER)
    began = budget.start
    decoder.decode(encoded(noise(size=(1500, 1500)), "PNG"), PREP, LIMITS, budget)
    assert budget.start > began
    assert budget.decoding_ms > 1.0
    moment = Spent(budget.budget_ms, began, fixed=True)
    decoder.close()
    decoder.decode(encoded(noise(), "PNG"), PREP, LIMITS, moment)
    assert moment.start == began
    decoder.close()


def decoding_a_bomb(decoder, cancellation: Cancellation | None = None) -> tuple[threading.Thread, list[Exception]]:
    """A thread whose image takes longer than any test, and the errors that it gets."""
    found: list[Exception] = []

    def work(image: bytes = bomb()) -> None:
        try:
            decoder.apart(image, PREP, ANY, time.perf_counter() + NEVER, cancellation)
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert until(decoder._turn.locked)
    time.sleep(0.2)
    return thread, found


def test_an_image_that_is_not_wanted_any_more_is_given_up(decoder):
    decoder.ready()
    cancellation = Cancellation()
    thread, found = decoding_a_bomb(decoder, cancellation)
    cancellation.cancel()
    thread.join(30)
    assert [type(error) for error in found] == [DecodingCancelled]
    with pytest.raises(DecodingCancelled):
        decoder.apart(bomb(), PREP, ANY, time.perf_counter() + NEVER, cancellation)  # not begun
    assert apart(decoder, encoded(noise(), "PNG")).shape == (16, 16, 3)


def test_an_image_waits_for_another_one_until_its_deadline(decoder):
    with decoder._turn, pytest.raises(DecodingLate) as caught:
        decoder.apart(encoded(noise(), "PNG"), PREP, LIMITS, time.perf_counter() + 0.05)
    assert caught.value.seconds == 0


def test_a_crash_is_the_images_fault_and_a_dead_worker_is_replaced(decoder):
    decoder.ready()
    thread, found = decoding_a_bomb(decoder)
    os.kill(decoder._worker._process.pid, signal.SIGSEGV)
    thread.join(30)
    assert [type(error) for error in found] == [BrokenImage]
    assert "crashed" in str(found[0])
    decoder.ready()
    os.kill(decoder._worker._process.pid, signal.SIGKILL)  # while it is idle
    assert until(lambda: not decoder._worker.alive)
    assert apart(decoder, encoded(noise(), "PNG")).shape == (16, 16, 3)


# --- the process --------------------------------------------------------------------------------------------

PARENT = """
import sys, threading, time
sys.path.insert(0, sys.argv[1])
from tests_bomb import PREP, ANY, bomb
from polypath.deploy.decoder import decoder
decoder().ready()
print(decoder()._worker._process.pid, flush=True)
if sys.argv[2] == "busy":
    threading.Thread(target=decoder().apart, args=(bomb(), PREP, ANY, time.perf_counter() + 3600)).start()
    time.sleep(0.5)
print("ready", flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_worker_ends_with_a_parent_that_is_killed(tmp_path, state):
    (tmp_path / "tests_bomb.py").write_text(Path(__file__).read_text())
    environment = os.environ | {"PYTHONPATH": str(Path(polypath.__file__).parent.parent)}
    command = [sys.executable, "-c", PARENT, str(tmp_path), state]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert parent.stdout.readline() == "ready\n"
        assert running(worker)
        parent.kill()
    assert until(lambda: not running(worker), 10)


def test_signals_to_the_whole_group_are_the_parents_to_answer(decoder):
    decoder.ready()
    process = decoder._worker._process.pid
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(process, number)
    assert apart(decoder, encoded(noise(), "PNG")).shape == (16, 16, 3)
    assert decoder._worker._process.pid == process


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_the_worker_is_light_and_knows_no_secrets(decoder, monkeypatch):
    monkeypatch.setenv("POLYPATH_API_KEY", "secret")
    fresh = Decoder()
    fresh.ready()
    assert fresh._worker is not None
    place = Path(f"/proc/{fresh._worker._process.pid}")
    assert "torch" not in (place / "maps").read_text()
    assert b"secret" not in (place / "environ").read_bytes()
    fresh.close()


def test_a_worker_that_cannot_start_is_said(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="does not start"):
        Decoder().ready()
