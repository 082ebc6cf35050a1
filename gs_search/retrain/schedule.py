"""How long a full training is, in which parts, with how many pictures a step and on how many processes.

What prunes does not depend on the length: ``target_gflops_ratio`` is where the student lands, ``sparsity_weight`` a
budget over the whole sparse phase. So a longer schedule is the same point of the search space, trained for longer.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gs_search.errors import BadInput
from gs_search.study.settings import Point, SlimmingSettings, Value, settings_from_point
from gs_search.study.views import AUTO_FACTOR

if TYPE_CHECKING:
    from gs_search.study.config import StudyConfig

__all__ = ["Asked", "Schedule", "plan", "seed_of"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a person asks for; None leaves it to the study."""

    steps: int | None = None
    epochs: float | None = None
    batch_size: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise BadInput("--steps and --epochs say the same thing: give one of them")

    @property
    def anything(self) -> bool:
        """Whether the length or the pictures a step are asked for; the number of processes changes neither."""
        return any(value is not None for value in (self.steps, self.epochs, self.batch_size))


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One full training's length and looks. Steps count from the teacher on."""

    steps: int
    """In all."""
    sparse: int
    """The first ones, before the cut; 0 where the schedule cuts at once. The others train the small network."""
    batch_size: int
    """Pictures a step, of all processes together."""
    looks: tuple[int, ...]
    """Steps after which the student is measured, rising; the last one is ``steps``."""
    replaced: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    """Settings that are not the trial's, of ``retrain.settings``."""
    workers: int = dataclasses.field(default=1, compare=False)
    at_once: int = dataclasses.field(compare=False)
    """Pictures that go through the networks together, on each process: a trial's, where these make up its share of a
    step. So one process takes a step of twice the pictures in the same two parts as two processes do, and ends in the
    same bits."""
    checkpoint_minutes: float = dataclasses.field(default=1.0, compare=False)

    @property
    def parts(self) -> int:
        """In how many parts a process takes its share of a step."""
        return self.batch_size // self.workers // self.at_once

    def settings(self, point: Point, config: StudyConfig) -> SlimmingSettings:
        """The settings of the trial, at this length, with those that are replaced."""
        wanted = settings_from_point(point, config.settings)
        own: dict[str, Any] = {**self.replaced, "steps": self.steps, "batch_size": self.batch_size}
        return dataclasses.replace(wanted, **own)

    def on(self, workers: int, checkpoint_minutes: float) -> Schedule:
        """The same training on so many processes; raises ValueError where these cannot share a step's pictures."""
        share, rest = divmod(self.batch_size, workers)
        if rest or not share:
            raise ValueError
        at_once = self.at_once if share % self.at_once == 0 else share
        return dataclasses.replace(self, workers=workers, at_once=at_once, checkpoint_minutes=checkpoint_minutes)

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "fine_tune": self.steps - self.sparse, "looks": list(self.looks)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Schedule:
        """Invert ``to_json``, whatever else stands there.

        Raises:
            KeyError, TypeError: not a schedule.
        """
        content = {"replaced": {}, **content}  # which earlier versions did not write
        fields = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        return cls(**{**fields, "looks": tuple(fields["looks"])})


def plan(asked: Asked, point: Point, config: StudyConfig, pictures: int) -> Schedule:
    """Settle what was asked for, what the study says, and what follows from the trial.

    Args:
        pictures: to train on, which make an epoch: each is seen once, in one view or another.

    Raises:
        BadInput: the processes cannot share the pictures of a step evenly.
    """
    trial, said = settings_from_point(point, config.settings), config.retrain
    workers = asked.workers or 1
    batch_size = trial.batch_size * workers if asked.batch_size is None else asked.batch_size
    if asked.steps is not None:
        steps = asked.steps
    elif asked.epochs is not None:
        steps = max(1, round(asked.epochs * pictures / batch_size))
    else:
        steps = AUTO_FACTOR * max(trial.steps, 1) if said.steps == "auto" else int(said.steps)
    sparse = round(steps * trial.slim_fraction) if trial.schedule == "proximal" else 0
    after = steps - sparse
    looks = {sparse + round(after * k / said.looks) for k in range(1, said.looks + 1)} - {sparse} | {steps}
    schedule = Schedule(
        steps=steps,
        sparse=sparse,
        batch_size=batch_size,
        looks=tuple(sorted(looks)),
        replaced=dict(said.settings),
        at_once=trial.batch_size,
    )
    try:
        return schedule.on(workers, said.checkpoint_minutes)
    except ValueError:
        raise BadInput(
            f"--batch-size {batch_size}: pictures a step of all workers together, which {workers} workers cannot share "
            "evenly"
        ) from None


def seed_of(study_seed: int, key: str) -> int:
    """Seed of a point's full training, 0..2**31 - 1: not its trial's, so that luck is not trained on."""
    digest = hashlib.sha256(f"retrain\x1f{study_seed}\x1f{key}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
