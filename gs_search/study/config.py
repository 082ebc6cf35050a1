"""The study file: its keys, what they mean, their defaults and limits.

``load_study`` reads what a person wrote (``studyfile`` does the reading). ``load_resolved`` rebuilds the same
study from a run folder's ``resolved.yaml`` alone, so that a worker needs nothing but the run folder. Whether
the photos can be opened and the weights loaded is the question of ``preflight``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from gs_search.errors import BadInput
from gs_search.study.constraints import fid_above_teacher
from gs_search.study.settings import LEGAL, TRAINING
from gs_search.study.space import SearchSpace
from gs_search.study.space_file import space_from_dict
from gs_search.study.yaml_file import quote

__all__ = [
    "ConstraintsConfig",
    "DataConfig",
    "MeasureConfig",
    "ResourcesConfig",
    "RetrainConfig",
    "Section",
    "StudyConfig",
    "TeacherConfig",
    "load_resolved",
    "load_study",
]


class Section(BaseModel):
    """Keys of a study file: immutable, strict in types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataConfig(Section):
    """Pictures to translate, and where they come from."""

    kind: Literal["drawn", "folders", "photos"]
    """``drawn``: horses and zebras, made on the fly. ``folders``: CycleGAN's ``trainA trainB valB testA
    testB``. ``photos``: one folder of photos, for a teacher whose target domain is not at hand."""
    path: Path | None = None
    """Folder of ``folders`` and ``photos``; ``${NAME}`` takes an environment variable."""
    train: int = Field(512, ge=1, le=10_000_000)
    """Pictures to train on, at most."""
    val: int = Field(100, ge=2, le=1_000_000)
    """Pictures on which trials are compared, at most."""
    test: int = Field(200, ge=0, le=1_000_000)
    """Pictures kept for the end, at most; no trial sees them."""
    reference: int = Field(150, ge=2, le=1_000_000)
    """``photos``: other pictures, whose translation by the teacher is the reference of FID, at most."""
    views: int | None = Field(None, ge=1, le=1_000_000)
    """Random crops and flips kept of each training picture; null lets the training choose."""


class TeacherConfig(Section):
    """The dense generator that students imitate."""

    kind: Literal["shipped", "checkpoint", "train"]
    """``shipped``: comes with this package, for drawn data. ``checkpoint``: a file. ``train``: is trained
    first, once, with CycleGAN's losses."""
    path: Path | None = None
    """``checkpoint``: a .pth, .pt or .safetensors file; ``${NAME}`` takes an environment variable."""
    architecture: Literal["auto", "cyclegan_resnet", "cartoongan", "pix2pix_unet", "animeganv2"] = "auto"
    """``checkpoint``: what the file holds; ``auto`` finds out."""
    key: str | None = None
    """``checkpoint``: which generator, where the file holds several; `gs-search inspect` names them."""
    norm: Literal["auto", "batch", "instance"] = "auto"
    """``checkpoint``: a batch norm takes the running statistics (``batch``, and ``auto``), or those of each picture
    (``instance``), as pix2pix's own test script does."""
    padding: Literal["auto", "reflect", "replicate", "zero"] = "auto"
    """``checkpoint``: margins of CycleGAN's residual blocks; a file tells ``zero`` alone, else ``auto`` is ``reflect``,
    as in the original."""
    align_corners: bool | None = None
    """``checkpoint``: how AnimeGANv2 enlarges, which a file cannot tell; null is ``true``, the port's default."""
    width: int = Field(16, ge=4, le=512)
    """``train``: channels of the first layer."""
    blocks: int = Field(3, ge=1, le=32)
    """``train``: residual blocks."""
    steps: int = Field(500, ge=1, le=10_000_000)
    """``train``: training steps."""

    def choice(self) -> dict[str, Any]:
        """What is said about the checkpoint, as ``gs_search.networks.load_generator`` takes it."""
        return {name: getattr(self, name) for name in ("architecture", "key", "norm", "padding", "align_corners")}


class MeasureConfig(Section):
    """How a student is judged."""

    fid_images: int = Field(100, ge=2, le=1_000_000)
    """Pictures of ``val`` that FID is computed on."""
    latency_repeats: int = Field(5, ge=1, le=1000)
    """Runs of which the median is the latency."""


def _rising(value: object) -> tuple[int, ...]:
    steps = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    numbers = [step for step in steps if isinstance(step, int) and not isinstance(step, bool) and step > 0]
    if len(numbers) < len(steps) or numbers != sorted(set(numbers)):
        message = "must be a list of rising numbers of training steps, not {found}"
        raise PydanticCustomError("rungs", message, {"found": quote(value)})
    return tuple(numbers)


