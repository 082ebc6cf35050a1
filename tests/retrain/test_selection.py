"""Which trials are trained in full: by pick's rules, by name, or several that span the front."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gs_search.errors import BadInput
from gs_search.results.front import front_document
from gs_search.results.pick import Wish, pick_document, save_pick
from gs_search.results.run_folder import RunFolder
from gs_search.retrain.selection import NEEDED, check_teacher, chosen, picked, spread
from tests.synthetic_run import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("choice") / "run")


def test_one_is_chosen_as_pick_chooses(folder: RunFolder) -> None:
    for wish in (Wish(), Wish(max_gflops=0.1), Wish(weights={"fid": 1.0}), Wish(trial=3)):
        assert chosen(folder, wish).number == pick_document(folder, wish)["trial"]


def test_the_recorded_one_is_taken(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert picked(folder) is None
    with pytest.raises(BadInput, match="nothing has been picked"):
        chosen(folder, Wish(), saved=True)
    save_pick(folder, pick_document(folder, Wish(trial=3)))
    assert chosen(folder, Wish(), saved=True).number == picked(folder) == 3
    with pytest.raises(BadInput, match="--saved takes"):
        chosen(folder, Wish(trial=3), saved=True)


@pytest.mark.parametrize(("number", "message"), [(5, "left no student"), (11, "left no student"), (99, "no trial 99")])
def test_what_left_no_student_is_refused(folder: RunFolder, number: int, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        chosen(folder, Wish(trial=number))


def by_hand(members: list[dict[str, Any]], order: list[int], count: int) -> list[int]:
    """Farthest first, written down again, slowly."""
    rows = np.array([[m["objectives"][name] for name in ("fid", "gflops", "size_mb")] for m in members])
    rows = (rows - rows.min(axis=0)) / (rows.max(axis=0) - rows.min(axis=0))
    at = {m["number"]: row for m, row in zip(members, rows, strict=True)}
    while len(order) < count:
        distances = {n: min(float(np.linalg.norm(at[n] - at[o])) for o in order) for n in at if n not in order}
        order.append(max(distances, key=lambda n: distances[n]))
    return order


def test_several_span_the_front(folder: RunFolder) -> None:
    document = front_document(folder)
    members = document["front"]
    assert len(members) > 4
    assert [one.number for one in spread(folder, 1)] == [document["knee"]]
    for count in (2, 4, len(members)):
        assert [one.number for one in spread(folder, count)] == by_hand(members, [document["knee"]], count)
    assert {one.number for one in spread(folder, 99)} == {member["number"] for member in members}


def test_the_recorded_one_is_among_them(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    document = front_document(folder)
    last = spread(folder, 99)[-1].number
    save_pick(folder, pick_document(folder, Wish(trial=last)))
    assert [one.number for one in spread(folder, 2)] == [document["knee"], last]
    assert [one.number for one in spread(folder, 3)] == by_hand(document["front"], [document["knee"], last], 3)


@pytest.mark.parametrize("name", NEEDED)
def test_a_teacher_that_is_gone_is_named(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path)
    for needed in NEEDED:
        (folder.teacher / needed).parent.mkdir(parents=True, exist_ok=True)
        (folder.teacher / needed).touch()
    check_teacher(folder)
    (folder.teacher / name).unlink()
    with pytest.raises(BadInput) as caught:
        check_teacher(folder)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_the_list_is_that_of_the_assets(source: RunFolder) -> None:
    check_teacher(source)
    made = {str(path.relative_to(source.teacher)) for path in source.teacher.rglob("*") if path.is_file()}
    optional = {"real.npy", "reference_pictures.npy"}  # the discriminator's, and `front --dump-images`
    lessons = {name for name in made if name.startswith("lessons/")}
    assert made - lessons - optional == set(NEEDED) - lessons
