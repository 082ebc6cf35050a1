"""Runs stopped at any step end in the same bits; files that are not this run's are refused in one line."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gs_search.errors import CheckpointError
from gs_search.networks import ResnetGenerator
from gs_search.slimming import Batch, Lessons, Slimmed, Teacher, record_targets, slim, slim_generator
from gs_search.slimming.checkpoint import load_state, network_state, restore_network_, save_state
from gs_search.slimming.repair import RepairTargets, attach_quantizers
from gs_search.study.settings import SlimmingSettings
from tests.slimming.test_api import pictures
from tests.slimming.test_channels import BITS, OWN, Depthwise, randomised

SHORT = SlimmingSettings(
    target_gflops_ratio=0.5,
    steps=6,
    slim_fraction=0.5,
    width_floor=2,
    discriminator_width=4,
    scale_learning_rate=0.05,
    scale_momentum=0.5,
    range_learning_rate=0.01,
    weight_bits=4,
)
EVERYTHING: dict[str, Any] = {
    "feature_match": "map",
    "perceptual_weight": 1.0,
    "style_weight": 1.0,
    "critic_feature_weight": 1.0,
    "discriminator_real": "target",
    "quantize": "deploy",
}
CASES = {
    "at once": SHORT,
    "proximal": replace(SHORT, schedule="proximal"),
    "at once, everything": replace(SHORT, **EVERYTHING),
    "proximal, everything": replace(SHORT, schedule="proximal", **EVERYTHING),
    "proximal to the end": replace(SHORT, schedule="proximal", slim_fraction=1.0, revive=True),
    "proximal, budget": replace(SHORT, schedule="proximal", target_gflops_ratio=None, sparsity_weight=0.4),
}
SETUPS: dict[str, Callable[[], torch.nn.Module]] = {"depthwise": Depthwise, "resnet": lambda: ResnetGenerator(4, 1)}
Setup = tuple[Teacher, Lessons, RepairTargets]


class Stop(Exception):
    """A power cut."""


class StoppingLessons:
    """Lessons that are cut off when the step ``at`` asks for its batch."""

    def __init__(self, lessons: Lessons, at: int) -> None:
        self.lessons, self.left, self.featured = lessons, at, lessons.featured

    def __len__(self) -> int:
        return len(self.lessons)

    def batch(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Batch:
        if not self.left:
            raise Stop
        self.left -= 1
        return self.lessons.batch(indices, device)


def setup_of(make: Callable[[], torch.nn.Module]) -> Setup:
    teacher = Teacher(randomised(make), 32)
    return teacher, Lessons.in_memory(teacher, pictures()), record_targets(teacher.network, pictures())


@pytest.fixture(scope="module")
def setup() -> Setup:
    return setup_of(Depthwise)


def real(step: int, count: int) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(step)) * 2 - 1


def run(setup: Setup, settings: SlimmingSettings, **more: Any) -> Slimmed:
    given: dict[str, Any] = {"seed": 3, "rate_factor": 0.5, "on_repaired": lambda student: 2.0, **more}
    return slim(setup[0], settings, given.pop("lessons", setup[1]), setup[2], real=real, **given)


def assert_equal(one: Slimmed, other: Slimmed) -> None:
    mine, others = one.network.state_dict(), other.network.state_dict()
    assert list(mine) == list(others)
    assert not [name for name in mine if not torch.equal(mine[name], others[name])]
    assert one.curve == other.curve and one.parity == other.parity and one.macs_share == other.macs_share
    assert all((one.alive[name] == other.alive[name]).all() for name in one.alive)


def orders(name: str) -> tuple[list[str], list[str]]:
    """Names of a quantized network's parameters and of its restored copy's, in the order optimizers number them."""
    teacher = Teacher(randomised(OWN[name]), 32)
    (network, _), (copied, _) = teacher.student("raw"), teacher.student("raw")
    attach_quantizers(teacher.graph, network, BITS, pictures())
    restore_network_(copied, network_state(network))
    with torch.no_grad():
        assert torch.equal(copied(pictures()), network(pictures()))
    return [n for n, _ in network.named_parameters()], [n for n, _ in copied.named_parameters()]


@pytest.mark.parametrize("name", OWN)
def test_a_restored_network_has_its_parameters_in_the_same_order(name: str) -> None:
    before, after = orders(name)
    assert before == after


@pytest.fixture(scope="module")
def ordered() -> None:
    """Without it, fused Adam would be handed the states of other parameters, write beside them and crash Python."""
    before, after = orders("depthwise")
    assert before == after


@pytest.mark.usefixtures("ordered")
@pytest.mark.parametrize("name", CASES)
def test_a_run_stopped_at_any_step_ends_in_the_same_bits(name: str, setup: Setup, tmp_path: Path) -> None:
    settings = CASES[name]
    whole = run(setup, settings)
    assert whole.curve[-1]["step"] == settings.steps and whole.macs_share < 0.9
    places = range(6) if name == "at once" else (1, 2, 3, 5)  # the sparse phase, its last step, the cut, the last step
    for at in places:
        file = tmp_path / f"{at}.ckpt"
        with pytest.raises(Stop):
            run(setup, settings, lessons=StoppingLessons(setup[1], at), checkpoint=file, checkpoint_every=1)
        assert file.exists() == (at > 0)
        # From here one more step, then another power cut, then to the end.
        if at == 2:
            with pytest.raises(Stop):
                run(setup, settings, lessons=StoppingLessons(setup[1], 1), checkpoint=file, checkpoint_every=1)
        torch.manual_seed(at)  # another process has other global random numbers
        assert_equal(run(setup, settings, checkpoint=file, checkpoint_every=1), whole)
    # A finished run is not trained again.
    assert_equal(run(setup, settings, lessons=StoppingLessons(setup[1], 0), checkpoint=file), whole)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"{at}.ckpt" for at in places]


@pytest.mark.usefixtures("ordered")
def test_a_run_stopped_while_it_reports_goes_back_to_its_last_checkpoint(tmp_path: Path) -> None:
    """Also one whose residual block has vanished, and with steps between checkpoints."""
    setup = setup_of(SETUPS["resnet"])
    settings = replace(CASES["proximal"], steps=10, importance="rank", sparsity_multiplier={"body": 10.0, "down": 0.1})
    whole = run(setup, settings)
    assert not whole.alive["body.0.branch.1"].any()

    for stop in (1, 2):
        file, seen = tmp_path / f"{stop}.ckpt", []

        def report(row: dict[str, Any], seen: list[Any] = seen, stop: int = stop) -> None:
            seen.append(row["step"])
            if len(seen) == stop:
                raise Stop

        with pytest.raises(Stop):
            run(setup, settings, checkpoint=file, checkpoint_every=2, on_progress=report)
        assert seen == [5, 10][:stop]
        again: list[dict[str, Any]] = []
        assert_equal(run(setup, settings, checkpoint=file, checkpoint_every=4, on_progress=again.append), whole)
        assert [row["step"] for row in again] == [5, 10][stop - 1 :]


@pytest.mark.usefixtures("ordered")
def test_slim_generator_goes_on_too(tmp_path: Path) -> None:
    generator, settings = randomised(Depthwise), replace(CASES["proximal"], learning_rate=1e-3)
    whole = slim_generator(generator, pictures(), settings)

    def stop(row: dict[str, Any]) -> None:
        raise Stop

    file = tmp_path / "run.ckpt"
    with pytest.raises(Stop):
        slim_generator(generator, pictures(), settings, checkpoint=file, checkpoint_every=2, on_progress=stop)
    assert_equal(slim_generator(generator, pictures(), settings, checkpoint=file), whole)


@pytest.fixture(scope="module")
def stored(setup: Setup, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("stored") / "run.ckpt"
    run(setup, replace(SHORT, steps=1), checkpoint=file)
    return file.read_bytes()


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    "damage", ["empty", "cut", "cut short", "garbage", "text", "pickle", "torch pickle", "digest", "other", "no run"]
)
def test_a_damaged_or_hostile_file_is_refused_in_one_line(
    damage: str, setup: Setup, stored: bytes, tmp_path: Path
) -> None:
    file, canary = tmp_path / "run.ckpt", tmp_path / "canary"
    contents: dict[str, bytes] = {
        "empty": b"",
        "cut": stored[:-100],
        "cut short": stored[:50],
        "garbage": bytes(range(256)) * 20,
        "text": b"not a checkpoint\n",
        "pickle": pickle.dumps({"format": Canary(canary)}, protocol=2),
    }
    if damage in ("torch pickle", "digest"):
        torch.save({"format": "gs-search run 1", "run": Canary(canary)}, file)
        if damage == "digest":  # as of a file that was written whole
            file.write_bytes(hashlib.sha256(file.read_bytes()).digest() + file.read_bytes())
    elif damage in ("other", "no run"):
        torch.save({"weight": torch.zeros(3)} if damage == "other" else {"format": "gs-search run 1"}, file)
    else:
        file.write_bytes(contents[damage])
    with pytest.raises(CheckpointError, match="delete it to start anew") as caught:
        run(setup, replace(SHORT, steps=1), checkpoint=file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore")  # torch's, of unusual pickles
def test_no_damage_gets_past(tmp_path: Path, stored: bytes) -> None:
    """Random pickles, and a stored run with random bytes changed in its directory: nothing but CheckpointError."""
    chance = random.Random(0)
    file = tmp_path / "run.ckpt"
    start = stored.rindex(b"PK\x01\x02")  # data are not checked, the list of files is
    for number in range(400):
        damaged = bytearray(stored)
        for _ in range(3):
            damaged[chance.randrange(start, len(stored))] = chance.randrange(256)
        file.write_bytes(damaged if number % 2 else b"\x80\x02" + chance.randbytes(chance.randrange(1, 60)))
        try:
            load_state(file, "another run", "cpu")
        except CheckpointError as error:
            assert "\n" not in str(error)
        else:
            pytest.fail("took another run's file")


def test_another_runs_file_is_refused(setup: Setup, stored: bytes, tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    file.write_bytes(stored)
    one = replace(SHORT, steps=1)
    other_teacher = Depthwise()
    torch.nn.init.normal_(other_teacher.body[0].weight)
    others: list[tuple[Setup, SlimmingSettings, dict[str, Any]]] = [
        (setup, replace(one, batch_size=3), {}),
        (setup, replace(one, weight_bits={"body": 4}), {}),
        (setup, one, {"seed": 4}),
        (setup, one, {"lessons": Lessons.in_memory(setup[0], pictures(5))}),
        (setup_of(OWN["excited"]), one, {}),
        (setup_of(lambda: other_teacher), one, {}),  # the same layers with other weights
    ]
    for number, (other, settings, more) in enumerate(others):
        try:
            run(other, settings, checkpoint=file, **more)
        except CheckpointError as error:
            assert str(file) in str(error) and "another seed" in str(error) and "\n" not in str(error)
        else:
            pytest.fail(f"run {number} took another run's checkpoint")
    assert file.read_bytes() == stored


def test_states_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, run_id = tmp_path / "run.ckpt", "of this run"
    save_state(file, {"done": 1}, run_id)

    def torn(path: Path, data: Any) -> None:
        with path.open("wb") as opened:
            opened.write(bytes(data)[:10])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", torn)
    with pytest.raises(OSError, match="no space"):
        save_state(file, {"done": 2}, run_id)
    assert load_state(file, run_id, "cpu")["done"] == 1
