"""Where a study stands."""

from __future__ import annotations

import pytest
from engine_studies import MakeStudy, record_of

from gs_search.search.database import open_database
from gs_search.search.standing import Baselines, standing

POINTS = [(100.0, 0.5, 0.1), (200.0, 0.25, 0.1), (300.0, 0.9, 0.2), (100.0, 0.5, 0.1)]
"""The third is dominated, the fourth equals the first."""


def test_front_share_of_the_box_and_time_left(make_study: MakeStudy) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    for fid, gflops, size in POINTS:
        asked = database.ask()
        objectives = {"fid": fid, "gflops": gflops, "size_mb": size}
        database.tell(record_of(database, asked, objectives=objectives, seconds=10.0))
    database.fail(database.ask(), "nan", "fid is nan")
    where = standing(database, Baselines((400.0, 1.0, 1.0)), 10, 2)
    assert where.done == 5 and where.front == (0, 1)
    # By hand: 300 x 0.5 x 0.9 and, beyond it, 200 x 0.25 x 0.9, of a box of 400.
    assert where.hypervolume == pytest.approx((300 * 0.5 * 0.9 + 200 * 0.25 * 0.9) / 400)
    assert where.seconds_left == 30.0, "five more trials, two at once, ten seconds each"


def test_before_the_first_trial(make_study: MakeStudy) -> None:
    config, folder = make_study()
    database = open_database(folder, config)
    where = standing(database, Baselines.read(folder), 10, 2)
    assert (where.done, where.front, where.hypervolume, where.seconds_left) == (0, (), None, None)


def test_the_reference_is_read_from_the_baselines(make_study: MakeStudy) -> None:
    _, folder = make_study()
    folder.write_json(folder.baselines, {"input": {"fid": 200}, "teacher": {"gflops": 0.4, "size_mb": 1.1, "fid": 60}})
    assert Baselines.read(folder).reference == (300.0, 0.4, 1.1)
