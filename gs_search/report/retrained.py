"""Full trainings in a report: each beside its trial, whether the order of the trials held, and their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gs_search.report.pictures import Samples, read_samples
from gs_search.results.record import FullRecord
from gs_search.results.run_folder import RunFolder
from gs_search.retrain.summary import full_results, retrain_document

__all__ = ["FullTraining", "FullTrainings", "read_full_trainings"]

PICTURE_ROOM = 2_000_000
"""Characters of the pictures of all full trainings."""


@dataclass(frozen=True, kw_only=True)
class FullTraining:
    """One that is finished. FIDs are of the validation pictures, or of the test pictures where that is said."""

    number: int
    fid: float
    short_fid: float
    """Its trial's."""
    test_fid: float | None
    short_test_fid: float | None
    psnr: float | None
    gflops: float
    size_mb: float
    steps: int
    best_step: int
    places: tuple[int, int] | None
    """By FID among those of the same length: as trials, from 1, and trained in full; None where it is not compared."""
    picked: bool

    @property
    def gain(self) -> float:
        """By how much its FID lies above its trial's."""
        return self.fid - self.short_fid


@dataclass(frozen=True, kw_only=True)
class FullTrainings:
    """All of a study, the finished ones by the FID of their trials."""

    finished: tuple[FullTraining, ...]
    running: tuple[Mapping[str, Any], ...]
    """``trial``, ``step``, ``steps``, ``alive`` of each unfinished one."""
    teacher_fid: float | None
    """On the test pictures, as ``input_fid``."""
    input_fid: float | None
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    paths: Mapping[int, Path] = field(repr=False)
    """Of the grids of pictures, by trial."""
    image_px: int

    @cached_property
    def samples(self) -> Samples:
        """Their pictures, below those of teacher and input."""
        return read_samples(self.paths, self.image_px, budget=PICTURE_ROOM)


def read_full_trainings(folder: RunFolder, image_px: int) -> FullTrainings | None:
    """Read what ``gs-search retrain`` has left in a run folder; None where nothing was begun.

    Raises:
        BadInput: a file is torn.
    """
    document = retrain_document(folder)
    if document is None:
        return None
    summary = document["summary"] or {}
    compared = {point["trial"]: point for point in summary.get("points", ())}
    picked = (summary.get("picked") or {}).get("trial")
    records = sorted(full_results(folder), key=lambda one: (one.short.objectives["fid"], one.number))
    tested = next((record.test for record in records if record.test), None)
    return FullTrainings(
        finished=tuple(_read(record, compared.get(record.number), picked) for record in records),
        running=tuple(document["running"]),
        teacher_fid=tested.teacher.fid if tested else None,
        input_fid=tested.input.fid if tested else None,
        sentences=tuple(summary.get("sentences", ())),
        warnings=tuple(summary.get("warnings", ())),
        paths={record.number: folder.retrained(record.number) / "samples.png" for record in records},
        image_px=image_px,
    )


def _read(record: FullRecord, point: Mapping[str, Any] | None, picked: int | None) -> FullTraining:
    test = record.test
    return FullTraining(
        number=record.number,
        fid=record.fid,
        short_fid=record.short.objectives["fid"],
        test_fid=None if test is None else test.fid,
        short_test_fid=None if test is None or test.short is None else test.short.fid,
        psnr=record.psnr_to_teacher,
        gflops=record.values["gflops"],
        size_mb=record.values["size_mb"],
        steps=record.schedule["steps"],
        best_step=record.best_step,
        places=(point["place_short"], point["place_full"]) if point else None,
        picked=record.number == picked,
    )
