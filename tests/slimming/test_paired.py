"""Training on pairs: what is learned is what the pairs show."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gs_search.data import DataSource, batch, open_data
from gs_search.errors import TrialFailed
from gs_search.slimming.paired import PairedSettings, train_on_pairs
from tests.data.settings import Settings
from tests.data.test_pairs import side_by_side


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def negatives(tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    folder = tmp_path_factory.mktemp("negatives")
    side_by_side(folder, 40)
    return open_data(Settings("pairs", folder, train=24, val=6, test=4), 32, 0)


def _train(data: DataSource, steps: int, seed: int = 0, **settings: Any) -> tuple[torch.nn.Module, list[int]]:
    seen: list[int] = []
    generator = train_on_pairs(
        data,
        width=4,
        blocks=1,
        steps=steps,
        seed=seed,
        on_step=lambda step, losses: seen.append(step),
        settings=PairedSettings(**settings),
    )
    return generator, seen


def test_a_negative_is_learned_from_pairs(negatives: DataSource) -> None:
    """What is painted of pictures that were not trained on is nearer to their negatives than to themselves."""
    generator, seen = _train(negatives, 60)
    assert seen == list(range(1, 61))
    sources, targets = negatives.source("val"), negatives.target("val")
    assert targets is not None
    given, wanted = batch(sources, range(6)), batch(targets, range(6))
    with torch.no_grad():
        painted = generator(given)
    assert (painted - wanted).abs().mean() < 0.6 * (painted - given).abs().mean()


def test_training_is_reproducible_and_follows_its_seed(negatives: DataSource) -> None:
    first, second, other = (_train(negatives, 3, seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["stem.1.weight"], other["stem.1.weight"])


def test_divergence_has_a_cause(negatives: DataSource) -> None:
    with pytest.raises(TrialFailed, match="diverged at step") as caught:
        _train(negatives, 40, learning_rate=1e30)
    assert caught.value.cause == "nan"
