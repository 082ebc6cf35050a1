"""The teacher of a study: what of it cannot be slimmed is said, written down, or refused, before any training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from gs_search.errors import BadInput, CheckpointError, UnsupportedNetwork
from gs_search.measure.psnr import psnr
from gs_search.results.run_folder import RunFolder
from gs_search.slimming.student import load_student
from gs_search.study.config import load_resolved, load_study
from gs_search.system.files import read_json
from gs_search.system.user_code import find_code
from gs_search.trial import assets
from gs_search.trial.run import run_trial
from gs_search.trial.teacher import frozen_json, frozen_lines, saved_generator, slimmable_teacher
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
    begins = next(index for index, line in enumerate(lines) if line.startswith("the teacher's answers on "))
    assert len(said) == 3 and max(said) < begins
    assert read_json(folder.baselines)["frozen"]["share"] == pytest.approx(432 / 5040)


NET = """
import torch
from torch import nn
from torch.nn import functional as F
from parts import Norm

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, padding_mode="reflect")
        self.down, self.norm = nn.Conv2d(width, 2 * width, 3, 2, 1), Norm(2 * width)
        self.up = nn.Conv2d(3 * width, width, 3, padding=1)
        self.head = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        skip = self.stem(x / 255 - 0.5).relu()
        deep = F.interpolate(self.norm(self.down(skip)).relu(), scale_factor=2)
        return torch.sigmoid(self.head(self.up(torch.cat([skip, deep], 1)).relu()))
"""
PARTS = """
import torch
from torch import nn

class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.rand(width) - 0.5)

    def forward(self, x):
        return nn.functional.instance_norm(x, weight=self.scale, bias=self.shift, eps=1e-5)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunFolder, nn.Module]:
    """A study of a network of one's own, prepared; its code and weights are gone since. The last is the network."""
    place = tmp_path_factory.mktemp("own")
    (place / "net.py").write_text(NET)
    (place / "parts.py").write_text(PARTS)
    torch.manual_seed(3)
    network = find_code("net.py:Net", place).load()(8)
    torch.save({"G": {f"module.{n}": t for n, t in network.state_dict().items()}}, place / "net.pth")
    teacher = {"kind": "module", "factory": "./net.py:Net", "arguments": {"width": 8}, "checkpoint": "net.pth"}
    teacher |= {"channels": "bgr", "range": [0, 255], "output_range": [0, 1]}
    config, folder = load_study(tiny_study.write(place, teacher=teacher)), RunFolder(place / "run")
    folder.create(config)
    lines: list[str] = []
    assets.prepare(config, folder, lines.append)
    assert "teacher: the weights are G.module of the file" in lines
    for name in ("net.py", "parts.py", "net.pth"):
        (place / name).rename(place / f"gone-{name}")
    return place, folder, network


def test_a_network_of_ones_own_is_searched_and_its_student_read_back(own: tuple[Path, RunFolder, nn.Module]) -> None:
    _, folder, network = own
    config = load_resolved(folder.resolved_yaml)
    ground = assets.TrialAssets.of(folder, config)
    with torch.no_grad():
        wanted = 2 * network(ground.validation.float().flip(1)).flip(1) - 1
    torch.testing.assert_close(ground.validation_outputs, wanted, atol=2e-3, rtol=0)  # stored as half floats
    record = run_trial({"target_gflops_ratio": 0.5, "weight_bits": 8}, config, folder, number=0, seed=1).to_json()
    assert 0.4 < record["objectives"]["gflops"] / ground.baselines.teacher.gflops <= 0.5
    assert record["parity"]["code_mismatches"] == 0
    stem = record["layers"][0]
    assert (stem["name"], stem["activation_bits"]) == ("network.stem", 8), "it reads no bytes, and so is rounded"
    file = folder.trial(0) / "student.safetensors"
    assert record["psnr_to_teacher"] == pytest.approx(
        psnr(assets.paint(ground.load_student(file), ground.validation), ground.validation_outputs)
    )
    assert b"net:Net" not in file.read_bytes(), "no file of weights says what code is run"
    with pytest.raises(CheckpointError, match="a student of a generator of one's own; pass that generator too"):
        load_student(file)


def test_code_that_has_changed_is_refused(own: tuple[Path, RunFolder, nn.Module]) -> None:
    place, folder, _ = own
    teacher = (folder.generator, folder.source)
    copied = folder.source / "parts.py"
    before = copied.read_text()
    copied.write_text(before.replace("+ 0.5", "+ 0.6"))
    with pytest.raises(BadInput, match="source: the source of net:Net has changed since the run began; put it back"):
        saved_generator(*teacher)
    copied.unlink()
    with pytest.raises(BadInput, match="has changed since the run began"):
        saved_generator(*teacher)
    copied.write_text(before)
    saved_generator(*teacher)
    for name in ("net.py", "parts.py", "net.pth"):
        shutil.copyfile(place / f"gone-{name}", place / name)
    study = place / "tiny.yaml"
    folder.check(load_study(study))
    (place / "parts.py").write_text(before + "\n")
    with pytest.raises(BadInput, match=r"the source of \./net\.py:Net has changed since the run began \(parts\.py\);"):
        folder.check(load_study(study))
    for name in ("net.py", "parts.py", "net.pth"):
        (place / name).unlink()
