"""Which trials are trained in full: one that a person names or picks, or several that span the front."""

from __future__ import annotations

import numpy as np

from gs_search.errors import BadInput
from gs_search.results.front import finished_students
from gs_search.results.pareto import front_indices, knee, scaled
from gs_search.results.pick import PICK_FILE, Wish, pick_document, read_pick
from gs_search.results.record import TrialRecord
from gs_search.results.run_folder import RunFolder

__all__ = ["check_teacher", "chosen", "picked", "spread"]

NEEDED = (
    "baselines.json", "generator.safetensors", "lessons/taps.json", "repair.safetensors", "validation.npy",
    "validation_outputs.npy", "reference.npz",
)  # fmt: skip
"""Files of the assets without which there is no full training."""


def check_teacher(folder: RunFolder) -> None:
    """Raise BadInput where something that the search has left for all trainings is gone."""
    for name in NEEDED:
        if not (folder.teacher / name).is_file():
            raise BadInput(
                f"{folder.teacher / name}: is gone, and a full training begins with the teacher; restore "
                f"{folder.teacher} from a copy"
            )


def chosen(folder: RunFolder, wish: Wish, *, saved: bool = False) -> TrialRecord:
    """The trial to be trained.

    Args:
        wish: as for ``pick``; nothing in it takes the knee.
        saved: take the trial of ``pick.json`` instead.

    Raises:
        NothingFeasible: no student keeps the limits.
        BadInput: no such trial, it left no student, or nothing was picked.
    """
    if saved and wish != Wish():
        raise BadInput("--saved takes the trial of pick.json, the other options choose one: give the one or the others")
    number = read_pick(folder)["trial"] if saved else pick_document(folder, wish)["trial"]
    return folder.result(number)


def picked(folder: RunFolder) -> int | None:
    """The trial that was recorded by ``pick --save``, if any."""
    return int(read_pick(folder)["trial"]) if (folder.path / PICK_FILE).is_file() else None


def spread(folder: RunFolder, count: int) -> list[TrialRecord]:
    """Members of the front that span it: the knee, the recorded pick, then always the one farthest from those taken.

    Distances are between the objectives, each scaled to 0..1 on the front. All members where there are no more.
    """
    students = finished_students(folder)
    results, points = students.feasible, np.asarray(students.points)
    members = front_indices(points)
    front = points[members]
    places = scaled(front, front)
    numbers = [results[index].number for index in members]
    order = [members.index(knee(points))]
    recorded = picked(folder)
    if recorded in numbers and numbers.index(recorded) not in order:
        order.append(numbers.index(recorded))
    while len(order) < min(count, len(members)):
        nearest = np.linalg.norm(places[:, None] - places[order][None], axis=2).min(axis=1)
        nearest[order] = -1.0
        order.append(int(nearest.argmax()))
    return [results[members[index]] for index in order[:count]]
