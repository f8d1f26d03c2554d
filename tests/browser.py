"""Headless Chromium for tests of pages: the fixture ``driver``, and functions to inspect a page.

Debian's packages ``chromium`` and ``chromium-driver`` are enough (for other paths set ``POLYPATH_CHROMIUM`` and
``POLYPATH_CHROMEDRIVER``). Without them or selenium, tests that use ``driver`` are skipped.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path(os.environ.get("POLYPATH_CHROMIUM", "/usr/bin/chromium"))
CHROMEDRIVER = Path(os.environ.get("POLYPATH_CHROMEDRIVER", "/usr/bin/chromedriver"))
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-extensions", "--force-device-scale-factor=1"),
)


def start(profile: Path) -> Any:
    """A selenium driver of a new Chromium with ``profile`` as its user data folder; the caller quits it."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(CHROMEDRIVER)))
    driver.set_page_load_timeout(60)
    return driver


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium for the tests of one module; skips them if there is none."""
    pytest.importorskip("selenium")
    if not CHROMIUM.is_file() or not CHROMEDRIVER.is_file():
        pytest.skip("no Chromium (apt-get install chromium chromium-driver, or set POLYPATH_CHROMIUM)")
    browser = start(tmp_path_factory.mktemp("chromium"))
    try:
        yield browser
    finally:
        browser.quit()


def console_errors(driver: Any) -> list[str]:
    """Console errors of the page since the last call: failed requests and errors of scripts."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "ERROR")]


def view(driver: Any, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
    """Set the page's viewport (also narrower than a window can be) and the light or dark colour scheme."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def overflow(driver: Any) -> int:
    """Pixels by which the page is wider than its viewport; 0 if nothing overflows."""
    root = "document.documentElement"
    return max(0, driver.execute_script(f"return {root}.scrollWidth - {root}.clientWidth"))


def screenshot(driver: Any, file: str | Path, *, whole: bool = True) -> None:
    """Write a PNG of the page: all of it, or the viewport."""
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
    Path(file).write_bytes(base64.b64decode(shot["data"]))
