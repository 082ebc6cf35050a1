"""What looks wrong in a teacher's pictures: nothing in right ones, each wrong convention by its own words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from gs_search.errors import BadInput
from gs_search.networks.own_module import Conventional
from gs_search.study.config import StudyConfig, load_study
from gs_search.trial.samples import colour_warning, range_warnings, teacher_samples
from tests import tiny_study


class Pictures:
    """Smooth pictures from black to white, red as day, with little blue of its own."""

    def __len__(self) -> int:
        return 48

    def picture(self, index: int, view: int | None = None) -> Tensor:
        small = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(index))
        small[2] = (small[0] + small[1]) / 2 + 0.1 * (small[2] - 0.5)
        smooth = nn.functional.interpolate(small[None], size=32, mode="bilinear", align_corners=True)[0]
        return (255 * smooth).clamp(0, 255).to(torch.uint8)

    def all(self) -> Tensor:
        return torch.stack([self.picture(index) for index in range(len(self))])


class Guessing(nn.Module):
    """Knows nothing of the channel of one number but the mean of the others; of [0, 1], as most people have them."""

    def __init__(self, channel: int, returned: float = 1.0) -> None:
        super().__init__()
        self.channel, self.returned = channel, returned

    def forward(self, x: Tensor) -> Tensor:
        channels = list(x.unbind(1))
        channels[self.channel] = torch.stack([c for i, c in enumerate(channels) if i != self.channel]).mean(dim=0)
        return torch.stack(channels, dim=1) * self.returned


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., StudyConfig]:
    (tmp_path / "net.py").write_text("def build(): ...")

    def make(**teacher: object) -> StudyConfig:
        given = {"kind": "module", "factory": "net.py:build", "range": [0, 1], **teacher}
        return load_study(tiny_study.write(tmp_path, teacher=given))

    return make


BLUE_IN_BGR = 0
UNIT = (0.0, 1.0)


def test_right_pictures_are_not_spoken_of(config: Callable[..., StudyConfig], tmp_path: Path) -> None:
    right = Conventional(Guessing(BLUE_IN_BGR), "bgr", UNIT, UNIT)
    samples = teacher_samples(config(channels="bgr"), right, Pictures())
    assert samples.warnings == () and samples.exchanged is None
    samples.write(tmp_path / "new" / "samples.png")
    with Image.open(tmp_path / "new" / "samples.png") as sheet:
        rows = np.asarray(sheet)
    assert rows.shape == (2 * 32 + 2, 6 * 32 + 5 * 2, 3)
    first = Pictures().picture(0).permute(1, 2, 0).numpy()
    assert np.array_equal(rows[:32, :32], first)
    assert np.array_equal(rows[34:, :32, 0], first[..., 0]), "red, which the network knows, is where red is"


def test_swapped_colours_are_seen(config: Callable[..., StudyConfig], tmp_path: Path) -> None:
    wrong = Conventional(Guessing(BLUE_IN_BGR), "rgb", UNIT, UNIT)
    samples = teacher_samples(config(), wrong, Pictures())
    (line,) = samples.warnings
    assert line.startswith("colours look swapped: ") and line.endswith("; try teacher.channels: bgr")
    samples.write(tmp_path / "samples.png")
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.height == 3 * 32 + 2 * 2, "the third row shows the other order"
    again = Conventional(Guessing(2), "bgr", UNIT, UNIT)  # the same the other way round
    assert str(colour_warning(config(channels="bgr"), again, Pictures().all())).endswith("teacher.channels: rgb")


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(1)


def test_a_network_that_returns_another_order_than_it_takes_is_seen(config: Callable[..., StudyConfig]) -> None:
    said = colour_warning(config(), Turned(), Pictures().all())
    assert said is not None and said.startswith(
        "red and blue change places between photo and picture: exchanged back, 4"
    )


def test_grey_networks_have_no_order(config: Callable[..., StudyConfig]) -> None:
    assert colour_warning(config(channels="grey"), Turned(), Pictures().all()) is None


@pytest.mark.parametrize(
    ("declared", "returns", "said"),
    [
        (
            (0, 1),
            (0, 255),
            r"% of the painted values lie outside of teacher.output_range, \[0, 1\]: .* from 0 to 2\d\d",
        ),
        ((-1, 1), (0, 255), r"lie outside of teacher.output_range, \[-1, 1\]"),
        ((0, 255), (0, 1), r"hardly vary within teacher.output_range, \[0, 255\] \(standard .* from 0 to 1; set"),
        ((0, 255), (-1, 1), r"hardly vary within"),
        ((0, 1), (-1, 1), r"lie outside of teacher.output_range, \[0, 1\]"),
    ],
)
def test_a_range_that_leaves_nothing_is_refused(
    declared: tuple[float, float], returns: tuple[float, float], said: str, config: Callable[..., StudyConfig]
) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        range_warnings(config(output_range=list(declared)), Pictures().all(), painting(declared, returns))
    assert "set teacher.output_range to what it returns" in str(caught.value)


def painting(declared: tuple[float, float], returns: tuple[float, float]) -> nn.Module:
    """A network that returns its pictures in one range, read as one of another."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (returns[1] - returns[0]) + returns[0]

    return Conventional(Net(), "rgb", UNIT, declared)


def test_half_a_range_and_foreign_pictures_are_warned_of(config: Callable[..., StudyConfig]) -> None:
    pictures = Pictures().all()
    (half,) = range_warnings(config(output_range=[-1, 1]), pictures, painting((-1, 1), (0, 1)))
    assert half.startswith("nothing darker than a middle grey is painted within teacher.output_range, [-1, 1]")
    (foreign,) = range_warnings(config(), pictures, pictures.flip(0).float() / 127.5 - 1)
    assert foreign.startswith("what is painted does not resemble the inputs (correlation of brightness ")
    assert range_warnings(config(), pictures, pictures.float() / 127.5 - 1) == []
