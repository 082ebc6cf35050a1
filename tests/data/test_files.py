from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gs_search.data.files import cut, hash_order, list_images
from gs_search.errors import DataError


def _touch(folder: Path, *names: str, content: bytes = b"") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_images_are_found_at_any_depth_and_all_else_is_counted(tmp_path: Path) -> None:
    _touch(tmp_path, "a.JPG", "deep/er/b.png", "ä ö.webp", ".hidden.png", ".thumbs/d.png", "e.jpeg.part")
    _touch(
        tmp_path,
        *(f"x/{number}.txt" for number in range(30)),
        "IMG_1.HEIC",
        "IMG_2.heic",
        "p.svg",
        "no suffix",
        "a.2024-11-30 backup",
    )
    _touch(tmp_path, "c6f1e2", "photo.dat", content=b"\xff\xd8\xff\xe0")
    _touch(tmp_path, "sound.wav", content=b"RIFF\0\0\0\0WAVE")
    found = list_images(tmp_path)
    assert set(found.names) == {"a.JPG", "deep/er/b.png", "ä ö.webp"}
    assert found.left == {
        ".heic, which is not read (convert them to JPEG or PNG)": 2,
        ".svg, which is not read (convert them to JPEG or PNG)": 1,
        ".txt, no images": 30,
        ".part, no images": 1,
        ".wav, no images": 1,
        "of other kinds, no images": 2,
        "images without a suffix of images (rename them)": 2,
    }


def test_links_are_followed_once_and_circles_end(tmp_path: Path) -> None:
    inside, outside = tmp_path / "photos", tmp_path / "elsewhere"
    _touch(inside, "a.png", "z/own.png")
    _touch(outside, "b.png", "deep/c.png")
    (inside / "0 to z").symlink_to(inside / "z")
    (inside / "all").symlink_to(outside)
    (inside / "again").symlink_to(outside / "deep")
    (inside / "z" / "up").symlink_to(inside)
    (outside / "deep" / "loop").symlink_to(outside)
    (inside / "d.png").symlink_to(outside / "b.png")
    (inside / "gone.png").symlink_to(tmp_path / "no.png")
    (inside / "gone").symlink_to(tmp_path / "no")
    found = list_images(inside)
    # ``z`` by its real name, ``deep`` by one of the two that lead to it.
    assert set(found.names) == {"a.png", "z/own.png", "d.png", "all/b.png", "again/c.png"}
    assert found.left == {"links that lead nowhere": 2, "links to folders that are read anyway": 4}


def test_a_pipe_with_the_name_of_a_picture_is_not_opened(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    assert list_images(tmp_path).names == ["a.png"]


def test_a_folder_without_images_says_what_it_has(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"IMG_{number}.HEIC" for number in range(60)), "notes.txt")
    with pytest.raises(
        DataError, match=r"no images in it .*\(left out: 60 .heic, which is not read .*, 1 .txt, no images"
    ):
        list_images(tmp_path)


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