class StoppingConfig(Section):
    """When a trial is left at a rung, so that hundreds of points are looked at and few are trained."""

    rule: Literal["pareto", "off"] = "pareto"
    """``pareto``: where an earlier trial is nearer to the teacher by more than the margin, and neither costlier nor
    larger. ``off``: every trial is trained to its end."""
    rungs: Annotated[tuple[int, ...], BeforeValidator(_rising)] = ()
    """Training steps after the cut at which trials are compared, rising; the repaired student before any step always
    is. Each stretch between two rungs has a learning-rate schedule of its own."""
    margin_db: float = Field(0.5, ge=0, le=100)
    """Decibels to the teacher by which the other one must be nearer: nearer pairs change their order in training."""


def _auto_or_count(value: object) -> object:
    if value == "auto" or isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 4096:
        return value
    message = "must be auto or a whole number from 1 to 4096, not {found}"
    raise PydanticCustomError("workers", message, {"found": quote(value)})


def _auto_or_minutes(value: object) -> object:
    if value == "auto" or isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1e5:
        return value
    raise PydanticCustomError(
        "minutes", "must be auto or a number of minutes above 0, not {found}", {"found": quote(value)}
    )


def _fid_or_above_teacher(value: object) -> object:
    if isinstance(value, str) and fid_above_teacher(value) is not None:
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1e9:
        return float(value)
    message = "must be a number above 0, or one to add to the teacher's, as in teacher+10, not {found}"
    raise PydanticCustomError("max_fid", message, {"found": quote(value)})


class ConstraintsConfig(Section):
    """What a student has to keep to count; the search looks for those that do, the front has only them."""

    max_gflops: float | None = Field(None, gt=0, le=1e9)
    """Most GFLOPs. A point whose ``target_gflops_ratio`` asks for more never starts."""
    max_mb: float | None = Field(None, gt=0, le=1e9)
    """Most MB."""
    max_fid: Annotated[float | str, BeforeValidator(_fid_or_above_teacher)] | None = None
    """Highest FID; ``teacher+10``: 10 above the teacher's."""


def _auto_or_steps(value: object) -> object:
    if value == "auto" or isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10_000_000:
        return value
    message = "must be auto or a whole number from 1 to 10000000, not {found}"
    raise PydanticCustomError("steps", message, {"found": quote(value)})


