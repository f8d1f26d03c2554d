"""The helpers that inspect pages see errors, sizes and colour schemes."""

from __future__ import annotations

import matplotlib.image

from browser import console_errors, overflow, screenshot, view

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>t</title><link rel="icon" href="data:,">
<style>body {margin: 0; background: white} div {width: WIDTHpx; height: 40px}
@media (prefers-color-scheme: dark) {body {background: black}}</style></head>
<body><div></div><script>SCRIPT</script></body></html>"""


def written(tmp_path, width: int, script: str = "") -> str:
    file = tmp_path / "page.html"
    file.write_text(PAGE.replace("WIDTH", str(width)).replace("SCRIPT", script))
    return file.as_uri()


def test_errors_of_scripts_are_seen(driver, tmp_path):
    driver.get(written(tmp_path, 10))
    assert console_errors(driver) == []
    driver.get(written(tmp_path, 10, "missing()"))
    assert "missing is not defined" in console_errors(driver)[0]


def test_width_and_scheme(driver, tmp_path):
    view(driver, 390, 300)
    driver.get(written(tmp_path, 350))
    assert overflow(driver) == 0
    driver.get(written(tmp_path, 500))
    assert overflow(driver) == 110
    driver.get(written(tmp_path, 350))
    means = []
    for dark in (False, True):
        view(driver, 390, 300, dark=dark)
        screenshot(driver, tmp_path / "page.png")
        picture = matplotlib.image.imread(tmp_path / "page.png")
        assert picture.shape[:2] == (300, 390)
        means.append(picture[..., :3].mean())
    assert means == [1.0, 0.0]
