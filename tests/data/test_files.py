from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_search.data.files import cut, hash_order, list_images
from gs_search.errors import DataError


def test_images_are_found_at_any_depth_and_nothing_else(tmp_path: Path) -> None:
    others = ("c.txt", ".hidden.png", ".thumbs/d.png", "e.jpeg.part")
    for name in ("a.JPG", "deep/er/b.png", "ä ö.webp", *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert set(list_images(tmp_path)) == {"a.JPG", "deep/er/b.png", "ä ö.webp"}


def test_order_is_random_but_fixed() -> None:
    names = [f"{number:04d}.jpg" for number in range(500)]
    order = hash_order(names)
    assert order == hash_order(names[::-1]) and set(order) == set(names)
    early = sum(int(name[:4]) < 250 for name in order[:250])
    assert 95 < early < 155  # sorted names would give 250


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_unusable_folders_are_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photos"
    if kind == "file":
        path.touch()
    elif kind == "empty":
        path.mkdir()
    match = {"missing": "no such folder", "file": "not a folder", "empty": "no images in it"}[kind]
    with pytest.raises(DataError, match=match) as caught:
        list_images(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@given(
    st.integers(0, 400),
    st.lists(st.integers(0, 200), min_size=1, max_size=4),
)
def test_cut_deals_each_name_once_and_no_more_than_asked_for(total: int, asked: list[int]) -> None:
    names = [str(number) for number in range(total)]
    counts = {f"split{place}": count for place, count in enumerate(asked)}
    wanted = {split: count for split, count in counts.items() if count}
    if total < sum(min(count, 2) for count in wanted.values()):
        with pytest.raises(DataError, match="too few"):
            cut(names, counts, Path("photos"))
        return
    dealt = cut(names, counts, Path("photos"))
    every = [name for part in dealt.values() for name in part]
    assert len(every) == len(set(every))
    assert set(dealt) == set(counts)
    for split, count in counts.items():
        assert min(count, 2) <= len(dealt[split]) <= count
    if total >= sum(asked):
        assert {split: len(part) for split, part in dealt.items()} == counts


def test_a_held_back_picture_stays_held_back_when_the_caps_of_training_change() -> None:
    names = hash_order([str(number) for number in range(100)])
    few, many = (cut(names, {"test": 10, "val": 10, "train": n}, Path()) for n in (5, 80))
    assert few["test"] == many["test"] and few["val"] == many["val"]