def _of_training(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        message = "must map settings to values, not {found}"
        raise PydanticCustomError("settings", message, {"found": quote(value)})
    for name, entry in value.items():
        wrong = LEGAL[name].problem(entry) if name in TRAINING else f"cannot be replaced; {', '.join(TRAINING)} can"
        if wrong:
            raise PydanticCustomError("settings", "{name} {wrong}", {"name": name, "wrong": wrong})
    return value


class RetrainConfig(Section):
    """How a chosen student is trained in full, by ``gs-search retrain``; the search does not depend on it."""

    steps: Annotated[int | Literal["auto"], BeforeValidator(_auto_or_steps)] = "auto"
    """Training steps; ``auto``: sixteen times those of a trial."""
    looks: int = Field(10, ge=1, le=1000)
    """Times that it is measured on the way, evenly spread; the best of them is kept."""
    checkpoint_minutes: float = Field(1.0, ge=0, le=1440)
    """Time between two checkpoints; 0: one after every step. Each look leaves one anyway."""
    settings: Annotated[dict[str, Any], BeforeValidator(_of_training)] = Field(default_factory=dict)
    """Losses and learning rates that replace the trial's; what the student is, its channels and bits, stays."""


class ResourcesConfig(Section):
    """What one trial takes of a machine of a Ray cluster; numbers do not depend on it."""

    cpu: float = Field(1.0, gt=0, le=1024)
    """Processor cores; a trial computes in one thread."""
    gpu: float | None = Field(None, gt=0, le=1)
    """Part of a GPU, where trials run on GPUs; null: by its memory, or a whole one where ``workers`` is a number."""
    custom: dict[str, Annotated[float, Field(gt=0, le=1e9)]] = Field(default_factory=dict)
    """Resources that nodes were started with, and Ray's own, as ``accelerator_type:A100``."""


class StudyConfig(Section):
    """One study. Instances are immutable, and travel to workers as ``resolved.yaml``."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    study: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    """Name of the study, and of its run folder in ``runs/``."""
    source: Path
    """The file that it was read from, absolute."""
    space: SearchSpace
    """What trials may vary; in the file: the path of a search-space file, or the name of one nearby."""
    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Decides every random number of the study."""
    trials: int = Field(24, ge=1, le=1_000_000)
    """Finished trials in all, those of earlier runs included."""
    hours: float | None = Field(None, gt=0, le=10_000)
    """No trial starts after so much time."""
    workers: Annotated[int | Literal["auto"], BeforeValidator(_auto_or_count)] = "auto"
    """Trials at once; ``auto``: a core each, or as many on each GPU as fit."""
    timeout_minutes: Annotated[float | Literal["auto"], BeforeValidator(_auto_or_minutes)] = "auto"
    """A trial that takes longer has failed; ``auto``: ten times the median trial, but no less than ten minutes."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where trials compute; ``auto``: on GPUs if there are any."""
    storage: str | None = None
    """URL of the study's database, without a password; null: ``study.db`` in the run folder."""
    resources: ResourcesConfig = ResourcesConfig()
    image_px: int = Field(64, ge=32, le=2048, multiple_of=4)
    """Side of the square pictures in trials and measures."""
    data: DataConfig
    teacher: TeacherConfig
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of all trials, by name, every default filled in; what the space proposes replaces them."""
    measure: MeasureConfig = MeasureConfig()
    stopping: StoppingConfig = StoppingConfig()
    constraints: ConstraintsConfig = ConstraintsConfig()
    retrain: RetrainConfig = RetrainConfig()
    sampler: Literal["surrogate", "tpe", "nsga2", "nsga3", "gp", "qmc", "random"] = "surrogate"
    """Who proposes: see studies/README.md."""

    def to_resolved(self) -> dict[str, Any]:
        """Write the study as plain data: every default filled in, the space included, paths absolute."""
        plain: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, BaseModel):
                value = {key: _plain(entry) for key, entry in value.model_dump().items()}
            elif isinstance(value, SearchSpace):
                value = {"source": _plain(value.source), **value.to_dict()}
            plain[name] = _plain(value)
        return plain

    def identity(self) -> dict[str, Any]:
        """What the numbers of the study depend on, by dotted key; studies alike in it continue each other."""
        resolved = self.to_resolved()
        space = resolved.pop("space")
        for name in ("source", "trials", "hours", "workers", "timeout_minutes", "retrain", "storage", "resources"):
            resolved.pop(name)
        space.pop("source")
        for name in ("rule", "margin_db"):  # who is left where; the rungs themselves divide the training
            resolved["stopping"].pop(name)
        return _flatten({**resolved, "space": space})

    def following(self, earlier: StudyConfig) -> StudyConfig:
        """The study with what it leaves to the machine as an earlier run of it has it, so that numbers compare."""
        precision = earlier.settings["precision"]
        if self.settings["precision"] != "auto" or precision == "auto":
            return self
        return self.model_copy(update={"settings": {**self.settings, "precision": precision}})


def load_study(path: str | Path, *, here: bool = True) -> StudyConfig:
    """Read a study file and the search space that it names.

    Args:
        here: its pictures and checkpoint have to be on this machine.

    Raises:
        ConfigError: with one line for each mistake in either file.
    """
    from gs_search.study.study_file import StudyReader  # which needs the classes above

    return StudyReader(Path(path), here=here).read()


def load_resolved(path: str | Path) -> StudyConfig:
    """Rebuild a study from ``resolved.yaml``; raises BadInput where the file is missing or damaged."""
    try:
        # Written by yaml.safe_dump, so it is read by the same rules; no person is expected to edit it.
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        fields = dict(content["study"])
        space = dict(fields.pop("space"))
        source = space.pop("source", None)
        fields["settings"] = _renamed(fields["settings"])
        for section in ("data", "teacher"):
            entry = dict(fields[section])
            fields[section] = entry | {"path": None if entry["path"] is None else Path(entry["path"])}
        fields["source"] = Path(fields["source"])
        return StudyConfig(space=space_from_dict(space, source=source and Path(source)), **fields)
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; run folders are made by `gs-search run`") from None
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, BadInput) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{path}: damaged ({reason}); restore it, or start in another run folder") from None


def _renamed(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run folder of before ``quantize``, which took the place of a flag."""
    if "quantize_outputs" not in settings:
        return settings
    kept = {name: value for name, value in settings.items() if name != "quantize_outputs"}
    return {**kept, "quantize": "deploy" if settings["quantize_outputs"] else "inputs"}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
