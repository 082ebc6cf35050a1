"""The report in a real browser: it draws, stays quiet, fits a phone and a desk, answers clicks and keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gs_search.report import write_report
from gs_search.report.content import Student, gather
from gs_search.runfolder import RunFolder
from tests.synthetic_run import write_run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

playwright = pytest.importorskip("playwright.sync_api", reason="NO PLAYWRIGHT: THE REPORT WAS NOT OPENED IN A BROWSER")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--no-first-run", "--disable-quic", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL without a graphics card
)
FIGURES = ("front-gflops", "front-size", "front-space")


class Tab:
    """One open report, with everything that it complained about or asked for."""

    def __init__(self, context: Any, path: Path) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = context.new_page()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        for name in FIGURES:  # drawn when they come near the window
            self.page.locator(f"#{name}").scroll_into_view_if_needed()
            self.page.wait_for_selector(f"#{name} .main-svg")

    def _hear(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip("NO CHROMIUM: THE REPORT WAS NOT OPENED IN A BROWSER; `apt-get install chromium`")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=found, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_run(tmp_path_factory.mktemp("browser") / "run"))


@pytest.fixture(scope="module")
def tab(browser: Any, report: Path) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    yield Tab(context, report)
    context.close()


@pytest.mark.parametrize("width", [390, 1440])
def test_opens_without_a_complaint(browser: Any, report: Path, width: int) -> None:
    phone = width < 500
    context = browser.new_context(
        viewport={"width": width, "height": 850}, color_scheme="light", has_touch=phone, is_mobile=phone
    )
    tab = Tab(context, report)
    page = tab.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#front-space canvas").count() > 0
    axes = "#front-gflops .xtitle, #front-gflops .ytitle, #front-size .xtitle"
    titles = page.locator(axes).all_text_contents()
    assert titles == [
        "GFLOPs a picture at 64 px (10⁹ multiply-adds)",
        "FID (lower is better)",
        "size, MB (10⁶ bytes, packed)",
    ]
    unloaded = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert page.evaluate(unloaded) == 0
    small = "[...document.querySelectorAll('.plot')].filter(p => p.clientWidth < 300 || p.clientHeight < 300).length"
    assert page.evaluate(small) == 0
    for scheme, ground, front in (("light", "246, 247, 249", "0, 114, 178"), ("dark", "20, 23, 26", "86, 180, 233")):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(300)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == f"rgb({ground})"
        points = page.locator("#front-gflops .point").evaluate_all("all => all.map(point => point.style.fill)")
        assert f"rgb({front})" in points
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()


def test_hovering_tells_and_clicking_finds_the_row(tab: Tab) -> None:
    page = tab.page
    page.locator("#front-size").scroll_into_view_if_needed()
    # Plotly listens on a cover above the points, so the mouse goes where a point lies.
    places = page.evaluate(
        "[...document.querySelectorAll('#front-size .trace.scatter')]"
        ".map(trace => [...trace.querySelectorAll('.point')].map(point => point.getBoundingClientRect())"
        ".map(box => [box.x + box.width / 2, box.y + box.height / 2]))"
    )
    x, y = max(places, key=len)[0]
    page.mouse.move(x, y)
    page.wait_for_selector("#front-size .hoverlayer .hovertext")
    told = page.locator("#front-size .hoverlayer .hovertext").text_content()
    assert "trial" in told and "FID" in told and "MB" in told
    page.mouse.click(x, y)
    page.wait_for_selector("tr.marked")
    number = page.locator("tr.marked").get_attribute("id").removeprefix("row-")
    assert f"trial {number}" in told
    assert tab.complaints == []


def test_the_table_sorts_by_numbers_and_shows_the_dominated(tab: Tab, report: Path) -> None:
    page = tab.page
    students = gather_students(report)
    visible = "tr[id^=row-]:visible"
    assert page.locator(visible).count() == sum(student.on_front for student in students)
    page.get_by_label("dominated students too").check()
    assert page.locator(visible).count() == len(students)

    def order() -> list[int]:
        ids = page.locator("tr[id^=row-]").evaluate_all("rows => rows.map(row => row.id)")
        return [int(name.removeprefix("row-")) for name in ids]

    heading = page.locator("th[scope=col] button", has_text="FID")
    heading.focus()
    page.keyboard.press("Enter")
    assert order() == [s.number for s in sorted(students, key=lambda s: s.fid)]
    page.keyboard.press("Enter")
    assert order() == [s.number for s in sorted(students, key=lambda s: -s.fid)]
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("FID")


def test_a_row_of_pictures_opens_beside_input_and_teacher(tab: Tab) -> None:
    page = tab.page
    page.locator("button.open").first.click()
    assert page.locator("dialog[open] img").count() == 3
    assert page.locator("dialog[open] .rows p").all_inner_texts() == ["input", "teacher", "student"]
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_the_wheel_scrolls_the_page_over_the_turning_view(tab: Tab) -> None:
    page = tab.page
    page.locator("#front-space").scroll_into_view_if_needed()
    page.locator("#front-space").hover()
    camera = "JSON.stringify(document.querySelector('#front-space')._fullLayout.scene.camera.eye)"
    before, height = page.evaluate(camera), page.evaluate("window.scrollY")
    page.mouse.wheel(0, 300)
    page.wait_for_timeout(700)  # the page scrolls smoothly, and its policy forbids the polling of a condition
    assert page.evaluate("window.scrollY") > height
    assert page.evaluate(camera) == before


def test_the_plots_offer_no_upload(tab: Tab) -> None:
    titles = tab.page.locator(".modebar-btn").evaluate_all("all => all.map(button => button.dataset.title)")
    assert len(titles) == 13 and titles[0].startswith("Download")
    assert not [title for title in titles if "cloud" in title.lower() or "share" in title.lower()]


def test_the_theme_can_be_chosen(tab: Tab) -> None:
    page = tab.page
    line = "document.querySelector('#front-gflops').layout.font.color"
    light = page.evaluate(line)
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.locator("#theme").inner_text() == "Theme: dark"
    assert page.evaluate(line) != light
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    page.locator("#theme").click()
    assert page.evaluate(line) == light
    assert tab.complaints == []


def test_without_webgl_the_page_says_so(browser: Any, report: Path) -> None:
    context = browser.new_context()
    context.add_init_script(
        "const real = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) "
        "{ return kind.startsWith('webgl') ? null : real.call(this, kind, ...rest); };"
    )
    page = context.new_page()
    page.goto(report.as_uri())
    page.locator("#front-space").scroll_into_view_if_needed()
    page.wait_for_selector("#front-space .warning")
    context.close()


def gather_students(report: Path) -> tuple[Student, ...]:
    return gather(RunFolder(report.parent)).students
