"""An open page of a phone, and what Python's ONNX Runtime makes of the same photo."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

UNSEEN = "NO STUDENT WAS RUN IN A BROWSER"
PX = 64
STATE = "state => document.documentElement.dataset.state === state || !document.getElementById('error').hidden"
FORGET = "() => { document.documentElement.dataset.state = ''; document.getElementById('error').hidden = true; }"
PIXELS = """id => {
    const canvas = document.getElementById(id), context = canvas.getContext("2d");
    return [canvas.width, canvas.height, [...context.getImageData(0, 0, canvas.width, canvas.height).data]];
}"""


@dataclass(frozen=True)
class Files:
    """One student with random weights of 8 bits at its ends and 4 inside, and what was exported of it."""

    integer: Path
    floats: Path
    fixed: Path


class Phone:
    """An open page, with all that it asked for, sent, or complained about."""

    def __init__(self, context: Any, address: str) -> None:
        self.address = address
        self.complaints: list[str] = []
        self.asked: list[tuple[str, str, bytes | None]] = []
        self.page = context.new_page()
        context.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.on(
            "request", lambda request: self.asked.append((request.method, request.url, request.post_data_buffer))
        )
        self.page.goto(address)
        self.wait("ready")

    def wait(self, state: str) -> None:
        self.page.wait_for_function(STATE, arg=state, timeout=120_000)

    def take(self, name: str, content: bytes, kind: str = "image/png", by: str = "photo") -> None:
        self.page.evaluate(FORGET)
        self.page.set_input_files(f"#{by}", {"name": name, "mimeType": kind, "buffer": content})
        self.wait("done")

    def error(self) -> str:
        return str(self.page.locator("#error").text_content())

    def pixels(self, canvas: str) -> np.ndarray:
        """H x W x 3 bytes of a canvas."""
        width, height, values = self.page.evaluate(PIXELS, canvas)
        return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]

    def check(self) -> None:
        """Nothing was sent, nobody else was asked, and nobody complained."""
        assert self.complaints == []
        here = urlsplit(self.address)
        for method, address, body in self.asked:
            told = urlsplit(address)
            assert (method, body) == ("GET", None), address
            assert told.scheme == "blob" or told.netloc == here.netloc, address


def scene(width: int = PX, height: int = PX) -> np.ndarray:
    """H x W x 3 bytes: smooth, and different at every side."""
    noise = np.random.default_rng(4).integers(0, 256, (5, 7, 3), np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def encoded(picture: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind, **options)
    return out.getvalue()


def painted(file: Path, picture: np.ndarray) -> np.ndarray:
    """What Python's ONNX Runtime makes of H x W x 3 bytes, by the words that the file says of itself."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    x = picture.astype(np.float32).transpose(2, 0, 1)[None] / np.float32(127.5) - np.float32(1)
    (y,) = session.run(None, {"picture": x})
    return np.floor(np.clip(y[0], -1, 1) * 127.5 + 128).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    error = float(np.mean((a.astype(float) - b.astype(float)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def keep(page: Any, name: str) -> None:
    if folder := os.environ.get("GS_SEARCH_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"phone_{name}.png", full_page=True)
