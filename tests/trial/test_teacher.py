"""The teacher of a study: what of it cannot be slimmed is said, written down, or refused, before any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from gs_search.errors import UnsupportedNetwork
from gs_search.results.run_folder import RunFolder
from gs_search.study.config import load_study
from gs_search.trial import assets
from gs_search.trial.teacher import frozen_json, frozen_lines, slimmable_teacher
from tests import tiny_study
from tests.conftest import STUDY
from tests.slimming.test_channels import conv

Write = Callable[..., Path]


class Sigmoids(nn.Module):
    """A function that does not keep zeros stands behind ``first``, so its channels are kept; ``second`` may shrink."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.first, self.second, self.third, self.last = conv(3, 8), conv(8, inner), conv(inner, 8), conv(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.third(self.second(self.first(x).sigmoid()).relu()).sigmoid())


def test_frozen_parts_are_named_and_counted(write_study: Write) -> None:
    torch.manual_seed(0)
    teacher = slimmable_teacher(load_study(write_study()), Sigmoids(32))
    lines, found = frozen_lines(teacher), frozen_json(teacher)
    names = [part["name"] for part in found["parts"]]
    assert names and all(any(line.startswith(f"not slimmed: {name} (") for line in lines) for name in names)
    # first and last of 8 channels have 216 weights each, second and third of 32 inner ones 2304 each
    assert found["share"] == pytest.approx(sum(part["macs_share"] for part in found["parts"])) == 432 / 5040


def test_a_mostly_frozen_generator_is_refused_before_training_unless_allowed(
    write_study: Write,
) -> None:
    torch.manual_seed(0)
    generator = Sigmoids(1)
    refused = load_study(write_study())
    with pytest.raises(UnsupportedNetwork, match=r"% of the generator's .*first .*allow_frozen: true under teacher"):
        slimmable_teacher(refused, generator)
    allowed = load_study(write_study(STUDY.replace("kind: shipped", "kind: shipped, allow_frozen: true")))
    assert slimmable_teacher(allowed, generator).frozen_share > 0.5
    assert allowed.identity() == refused.identity(), "a permission makes no other study"


def test_the_preparation_says_it_before_it_trains_and_writes_it_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    genuine = assets.generator_of
    monkeypatch.setattr(assets, "generator_of", lambda *a, **k: (Sigmoids(32), genuine(*a, **k)[1]))
    config, folder = load_study(tiny_study.write(tmp_path)), RunFolder(tmp_path / "run")
    folder.create(config)
    lines: list[str] = []
    assets.prepare(config, folder, lines.append)
    said = [index for index, line in enumerate(lines) if line.startswith("not slimmed: ")]
    assert len(said) == 3 and max(said) < lines.index("the teacher's answers on training views")
    assert folder.read_json(folder.baselines)["frozen"]["share"] == pytest.approx(432 / 5040)
