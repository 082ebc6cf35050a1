"""The report in a real browser: it draws, stays quiet, fits a phone and a desk, answers pointer, fingers and keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gs_search.report import write_report
from gs_search.report.content import Content, gather
from gs_search.results.run_folder import RunFolder
from tests.synthetic_run import write_run

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

playwright = pytest.importorskip("playwright.sync_api", reason="NO PLAYWRIGHT: THE REPORT WAS NOT OPENED IN A BROWSER")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--no-first-run", "--disable-quic", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL without a graphics card
)
AXES = {
    "front-gflops": ["GFLOPs a picture at 32 px (10⁹ multiply-adds)", "FID (lower is better)"],
    "front-size": ["size, MB (10⁶ bytes, packed)", "FID (lower is better)"],
    "front-costs": ["GFLOPs a picture at 32 px", "size, MB (10⁶ bytes, packed)"],
    "layers-width": ["channels"],
    "layers-bits": ["bits of the weights (and of the inputs)"],
    "hypervolume": ["compute, minutes of one worker", "hypervolume, % of the box"],
    "timeline": ["minutes since the first trial began"],
    "curves-pixel": ["training step", "pixel distance to the teacher"],
    "curves-adversarial": ["training step", "adversarial loss of the student"],
    "rungs": ["training step", "dB to the teacher’s pictures (higher is nearer)"],
    "importance-fid": ["share of the influence, %"],
    "importance-gflops": ["share of the influence, %"],
    "importance-size_mb": ["share of the influence, %"],
}
"""Titles of the axes of every flat figure."""
PLACE = """([id, number]) => {
    const box = document.getElementById(id), { xaxis, yaxis } = box._fullLayout, { x, y } = box.getBoundingClientRect();
    for (const trace of box.data) {
        const at = (trace.customdata ?? []).findIndex((entry) => entry?.[0] === number);
        if (at >= 0) return [x + xaxis._offset + xaxis.d2p(trace.x[at]), y + yaxis._offset + yaxis.d2p(trace.y[at])];
    }
}"""
"""Where a trial lies in the window: Plotly listens on a cover above its points."""


class Tab:
    """One open report, with everything that it complained about or asked for."""

    def __init__(self, context: Any, path: Path, figures: tuple[str, ...]) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = context.new_page()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        for name in figures:  # drawn when they come near the window
            self.page.locator(f"#{name}").scroll_into_view_if_needed()
            self.page.wait_for_selector(f"#{name} .main-svg")

    def _hear(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def place(self, number: int, figure: str = "front-gflops") -> tuple[float, float]:
        """Where a trial lies, after its figure has come to the middle of the window."""
        self.page.locator(f"#{figure}").evaluate("box => box.scrollIntoView({block: 'center', behavior: 'instant'})")
        self.settle()  # a card hides when the page scrolls, and the page tells so a frame later
        x, y = self.page.evaluate(PLACE, [figure, number])
        return x, y

    def until(self, expression: str, expected: Any) -> None:
        """Wait for a value; the page's policy forbids the polling that Playwright would do in it."""
        for _ in range(100):
            if self.page.evaluate(expression) == expected:
                return
            self.page.wait_for_timeout(100)
        assert self.page.evaluate(expression) == expected

    def settle(self) -> None:
        """Let pass a frame: scrolling is told in it, rings round pinned trials move in it."""
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def fresh(self) -> None:
        """As if it had just been opened, at less cost."""
        self.page.keyboard.press("Escape")
        self.page.mouse.move(2, 2)
        if self.page.locator("#tray").is_visible():
            self.page.locator("#unpin").click()


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
    return write_report(write_run(tmp_path_factory.mktemp("browser") / "run", image_px=32))


@pytest.fixture(scope="module")
def content(report: Path) -> Content:
    return gather(RunFolder(report.parent))


@pytest.fixture(scope="module")
def desk(browser: Any, report: Path) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    yield Tab(context, report, ("front-space", *AXES))
    context.close()


@pytest.fixture(scope="module")
def phone(browser: Any, report: Path) -> Iterator[Tab]:
    """One that draws no WebGL, as some do."""
    context = browser.new_context(
        viewport={"width": 390, "height": 850}, color_scheme="light", has_touch=True, is_mobile=True
    )
    context.add_init_script(
        "const real = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) "
        "{ return kind.startsWith('webgl') ? null : real.call(this, kind, ...rest); };"
    )
    yield Tab(context, report, tuple(AXES))
    context.close()


