"""The questions: what is given is not asked, what is wrong is asked again."""

from __future__ import annotations

from pathlib import Path

import pytest

from gs_search.study.wizard import Wishes, ask, write_study
from gs_search.study.wizard.draft import make_plan
from tests.study.wizard.conftest import MakePhotos, SaveGenerator


class Person:
    """Gives answers by question, one after the other; else takes the default."""

    def __init__(self, **answers: list[str]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.heard: list[str] = []

    def __call__(self, question: str, default: str) -> str:
        self.asked.append(question)
        left = self.answers.get(question.split()[0].lower(), [])
        return left.pop(0) if left else default

    def ask(self, given: Wishes, out: Path, *, force: bool = False) -> Wishes:
        return ask(given, out, self, self.heard.append, force=force)


def test_a_person_who_takes_every_default(tmp_path: Path) -> None:
    person = Person()
    wishes = person.ask(Wishes(), tmp_path)
    assert person.asked == [
        "Checkpoint", "Folder of pictures to translate", "Name of the study", "Pixels", "Trials", "Hours", "Device",
    ]  # fmt: skip
    assert wishes == Wishes(name="drawn", image_px=64, trials=24, device="auto")
    assert len(person.heard) >= len(person.asked), "each question says what the answer means"
    assert write_study(make_plan(wishes, tmp_path), tmp_path).config.trials == 24


def test_a_person_with_a_generator_who_errs(
    save_generator: SaveGenerator, make_photos: MakePhotos, tmp_path: Path
) -> None:
    checkpoint, photos = save_generator("pix2pix_unet", 4, 6), make_photos(count=40, side=70)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "taken.yaml").touch()
    person = Person(
        checkpoint=[str(tmp_path / "gone.pth"), f" {checkpoint} "],
        folder=["", str(tmp_path / "nowhere"), str(photos)],
        name=["Not This", "taken", "mine"],
        pixels=["many", "100", "5000", "128"],
        trials=["0", "2.5", "9"],
        hours=["soon", "-1", "1.5"],
        device=["gpu", "cpu"],
    )
    wishes = person.ask(Wishes(), tmp_path)
    assert not any(person.answers.values())
    assert wishes == Wishes(
        name="mine", checkpoint=checkpoint, photos=photos, image_px=128, trials=9, hours=1.5, device="cpu"
    )
    told = "\n".join(person.heard)
    for message in (
        "no such checkpoint", "pix2pix_unet, 4 channels, 6 halvings", "a folder is needed", "no such folder",
        "lower-case letters", "exists; take another name", "whole number, not 'many'", "multiple of 64, not 100",
        "between 32 and 2048, not 5000", "between 1 and", "whole number, not '2.5'", "number, not 'soon'",
        "auto, cpu or cuda, not 'gpu'",
    ):  # fmt: skip
        assert message in told, message
    config = write_study(make_plan(wishes, tmp_path), tmp_path).config
    assert (config.study, config.image_px, config.hours) == ("mine", 128, 1.5)


def test_two_domains(make_photos: MakePhotos, tmp_path: Path) -> None:
    horses, zebras = make_photos("horses", 20), make_photos("zebras", 20)
    person = Person(folder=[str(horses), str(zebras)])
    wishes = person.ask(Wishes(name="stripes"), tmp_path)
    assert (wishes.source, wishes.target, wishes.name) == (horses, zebras, "stripes")
    assert person.asked[1:3] == ["Folder of pictures to translate", "Folder of target pictures"]
    assert "Name of the study" not in person.asked


@pytest.mark.parametrize("given", [{"name": "x", "image_px": 32, "trials": 3, "hours": 1.0, "device": "cpu"}])
def test_what_is_given_is_not_asked(make_photos: MakePhotos, tmp_path: Path, given: dict[str, object]) -> None:
    make_photos("both/trainA", 20)
    make_photos("both/trainB", 20)
    person = Person()
    wishes = Wishes(source=tmp_path / "both", **given)  # type: ignore[arg-type]
    assert person.ask(wishes, tmp_path) == wishes and person.asked == []
