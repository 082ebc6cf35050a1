"""Samplers by name: none starts over when a study goes on, and each is what its name says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from engine_studies import BITS, SHARE, SPACE, complete, write_study
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.stats import qmc

from gs_search.errors import BadInput
from gs_search.results.pareto import OBJECTIVES
from gs_search.results.run_folder import RunFolder
from gs_search.search.samplers import SAMPLERS, _value_at, generation_attribute, make_sampler
from gs_search.search.study_database import StudyDatabase
from gs_search.study.config import load_study

TRIALS = 24
"""Past the start-up of every sampler: ten random trials, or a generation of ten."""

CONDITIONAL: dict[str, Any] = {
    "schedule": {"type": "choice", "choices": ["at_once", "proximal"]},
    "slim_fraction": {"type": "float", "low": 0.2, "high": 0.8, "when": {"schedule": ["proximal"]}},
    "target_gflops_ratio": SHARE,
    "weight_bits": BITS,
    "round_to": {"type": "int", "low": 1, "high": 64, "log": True},
}


Open = Callable[[], StudyDatabase]
MakeOpen = Callable[..., Open]


@pytest.fixture
def opener(tmp_path: Path) -> MakeOpen:
    """Make a study in memory; return what opens it: each call is a process that knows nothing of the others.

    ``test_database`` does the same with files, and takes its time.
    """
    made = iter(range(100))

    def make(parameters: dict[str, Any] = SPACE, **keys: Any) -> Open:
        place = tmp_path / str(next(made))
        config = load_study(write_study(place / "study", parameters, **keys))
        storage = optuna.storages.InMemoryStorage()
        optuna.create_study(storage=storage, study_name="engine", directions=["minimize"] * len(OBJECTIVES))

        def opened() -> StudyDatabase:
            study = optuna.load_study(storage=storage, study_name="engine")
            return StudyDatabase(study, RunFolder(place / "run"), config)

        return opened

    return make


def points(open_: Open, runs: list[int], *, deaths: bool = False) -> list[dict[str, Any]]:
    """Points of a study in the order of their ends; with ``deaths``, every run but the last dies with one running."""
    done = []
    for index, count in enumerate(runs):
        database = open_()
        database.settle("killed", "died")
        database.requeue()
        for _ in range(count):
            asked = database.ask()
            complete(database, asked)
            done.append(asked.point)
        if deaths and index + 1 < len(runs):
            database.ask()
    return done


@pytest.mark.parametrize("sampler", ["surrogate", *SAMPLERS])
def test_a_process_for_each_trial_proposes_what_one_process_does(sampler: str, opener: MakeOpen) -> None:
    count = 12 if sampler == "gp" else TRIALS
    whole = points(opener(sampler=sampler), [count])
    assert points(opener(sampler=sampler), [1] * count) == whole
    # A child may be the copy of a parent, but no start-up point comes twice.
    keys = [str(point) for point in whole]
    assert len(set(keys[:10])) == 10 and not set(keys[:10]) & set(keys[10:12])


@pytest.mark.parametrize("sampler", ["surrogate", *SAMPLERS])
def test_runs_that_die_change_nothing_either(sampler: str, opener: MakeOpen) -> None:
    whole = points(opener(CONDITIONAL, sampler=sampler), [13])
    assert points(opener(CONDITIONAL, sampler=sampler), [1, 1, 8, 3], deaths=True) == whole


@pytest.mark.parametrize("sampler", ["surrogate", *SAMPLERS])
def test_another_seed_is_another_search(sampler: str, opener: MakeOpen) -> None:
    first, second = (points(opener(sampler=sampler, seed=seed), [3]) for seed in (0, 1))
    assert not [point for point in first if point in second]


@pytest.mark.parametrize("sampler", ["nsga2", "nsga3"])
def test_generations_go_on_and_have_queued_points_in_them(sampler: str, opener: MakeOpen) -> None:
    open_ = opener(sampler=sampler)
    open_().enqueue({"target_gflops_ratio": 0.5, "weight_bits": 8})
    points(open_, [1] * TRIALS)
    attribute = generation_attribute(sampler) or ""
    assert [t.system_attrs[attribute] for t in open_().trials()] == [n // 10 for n in range(TRIALS)]


def test_generations_grow_with_the_space() -> None:
    def population(parameters: int) -> int:
        names = [f"p{n}" for n in range(parameters)]
        sampler = make_sampler("nsga2", turn=0, turn_seed=1, study_seed=1, parameters=names)
        assert isinstance(sampler, optuna.samplers.NSGAIISampler) and sampler.population_size
        return sampler.population_size

    assert [population(n) for n in (1, 8, 40)] == [10, 16, 50]


def test_qmc_is_one_low_discrepancy_sequence_over_all_runs(opener: MakeOpen) -> None:
    space = {"target_gflops_ratio": SHARE, "distill_weight": {"type": "float", "low": 0, "high": 10}}
    found = {}
    for sampler in ("qmc", "random"):
        drawn = points(opener(space, sampler=sampler), [1] * 64)
        logarithms = [np.log(point["target_gflops_ratio"] / 0.05) / np.log(0.9 / 0.05) for point in drawn]
        found[sampler] = np.array([logarithms, [point["distill_weight"] / 10 for point in drawn]]).T
    discrepancy = {name: qmc.discrepancy(rows) for name, rows in found.items()}
    assert discrepancy["qmc"] < discrepancy["random"] / 10
    # A net: each of the 64 columns, rows and 8 x 8 cells has exactly one point.
    for columns, rows in ((64, 1), (1, 64), (8, 8)):
        assert len({tuple(cell) for cell in np.floor(found["qmc"] * [columns, rows])}) == 64


def test_qmc_is_even_in_parameters_that_rest_in_some_trials(opener: MakeOpen) -> None:
    drawn = points(opener(CONDITIONAL, sampler="qmc"), [1] * 32)
    fractions = [point["slim_fraction"] for point in drawn if point["schedule"] == "proximal"]
    assert len(fractions) == 16 == len({int((fraction - 0.2) / 0.6 * 16) for fraction in fractions})
    assert len({point["round_to"] for point in drawn}) > 10


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (CategoricalDistribution(("a", "b", "c")), {"a", "b", "c"}),
        (IntDistribution(2, 5), {2, 3, 4, 5}),
        (IntDistribution(1, 4, log=True), {1, 2, 3, 4}),
        (IntDistribution(0, 10, step=5), {0, 5, 10}),
        (FloatDistribution(0.0, 1.0, step=0.5), {0.0, 0.5, 1.0}),
        (FloatDistribution(3.0, 3.0), {3.0}),
    ],
)
def test_every_value_of_a_distribution_has_its_share(distribution: Any, expected: set[Any]) -> None:
    drawn = [_value_at(share, distribution) for share in (np.arange(1200) + 0.5) / 1200]
    assert set(drawn) == expected
    assert all(distribution._contains(distribution.to_internal_repr(value)) for value in drawn)
    if not getattr(distribution, "log", False):
        assert {drawn.count(value) for value in expected} == {1200 // len(expected)}
    for edge in (0.0, np.nextafter(1.0, 0.0)):
        assert _value_at(edge, distribution) in expected


def test_a_logarithm_is_drawn_evenly() -> None:
    distribution = FloatDistribution(0.01, 1.0, log=True)
    assert [round(_value_at(share, distribution), 6) for share in (0.0, 0.5, 0.75)] == [0.01, 0.1, 0.316228]


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown sampler 'cma': use tpe, nsga2, nsga3, gp, qmc or random"):
        make_sampler("cma", turn=0, turn_seed=0, study_seed=0, parameters=list(SPACE))