@pytest.fixture
def tab(desk: Tab) -> Tab:
    desk.fresh()
    return desk


def apart(content: Content) -> tuple[int, int]:
    """Two members of the front that a pointer cannot take for each other."""
    return content.front[0].number, content.front[-1].number


@pytest.mark.parametrize(("name", "width"), [("phone", 390), ("desk", 1440)])
def test_opens_without_a_complaint(request: pytest.FixtureRequest, name: str, width: int) -> None:
    tab: Tab = request.getfixturevalue(name)
    page = tab.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for figure, expected in AXES.items():
        titles = page.locator(f"#{figure} :is(.xtitle, .ytitle)").all_text_contents()
        assert [title for title in titles if title] == expected, figure
    unloaded = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert page.evaluate(unloaded) == 0
    small = "[...document.querySelectorAll('.plot:has(svg)')].filter(p => p.clientWidth < 300 || p.clientHeight < 120)"
    assert page.evaluate(f"{small}.length") == 0
    page.locator("#front-gflops").scroll_into_view_if_needed()
    for scheme, ground, front in (("dark", "20, 23, 26", "86, 180, 233"), ("light", "246, 247, 249", "0, 114, 178")):
        page.emulate_media(color_scheme=scheme)
        tab.until("getComputedStyle(document.body).backgroundColor", f"rgb({ground})")
        points = "[...document.querySelectorAll('#front-gflops .point')].map(point => point.style.fill)"
        tab.until(f"{points}.includes('rgb({front})')", True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_turning_view_needs_webgl_and_says_so(desk: Tab, phone: Tab) -> None:
    assert desk.page.locator("#front-space canvas").count() > 0
    phone.page.locator("#front-space").scroll_into_view_if_needed()
    phone.page.wait_for_selector("#front-space .warning")


@pytest.mark.parametrize("figure", ["front-gflops", "front-size", "front-costs"])
def test_hovering_shows_the_numbers_and_the_pictures(tab: Tab, content: Content, figure: str) -> None:
    page, student = tab.page, content.front[-1]
    page.mouse.move(*tab.place(student.number, figure))
    page.wait_for_selector("#card:visible")
    told = page.locator("#card").inner_text()
    for word in (f"Trial {student.number}", "on the front", f"{student.fid:.1f}", f"{student.psnr:.1f}", "bits"):
        assert word in told
    shown = page.locator("#card img").evaluate_all("all => all.map(i => [i.src, i.naturalWidth > 0 && i.width > 200])")
    own = page.locator(f"#picture-{student.number} .open img").get_attribute("src")
    anchors = [page.locator(f"#row-{name}").get_attribute("src") for name in ("input", "teacher")]
    assert shown == [[source, True] for source in (*anchors, own)]
    page.mouse.move(2, 2)
    page.wait_for_selector("#card", state="hidden")
    assert tab.complaints == []


def test_the_stopped_tell_their_cause(tab: Tab) -> None:
    tab.page.mouse.move(*tab.place(11, "front-costs"))
    tab.page.wait_for_selector("#card:visible")
    told = tab.page.locator("#card").inner_text()
    assert "stopped early" in told and "trial 3 is better in all objectives at rung 0" in told
    assert tab.page.locator("#card img").count() == 0


def test_clicks_pin_two_students_side_by_side(tab: Tab, content: Content) -> None:
    page, (a, b) = tab.page, apart(content)
    page.mouse.click(*tab.place(a))
    page.wait_for_selector("#tray:visible")
    assert f"A trial {a}" in page.locator("#tray").inner_text() and page.locator("dialog[open]").count() == 0
    page.mouse.click(*tab.place(b))
    page.wait_for_selector("#compare[open]")
    assert page.locator("#compare .wipe").evaluate_all("all => all.map(box => Number(box.dataset.trial))") == [a, b]
    under, over = (
        f"getComputedStyle(document.querySelector('#compare .{name}')).backgroundImage" for name in ("under", "over")
    )
    teacher = page.locator("#row-teacher").get_attribute("src")
    assert page.evaluate(under) == f'url("{teacher}")'
    assert page.evaluate(over) == f'url("{page.locator(f"#picture-{a} .open img").get_attribute("src")}")'

    # The slider: by pointer, both lines at once.
    box = page.locator("#compare .wipe input").first.bounding_box()
    page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 0.5 * box["height"])
    values = page.locator("#compare .wipe input").evaluate_all("all => all.map(range => Number(range.value))")
    assert values[0] == values[1] and 74 <= values[0] <= 86
    clipped = page.evaluate("getComputedStyle(document.querySelector('#compare .over')).clipPath")
    assert clipped.endswith(f"{values[0]}%)")

    # Another picture, and what is to the left of the line.
    before = page.evaluate("document.querySelector('#compare .over').style.backgroundPosition")
    page.locator("#compare .choose label").nth(3).click()
    assert page.evaluate("document.querySelector('#compare .over').style.backgroundPosition") != before
    page.locator("#under").select_option("input")
    assert page.evaluate(under) == f'url("{page.locator("#row-input").get_attribute("src")}")'
    page.locator("#under").select_option("teacher")

    rows = page.locator("#compare .against tr").all_inner_texts()
    students = {student.number: student for student in content.front}
    assert rows[1].split("\t")[:4] == ["FID", "61.4", f"{students[a].fid:.1f}", f"{students[b].fid:.1f}"]
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    labels = "document.querySelector('#front-gflops').data.at(-1).text"
    tab.settle()
    assert page.evaluate(labels) == ["<b>A</b>", "<b>B</b>"]
    assert page.locator("#layers-a").inner_text() == f"trial {a}"
    drawn = page.evaluate("[1, 2].map((at) => report.figures['layers-width'].data[at].x)")
    assert drawn == [[layer.width for layer in students[number].layers] for number in (a, b)]
    page.locator("#unpin").click()
    tab.settle()
    assert page.locator("#tray").is_hidden() and page.evaluate(labels.replace(".text", ".x")) == []
    assert tab.complaints == []


