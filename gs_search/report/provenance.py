"""Where the numbers of a report come from, as text by name; nothing that names a person's machine or folders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gs_search.results.record import TrialRecord
from gs_search.results.run_folder import RunFolder

__all__ = ["provenance"]


def provenance(folder: RunFolder, complete: Sequence[TrialRecord]) -> dict[str, Any]:
    """Gather what made the folder and what its trials cost.

    Args:
        complete: the finished trials.
    """
    made, config = folder.provenance(), folder.config()
    parities = [result.parity for result in complete if result.parity is not None]
    facts: dict[str, Any] = {
        "started": made.get("created"),
        "seed": config.seed,
        "sampler": config.sampler,
        "stopping": config.stopping.rule,
        "steps a trial": _span(result.steps for result in complete),
        "seconds a trial": _span(result.seconds for result in complete),
        "peak memory of a worker": _span((result.peak_memory_mb for result in complete), " MB"),
    }
    if parities:
        picture = max(parity.max_abs_difference for parity in parities)
        codes = max(parity.code_mismatches for parity in parities)
        facts["masked against extracted, worst trial"] = f"{picture:.1e} in the picture, {codes} quantizer codes"
    harm = folder.measured().learning_rate_harm
    facts["what 15 unpruned steps leave of the teacher, by learning rates"] = ", ".join(
        f"× {row['factor']:g}: {row['psnr_to_teacher']:.1f} dB" for row in harm
    )
    facts["platform"] = made.get("platform")
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in (made.get("versions") or {}).items())
    for name, digest in (made.get("hashes") or {}).items():
        facts[f"sha256 of the {name}"] = digest
    return {name: value for name, value in facts.items() if value not in (None, "")}


def _span(values: Iterable[Any], unit: str = "") -> str | None:
    numbers = sorted(float(value) for value in values if value is not None)
    if not numbers:
        return None
    low, high = f"{numbers[0]:.4g}", f"{numbers[-1]:.4g}"
    return (low if low == high else f"{low} to {high}") + unit
