"""How long a full training is: what is asked for, what the study says, what follows from the trial."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gs_search.errors import BadInput, ConfigError
from gs_search.retrain.schedule import Asked, Schedule, plan, seed_of
from gs_search.study.config import StudyConfig, load_study
from gs_search.study.views import AUTO_FACTOR
from tests.conftest import STUDY

Write = Callable[..., Path]


def study(write_study: Write, retrain: str = "", settings: str = "{batch_size: 2, repair_pictures: 8}") -> StudyConfig:
    text = STUDY.replace("{batch_size: 2, repair_pictures: 8}", settings)
    return load_study(write_study(text + (f"retrain: {retrain}\n" if retrain else "")))


def test_defaults_follow_from_the_trial(write_study: Write) -> None:
    schedule = plan(Asked(), {"steps": 25}, study(write_study), 16)
    assert (schedule.steps, schedule.sparse, schedule.batch_size) == (25 * AUTO_FACTOR, 0, 2)
    assert schedule.looks == tuple(range(40, 401, 40)) and schedule.parts == 1
    assert schedule.settings({"steps": 25}, study(write_study)).steps == 400


def test_the_study_and_then_the_command_decide(write_study: Write) -> None:
    config = study(write_study, "{steps: 70, looks: 3, checkpoint_minutes: 5}")
    schedule = plan(Asked(), {}, config, 16)
    assert (schedule.steps, schedule.looks, schedule.checkpoint_minutes) == (70, (23, 47, 70), 5.0)
    assert plan(Asked(steps=9), {}, config, 16).steps == 9
    assert plan(Asked(epochs=2.5), {}, config, 16).steps == 20
    assert plan(Asked(epochs=2.5, batch_size=8), {}, config, 16).steps == 5
    assert plan(Asked(epochs=0.001), {}, config, 16).steps == 1
    assert plan(Asked(steps=2), {}, config, 16).looks == (1, 2)


def test_a_proximal_schedule_is_looked_at_after_its_cut(write_study: Write) -> None:
    config = study(write_study, "{steps: 100, looks: 4}", "{batch_size: 2, repair_pictures: 8, schedule: proximal}")
    schedule = plan(Asked(), {"slim_fraction": 0.5}, config, 16)
    assert (schedule.sparse, schedule.looks) == (50, (62, 75, 88, 100))
    settings = schedule.settings({"slim_fraction": 0.5}, config)
    assert round(settings.steps * settings.slim_fraction) == 50
    to_the_end = plan(Asked(), {"slim_fraction": 1.0}, config, 16)
    assert (to_the_end.sparse, to_the_end.looks) == (100, (100,))


def test_processes_take_parts_of_a_step(write_study: Write) -> None:
    """Two of them take twice the trial's pictures, in the parts that one with twice the pictures takes."""
    config = study(write_study)
    two, one = plan(Asked(workers=2), {}, config, 16), plan(Asked(batch_size=4), {}, config, 16)
    assert (two.batch_size, two.at_once, two.parts) == (4, 2, 1)
    assert (one.batch_size, one.at_once, one.parts) == (4, 2, 2)
    assert two == one and two != plan(Asked(), {}, config, 16)
    assert two.on(1, 1.0).parts == 2 and one.on(4, 1.0).at_once == 1
    split = plan(Asked(workers=2, batch_size=2), {}, config, 16)
    assert (split.batch_size, split.at_once, split.parts) == (2, 1, 1)
    for batch_size, workers in ((3, 2), (1, 2), (2, 3)):
        with pytest.raises(BadInput, match="cannot share"):
            plan(Asked(batch_size=batch_size, workers=workers), {}, config, 16)


def test_the_study_may_replace_how_it_is_trained(write_study: Write) -> None:
    config = study(write_study, "{settings: {adversarial_weight: 0, learning_rate: 3e-4}}")
    schedule = plan(Asked(steps=5), {"distill_weight": 20, "learning_rate": 0.1}, config, 16)
    settings = schedule.settings({"distill_weight": 20, "learning_rate": 0.1}, config)
    assert (settings.adversarial_weight, settings.learning_rate) == (0, 3e-4)
    assert (settings.distill_weight, settings.steps) == (20, 5)
    assert schedule != plan(Asked(steps=5), {}, study(write_study), 16)
    assert Schedule.from_json(schedule.to_json()) == schedule


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{target_gflops_ratio: 0.1}", "target_gflops_ratio cannot be replaced"),
        ("{weight_bits: 8}", "weight_bits cannot be replaced"),
        ("{steps: 8}", "steps cannot be replaced"),
        ("{adversarial_weight: -1}", "adversarial_weight must lie between 0 and 10000, not -1"),
        ("[learning_rate]", "must map settings to values"),
    ],
)
def test_what_the_student_is_cannot_be_replaced(write_study: Write, written: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        study(write_study, f"{{settings: {written}}}")
    assert message in str(caught.value) and "retrain.settings" in str(caught.value)


def test_a_schedule_survives_its_file(write_study: Write) -> None:
    schedule = plan(Asked(workers=2), {}, study(write_study), 16)
    again = Schedule.from_json({**schedule.to_json(), "epochs": 3.0})
    assert again == schedule and again.workers == 2 and again.at_once == schedule.at_once
    earlier = {name: value for name, value in schedule.to_json().items() if name != "replaced"}
    assert Schedule.from_json(earlier) == schedule
    with pytest.raises(KeyError):
        Schedule.from_json({"steps": 3})


def test_only_one_length_is_said() -> None:
    with pytest.raises(BadInput, match="--steps and --epochs"):
        Asked(steps=3, epochs=1)
    assert not Asked(workers=2).anything and Asked(epochs=1).anything


def test_seeds_differ_from_point_to_point() -> None:
    seeds = {seed_of(study, key) for study in (0, 1) for key in ("a", "b")}
    assert len(seeds) == 4 and all(0 <= seed < 2**31 for seed in seeds)
