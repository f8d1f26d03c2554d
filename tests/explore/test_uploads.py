"""What visitors of the page send is bounded, one by one and in all; pages from elsewhere get nothing."""

from __future__ import annotations

import http.client
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from subjects import Given

from polypath.explore import uploads

pytest.importorskip("gradio")
MOST, EACH = 200_000, 60_000


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """(host and port, the folder of uploads)."""
    from polypath.explore.page import serving

    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr(uploads, "MOST_BYTES", MOST)
        with serving(Given()) as url:
            yield urlsplit(url).netloc, folder


def upload(netloc: str, data: bytes, **headers: str) -> int:
    head = b'--X\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    link = http.client.HTTPConnection(netloc, timeout=30)
    try:
        kind = {"Content-Type": "multipart/form-data; boundary=X"}
        link.request("POST", "/gradio_api/upload", head + data + b"\r\n--X--\r\n", kind | headers)
        return link.getresponse().status
    finally:
        link.close()


def held(folder: Path) -> list[bytes]:
    """The uploads that lie on the disk, which are of one byte repeated."""
    contents = [file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.stat().st_size == EACH]
    return [content[:1] for content in contents if len(set(content)) == 1]


def test_the_oldest_uploads_make_room(page):
    netloc, folder = page
    before = {file for file in folder.rglob("*.png") if file.is_file()}
    for letter in "abcdefgh":
        assert upload(netloc, letter.encode() * EACH) == 200
        assert EACH * len(held(folder)) <= MOST
    assert set(held(folder)) == {b"f", b"g", b"h"}
    assert all(file.exists() for file in before)  # the examples


def test_pages_from_elsewhere_and_rebound_names_get_nothing(page):
    netloc, _ = page
    assert upload(netloc, b"z", Host="evil.example") == 421
    assert upload(netloc, b"z", Origin="http://evil.example") == 403
    assert upload(netloc, b"z", Origin=f"http://{netloc}") == 200


def test_a_long_upload_is_refused_by_its_length(page):
    link = http.client.HTTPConnection(page[0], timeout=30)
    link.putrequest("POST", "/gradio_api/upload")
    link.putheader("Content-Length", str(10 * uploads.REQUESTS.body_bytes))
    link.endheaders()
    assert link.getresponse().status == 413
    link.close()
