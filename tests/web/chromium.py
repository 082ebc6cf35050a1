"""A headless Chromium for tests of pages; a loud skip where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["chromium"]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-background-networking", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@contextmanager
def chromium(unseen: str, *flags: str) -> Iterator[Any]:
    """Launch it; ``unseen`` says in capitals what is not looked at without it."""
    playwright = pytest.importorskip("playwright.sync_api", reason=f"NO PLAYWRIGHT: {unseen}")
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip(f"NO CHROMIUM: {unseen}; `apt-get install chromium`")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=found, args=[*FLAGS, *flags])
        yield launched
        launched.close()
