"""What ``gs-search pick`` says, in sentences: why a trial was taken, what the next step costs, what is but noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gs_search.results.record import Baselines

__all__ = ["chance", "limits", "listed", "step", "why"]

UNITS = {"max_gflops": "GFLOPs", "max_mb": "MB", "max_latency_ms": "ms a picture"}
NAMES = {"gflops": "GFLOPs", "size_mb": "MB"}


def listed(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def limits(numbers: Mapping[str, float], given: Mapping[str, Any]) -> str:
    """Name the limits: ``within 5 GFLOPs and 2 MB, with an FID of at most 60``.

    Args:
        numbers: limits as numbers, by name.
        given: as they were given; ``teacher+10`` is repeated beside its number.
    """
    parts = [f"{numbers[name]:g} {unit}" for name, unit in UNITS.items() if name in numbers]
    told = [f"within {listed(parts)}"] if parts else []
    if "max_fid" in numbers:
        named = f" ({given['max_fid']})" if isinstance(given.get("max_fid"), str) else ""
        told.append(f"with an FID of at most {numbers['max_fid']:.4g}{named}")
    return ", ".join(told)


def why(
    number: int,
    rule: str,
    objectives: Mapping[str, float],
    baselines: Baselines,
    *,
    count: int,
    within: str,
    weights: Mapping[str, float],
) -> list[str]:
    """Say in two sentences by which rule a trial was taken, and what it is.

    Args:
        count: students that could have been taken: on the front for ``knee``, ``weights`` and ``named``, inside the
            limits for the others.
        within: the limits, of ``limits``; empty where there are none.
    """
    inside = f" {within}" if within else ""
    scaled = "each scaled to 0..1 on the front"
    among = f"of {count} students"
    first = {
        "knee": f"the most balanced {among} on the front: the nearest to the best FID, the fewest GFLOPs and the "
        f"fewest MB, {scaled}",
        "best_fid": f"the one with the best FID {among}{inside}",
        "cheapest": f"the cheapest {among}{inside}: it needs the fewest GFLOPs",
        "weights": f"the nearest to the best values of the front, weighted by "
        f"{listed([f'{name} {weight:g}' for name, weight in weights.items()])}, {scaled}, {among}{inside}",
        "named": "the one that was asked for",
    }[rule]
    if count == 1 and rule != "named":
        first = f"the only student{inside}" if inside else "the only student on the front"
    against = [
        f"{abs(difference):.1f} {'above' if difference > 0 else 'below'} {whose}"
        for difference, whose in (
            (objectives["fid"] - baselines.teacher.fid, "the teacher's"),
            (objectives["fid"] - baselines.input.fid, "that of the input left as it is"),
        )
    ]
    shares = [f"{_percent(objectives[name] / getattr(baselines.teacher, name))} of {its}" for name, its in _ITS]
    return [f"Trial {number} is {first}.", f"It has {listed(shares)}, at an FID of {objectives['fid']:.1f}: "
            f"{', '.join(against)}."]  # fmt: skip


_ITS = (("gflops", "the teacher's GFLOPs"), ("size_mb", "its MB"))


def step(change: Mapping[str, float | None], number: int, *, tie: bool) -> str:
    """Say what a step to a neighbour costs: ``0.8 FID more buys 31 % fewer GFLOPs (trial 4)``.

    Args:
        change: ``fid`` as a difference, ``gflops`` and ``size_mb`` as ratios of the neighbour's to those of the pick;
            None where the pick needs nothing at all.
        tie: whether chance explains the difference in FID.
    """
    dearer: list[str] = []
    cheaper: list[str] = []
    if fid := change["fid"]:
        told = f"{abs(fid):.1f} FID {'more' if fid > 0 else 'less'}" + (" (a tie)" if tie else "")
        (dearer if fid > 0 else cheaper).append(told)
    for name, unit in NAMES.items():
        ratio = change[name]
        if ratio is None:
            dearer.append(f"some {unit} instead of none")
        elif ratio > 1:
            dearer.append(f"{ratio:.1f} times the {unit}" if ratio >= 2 else f"{_percent(ratio - 1)} more {unit}")
        elif ratio < 1:
            cheaper.append(f"{_percent(1 - ratio)} fewer {unit}")
    if not dearer:
        return f"{listed(cheaper)} for nothing (trial {number})"
    verb = "buy" if len(dearer) > 1 else "buys"
    return f"{listed(dearer)} {verb} {listed(cheaper) or 'nothing'} (trial {number})"


def chance(gap: float, margin: float, number: int, *, seeds: bool) -> str:
    """Say whether the gap to the runner-up is more than noise.

    Args:
        gap: how much higher the FID of the runner-up is.
        seeds: whether the margin comes from repeated trainings, or from the pictures alone.
    """
    told = f"the FID of the runner-up, trial {number}, is {abs(gap):.1f} {'higher' if gap >= 0 else 'lower'}"
    source = "of seeds and pictures" if seeds else "of the pictures"
    if abs(gap) <= margin:
        return f"{told}: a tie, noise {source} alone explains {margin:.1f}"
    return f"{told}: more than the {margin:.1f} that noise {source} explains"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