def test_keys_alone_pin_and_compare(tab: Tab, content: Content) -> None:
    page = tab.page
    front = [student.number for student in content.front]
    page.locator("#chips .chip[tabindex='0']").focus()
    page.keyboard.press("End")
    page.keyboard.press("Home")
    assert page.evaluate("Number(document.activeElement.dataset.trial)") == front[0]
    assert f"Trial {front[0]}" in page.locator("#card").inner_text()
    assert page.locator("#card img").count() == 3
    page.keyboard.press("Enter")
    assert page.locator("#tray").is_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#compare[open]")
    assert page.evaluate("document.activeElement.type") == "range"
    before = page.evaluate("Number(document.activeElement.value)")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("Number(document.activeElement.value)") == before + 6
    for _ in range(30):  # the dialog holds the focus, all of it can be reached, and nothing holds it for ever
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('#compare')")
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("Number(document.activeElement.dataset.trial)") == front[1]
    pressed = page.locator(".chip[aria-pressed=true]").evaluate_all(
        "all => all.map(chip => Number(chip.dataset.trial))"
    )
    assert pressed == front[:2]
    page.keyboard.press("Enter")  # takes the pin away
    assert page.locator(".chip[aria-pressed=true]").count() == 1
    page.keyboard.press("Tab")
    assert not page.evaluate("!!document.activeElement.closest('#chips')")
    assert tab.complaints == []


def test_a_finger_opens_the_card_and_pins_from_it(phone: Tab, content: Content) -> None:
    page, numbers = phone.page, apart(content)
    for number in numbers:
        page.touchscreen.tap(*phone.place(number))
        page.wait_for_selector("#card.docked:visible")
        assert f"Trial {number}" in page.locator("#card").inner_text() and page.locator("#card img").count() == 3
        page.locator("#card").get_by_role("button", name="Pin").tap()
    page.wait_for_selector("#compare[open]")
    assert page.evaluate("document.querySelector('#compare').scrollWidth <= 390")
    page.locator("#compare").get_by_role("button", name="Close").tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#tray").bounding_box()["width"] <= 390 and phone.complaints == []


def shown(page: Any) -> list[int]:
    ids = page.locator("tr[id^=row-]").evaluate_all("rows => rows.filter(row => !row.hidden).map(row => row.id)")
    return [int(name.removeprefix("row-")) for name in ids]


