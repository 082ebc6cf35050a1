"""The two files: they pass ``check``, say what the shipped studies say, and are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from gs_search.errors import BadInput, ConfigError
from gs_search.study.config import load_study
from gs_search.study.preflight import check_inputs
from gs_search.study.space_file import load_space
from gs_search.study.wizard import Wishes, make_plan, write_study
from gs_search.study.wizard.writer import Written
from tests.data.test_pairs import side_by_side
from tests.networks.references import Unet
from tests.study.wizard.conftest import MakePhotos, SaveGenerator


def write(out: Path, *, force: bool = False, **wishes: object) -> Written:
    return write_study(make_plan(Wishes(**wishes), out), out, force=force)  # type: ignore[arg-type]


def entries(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_real_teacher_gets_the_cartoongan_study(
    save_generator: SaveGenerator, make_photos: MakePhotos, tmp_path: Path, repository: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    checkpoint, photos, out = save_generator(), make_photos(count=40), tmp_path / "out"
    written = write(out, name="mine", checkpoint=checkpoint, photos=photos, device="cpu", hours=2)
    assert entries(out) == ["search_spaces", "search_spaces/mine.yaml", "studies", "studies/mine.yaml"]
    monkeypatch.setenv("GS_SEARCH_CHECKPOINT", str(checkpoint))
    monkeypatch.setenv("GS_SEARCH_PHOTOS", str(photos))
    shipped, config = load_study(repository / "studies" / "cartoongan.yaml"), load_study(written.study)
    check_inputs(config)
    few = {"repair_pictures": config.data.train}
    assert config.settings == {**shipped.settings, **few} and config.data.train < 32
    assert config.space.to_dict() == shipped.space.to_dict()
    assert (config.data.path, config.teacher.path) == (photos, checkpoint)
    assert (config.image_px, config.trials, config.hours, config.device) == (48, 1000, 2.0, "cpu")
    assert config.measure.fid_images == config.data.val
    assert any("noisy" in note for note in written.notes)


def test_drawn_data_get_the_quickstart(tmp_path: Path, repository: Path) -> None:
    written = write(tmp_path, name="first")
    shipped, config = load_study(repository / "studies" / "quickstart.yaml"), load_study(written.study)
    same = ("settings", "data", "image_px", "trials", "measure", "stopping", "sampler", "workers", "device", "seed")
    assert {name: getattr(config, name) for name in same} == {name: getattr(shipped, name) for name in same}
    assert config.space.to_dict() == shipped.space.to_dict() == load_space(written.space).to_dict()
    assert written.config == config


def test_what_a_newcomer_reads(tmp_path: Path) -> None:
    text = write(tmp_path, name="first").study.read_text(encoding="utf-8")
    for command in ("check", "run", "status", "pick", "report"):
        assert f"#   gs-search {command} " in text
    keys = [line for line in text.splitlines() if line and not line.startswith(("#", "measure", "data", "teacher"))]
    told = [line for line in keys if "  # " in line]
    assert len(told) > 0.7 * len(keys), "most keys say what they mean"
    assert text.endswith("}\n") and "\n\n\n" not in text and "{%" not in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", ["123", "1e5", "null", "true", "0x1f", "a-b_c"])
def test_names_that_yaml_would_take_for_something_else(tmp_path: Path, name: str) -> None:
    assert write(tmp_path, name=name).config.study == name


@pytest.mark.parametrize(
    "folder", ["with space", "a: #1", "quo\"te's", "{b}", "ünïcode", "- x", "null", "1e5", "%40", "a\\b"]
)
def test_paths_that_yaml_would_take_for_something_else(
    make_photos: MakePhotos, save_generator: SaveGenerator, tmp_path: Path, folder: str
) -> None:
    photos = make_photos(folder, 12)
    checkpoint = save_generator()
    assert write(tmp_path, checkpoint=checkpoint, photos=photos).config.data.path == photos
    assert write(tmp_path / "elsewhere", checkpoint=checkpoint, photos=photos).config.data.path == photos


def test_two_folders_are_linked(make_photos: MakePhotos, tmp_path: Path) -> None:
    horses, zebras = make_photos("horses", 30), make_photos("zeb ras: 1", 20)
    written = write(tmp_path, name="123", source=horses, target=zebras)
    place = tmp_path / "studies" / "123"
    assert written.config.data.path == place and entries(place) == ["trainA", "trainB"]
    assert [(place / name).resolve() for name in ("trainA", "trainB")] == [horses, zebras]
    check_inputs(load_study(written.study))
    with pytest.raises(BadInput, match="exists"):
        write(tmp_path, name="123", source=zebras, target=horses)
    write(tmp_path, name="123", source=zebras, target=horses, force=True)
    assert (place / "trainA").resolve() == zebras
    (place / "notes.txt").touch()
    with pytest.raises(BadInput, match="holds more than links"):
        write(tmp_path, name="123", source=horses, target=zebras, force=True)
    assert (place / "trainA").resolve() == zebras and (place / "notes.txt").exists()


@pytest.mark.parametrize("there", ["studies/mine.yaml", "search_spaces/mine.yaml"])
def test_nothing_is_overwritten_without_being_asked(tmp_path: Path, there: str) -> None:
    (tmp_path / there).parent.mkdir()
    (tmp_path / there).write_text("precious")
    before = entries(tmp_path)
    with pytest.raises(BadInput, match=f"{there}: exists; take another name, or replace it with --force"):
        write(tmp_path, name="mine")
    assert (tmp_path / there).read_text() == "precious" and entries(tmp_path) == before
    assert load_study(write(tmp_path, name="mine", force=True).study).study == "mine"


def test_a_dangling_link_is_there_too(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "mine.yaml").symlink_to(tmp_path / "gone.yaml")
    with pytest.raises(BadInput, match="exists"):
        write(tmp_path, name="mine")


def test_what_is_odd_about_the_pictures_is_said(save_generator: SaveGenerator, tmp_path: Path) -> None:
    """As of facades, two pictures in each file, with a damaged one among them."""
    side_by_side(tmp_path / "facades", 40, width=48)
    (tmp_path / "facades" / "7.png").write_bytes(b"<html>404</html>")
    written = write(tmp_path / "out", checkpoint=save_generator(), photos=tmp_path / "facades")
    counted, damaged, wide = written.notes[-3:]
    assert counted.endswith("left out: 1 damaged") and "7.png: not a readable image" in damaged
    assert "nearly all are twice as wide as high" in wide


def test_with_a_mistake_nothing_is_written(
    save_generator: SaveGenerator, make_photos: MakePhotos, tmp_path: Path
) -> None:
    checkpoint, photos, broken = save_generator(), make_photos(), make_photos("broken")
    for path in sorted(broken.iterdir())[:12]:
        path.write_bytes(b"<html>404</html>")
    before = entries(tmp_path)
    out = tmp_path / "a" / "b"
    for changes, starts in [
        ({"photos": broken}, [f"{broken}: 12 of 40 images cannot be used"]),
        ({"image_px": 50}, ["image_px: must be a multiple of 4, not 50"]),
    ]:
        with pytest.raises(ConfigError) as caught:
            write(out, **{"checkpoint": checkpoint, "photos": photos, **changes})
        problems = caught.value.problems
        assert [line[: len(start)] for line, start in zip(problems, starts, strict=True)] == starts
        assert entries(tmp_path) == before
    write(out, name="kept")
    with pytest.raises(ConfigError):
        write(out, name="kept", checkpoint=checkpoint, photos=broken, force=True)
    assert load_study(out / "studies" / "kept.yaml").data.kind == "drawn"


def test_a_side_that_the_generator_cannot_take(
    save_generator: SaveGenerator, make_photos: MakePhotos, tmp_path: Path
) -> None:
    generator = save_generator("pix2pix_unet", 4, 6)
    with pytest.raises(ConfigError, match="take a multiple of 64"):
        write(tmp_path, checkpoint=generator, photos=make_photos(count=12), image_px=96)
    assert not (tmp_path / "studies").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "studies").write_text("a file")
    with pytest.raises(BadInput, match="cannot be written"):
        write(tmp_path, name="mine")
    assert os.listdir(tmp_path) == ["studies"]


def test_one_of_two_generators_and_what_was_decided(make_photos: MakePhotos, tmp_path: Path) -> None:
    checkpoint = tmp_path / "nets.pth"
    torch.save({"netG_A": Unet(4, 4).state_dict(), "netG_B": Unet(4, 4).state_dict()}, checkpoint)
    photos = make_photos(count=20)
    with pytest.raises(ConfigError, match="holds 2 generators: netG_A, netG_B; choose one with teacher.key"):
        write(tmp_path / "out", name="mine", checkpoint=checkpoint, photos=photos)
    written = write(tmp_path / "out", name="mine", checkpoint=checkpoint, photos=photos, key="netG_B")
    assert written.config.teacher.key == "netG_B"
    assert any(note.startswith("teacher: norm: batch, the running statistics") for note in written.notes)
    with pytest.raises(BadInput, match="--key: says which generator of a checkpoint; give --checkpoint"):
        write(tmp_path / "out", name="other", key="netG_B")
