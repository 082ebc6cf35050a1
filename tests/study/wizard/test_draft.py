"""What suits which generator and which pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from gs_search.errors import BadInput, ConfigError
from gs_search.study.wizard import Wishes, make_plan
from gs_search.study.wizard.draft import name_from, name_problem
from tests.study.wizard.conftest import MakePhotos, SaveGenerator


def test_with_nothing_it_is_a_search_on_drawn_data(tmp_path: Path) -> None:
    plan = make_plan(Wishes(), tmp_path)
    assert (plan.name, plan.data.kind, plan.teacher.kind, plan.image_px) == ("drawn", "drawn", "shipped", 64)
    assert (plan.trials, plan.hours, plan.device, plan.gentle) == (24, None, "auto", False)


@pytest.mark.parametrize(
    ("architecture", "width", "blocks", "side", "image_px", "multiple"),
    [
        ("cartoongan", 4, 1, 48, 48, 4),
        ("cartoongan", 4, 1, 50, 48, 4),  # the largest multiple that the pictures have
        ("cartoongan", 4, 1, 300, 128, 4),
        ("cartoongan", 4, 1, 20, 32, 4),  # the smallest that a study may have
        ("pix2pix_unet", 4, 6, 300, 128, 64),
        ("pix2pix_unet", 4, 6, 100, 64, 64),
        ("pix2pix_unet", 4, 7, 48, 128, 128),  # its pictures are enlarged: it takes no smaller ones
    ],
)
def test_pictures_are_as_large_as_the_generator_and_they_allow(
    save_generator: SaveGenerator, make_photos: MakePhotos, tmp_path: Path,
    architecture: str, width: int, blocks: int, side: int, image_px: int, multiple: int,
) -> None:  # fmt: skip
    wishes = Wishes(checkpoint=save_generator(architecture, width, blocks), photos=make_photos(count=12, side=side))
    plan = make_plan(wishes, tmp_path)
    assert (plan.image_px, plan.multiple) == (image_px, multiple)
    assert plan.teacher.described.startswith(f"{architecture}, {width} channels, {blocks} ")
    assert make_plan(Wishes(**{**vars(wishes), "image_px": 512}), tmp_path).image_px == 512


def test_few_photos_are_dealt_out_and_settings_follow(
    save_generator: SaveGenerator, make_photos: MakePhotos, tmp_path: Path
) -> None:
    plan = make_plan(Wishes(checkpoint=save_generator(), photos=make_photos(count=30)), tmp_path)
    data = plan.data
    assert data.kind == "photos" and data.train + data.val + data.test + data.reference <= 30
    assert min(data.train, data.val, data.test, data.reference) >= 2
    assert (plan.fid_images, plan.repair_pictures, plan.batch_size) == (data.val, data.train, 4)


def test_budgets() -> None:
    def budget(**wishes: object) -> tuple[int, str | None]:
        plan = make_plan(Wishes(**wishes), Path())  # type: ignore[arg-type]
        return plan.trials, plan.hours

    assert budget() == (24, None)
    assert budget(trials=7) == (7, None)
    assert budget(hours=1.5) == (1000, "1.5"), "as many as fit into the time"
    assert budget(trials=7, hours=2.0) == (7, "2")


def test_two_domains_however_they_lie(make_photos: MakePhotos, tmp_path: Path) -> None:
    horses, zebras = make_photos("horses", 30), make_photos("zebras", 20)
    plan = make_plan(Wishes(source=horses, target=zebras, name="stripes"), tmp_path)
    assert (plan.data.kind, plan.data.path, plan.teacher.kind) == ("folders", "stripes", "train")
    assert plan.data.links == (("trainA", horses), ("trainB", zebras))
    a, b = make_photos("both/trainA", 30), make_photos("both/trainB", 20)
    for wishes in (Wishes(source=a, target=b), Wishes(source=tmp_path / "both"), Wishes(photos=tmp_path / "both")):
        plan = make_plan(wishes, tmp_path)
        assert (plan.data.kind, plan.data.path, plan.data.links) == ("folders", "../both", ())


def test_paths_below_the_study_are_relative(make_photos: MakePhotos, tmp_path: Path) -> None:
    make_photos("in/trainA", 30)
    make_photos("in/trainB", 30)
    assert make_plan(Wishes(source=tmp_path / "in"), tmp_path).data.path == "../in"
    (tmp_path / "elsewhere").mkdir()
    assert make_plan(Wishes(source=tmp_path / "in"), tmp_path / "elsewhere").data.path == str(tmp_path / "in")


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"photos": "p", "source": "s"}, "not both"),
        ({"target": "t"}, "give --source too"),
        ({"source": "s"}, "give --target too"),
        ({"photos": "p"}, "photos need a trained generator; give --checkpoint"),
        ({"checkpoint": "c.pth"}, "give pictures for it too: --photos"),
        ({"architecture": "cartoongan"}, "give --checkpoint"),
        ({"name": "My Study"}, "lower-case letters"),
    ],
)
def test_what_contradicts_itself(tmp_path: Path, wishes: dict[str, str], message: str) -> None:
    given = {name: value if name in ("name", "architecture") else Path(value) for name, value in wishes.items()}
    with pytest.raises(BadInput, match=message):
        make_plan(Wishes(**given), tmp_path)  # type: ignore[arg-type]


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan(Wishes(checkpoint=tmp_path / "c.pth", photos=tmp_path / "p"), tmp_path)
    assert [line.partition(":")[0] for line in caught.value.problems] == [str(tmp_path / n) for n in ("c.pth", "p")]


def test_names() -> None:
    assert name_from(Wishes(checkpoint=Path("x/Hayao_net G.float.pth"))) == "hayao_net-g-float"
    assert name_from(Wishes(photos=Path("/data/Été 2024/"))) == "t-2024"
    assert name_from(Wishes(source=Path("..."))) == "study" and name_from(Wishes()) == "drawn"
    assert name_problem("a-1_b") is None
    for name in ("", "A", "-a", "a b", "a" * 65, "../a", "a.b"):
        assert name_problem(name), name


def test_a_dollar_in_a_path_is_not_taken_for_a_variable(make_photos: MakePhotos, tmp_path: Path) -> None:
    make_photos("a${HOME}/trainA", 30)
    make_photos("a${HOME}/trainB", 30)
    with pytest.raises(BadInput, match="stands for a variable"):
        make_plan(Wishes(source=tmp_path / "a${HOME}"), tmp_path)