def test_the_table_sorts_numbers_as_numbers_and_what_is_missing_last(tab: Tab, content: Content) -> None:
    page = tab.page
    assert len(shown(page)) == 24
    heading = page.locator("th[scope=col] button", has_text="FID")
    heading.focus()
    page.keyboard.press("Enter")
    students = sorted(content.students, key=lambda s: s.fid)
    assert shown(page)[:21] == [student.number for student in students]
    page.keyboard.press("Enter")
    assert shown(page)[:21] == [student.number for student in reversed(students)]
    assert set(shown(page)[21:]) == {5, 11, 17}
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("FID")


def test_the_table_filters_by_text_kind_and_range(tab: Tab, content: Content) -> None:
    page = tab.page
    count = "document.getElementById('count').textContent"
    page.locator("#find").fill("killed sigkill")
    assert shown(page) == [17] and page.locator("#count").inner_text() == "1 of 24 trials shown"
    page.locator("#find").fill("")
    for kind in ("front", "dominated", "failed"):
        page.locator(f"#filters input[value={kind}]").uncheck()
    assert shown(page) == [11]
    page.get_by_role("button", name="Reset", exact=True).click()
    tab.until(count, "24 of 24 trials shown")
    page.locator("#ranges summary").click()
    low, high = sorted(student.fid for student in content.students)[3:13:9]
    page.get_by_label("FID, at least").fill(f"{low:.4f}")
    page.get_by_label("FID, at most").fill(f"{high:.4f}")
    page.get_by_label("target_gflops_ratio, at most").fill("0.3")
    inside = [s for s in content.students if low <= s.fid <= high and s.point["target_gflops_ratio"] <= 0.3]
    assert 0 < len(inside) < 10 and set(shown(page)) == {student.number for student in inside}
    page.get_by_role("button", name="Reset", exact=True).click()
    tab.until(count, "24 of 24 trials shown")
    page.locator("#ranges summary").click()


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
    tab.until(f"window.scrollY > {height}", True)
    assert page.evaluate(camera) == before


def test_a_click_in_the_turning_view_pins_and_a_turn_does_not(tab: Tab, content: Content) -> None:
    page, number = tab.page, content.front[0].number
    page.locator("#front-space").evaluate("box => box.scrollIntoView({block: 'center', behavior: 'instant'})")
    box = page.locator("#front-space").bounding_box()
    x, y = box["x"] + 40, box["y"] + 60  # away from every point
    hover = "number => document.getElementById('front-space').emit('plotly_hover', {points: [{customdata: [number]}]})"
    for way, pinned in ((30, []), (0, [number])):
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + way, y)
        page.evaluate(hover, number)
        page.mouse.up()
        tab.settle()
        assert page.evaluate("report.pins()") == pinned


def test_the_plots_offer_no_upload(tab: Tab) -> None:
    titles = tab.page.locator(".modebar-btn").evaluate_all("all => all.map(button => button.dataset.title)")
    assert len(titles) >= 50 and titles[0].startswith("Download")
    assert not [title for title in titles if "cloud" in title.lower() or "share" in title.lower()]


def test_the_theme_can_be_chosen(tab: Tab) -> None:
    page = tab.page
    page.evaluate("window.scrollTo({top: 0, behavior: 'instant'})")
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


def test_paper_is_white_and_shows_every_figure(phone: Tab) -> None:
    page = phone.page
    page.evaluate("window.scrollTo({top: 0, behavior: 'instant'})")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    colour = "document.querySelector('#curves-pixel').layout.font.color"  # far away
    assert page.evaluate(colour) == "#1f2328"
    ground = "getComputedStyle(document.querySelector('.facts > div')).backgroundColor"
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    assert page.locator("#filters").is_hidden() and page.locator("#theme").is_hidden()
    page.emulate_media(media="screen", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    page.locator("#curves-pixel").scroll_into_view_if_needed()
    phone.until(colour, "#e6e8eb")


def test_without_scripts_texts_pictures_and_tables_are_there(browser: Any, report: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("tr[id^=row-]").locator("visible=true").count() == 24
    assert page.locator(".strip img").locator("visible=true").count() > 4
    assert page.get_by_text("The plots need JavaScript").is_visible()
    assert page.locator(".plot, #chips, #filters").locator("visible=true").count() == 0
    context.close()
