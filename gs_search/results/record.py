"""What a study leaves as figures, typed: ``result.json`` of trials and of full trainings, and ``baselines.json``.

These files are read and written here alone; everything else takes the types. A field that a version does not know is
kept and written again, so that a result passes unharmed through an older version; a file of a later schema is refused.

Units everywhere: GFLOPs are 10^9 multiply-adds a picture, MB are 10^6 bytes, seconds are those of one worker, and PSNR
is in decibels to the teacher's pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gs_search.errors import BadInput
from gs_search.system.files import read_json, write_json

__all__ = [
    "SCHEMA",
    "Baselines",
    "FullRecord",
    "InputFigures",
    "LayerRow",
    "Look",
    "Noise",
    "Parity",
    "Protocol",
    "Rung",
    "ShortFigures",
    "State",
    "TeacherFigures",
    "TestFigures",
    "TrialRecord",
    "read_baselines",
    "read_full",
    "read_trial",
    "write_record",
]

SCHEMA = 1

_Readable = TypeVar("_Readable", bound="_Part")

State = Literal["COMPLETE", "PRUNED", "FAIL"]
"""How a trial ended: with a student; left before its end; failed."""


def _number(value: object) -> object:
    return math.nan if value is None else value


Number = Annotated[float, BeforeValidator(_number)]
"""JSON has no NaN and no infinity: they are written as null, and read as NaN."""


class _Part(BaseModel):
    """Frozen; unknown fields are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    @classmethod
    def from_json(cls: type[_Readable], content: Mapping[str, Any]) -> _Readable:
        """Make it of JSON's objects; raises ValueError naming the first field that does not fit."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"])) or "it"
            raise ValueError(f"{name}: {first['msg'][0].lower()}{first['msg'][1:]}") from None

    def to_json(self) -> dict[str, Any]:
        """As JSON's objects; what was never set is left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def but(self: _Readable, **fields: Any) -> _Readable:
        """A copy with other values for some fields."""
        return self.model_copy(update=fields)


class _File(_Part):
    """A file of its own; says by which schema it is written."""

    schema_: int = Field(SCHEMA, alias="schema")

    def to_json(self) -> dict[str, Any]:
        """As JSON's objects, ``schema`` first; what else was never set is left out."""
        return {"schema": self.schema_, **super().to_json()}


class LayerRow(_Part):
    """One of the teacher's layers in the student."""

    name: str
    group: str
    width: int
    """Outputs that are kept; 0 where the layer is gone."""
    full_width: int
    weight_bits: int
    """32 for floats."""
    activation_bits: int


class Rung(_Part):
    """What a trial tells when it pauses: costs are final, the distance is that of a few validation pictures."""

    step: int
    psnr_to_teacher: Number
    gflops: float
    size_mb: float
    seconds: float
    """Of the trial until then."""


class Parity(_Part):
    """How the extracted network compares with the masked one that was trained."""

    max_abs_difference: Number
    code_mismatches: int
    codes: int
    pictures: int


class _Figures(_Part):
    """FID and KID of pictures, and their distance to the teacher's."""

    fid: Number
    kid: float | None = None
    psnr_to_teacher: float | None = None


class TeacherFigures(_Figures):
    """The teacher's. Its pictures' distance to themselves is None."""

    gflops: float
    macs_paper: int | None = None
    """Multiply-adds as the paper counts them."""
    size_mb: float
    params: int | None = None


class InputFigures(_Figures):
    """Those of the pictures as they came, translated by nobody."""


class Noise(_Part):
    """How far FIDs of this protocol scatter."""

    fid_std: float | None = None
    """Standard deviation; None where it was not measured."""
    method: str = ""


class Protocol(_Part):
    """How FID was measured. Figures of two protocols cannot be compared; ``id`` is a digest of all the rest."""

    id: str
    image_px: int | None = None
    pictures: int | None = None
    reference_kind: str | None = None
    data: dict[str, Any] = {}
    """``counts`` of each domain and split, ``content`` (a digest), and where the pictures come from."""


class Baselines(_File):
    """``teacher/baselines.json``: what every student is compared with, and what the preparation has measured."""

    pictures: tuple[dict[str, Any], ...] = ()
    """What was taken of each folder of pictures, and what was left, by reason (``data.tally``)."""
    protocol: Protocol
    teacher: TeacherFigures
    input: InputFigures
    noise: Noise
    frozen: dict[str, Any] | None = None
    """What of the teacher cannot be slimmed: ``share`` of its multiply-adds, ``parts``, ``notes``."""
    learning_rate_harm: tuple[dict[str, float], ...] = ()
    """``factor`` on the learning rates, and the ``psnr_to_teacher`` that some steps with it leave of the teacher."""
    precision: dict[str, Any] | None = None
    """What was decided in the place of ``auto``, and why; None in folders of versions that knew no ``auto``."""
    gpu_memory: dict[str, float] | None = None
    """``trial_mb`` and ``total_mb``, in 10^6 bytes; None without a GPU."""
    memory: dict[str, float] | None = None
    """``trial_mb`` and ``preparation_mb`` of main memory, in 10^6 bytes."""

    @property
    def fid_std(self) -> float:
        """Standard deviation of FID; 0 where it was not measured."""
        return self.noise.fid_std or 0.0


