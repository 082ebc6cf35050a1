"""The page in a headless Chromium of a phone's size: a photo goes in, the runtime's own picture comes out, none leaves.

``GS_SEARCH_SCREENSHOTS=DIR`` keeps what it looked like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.phone.opened import PX, UNSEEN, Files, decibels, encoded, keep, painted, scene
from tests.web.chromium import chromium

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(UNSEEN, "--host-resolver-rules=MAP phone.test 127.0.0.1") as launched:
        yield launched


def test_a_photo_goes_in_and_the_same_picture_comes_out(open_phone: Callable[..., Any], files: Files) -> None:
    picture = scene()
    with open_phone(files.integer, files.floats, color_scheme="light") as phone:
        page = phone.page
        assert page.evaluate("() => crossOriginIsolated")
        note = page.locator("#note").text_content()
        assert page.locator("#backend").input_value() == "webgpu" or "WebAssembly runs instead" in note
        phone.take("photo.png", encoded(picture))
        assert phone.error() == ""
        assert np.array_equal(phone.pixels("input"), picture), "byte for byte"
        assert decibels(phone.pixels("student"), painted(files.integer, picture)) >= 35
        assert decibels(phone.pixels("teacher"), painted(files.floats, picture)) >= 60
        for name, file in (("student", files.integer), ("teacher", files.floats)):
            ms, mb, gflops, fid = page.locator(f"#figures-{name} td").all_inner_texts()
            assert float(ms) > 0 and float(mb) == pytest.approx(file.stat().st_size / 1e6, rel=0.01)
            assert (gflops, fid) == (("0.0312", "72.5") if name == "student" else ("0.418", "61.4"))
        assert "median of" in page.locator("#status").inner_text()

        page.locator("#share").focus()
        for key, share in (("ArrowRight", "51"), ("ArrowLeft", "50"), ("Home", "0"), ("End", "100")):
            page.keyboard.press(key)
            assert page.locator("#share").input_value() == share
        assert page.locator("#share").get_attribute("aria-valuetext") == "100 % photo, 0 % student"
        clip = "() => getComputedStyle(document.getElementById('left')).clipPath"
        assert page.evaluate(clip) == "inset(0px 0% 0px 0px)"
        page.get_by_role("radio", name="teacher").check()
        assert page.locator("#teacher").is_visible() and page.locator("#input").is_hidden()
        page.locator("#share").fill("40")

        with page.expect_download() as saved:
            page.get_by_role("button", name="Save as PNG").click()
        assert saved.value.suggested_filename == "quickstart_student.png"
        assert np.array_equal(np.array(Image.open(saved.value.path()).convert("RGB")), phone.pixels("student"))

        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        keep(page, "light")
        page.emulate_media(color_scheme="dark")
        assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
        keep(page, "dark")

        phone.take("wide.png", encoded(scene(200, 100)))  # cut from the middle
        middle = scene(200, 100)[:, 50:150].mean((0, 1))
        assert np.abs(phone.pixels("input").mean((0, 1)) - middle).max() < 2
        page.locator("#frame").select_option("whole")
        page.wait_for_function(
            "() => document.getElementById('student').width > document.getElementById('student').height"
        )
        assert phone.pixels("student").shape == (PX // 2, PX, 3)
        phone.check()


def test_photos_stand_upright_and_fixed_files_get_their_size(open_phone: Callable[..., Any], files: Files) -> None:
    """A phone's camera stores what it sees and says how it was held (EXIF); a fixed file takes one size."""
    picture = scene(120, 160)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter, clockwise
    stored = encoded(np.rot90(picture).copy(), "JPEG", quality=95, subsampling=0, exif=turned.tobytes())
    with open_phone(files.fixed) as phone:
        assert phone.page.locator("#size").inner_text() == "64 × 64, fixed in the file"
        assert phone.page.locator("#size").is_disabled()
        phone.take("photo.jpg", stored, "image/jpeg")
        seen = phone.pixels("input")
        upright = np.array(Image.fromarray(picture[20:140]).resize((PX, PX), Image.Resampling.BOX))
        assert decibels(seen, upright) > 25 > decibels(np.rot90(seen), upright)
        assert decibels(phone.pixels("student"), painted(files.fixed, seen)) >= 60
        phone.take("again.png", encoded(scene()), by="camera")
        assert np.array_equal(phone.pixels("input"), scene())
        phone.check()


def test_a_page_of_another_machine(open_phone: Callable[..., Any], files: Files) -> None:
    """Not secure for the browser: one thread, no WebGPU, said in one line; the token leaves the address."""
    with open_phone(files.floats, host="phone.test") as phone:
        assert urlsplit(phone.page.url).query == ""
        assert phone.page.evaluate("() => [isSecureContext, crossOriginIsolated]") == [False, False]
        note = "WebGPU and threads need https or localhost: WebAssembly runs instead."
        assert phone.page.locator("#note").inner_text() == note
        assert phone.page.locator("#threads").is_disabled()
        phone.take("photo.png", encoded(scene()))
        assert decibels(phone.pixels("student"), painted(files.floats, scene())) >= 60
        phone.address = phone.address.partition("?")[0]
        phone.complaints = [line for line in phone.complaints if "Cross-Origin-Opener-Policy" not in line]
        phone.check()


def test_errors_are_one_line(open_phone: Callable[..., Any], files: Files, tmp_path: Path) -> None:
    with open_phone(files.floats) as phone:
        phone.take("letter.png", b"not a picture")
        assert phone.error() == "letter.png is no picture that this browser can read"
        assert phone.page.get_by_role("alert").is_visible()
        phone.take("photo.png", encoded(scene()))
        assert phone.error() == "" and phone.page.get_by_role("alert").is_hidden()
        phone.check()
    (tmp_path / "torn.onnx").write_bytes(files.floats.read_bytes()[:5000])
    with open_phone(tmp_path / "torn.onnx") as phone:
        assert len(phone.error()) > 10 and "\n" not in phone.error()
        assert phone.page.locator("#status").inner_text() == "Nothing was computed."
        phone.page.set_input_files("#photo", {"name": "a.png", "mimeType": "image/png", "buffer": encoded(scene())})
        assert phone.page.locator("#result").is_hidden() and phone.error()
