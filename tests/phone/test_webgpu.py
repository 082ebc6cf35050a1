"""The page with WebGPU, drawn by software: slow, and the same picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.phone.opened import UNSEEN, Files, decibels, encoded, painted, scene
from tests.web.chromium import chromium

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(UNSEEN, "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader") as launched:
        yield launched


def test_floats_run_on_graphics(open_phone: Callable[..., Any], files: Files) -> None:
    with open_phone(files.floats) as phone:
        assert phone.page.locator("#note").is_hidden() and phone.page.locator("#backend").input_value() == "webgpu"
        phone.take("photo.png", encoded(scene()))
        assert phone.page.locator("#status").inner_text().startswith("WebGPU, 64 × 64: median of ")
        assert decibels(phone.pixels("student"), painted(files.floats, scene())) >= 60
        phone.page.evaluate("() => { document.documentElement.dataset.state = ''; }")
        phone.page.locator("#backend").select_option("wasm")
        phone.wait("done")
        assert phone.page.locator("#status").inner_text().startswith("WebAssembly, ")
        phone.check()


def test_a_file_that_graphics_cannot_run_falls_back(open_phone: Callable[..., Any], files: Files) -> None:
    """Either WebGPU runs the whole numbers, or WebAssembly does and a line says so."""
    with open_phone(files.integer) as phone:
        note = phone.page.locator("#note").text_content()
        backend = phone.page.locator("#backend").input_value()
        fallen = "WebGPU cannot run this file here: WebAssembly runs instead."
        assert (backend, note) in (("webgpu", ""), ("wasm", fallen))
        phone.take("photo.png", encoded(scene()))
        assert phone.error() == ""
        assert decibels(phone.pixels("student"), painted(files.integer, scene())) >= 35
        phone.check()
