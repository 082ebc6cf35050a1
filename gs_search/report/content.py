"""What a report says, gathered from a run folder: finished trials, the front, baselines, endings, protocol.

Knows nothing of HTML or plots. Units everywhere: GFLOPs are 10^9 multiply-adds a picture, MB are 10^6 bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gs_search.errors import BadInput
from gs_search.front_table import front_document
from gs_search.report.pictures import Samples, read_samples
from gs_search.runfolder import RunFolder
from gs_search.settings import GROUPS

__all__ = ["Baselines", "Content", "Ending", "Student", "gather"]


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """What every student is compared with: the teacher, the picture left as it is, and the noise of FID."""

    fid: float
    kid: float | None
    gflops: float
    size_mb: float
    input_fid: float
    input_kid: float | None
    input_psnr: float | None
    noise: float
    """Standard deviation of FID over resamples; 0 where it was not measured."""
    noise_method: str


@dataclass(frozen=True, kw_only=True)
class Student:
    """One finished trial."""

    number: int
    fid: float
    gflops: float
    size_mb: float
    kid: float | None
    psnr: float | None
    latency_ms: float | None
    layers: tuple[Mapping[str, Any], ...]
    on_front: bool
    is_knee: bool

    def bits(self, kind: str) -> str:
        """Bits from stem to head, for example ``8-4-4-4-8``; one number where all groups agree.

        Args:
            kind: ``weight_bits`` or ``activation_bits``.
        """
        found = []
        for group in GROUPS:
            bits = {layer[kind] for layer in self.layers if layer["group"] == group and layer["width"] > 0}
            if bits:
                found.append("/".join(map(str, sorted(bits))))
        if not found:
            return "–"
        return found[0] if len(set(found)) == 1 else "-".join(found)

    @property
    def width_share(self) -> float | None:
        """Kept channels over the teacher's, 0..1, all layers together; None where layers are not known."""
        full = sum(layer["full_width"] for layer in self.layers)
        return sum(layer["width"] for layer in self.layers) / full if full else None


@dataclass(frozen=True, kw_only=True)
class Ending:
    """One trial that left no student: stopped early (``PRUNED``) or failed (``FAIL``)."""

    number: int
    state: str
    cause: str
    message: str
    point: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Content:
    """All that a report shows. ``students`` are sorted from the cheapest to the dearest in GFLOPs."""

    study: str
    students: tuple[Student, ...]
    endings: tuple[Ending, ...]
    baselines: Baselines
    protocol: Mapping[str, Any]
    provenance: Mapping[str, Any]
    study_text: str
    samples: Samples
    hypervolume: float
    """Share, 0..1, of the box from zero to the reference point that the front dominates."""

    @property
    def front(self) -> tuple[Student, ...]:
        """The students that no other beats in every objective at once."""
        return tuple(student for student in self.students if student.on_front)

    @property
    def counts(self) -> Counter[str]:
        """Number of trials by state."""
        return Counter(COMPLETE=len(self.students)) + Counter(ending.state for ending in self.endings)

    @property
    def image_px(self) -> int:
        """Side of the pictures that were measured."""
        return int(self.protocol["image_px"])

    @property
    def faithful(self) -> Student | None:
        """The front's smallest member whose FID is at most two standard deviations above the teacher's."""
        limit = self.baselines.fid + 2 * self.baselines.noise
        inside = [student for student in self.front if student.fid <= limit]
        return min(inside, key=lambda student: (student.size_mb, student.gflops), default=None)


def gather(folder: RunFolder) -> Content:
    """Read a run folder.

    Raises:
        BadInput: baselines or a result cannot be read, or trials of two protocols lie in one folder.
        NothingFeasible: no trial has finished.
    """
    document = front_document(folder)
    results = folder.results()
    complete = [result for result in results if result["state"] == "COMPLETE"]
    members = {member["number"] for member in document["front"]}
    try:
        students = [_student(result, members, document["knee"]) for result in complete]
        baselines = _baselines(document)
        provenance = _provenance(folder, complete)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{folder.path}: a result or the baselines lack {error}; was another version at work?"
        ) from error
    return Content(
        study=document["study"],
        students=tuple(sorted(students, key=lambda student: (student.gflops, student.number))),
        endings=tuple(_ending(result) for result in results if result["state"] != "COMPLETE"),
        baselines=baselines,
        protocol=document["protocol"],
        provenance=provenance,
        study_text=folder.study_yaml.read_text(encoding="utf-8") if folder.study_yaml.is_file() else "",
        samples=read_samples(
            {number: folder.trial(number) / "samples.png" for number in sorted(members)},
            int(document["protocol"]["image_px"]),
        ),
        hypervolume=document["hypervolume"],
    )


def _baselines(document: Mapping[str, Any]) -> Baselines:
    teacher, untouched, noise = document["teacher"], document["input"], document["noise"]
    return Baselines(
        fid=float(teacher["fid"]),
        kid=teacher.get("kid"),
        gflops=float(teacher["gflops"]),
        size_mb=float(teacher["size_mb"]),
        input_fid=float(untouched["fid"]),
        input_kid=untouched.get("kid"),
        input_psnr=untouched.get("psnr_to_teacher"),
        noise=float(noise.get("fid_std") or 0.0),
        noise_method=str(noise.get("method") or ""),
    )


def _student(result: Mapping[str, Any], members: set[int], knee: int) -> Student:
    objectives, number = result["objectives"], int(result["number"])
    return Student(
        number=number,
        fid=float(objectives["fid"]),
        gflops=float(objectives["gflops"]),
        size_mb=float(objectives["size_mb"]),
        kid=result.get("kid"),
        psnr=result.get("psnr_to_teacher"),
        latency_ms=result.get("latency_ms"),
        layers=tuple(result.get("layers") or ()),
        on_front=number in members,
        is_knee=number == knee,
    )


def _ending(result: Mapping[str, Any]) -> Ending:
    return Ending(
        number=int(result["number"]),
        state=str(result["state"]),
        cause=str(result.get("cause") or "unknown"),
        message=str(result.get("message") or ""),
        point=result.get("point") or {},
    )


def _provenance(folder: RunFolder, complete: list[dict[str, Any]]) -> dict[str, Any]:
    """What the numbers come from, as text by name; nothing that names a person's machine or folders."""
    made = folder.provenance()
    parities = [result["parity"] for result in complete if result.get("parity")]
    facts: dict[str, Any] = {
        "started": made.get("created"),
        "seed": folder.config().seed,
        "steps a trial": _span(result.get("steps") for result in complete),
        "seconds a trial": _span(result.get("seconds") for result in complete),
        "peak memory of a worker": _span((result.get("peak_memory_mb") for result in complete), " MB"),
    }
    if parities:
        picture = max(float(parity["max_abs_difference"]) for parity in parities)
        codes = max(int(parity["code_mismatches"]) for parity in parities)
        facts["masked against extracted, worst trial"] = f"{picture:.1e} in the picture, {codes} quantizer codes"
    harm = folder.read_json(folder.baselines).get("learning_rate_harm") or []
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
