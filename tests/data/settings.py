"""A stand-in for the study file's ``data`` section."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Settings:
    kind: Literal["drawn", "folders", "photos", "pairs"]
    path: Path | None = None
    train: int = 12
    val: int = 4
    test: int = 3
    reference: int = 5
    side: Literal["left", "right"] | None = None
