from __future__ import annotations

import hashlib
import pickle
import time

import pytest
import torch

from gs_search.data import batch, open_data
from gs_search.data.synthetic.drawn import draw
from tests.data.settings import Settings

DRAWN = Settings("drawn")


def test_a_picture_is_a_pure_function_of_seed_species_and_index() -> None:
    picture = draw(1, "horse", 5, 64).tobytes()
    assert picture == draw(1, "horse", 5, 64).tobytes()
    others = [draw(2, "horse", 5, 64), draw(1, "zebra", 5, 64), draw(1, "horse", 6, 64)]
    assert all(picture != other.tobytes() for other in others)


def test_pictures_do_not_change_unnoticed() -> None:
    """The shipped teacher knows these pictures; a change of them is a new DRAWING_VERSION."""
    mean = torch.stack([_set_of("source").picture(i).float().mean((1, 2)) for i in range(3)])
    expected = torch.tensor([[147.9, 163.3, 132.9], [161.3, 174.4, 135.4], [159.7, 135.7, 104.6]])
    assert torch.allclose(mean, expected, atol=1.5), mean  # Pillow's edges may move by a sub-pixel


def _set_of(domain: str, image_px: int = 64, split: str = "train"):  # type: ignore[no-untyped-def]
    return getattr(open_data(DRAWN, image_px, seed=0), domain)(split)


@pytest.mark.parametrize("image_px", [32, 64, 100, 256])
def test_any_size_shows_the_same_picture(image_px: int) -> None:
    picture, reference = (_set_of("target", px).picture(2).float() for px in (image_px, 64))
    assert picture.shape == (3, image_px, image_px)
    small = torch.nn.functional.adaptive_avg_pool2d(picture[None], 16)[0]
    assert (small - torch.nn.functional.adaptive_avg_pool2d(reference[None], 16)[0]).abs().mean() < 6


def test_zebras_are_striped_and_horses_are_not() -> None:
    """In the middle of the picture, where the animal stands, neighbouring columns differ more."""

    def roughness(domain: str) -> float:
        pictures = batch(_set_of(domain), range(12))[:, :, 28:48, 16:48].mean(1)
        return float(pictures.diff(dim=-1).abs().mean())

    assert roughness("target") > 2.5 * roughness("source")


def test_domains_share_their_landscapes() -> None:
    """The sky, where no animal stands, has the same distribution of colours."""
    sky = [batch(_set_of(domain), range(12))[:, :, :6].mean((2, 3)) for domain in ("source", "target")]
    assert (sky[0].mean(0) - sky[1].mean(0)).abs().max() < 0.35


def test_splits_never_share_a_picture_and_have_the_counts_asked_for() -> None:
    data = open_data(DRAWN, 32, seed=0)
    seen = set()
    for sets in (data.sources, data.targets):
        for split, pictures in sets.items():
            assert len(pictures) == getattr(DRAWN, split)
            content = [pictures.picture(index).numpy().tobytes() for index in range(len(pictures))]
            seen |= {hashlib.sha256(picture).digest() for picture in content}
    assert len(seen) == 2 * (12 + 4 + 3) + 5
    assert data.reference_kind == "target"


def test_beyond_the_end_there_is_nothing() -> None:
    with pytest.raises(IndexError):
        _set_of("source").picture(12)


def test_sets_travel_to_other_processes() -> None:
    pictures = _set_of("source")
    copy = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(pictures))))
    assert len(pickle.dumps(pictures)) < 2000
    assert torch.equal(copy.picture(3, view=9), pictures.picture(3, view=9))


def test_opening_draws_nothing() -> None:
    start = time.process_time()
    open_data(Settings("drawn", train=10_000_000, val=1_000_000), 1024, seed=0)
    assert time.process_time() - start < 1


def test_fingerprint_knows_seed_size_and_counts() -> None:
    def fingerprint(seed: int = 0, px: int = 64, **counts: int) -> str:
        return open_data(Settings("drawn", **counts), px, seed).fingerprint()

    every = {
        fingerprint(),
        fingerprint(seed=1),
        fingerprint(px=32),
        fingerprint(train=13),
        fingerprint(val=5),
    }
    assert len(every) == 5 and fingerprint() == fingerprint()


def test_describe_names_kind_counts_and_content() -> None:
    described = open_data(DRAWN, 64, seed=0).describe()
    assert described["kind"] == "drawn" and described["image_px"] == 64
    assert described["counts"] == {
        "source": {"train": 12, "val": 4, "test": 3},
        "target": {"train": 12, "val": 4, "test": 3, "reference": 5},
    }
