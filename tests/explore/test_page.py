"""The page in a browser: an image, a budget, and what they change. Skips where Chromium or Gradio is absent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from subjects import Given, crescendo, picture, saved

from browser import console_errors, overflow, view
from polypath.deploy import AnytimePredictor, BudgetError, Bundle
from polypath.deploy.latency import Timing
from polypath.explore.anytime import AnytimeSubject

pytest.importorskip("gradio")
ERRORS = {"branches=1": 30.0, "branches=2": 20.0, "branches=1,2": 15.0, "branches=3": 12.0, "whole": 9.0}
TIMES = {name: Timing(p50=800.0 * s, p95=900.0 * s, p99=1000.0 * s) for s, name in enumerate(ERRORS, 1)}


@pytest.fixture(scope="module")
def page(driver, tmp_path_factory):
    """The page in the browser. Its network's paths are said to take 1 to 5 s, so that decoding counts for nothing."""
    from polypath.explore.page import serving

    folder = tmp_path_factory.mktemp("explore")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYPATH_CACHE", str(folder / "cache"))
        calm = "polypath.deploy.latency_profile.measure", lambda tasks, seconds=None: dict.fromkeys(tasks, [1.0] * 50)
        patch.setattr(*calm)
        bundle = Bundle.open(saved(crescendo(), folder / "net", ERRORS)).with_paths(list(ERRORS))
        subject = AnytimeSubject(AnytimePredictor(bundle))
        patch.setattr(subject.predictor, "profile", lambda batch: TIMES)  # this machine's own change from run to run
        patch.setattr(subject.predictor, "choose", lambda budget_ms, *_, **__: chosen(budget_ms))
        with serving(subject) as url:
            view(driver)
            driver.get(url)
            until(driver, lambda: driver.find_elements("css selector", "#wiring svg"), "the page's drawing")
            yield url
            driver.get("about:blank")


def chosen(budget_ms: float) -> str:
    fitting = [name for name, timing in TIMES.items() if timing.p99 <= budget_ms]
    if not fitting:
        raise BudgetError(budget_ms, 1000.0)
    return fitting[-1]


def until(driver: Any, true: Callable[[], Any], what: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 60, poll_frequency=0.1).until(lambda _: true(), f"waited for {what}")


def text(driver: Any, where: str) -> str:
    return driver.find_element("id", where).text


def path(driver: Any) -> str:
    return driver.find_element("css selector", "#facts dd").text


def lit(driver: Any) -> set[str]:
    """Names of the nodes that are lit in the wiring that one sees."""
    shapes = driver.find_elements("css selector", "#wiring .pp-wide g[data-node] .live")
    return {shape.find_element("xpath", "..").get_attribute("data-node") for shape in shapes}


def move(driver: Any, budget_ms: float) -> None:
    from selenium.webdriver.common.keys import Keys

    field = driver.find_element("css selector", "#budget input[type=number]")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(str(budget_ms), Keys.TAB)


def test_upload_an_image_and_move_the_budget(page, driver, tmp_path):
    driver.get(page)
    until(driver, lambda: "Drop an image" in text(driver, "message"), "the page")
    (tmp_path / "a.png").write_bytes(picture(7))
    driver.find_element("css selector", "#image input[type=file]").send_keys(str(tmp_path / "a.png"))
    until(driver, lambda: "%" in text(driver, "answer"), "an answer")
    assert text(driver, "message") == ""

    seen = {}
    for budget, name in ((1500, "branches=1"), (4500, "branches=3"), (6000, "whole")):
        move(driver, budget)
        until(driver, lambda name=name: path(driver) == name, name)
        seen[name] = (text(driver, "answer"), lit(driver))
        assert " ms" in driver.find_elements("css selector", "#facts dd")[1].text
        assert f"budget {budget} ms" in driver.find_element("id", "curve").get_attribute("textContent")
    answers, wirings = zip(*seen.values(), strict=True)
    assert len(set(answers)) > 1
    assert wirings[0] != wirings[1]
    assert wirings[0] < wirings[2]
    marked = driver.find_element("css selector", "#curve .chosen")
    assert marked.get_attribute("data-path") == "whole"


def test_a_budget_that_cannot_be_met_is_told_on_the_page(page, driver):
    move(driver, 500)
    until(driver, lambda: "cannot be met" in text(driver, "message"), "the message")
    assert "branches=1" in text(driver, "message")
    assert driver.find_elements("css selector", "#wiring .pp-off")
    move(driver, 3500)
    until(driver, lambda: text(driver, "message") == "" or "Drop" in text(driver, "message"), "an answer again")


def test_a_file_that_is_no_image_is_told(page, driver, tmp_path):
    driver.get(page)
    until(driver, lambda: driver.find_elements("css selector", "#image input[type=file]"), "the page")
    (tmp_path / "cut.png").write_bytes(picture(1, 64)[:-300])
    driver.find_element("css selector", "#image input[type=file]").send_keys(str(tmp_path / "cut.png"))
    until(driver, lambda: "cannot be read" in text(driver, "message"), "the message")


def test_examples_have_accessible_names(page, driver):
    driver.get(page)
    until(driver, lambda: driver.find_elements("css selector", "button.gallery-item[aria-label]"), "the examples")
    names = [button.accessible_name for button in driver.find_elements("css selector", "button.gallery-item")]
    assert names == [f"example: digit {k}" for k in range(6)]


def test_it_fits_a_phone_and_asks_nothing_of_others(page, driver):
    script = "return performance.getEntriesByType('resource').map(e => e.name)"
    asked = [name for name in driver.execute_script(script) if not name.startswith(("data:", "blob:"))]
    assert asked
    assert all(name.startswith(page) for name in asked), asked
    view(driver, 390, 844)
    assert overflow(driver) == 0
    assert not [line for line in console_errors(driver) if "net::" in line or "Failed to load" in line]


def test_it_listens_on_this_machine_only(page):
    assert page.startswith("http://127.0.0.1:")


def test_times_are_measured_again_by_a_button(driver):
    from polypath.explore.page import serving

    subject = Given()
    subject.busy = True
    with serving(subject) as url:
        view(driver)
        driver.get(url)
        until(driver, lambda: driver.find_elements("id", "measure"), "the button")
        assert "busy while the times were measured" in text(driver, "message")
        assert path(driver) == "branches=1,2"
        driver.find_element("id", "measure").click()
        until(driver, lambda: path(driver) == "whole", "the new times")  # it takes half as long now
        assert "busy" not in text(driver, "message")
        slider = driver.find_element("css selector", "#budget input[type=range]")
        assert float(slider.get_attribute("max")) == 2.5
        button = driver.find_element("id", "measure")
        assert (button.text, button.is_enabled()) == ("Measure the times again", True)
        driver.get("about:blank")
