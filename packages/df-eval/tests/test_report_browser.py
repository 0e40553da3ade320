"""The report in a real browser, from the file system: headless Chromium sorts, scrubs and measures how wide it is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fabricated import outcome_of

from df_eval.measure import GROUND_TRUTH
from df_eval.metrics import CATALOG, SETS, Score
from df_eval.reports.output import write_outcome
from df_eval.reports.report import Report, render
from df_eval.reports.table import Table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome is installed")

WIDTHS = """() => [document.documentElement.scrollWidth,
  ...[...document.querySelectorAll("table")].map(table => table.scrollWidth),
  ...[...document.querySelectorAll("td, th")].map(cell => cell.getBoundingClientRect().right)]"""
COLUMN = """(column) => [...document.querySelector("table.sorts").tBodies[0].rows].map(row =>
  row.cells[column].firstChild.textContent.trim())"""
TIMES = """() => [...document.querySelectorAll("video")].map(video => [video.currentTime, video.duration])"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("report")
    write_outcome(outcome_of(folder / "metrics.jsonl", noise=5.0), folder / "eval", quiet=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.failures = []
        page.on("pageerror", lambda error: page.failures.append(str(error)))
        page.on("requestfailed", lambda request: page.failures.append(request.url))
        page.goto(Path(folder / "eval" / "report.html").as_uri())
        page.wait_for_function("[...document.querySelectorAll('video')].every(video => video.duration > 0)")
        yield page
        assert page.failures == []
        browser.close()


def test_a_table_sorts_by_click_and_by_keyboard_with_empty_cells_last(page: Any) -> None:
    heads = page.locator("table.sorts").first.locator("thead button")
    before = page.evaluate(COLUMN, 3)
    heads.nth(3).click()
    numbers = [float(text) for text in page.evaluate(COLUMN, 3) if text != "–"]
    assert numbers == sorted(numbers) and len(set(before)) > 2
    page.keyboard.press("Enter")
    assert [float(text) for text in page.evaluate(COLUMN, 3) if text != "–"] == numbers[::-1]
    assert heads.nth(3).evaluate("head => head.parentElement.getAttribute('aria-sort')") == "descending"
    heads.nth(4).focus()
    page.keyboard.press("Space")
    shifted = page.evaluate(COLUMN, 4)
    empty = shifted.count("–")
    assert 0 < empty < len(shifted) and shifted[-empty:] == ["–"] * empty
    page.keyboard.press("Space")
    assert page.evaluate(COLUMN, 4)[-empty:] == ["–"] * empty, "in either order"
    heads.nth(0).click()
    names = page.locator("table.sorts").first.locator("tbody td:first-child").all_text_contents()
    assert [name.strip() for name in names] == sorted(name.strip() for name in names)


def test_one_scrubber_moves_all_videos_and_keeps_the_keyboard(page: Any) -> None:
    page.locator("#at").focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("[...document.querySelectorAll('video')].every(video => !video.seeking)")
    times = page.evaluate(TIMES)
    assert len(times) == 2 and {round(duration, 1) for _, duration in times} == {1.3, 2.6}
    assert all(abs(time - 0.8) < 0.05 for time, _ in times), "20 frames on in both"
    assert page.evaluate("document.activeElement.id") == "at"
    page.keyboard.press("End")
    page.wait_for_function("[...document.querySelectorAll('video')].every(video => !video.seeking)")
    assert all(abs(time - duration) < 0.1 for time, duration in page.evaluate(TIMES)), "the shorter waits at its end"
    page.keyboard.press("Home")
    page.wait_for_function("document.querySelectorAll('video')[0].currentTime < 0.05")
    assert page.locator("#time").text_content() == "0.00 s"


BROKEN = """() => [...document.querySelectorAll("td:not(:first-child), th:not(:first-child)")].flatMap(cell => {
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), torn = [];
  while (walker.nextNode()) for (const word of walker.currentNode.data.matchAll(/[^\\s-]+/g)) {
    if (word[0].includes("\\u00ad")) continue;
    const range = document.createRange();
    range.setStart(walker.currentNode, word.index);
    range.setEnd(walker.currentNode, word.index + word[0].length);
    if (new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1) torn.push(word[0]);
  }
  return torn;
})"""
"""The words and numbers of cells that stand on more than one line."""


@pytest.mark.parametrize("width", [390, 1280])
def test_many_systems_scroll_in_their_table_and_no_word_or_number_is_torn(page: Any, width: int) -> None:
    found = Score(-0.317, -0.317, -0.293, n=3)
    rows = [GROUND_TRUTH, *(f"system-{number}" for number in range(15))]
    table: Table = {row: {spec.name: found for spec in (*CATALOG, *SETS)} for row in rows}
    other = page.context.browser.new_page(viewport={"width": width, "height": 800})
    other.set_content(render(Report("many", "", [], {33: table}, {33: 6}, [])))
    screen, *tables = other.evaluate("""() => [document.documentElement.scrollWidth,
      ...[...document.querySelectorAll("table")].map(table => table.scrollWidth)]""")
    torn = other.evaluate(BROKEN)
    other.close()
    assert screen == width and min(tables) > width
    assert torn == []


@pytest.mark.parametrize("width", [390, 1280])
def test_a_run_tears_no_word_or_number(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate(BROKEN) == []


@pytest.mark.parametrize("width", [390, 1280])
def test_no_table_of_a_run_is_wider_than_the_screen(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    found = page.evaluate(WIDTHS)
    assert len(found) > 10 and max(found) <= width
