"""From the seconds of a few small trials to those of any trial of a study, and of its preparation. Pure arithmetic.

A trial costs something fixed (the repair above all), its training steps, and the pictures it is judged on; between
the smallest and the largest student that were measured, each of these is interpolated by size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gs_search.study.settings import Point, SlimmingSettings, settings_from_point

if TYPE_CHECKING:
    from gs_search.study.config import StudyConfig

__all__ = ["Costs", "preparation_bytes", "preparation_seconds", "size_of"]

ATTEMPTS = 4
"""Attempts of the search for learning rates that do no harm; three to five were seen."""

Measured = Mapping[str, Any]
"""What ``probe`` wrote."""


def size_of(settings: SlimmingSettings) -> float:
    """How large a student will be, the teacher being 1, as far as its settings tell."""
    if settings.target_gflops_ratio is not None:
        return settings.target_gflops_ratio
    return 1 / (1 + (settings.sparsity_weight or 0.0))


@dataclass(frozen=True)
class _Known:
    """A probing trial."""

    size: float
    batch_size: int
    row: Measured


class Costs:
    """What the trials of a study cost.

    Args:
        trials: of ``probe.measure_trials``, one at least.
        pictures: on which a student of the study is judged.
    """

    def __init__(self, config: StudyConfig, trials: Sequence[Measured], pictures: int) -> None:
        self._config = config
        known = [(settings_from_point(row["point"], config.settings), row) for row in trials]
        self._known = sorted((_Known(size_of(s), s.batch_size, row) for s, row in known), key=lambda one: one.size)
        few, look = (trials[0][name] for name in ("pictures", "look_pictures"))
        self._judged = pictures - few
        self._a_look = min(pictures, look)
        self._first_look = self._a_look - min(few, look)

    def parts(self, point: Point) -> dict[str, float]:
        """Seconds of a trial: ``fixed``, ``training`` and ``pictures``."""
        settings = settings_from_point(point, self._config.settings)
        size = size_of(settings)
        slim = round(settings.steps * settings.slim_fraction) if settings.schedule == "proximal" else 0
        steps = {"slim": slim, "recover": settings.steps - slim}
        paint = self._at(size, lambda one: one.row["picture_seconds"]["paint"])
        # A student is looked at after the repair, and at every rung of the study.
        rungs = sum(rung < steps["recover"] for rung in self._config.stopping.rungs)
        features = self._at(size, lambda one: one.row["picture_seconds"]["inception"])
        return {
            "fixed": self._at(size, lambda one: one.row["fixed_seconds"]),
            "training": sum(n * self.step(phase, size) * settings.batch_size for phase, n in steps.items()),
            "pictures": self._judged * (paint + features) + (self._first_look + rungs * self._a_look) * paint,
        }

    def seconds(self, point: Point) -> float:
        """Seconds of a trial."""
        return sum(self.parts(point).values())

    def step(self, phase: str, size: float) -> float:
        """Seconds of a training step, over the pictures of its batch; beyond the largest student, by the slope."""
        known = [one for one in self._known if one.row["step_seconds"][phase]]
        if not known:
            other = {"slim": "recover", "recover": "slim"}[phase]
            if not any(one.row["step_seconds"][other] for one in self._known):
                return 0.0
            # Before the cut the network has its full size.
            return self.step(other, 1.0 if phase == "slim" else size)
        first, last = known[0], known[-1]

        def seconds(one: _Known) -> float:
            return float(one.row["step_seconds"][phase]) / one.batch_size

        if size > last.size > first.size:
            slope = max(0.0, seconds(last) - seconds(first)) / (last.size - first.size)
            return seconds(last) + slope * (size - last.size)
        return float(np.interp(size, [one.size for one in known], [seconds(one) for one in known]))

    def _at(self, size: float, value: Callable[[_Known], float]) -> float:
        return float(np.interp(size, [one.size for one in self._known], [value(one) for one in self._known]))


def preparation_seconds(config: StudyConfig, measured: Measured, costs: Costs) -> float:
    """Seconds of the preparation.

    Args:
        measured: of ``probe.measure_preparation``.
    """
    more = {name: measured["wanted"][name] - count for name, count in measured["few"].items()}
    each = dict(measured["picture_seconds"])
    each["inception"] /= measured.get("cores", 1)  # which all of them share, see ``trial.assets.prepare``
    seconds = measured["seconds"]
    seconds += more["views"] * (each["open"] + each["answer"]) + more["real"] * each["open"]
    seconds += more["val"] * (each["open"] + each["paint"] + 2 * each["inception"])
    seconds += more["reference"] * (each["open"] + each["inception"])
    seconds += more["reference"] * each["paint"] if measured["paints_reference"] else 0.0
    if measured["training_seconds"]:
        seconds += measured["training_seconds"] * (config.teacher.steps / measured["training_steps"] - 1)
    batch_size = settings_from_point(config.space.constants, config.settings).batch_size
    return float(seconds + ATTEMPTS * measured["harmless_steps"] * batch_size * costs.step("recover", 1.0))


def preparation_bytes(measured: Measured) -> float:
    """Bytes of ``teacher/``."""
    kinds = {"lessons": "views", "features": "featured", "real.npy": "real", "reference_pictures.npy": "reference"}
    kinds |= {"validation.npy": "val", "validation_outputs.npy": "val"}
    few, wanted = measured["few"], measured["wanted"]
    return sum(
        size * (wanted[kinds[name]] / max(few[kinds[name]], 1) if name in kinds else 1)
        for name, size in measured["bytes"].items()
    )
