"""What trainings of a study are taught from: the teacher's answers on views of the training pictures.

Trials share ``Lessons`` that are written when the study is prepared. Full trainings share ``FreshLessons``, many more
views, which are painted as they are needed. How many of each is ``study.views``'s to say.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gs_search.data import PictureSet, open_data
from gs_search.errors import BadInput
from gs_search.slimming.learning_rates import featured_share
from gs_search.slimming.lessons import FreshLessons, Lessons
from gs_search.slimming.teacher import Teacher
from gs_search.study.views import FEATURE_BYTES, ViewCount, featured_views, full_views, picture_bytes, trial_views

if TYPE_CHECKING:
    from gs_search.results.run_folder import RunFolder
    from gs_search.study.config import StudyConfig

__all__ = ["fresh_lessons", "view_of", "write_lessons"]

FRESH_FILE = "views.bin"


def write_lessons(
    config: StudyConfig, pictures: PictureSet, teacher: Teacher, place: Path, log: Callable[[str], None]
) -> Lessons:
    """The teacher's answers on seeded crops and flips; says how many, and what is not stored.

    Raises:
        BadInput: the disk has no room for them.
    """
    wanted = trial_views(config, len(pictures))
    with torch.no_grad():
        probe = torch.zeros(1, 3, config.image_px, config.image_px, device=next(teacher.network.parameters()).device)
        each = sum(2 * f.numel() for f in teacher.answer(probe)[1].values())
    featured = featured_views(wanted.views, each)
    needed = wanted.views * picture_bytes(config.image_px) + featured * each
    place.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(place.parent).free) < needed:
        raise BadInput(
            f"{place}: {wanted.views} views at {config.image_px} px take {needed / 1e6:.0f} MB of disk, and "
            f"{free / 1e6:.0f} MB are free; make room, or lower data.views"
        )
    log(f"the teacher's answers on {wanted}; {needed / 1e6:.0f} MB")
    if featured < wanted.views:
        share = featured_share(featured, wanted.views)
        log(
            f"features are kept of the first {featured} of these views: {FEATURE_BYTES / 1e6:.0f} MB have room for no "
            f"more; where feature_weight asks for them, {share:.0%} of the steps train on these"
        )
    return Lessons.write(place, teacher, functools.partial(view_of, pictures), wanted.views, featured=featured)


def view_of(pictures: PictureSet, number: int) -> Tensor:
    """View ``number`` of all views of a set, 3 x H x W bytes: they go round the pictures."""
    return pictures.picture(number % len(pictures), view=number // len(pictures))


def fresh_lessons(
    config: StudyConfig, folder: RunFolder, teacher: Teacher, first: Lessons, protocol: str, seen: int
) -> tuple[FreshLessons, ViewCount]:
    """Views for a full training that goes through ``seen`` pictures; the first ones are those of the study's trials.

    Args:
        first: those of the trials, of which some have features.
        protocol: id of the study's protocol, which names its pictures.

    Raises:
        BadInput: the disk has no room for them.
        DataError: the training pictures are gone.
    """
    pictures = open_data(config.data, config.image_px, config.seed).source("train")
    wanted = full_views(config, len(pictures), seen)
    view = functools.partial(view_of, pictures)
    path, of = folder.retrain / FRESH_FILE, f"{protocol} {config.seed}"
    lessons = FreshLessons(path, teacher, view, wanted.views, first=first, of=of)
    if (free := shutil.disk_usage(folder.retrain).free) < lessons.missing_bytes:
        raise BadInput(
            f"{lessons.path}: {wanted.views} views at {config.image_px} px take {lessons.missing_bytes / 1e6:.0f} MB "
            f"more of disk, and {free / 1e6:.0f} MB are free; make room, or lower retrain.views"
        )
    return lessons, wanted
