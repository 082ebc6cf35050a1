"""Paints the picture of a front that README.md shows: the plots and some members' pictures of a report.

    gs-search report runs/quickstart && python studies/front_picture.py runs/quickstart studies/quickstart_front.png

Takes a screenshot of ``report.html`` in a headless Chromium, so that the picture shows what a reader gets. Needs
playwright (extra ``test``) and a Chromium on the path.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SHOWN = 5  # members of the front, spread from the cheapest to the dearest
WIDTH = 1240
STYLE = """
    main > :not([aria-labelledby=front], [aria-labelledby=pictures]), header, footer { display: none !important; }
    .space, .costs, .chips, .reading, h2, .note { display: none !important; }
    body { background: white; } main { padding: 12px; max-width: none; }
    section { margin: 0 0 12px; } .plot { height: 340px; }
    .strip img { border-radius: 0; }
"""
CHOOSE = """shown => {
    const strips = [...document.querySelectorAll('.strip[id]')];
    const last = strips.length - 1, steps = Math.min(shown, strips.length) - 1;
    const kept = new Set([...Array(steps + 1).keys()].map(i => Math.round(i * last / Math.max(steps, 1))));
    strips.forEach((strip, index) => { if (!kept.has(index)) strip.remove(); });
    document.querySelector('.anchors').style.position = 'static';
}"""


@click.command()
@click.argument("run_folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("picture", type=click.Path(path_type=Path, dir_okay=False))
def main(run_folder: Path, picture: Path) -> None:
    """Write PICTURE from the report of RUN_FOLDER."""
    from playwright.sync_api import sync_playwright

    browser_path = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser_path is None:
        raise click.ClickException("no Chromium on the path; install one")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto((run_folder / "report.html").resolve().as_uri())
        page.add_style_tag(content=STYLE)
        page.evaluate(CHOOSE, SHOWN)
        for name in ("front-gflops", "front-size"):
            page.wait_for_selector(f"#{name} .main-svg")
        page.evaluate("window.dispatchEvent(new Event('resize'))")  # the plots take their new size
        page.wait_for_timeout(1000)
        page.locator("main").screenshot(path=picture)
        browser.close()
    click.echo(f"{picture}: {picture.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