class TrialRecord(_File):
    """``trials/<number>/result.json``: how one trial ended. What its ending does not know is None or empty."""

    study: str = ""
    number: int
    state: State
    cause: str | None = None
    """``dominated`` or ``infeasible`` of a PRUNED one, else one of the causes of ``TrialFailed``."""
    message: str | None = None
    point: dict[str, Any] = {}
    key: str = ""
    """The point as text, by which equal ones are known."""
    seed: int | None = None
    objectives: dict[str, Number] | None = None
    """``fid``, ``gflops``, ``size_mb``; all are minimised."""
    kid: float | None = None
    psnr_to_teacher: float | None = None
    psnr_before_training: float | None = None
    """After the repair, before any step; on fewer pictures."""
    learning_rate_factor: float | None = None
    rungs: tuple[Rung, ...] = ()
    macs: int | None = None
    macs_paper: int | None = None
    params: int | None = None
    latency_ms: float | None = None
    """Milliseconds a picture of the simulated network, on one thread or the study's GPU."""
    layers: tuple[LayerRow, ...] = ()
    parity: Parity | None = None
    steps: int | None = None
    precision: str | None = None
    protocol: str | None = None
    versions: dict[str, str] = {}
    seconds: float | None = None
    peak_memory_mb: float | None = None
    started: str | None = None
    """ISO 8601, with its zone."""
    node: dict[str, Any] | None = None
    """The machine: ``host``, ``cpu``, ``gpu``, ``id``."""
    log: tuple[str, ...] = ()
    """The last lines of a failure's log."""
    constraints: dict[str, float] | None = None
    """Share by which each limit of the study is exceeded."""
    duplicate_of: int | None = None
    """The trial that had the same point first, and was run in its place."""
    warm_start: str | None = None
    """``study:number`` of the trial that this one was taken over from."""
    requeue: bool = False
    """It failed by no fault of its own, and is repeated by the next run."""

    @property
    def is_complete(self) -> bool:
        """Whether it has a student."""
        return self.state == "COMPLETE"

    @property
    def is_trained(self) -> bool:
        """Whether it has a student of a training of its own, and not that of an equal point."""
        return self.is_complete and self.duplicate_of is None

    @property
    def values(self) -> dict[str, float]:
        """The objectives of a complete one."""
        assert self.objectives is not None, f"trial {self.number} has no objectives"
        return self.objectives

    @property
    def fid(self) -> float:
        """Of a complete one."""
        return self.values["fid"]


class Look(_Figures):
    """A full training's student on the validation pictures, after so many steps."""

    step: int


class TestFigures(_Figures):
    """A student, its trial, teacher and input on the test pictures, which nothing was chosen by."""

    __test__ = False  # for pytest, which takes the name for a test's

    protocol: Protocol
    short: _Figures | None = None
    """The trial's student; None where that is gone."""
    teacher: _Figures
    input: _Figures


class ShortFigures(_Part):
    """The trial that a full training belongs to."""

    objectives: dict[str, Number]
    kid: float | None = None
    psnr_to_teacher: float | None = None
    latency_ms: float | None = None
    steps: int | None = None
    seed: int | None = None
    protocol: str | None = None


class FullRecord(TrialRecord):
    """``retrain/<number>/result.json``: a full training of a trial. Its objectives are of the validation pictures."""

    split: str = "val"
    schedule: dict[str, Any]
    """``retrain.schedule.Schedule``, and the ``epochs`` that it comes to."""
    best_step: int
    looks: tuple[Look, ...] = ()
    last: Look | None = None
    test: TestFigures | None = None
    """None where the study keeps no test pictures."""
    short: ShortFigures


def read_trial(path: Path) -> TrialRecord:
    """Read a ``result.json``; raises BadInput where it is missing, torn, of a later version, or of something else."""
    return _read(path, TrialRecord)


def read_full(path: Path) -> FullRecord:
    """Read the ``result.json`` of a full training; raises as ``read_trial``."""
    return _read(path, FullRecord)


def read_baselines(path: Path) -> Baselines:
    """Read ``baselines.json``; raises as ``read_trial``."""
    return _read(path, Baselines)


def write_record(path: Path, record: TrialRecord | Baselines) -> None:
    """Write one of these files, whole; numbers that are not finite become null."""
    write_json(path, record.to_json())


def _read(path: Path, kind: type[_Readable]) -> _Readable:
    content = read_json(path)
    schema = content.get("schema", SCHEMA)
    if isinstance(schema, int) and schema > SCHEMA:
        raise BadInput(f"{path}: is of a later version (schema {schema}, this one reads {SCHEMA}); use that version")
    try:
        return kind.from_json(content)
    except ValueError as error:
        raise BadInput(f"{path}: {error}; was another version at work? restore or remove it") from None
