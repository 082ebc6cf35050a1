from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from gs_search.data import batch, open_data
from gs_search.errors import DataError, TrialFailed
from gs_search.networks import load_generator
from gs_search.networks.architectures import Architecture
from gs_search.slimming.cyclegan import CycleGanSettings, save_teacher, train_teacher
from gs_search.slimming.objective import ImageBuffer

SHIPPED = Path(__file__).parents[2] / "gs_search" / "assets" / "horse2zebra_drawn.safetensors"


@dataclass(frozen=True)
class Drawn:
    kind: str = "drawn"
    path: None = None
    side: None = None
    train: int = 64
    val: int = 24
    test: int = 0
    reference: int = 24


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _train(steps: int, seed: int = 0, **settings: float) -> tuple[torch.nn.Module, list[dict[str, float]]]:
    curve: list[dict[str, float]] = []
    generator = train_teacher(
        open_data(Drawn(), 32, 0),  # type: ignore[arg-type]
        width=4,
        blocks=1,
        image_px=32,
        steps=steps,
        seed=seed,
        on_step=lambda step, losses: curve.append({"step": step, **losses}),
        settings=CycleGanSettings(batch_size=2, **settings),  # type: ignore[arg-type]
    )
    return generator, curve


def test_training_is_reproducible_and_follows_its_seed() -> None:
    first, second, other = (_train(3, seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["stem.1.weight"], other["stem.1.weight"])


def test_the_cycle_closes_and_every_step_is_reported() -> None:
    generator, curve = _train(60)
    assert [entry["step"] for entry in curve] == list(range(1, 61))
    early, late = (sum(entry["cycle"] for entry in part) for part in (curve[:5], curve[-5:]))
    assert late < 0.85 * early
    assert not generator.training


def test_divergence_is_a_failure_with_a_cause() -> None:
    with pytest.raises(TrialFailed, match="diverged at step") as caught:
        _train(20, learning_rate=1e9, initial_std=1e9)
    assert caught.value.cause == "nan"


def test_photos_without_a_target_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(20):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(tmp_path / f"{number}.png")
    data = open_data(Drawn("photos", tmp_path), 32, 0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no target domain"):
        train_teacher(data, width=4, blocks=1, image_px=32, steps=1, seed=0)


def test_buffer_returns_new_pictures_until_full_then_about_half_old_ones() -> None:
    buffer = ImageBuffer(10, torch.Generator().manual_seed(0))
    numbered = torch.arange(400.0).view(400, 1, 1, 1)
    returned = torch.cat([buffer.swap(part) for part in numbered.split(4)]).flatten()
    assert torch.equal(returned[:10], torch.arange(10.0))
    old = (returned[12:] != torch.arange(12.0, 400.0)).float().mean()
    assert 0.4 < old < 0.6
    # Those that filled the buffer come twice, once when new and perhaps once when old; no other does.
    _, times = returned.unique(return_counts=True)
    assert times.max() == 2 and (times == 2).sum() <= 10
    assert (returned <= torch.arange(400.0)).all()


def test_saved_teacher_loads_again(tmp_path: Path) -> None:
    generator = _train(1)[0]
    save_teacher(tmp_path / "t.safetensors", generator, Architecture("cyclegan_resnet", 4, 1), steps=1)  # type: ignore[arg-type]
    loaded, architecture = load_generator(tmp_path / "t.safetensors")
    assert (architecture.width, architecture.blocks) == (4, 1)
    picture = torch.rand(1, 3, 32, 32)
    assert torch.equal(loaded(picture), generator(picture))
    assert [path.name for path in tmp_path.iterdir()] == ["t.safetensors"]


def test_shipped_teacher_stripes_horses_and_leaves_the_sky() -> None:
    """Of horses it has never seen: as striped as real zebras, nine tenths of the contrast at least."""
    assert SHIPPED.stat().st_size <= 1.5e6
    generator, architecture = load_generator(SHIPPED)
    assert (architecture.name, architecture.width, architecture.blocks) == ("cyclegan_resnet", 16, 3)
    data = open_data(Drawn(), 64, seed=7)  # type: ignore[arg-type]
    horses = batch(data.source("val"), range(24))
    with torch.inference_mode():
        zebras = generator(horses)
    real = batch(data.targets["val"], range(24))

    def roughness(pictures: torch.Tensor) -> float:
        return float(pictures[:, :, 28:48, 16:48].mean(1).diff(dim=-1).abs().mean())

    assert roughness(zebras) > 0.7 * roughness(real) > 1.7 * roughness(horses)
    assert (zebras - horses)[:, :, :6].abs().mean() < 0.12


def test_shipped_teacher_says_how_it_was_made() -> None:
    from safetensors import safe_open

    with safe_open(SHIPPED, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["training"])["steps"] > 0 and json.loads(metadata["data"]) == "drawn"
