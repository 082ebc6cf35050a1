"""The dashboard in a real browser: quiet, at home, within the window, with pictures, notes and figures.

``GS_SEARCH_SCREENSHOTS=DIR`` keeps what it looked like.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gs_search.dashboard.app import DashboardApp
from gs_search.dashboard.figures import FIGURES
from tests.dashboard.filled_run import served
from tests.web.chromium import chromium

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

UNSEEN = "THE DASHBOARD WAS NOT OPENED IN A BROWSER"
LOADED = "[...document.images].filter(image => image.complete && image.naturalWidth > 0).length"
WIDTH = "document.documentElement.scrollWidth"
AXES = {
    "front-fid-gflops": ["GFLOPs a picture at 32 px (10⁹ multiply-adds)", "FID (lower is better)"],
    "front-fid-mb": ["size, MB (10⁶ bytes, packed)", "FID (lower is better)"],
    "front-gflops-mb": ["GFLOPs a picture at 32 px", "size, MB (10⁶ bytes, packed)"],
    "hypervolume": ["compute, minutes of one worker", "hypervolume, % of the box"],
    "learning-curves": ["training step", "pixel distance to the teacher"],
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(UNSEEN) as launched:
        yield launched


@pytest.mark.parametrize("width", [1440, 390])
def test_study_trial_and_note(browser: Any, app: DashboardApp, width: int) -> None:
    phone = width < 500
    context = browser.new_context(viewport={"width": width, "height": 900}, has_touch=phone, is_mobile=phone)
    page, complaints, hosts = context.new_page(), [], set()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
    with served(app) as address:
        app.page.study()  # drawn by now: the first answer holds the figures
        page.goto(address)
        for name in FIGURES:
            page.wait_for_selector(f"[id='user-defined-plot:{name}'] .main-svg")
        assert urlsplit(page.url).path == "/dashboard/studies/1"
        for name, titles in AXES.items():
            plot = f"[id='user-defined-plot:{name}']"
            assert page.locator(f"{plot} :is(.xtitle, .ytitle)").all_text_contents() == titles
            box = page.locator(plot).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["width"] > 200
        scene = "document.getElementById('user-defined-plot:front-space')._fullLayout.scene"
        assert page.evaluate(f"['x', 'y', 'z'].map(a => {scene}[a + 'axis'].title.text)") == [
            "GFLOPs",
            "size, MB",
            "FID",
        ]
        assert page.locator("[id='user-defined-plot:front-space'] canvas").count() > 0
        assert page.evaluate(WIDTH) <= width
        keep(page, f"study_{width}")

        page.goto(f"{address}dashboard/studies/1/trials?numbers=3")
        page.wait_for_selector("table >> text=GFLOPs a picture")
        page.wait_for_function(f"{LOADED} > 0")
        assert page.locator("img[src^='/artifacts/']").bounding_box()["width"] > 250, "inline, and no stamp"
        assert page.get_by_text("gs-search retrain").count() == 1
        assert page.locator("table").count() == 2
        assert page.get_by_text("[//]").count() == 0, "the marks around what is written are not to be seen"
        assert page.evaluate(WIDTH) <= width
        keep(page, f"trial_{width}")

        page.goto(f"{address}dashboard/studies/1/note")
        page.wait_for_selector("table >> text=teacher")
        assert page.locator("table >> text=knee").count() == 1
        assert page.evaluate(WIDTH) <= width
        keep(page, f"note_{width}")
        page.goto("about:blank")  # leave, before the server does
    assert complaints == []
    assert hosts - {""} == {urlsplit(address).netloc}
    context.close()


def keep(page: Any, name: str) -> None:
    if folder := os.environ.get("GS_SEARCH_SCREENSHOTS"):
        page.wait_for_timeout(500)
        page.screenshot(path=Path(folder) / f"dashboard_{name}.png", full_page=True)
