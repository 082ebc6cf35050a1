"""How many views of how many pictures a study trains on, what room they take, and why they are no more.

A view is a random crop and flip of a training picture. Views go round the pictures: view k is of picture k mod the
number of pictures, so that no picture has two more than another. Plain arithmetic, for whoever prepares, foretells or
tells it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gs_search.study.settings import settings_from_point

if TYPE_CHECKING:
    from gs_search.study.config import StudyConfig

__all__ = [
    "AUTO_FACTOR",
    "FEATURE_BYTES",
    "ViewCount",
    "featured_views",
    "full_views",
    "picture_bytes",
    "trial_views",
    "usual_views",
]

AUTO_FACTOR = 16
"""Steps of a full training for one of a trial, where nobody says."""

TRIAL_BYTES = 800_000_000
"""Room on disk for the views of trials with the teacher's pictures, where the study does not say."""

FEATURE_BYTES = 800_000_000
"""Room on disk for the teacher's features of these views; they take a hundred times as much as pictures."""

MOST_VIEWS = 1024
"""Of trials, where the study does not say: more are not worth the teacher's time for trainings of their length."""

MOST_FULL_VIEWS = 8192
"""Of a full training, where the study does not say."""

SEEN_PER_VIEW = 4
"""How often a full training sees a view, where the study does not say: the teacher paints one picture for so many."""

FULL_BYTES = 4_000_000_000
"""Room on disk for the views of full trainings, which share them, where the study does not say."""

FEWEST_VIEWS = 16


@dataclass(frozen=True)
class ViewCount:
    """What a training trains on.

    Attributes:
        pictures: in the training split.
        views: random crops and flips of them.
        seen: pictures that the longest training goes through.
        limit: why views are fewer than are seen; empty where every picture that is seen is a view of its own.
    """

    pictures: int
    views: int
    seen: int
    limit: str = ""

    def __str__(self) -> str:
        if self.views >= self.pictures:
            each, more = divmod(self.views, self.pictures)
            of = f"{each}{f' or {each + 1}' * bool(more)} of each of {self.pictures} pictures"
        else:
            of = f"of the first {self.views} of {self.pictures} pictures"
        text = f"{self.views} views, {of}; {self.seen} pictures are seen"
        return f"{text} ({self.limit})" if self.limit else text


def picture_bytes(image_px: int) -> int:
    """A view in bytes, and the teacher's picture of it in float16."""
    return 9 * image_px**2


def trial_views(config: StudyConfig, pictures: int) -> ViewCount:
    """What trials train on: as many views as the longest one sees pictures, unless the study says or room is short.

    Args:
        pictures: in the training split.
    """
    seen = _largest(config, "steps") * _largest(config, "batch_size")
    if config.data.views is not None:
        return ViewCount(pictures, config.data.views, seen, "as data.views says" if config.data.views < seen else "")
    unless = "unless data.views says otherwise"
    limits = {
        "": seen,
        f"{MOST_VIEWS} at most, or one of each picture, {unless}": max(MOST_VIEWS, pictures),
        f"{TRIAL_BYTES / 1e6:.0f} MB at most, {unless}": TRIAL_BYTES // picture_bytes(config.image_px),
    }
    return _least(pictures, seen, limits)


def full_views(config: StudyConfig, pictures: int, seen: int) -> ViewCount:
    """What a full training trains on.

    Args:
        pictures: in the training split.
        seen: pictures that it goes through: its steps times pictures a step.
    """
    if config.retrain.views != "auto":
        views = int(config.retrain.views)
        return ViewCount(pictures, views, seen, "as retrain.views says" if views < seen else "")
    unless = "unless retrain.views says otherwise"
    shared = seen // SEEN_PER_VIEW
    often = f"each view about {SEEN_PER_VIEW} times" if shared >= pictures else "one of each picture"
    limits = {
        "": seen,
        f"{often}, {unless}": max(shared, pictures),
        f"{MOST_FULL_VIEWS} at most, or one of each picture, {unless}": max(MOST_FULL_VIEWS, pictures),
        f"{FULL_BYTES / 1e9:.0f} GB at most, {unless}": FULL_BYTES // picture_bytes(config.image_px),
    }
    return _least(pictures, seen, limits)


def usual_views(config: StudyConfig, pictures: int) -> dict[str, ViewCount]:
    """What trials and a full training as the study has it train on; both are the longest that its space allows."""
    steps, batch_size = _largest(config, "steps"), _largest(config, "batch_size")
    steps = AUTO_FACTOR * max(steps, 1) if config.retrain.steps == "auto" else int(config.retrain.steps)
    full = full_views(config, pictures, steps * batch_size)
    return {"trials": trial_views(config, pictures), "full training": full}


def featured_views(views: int, feature_bytes: int) -> int:
    """Views whose features are stored, one at least: as many as ``FEATURE_BYTES`` have room for.

    Args:
        feature_bytes: of all features of one view.
    """
    return min(views, max(1, FEATURE_BYTES // max(feature_bytes, 1)))


def _least(pictures: int, seen: int, limits: dict[str, int]) -> ViewCount:
    why, views = min(limits.items(), key=lambda item: item[1])
    views = max(views, FEWEST_VIEWS)
    return ViewCount(pictures, views, seen, why if views < seen else "")


def _largest(config: StudyConfig, name: str) -> int:
    """The largest value of a setting that the search space may propose, or what the study says."""
    varied = [parameter for parameter in config.space.parameters if parameter.name == name]
    if varied:
        return max(int(value) for p in varied for value in (p.high, *(p.choices or ())) if value is not None)
    return int(getattr(settings_from_point(config.space.constants, config.settings), name))
