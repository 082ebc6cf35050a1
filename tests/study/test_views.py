"""How many views of how many pictures, by hand, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gs_search.study.config import load_study
from gs_search.study.views import ViewCount, featured_views, full_views, picture_bytes, trial_views, usual_views
from tests.conftest import STUDY

Write = Callable[..., Path]

SPACE = "parameters:\n  target_gflops_ratio: {type: float, low: 0.1, high: 0.9}\n"
LONG = "settings: {steps: 150, batch_size: 4, repair_pictures: 8}"


def study(write: Write, *changes: tuple[str, str], space: str = SPACE) -> Path:
    text = STUDY.replace("settings: {batch_size: 2, repair_pictures: 8}", LONG)
    for old, new in changes:
        text = text.replace(old, new)
    return write(text, space)


@pytest.mark.parametrize(
    ("pictures", "changes", "views", "limit"),
    [
        (256, (), 600, ""),  # a view for each of 150 x 4 pictures
        (4000, (), 600, ""),
        (256, (("150", "1500"),), 1024, "1024 at most"),
        (3000, (("150", "1500"),), 3000, "one of each picture"),
        (256, (("steps: 150", "steps: 2"),), 16, ""),
        (256, (("image_px: 32", "image_px: 512"),), 800_000_000 // (9 * 512 * 512), "800 MB at most"),
        (256, (("test: 4", "test: 4, views: 100"),), 100, "as data.views says"),
        (256, (("test: 4", "test: 4, views: 20000"),), 20000, ""),
    ],
)  # fmt: skip
def test_trials_have_a_view_for_each_picture_they_see(
    write_study: Write, pictures: int, changes: tuple[tuple[str, str], ...], views: int, limit: str
) -> None:
    count = trial_views(load_study(study(write_study, *changes)), pictures)
    assert (count.pictures, count.views) == (pictures, views)
    assert limit in count.limit and bool(limit) == bool(count.limit) == (views < count.seen)


def test_the_longest_trial_of_the_space_counts(write_study: Write) -> None:
    space = SPACE + "  steps: {type: int, low: 10, high: 200}\n"
    assert trial_views(load_study(study(write_study, space=space)), 10).seen == 800


def test_why_a_full_training_has_no_more_is_true(write_study: Write) -> None:
    config = load_study(study(write_study))
    assert full_views(config, 256, 9600).limit.startswith("each view about 4 times")
    assert full_views(config, 5000, 9600).limit.startswith("one of each picture")


@pytest.mark.parametrize(
    ("retrain", "pictures", "seen", "views"),
    [
        ("{}", 256, 9600, 2400),
        ("{}", 5000, 9600, 5000),  # every picture
        ("{}", 5000, 3000, 3000),
        ("{}", 256, 100_000, 8192),
        ("{}", 9000, 100_000, 9000),
        ("{views: 700}", 256, 9600, 700),
        ("{views: 20000}", 256, 9600, 20000),
    ],
)
def test_a_full_training_sees_every_picture_in_many_crops(
    write_study: Write, retrain: str, pictures: int, seen: int, views: int
) -> None:
    config = load_study(write_study(STUDY + f"retrain: {retrain}\n"))
    count = full_views(config, pictures, seen)
    assert (count.pictures, count.seen, count.views) == (pictures, seen, views)
    assert bool(count.limit) == (views < seen)


def test_room_bounds_what_nobody_asked_for(write_study: Write) -> None:
    config = load_study(study(write_study, ("image_px: 32", "image_px: 1024")))
    assert full_views(config, 10, 100_000).views * picture_bytes(1024) <= 4e9
    assert picture_bytes(128) == 3 * 128 * 128 + 2 * 3 * 128 * 128


@pytest.mark.parametrize(
    ("views", "each", "featured"), [(600, 11_700_000, 68), (256, 400_000, 256), (10, 900_000_000, 1), (10, 0, 10)]
)
def test_features_are_of_as_many_views_as_have_room(views: int, each: int, featured: int) -> None:
    assert featured_views(views, each) == featured


def test_a_study_says_both(write_study: Write) -> None:
    config = load_study(study(write_study))
    assert {who: count.views for who, count in usual_views(config, 16).items()} == {
        "trials": 600,
        "full training": 2400,
    }


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (ViewCount(256, 600, 600), "600 views, 2 or 3 of each of 256 pictures; 600 pictures are seen"),
        (ViewCount(8, 16, 600, "so"), "16 views, 2 of each of 8 pictures; 600 pictures are seen (so)"),
        (ViewCount(512, 256, 600), "256 views, of the first 256 of 512 pictures; 600 pictures are seen"),
    ],
)
def test_it_is_told_in_one_line(count: ViewCount, text: str) -> None:
    assert str(count) == text
