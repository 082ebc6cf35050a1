"""What lies around a picked trial: runners-up, the next steps on the front with their price, noise, warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gs_search.results import pick_words
from gs_search.results.fid_uncertainty import Reading, describe, gap
from gs_search.results.front import Finished
from gs_search.results.pareto import OBJECTIVES, dominates, front_indices
from gs_search.results.record import TrialRecord
from gs_search.results.repeats import Repeats, read_repeats
from gs_search.results.run_folder import RunFolder

__all__ = ["Surroundings"]


class Surroundings:
    """The students of a run folder, as seen from one of them."""

    def __init__(self, folder: RunFolder, found: Finished) -> None:
        self._folder, self._found = folder, found
        self._front = [found.feasible[index] for index in front_indices(found.points)]
        self._fid_std = found.baselines.fid_std
        self._repeats: dict[int, Repeats] = {}

    def reading(self, result: TrialRecord) -> Reading:
        """What is known of a student's FID."""
        return self._read(result).reading

    def repeats(self, result: TrialRecord) -> Mapping[str, Any] | None:
        """What other seeds say of a student, as ``fid_uncertainty.describe`` has it."""
        return describe(self.reading(result), self._read(result).failed)

    def _read(self, result: TrialRecord) -> Repeats:
        number = result.number
        if number not in self._repeats:
            self._repeats[number] = read_repeats(self._folder, result)
        return self._repeats[number]

    def against(self, chosen: TrialRecord, other: TrialRecord) -> dict[str, Any]:
        """Another student, and how far its FID is from the chosen one's."""
        difference, margin = gap(self.reading(chosen), self.reading(other), self._fid_std)
        return {
            "number": other.number,
            "objectives": other.values,
            "latency_ms": other.latency_ms,
            "repeats": self.repeats(other),
            "fid_gap": difference,
            "margin": margin,
            "tie": abs(difference) <= margin,
        }

    def chance(self, chosen: TrialRecord, runner_up: TrialRecord) -> dict[str, Any]:
        """Whether the gap to the runner-up is more than noise."""
        found = self.against(chosen, runner_up)
        seeds = min(len(self.reading(one).others) for one in (chosen, runner_up)) >= 2
        text = pick_words.chance(found["fid_gap"], found["margin"], found["number"], seeds=seeds)
        return {**{name: found[name] for name in ("number", "fid_gap", "margin", "tie")}, "seeds": seeds, "text": text}

    def steps(self, chosen: TrialRecord) -> list[dict[str, Any]]:
        """The nearest member of the front in the direction of each objective; one step where two lead to one member.

        ``change`` has ``fid`` as a difference, the others as ratios of the member's to the chosen one's, or None where
        that is 0.
        """
        steps: dict[int, dict[str, Any]] = {}
        here = chosen.values
        for name in OBJECTIVES:
            better = [member for member in self._front if member.values[name] < here[name]]
            if not better:
                continue
            nearest = max(better, key=lambda member: member.values[name])
            there, number = nearest.values, nearest.number
            if number in steps:
                steps[number]["towards"].append(name)
                continue
            change = {"fid": there["fid"] - here["fid"], **{c: _ratio(there[c], here[c]) for c in OBJECTIVES[1:]}}
            tie = bool(self.against(chosen, nearest)["tie"])
            text = pick_words.step(change, number, tie=tie)
            steps[number] = {"number": number, "towards": [name], "change": change, "tie": tie, "text": text}
        return list(steps.values())

    def warnings(self, chosen: TrialRecord, order: Sequence[TrialRecord]) -> list[str]:
        """What speaks against a choice.

        Args:
            order: the students that could have been chosen instead, the chosen one among them.
        """
        told = []
        here = chosen.values
        untouched = self._found.baselines.input.fid
        if here["fid"] >= untouched:
            told.append(f"its FID is no better than that of the input left as it is ({untouched:.1f})")
        for member in self._front:
            if dominates(*([result.values[name] for name in OBJECTIVES] for result in (member, chosen))):
                told.append(f"trial {member.number} is better in FID, GFLOPs and MB at once")
                break
        for other in order:
            costs = [(other.values[name], here[name]) for name in OBJECTIVES[1:]]
            cheaper = all(a <= b for a, b in costs) and any(a < b for a, b in costs)
            if cheaper and other.fid > here["fid"] and self.against(chosen, other)["tie"]:
                shares = [
                    f"{100 * (_ratio(a, b) or 0.0):.0f} % of the {pick_words.NAMES[name]}"
                    for name, (a, b) in zip(OBJECTIVES[1:], costs, strict=True)
                ]
                told.append(f"trial {other.number} ties with it in FID at {pick_words.listed(shares)}")
        if failed := self._read(chosen).failed:
            runs = failed + len(self.reading(chosen).others)
            told.append(f"of {runs} trainings with other seeds {failed} failed")
        return told


def _ratio(a: float, b: float) -> float | None:
    return 1.0 if a == b else a / b if b else None
