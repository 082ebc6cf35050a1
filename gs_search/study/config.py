"""The study file: its keys, what they mean, their defaults and limits.

``load_study`` reads what a person wrote: mistakes of the study file and of the search space that it names are gathered
and reported together, each with file, line, key, and the nearest legal key. ``load_resolved`` rebuilds the same study
from a run folder's ``resolved.yaml`` alone, so that a worker needs nothing but the run folder. Whether
the photos can be opened and the weights loaded is the question of ``preflight``.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from gs_search.errors import BadInput
from gs_search.study.constraints import fid_above_teacher
from gs_search.study.database_url import url_problem
from gs_search.study.settings import GROUPS, LEGAL, TRAINING, SlimmingSettings
from gs_search.study.space import SearchSpace
from gs_search.study.space_file import parse_space, space_from_dict
from gs_search.study.yaml_file import FileErrors, Key, Problem, nearest, quote, read_yaml
from gs_search.system.user_code import UserCode, find_code, function_name

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

    kind: Literal["drawn", "folders", "photos", "pairs"]
    """``drawn``: horses and zebras, made on the fly. ``folders``: CycleGAN's ``trainA trainB valB testA
    testB``. ``photos``: one folder of photos, for a teacher whose target domain is not at hand. ``pairs``: pictures
    beside what they are to become, in one file or in folders ``source`` and ``target``."""
    path: Path | None = None
    """Folder of ``folders``, ``photos`` and ``pairs``; ``${NAME}`` takes an environment variable."""
    side: Literal["left", "right"] | None = None
    """The half of each file that is to be translated; ``pairs``: the other half is its target, null is ``left``."""
    train: int = Field(512, ge=1, le=10_000_000)
    """Pictures to train on, at most."""
    val: int = Field(100, ge=4, le=1_000_000)
    """Pictures on which trials are compared, at most; KID needs four."""
    test: int = Field(200, ge=0, le=1_000_000)
    """Pictures kept for the end, at most; no trial sees them."""
    reference: int = Field(150, ge=4, le=1_000_000)
    """``photos``: other pictures, whose translation by the teacher is the reference of FID, at most."""
    views: int | None = Field(None, ge=1, le=1_000_000)
    """Random crops and flips of training pictures, in all, that trials train on; null: as many as the longest
    trial sees pictures, see ``study/views.py``."""


def _range(value: object) -> object:
    if value is None:
        return None
    ends = tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(ends) == 2 and all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in ends):
        low, high = float(ends[0]), float(ends[1])
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return low, high
    message = "must be the values of black and white, as [-1, 1], [0, 1] or [0, 255], not {found}"
    raise PydanticCustomError("range", message, {"found": quote(value)})


OF_MODULES = ("factory", "arguments", "checkpoint", "channels", "range", "output_range", "multiple")
"""Keys of ``teacher`` that only kind ``module`` has."""

OF_CHECKPOINTS = ("path", "architecture", "norm", "padding", "align_corners")
"""Those that only kind ``checkpoint`` has."""

OF_TRAINING = ("width", "blocks", "steps")
"""Those that only kind ``train`` has."""


class TeacherConfig(Section):
    """The dense generator that students imitate."""

    kind: Literal["shipped", "checkpoint", "module", "train"]
    """``shipped``: comes with this package, for drawn data. ``checkpoint``: a file. ``module``: a network of one's own,
    built by a function of one's own. ``train``: is trained first, once, with CycleGAN's losses, or on
    ``pairs`` with pix2pix's."""
    path: Path | None = None
    """``checkpoint``: a .pth, .pt or .safetensors file; ``${NAME}`` takes an environment variable."""
    architecture: Literal["auto", "cyclegan_resnet", "cartoongan", "pix2pix_unet", "animeganv2"] = "auto"
    """``checkpoint``: what the file holds; ``auto`` finds out."""
    key: str | None = None
    """``checkpoint``, ``module``: which generator, where the file holds several; `gs-search inspect` names them."""
    norm: Literal["auto", "batch", "instance"] = "auto"
    """``checkpoint``: a batch norm takes the running statistics (``batch``, and ``auto``), or those of each picture
    (``instance``), as pix2pix's own test script does."""
    padding: Literal["auto", "reflect", "replicate", "zero"] = "auto"
    """``checkpoint``: margins of CycleGAN's residual blocks; a file tells ``zero`` alone, else ``auto`` is ``reflect``,
    as in the original."""
    align_corners: bool | None = None
    """``checkpoint``: how AnimeGANv2 enlarges, which a file cannot tell; null is ``true``, the port's default."""
    factory: str | None = None
    """``module``: the function or class that gives the network, as ``package.module:function`` or
    ``./my_net.py:function``, relative to the study file. It is run; its source is copied into the run folder."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """``module``: arguments of the function, by name."""
    checkpoint: Path | None = None
    """``module``: file of the network's weights, of which tensors alone are read; null: as the function gives them."""
    channels: Literal["rgb", "bgr", "grey"] = "rgb"
    """``module``: order of the channels that the network takes and returns; ``grey``: one."""
    range: Annotated[tuple[float, float], BeforeValidator(_range)] = (-1.0, 1.0)
    """``module``: values that the network takes for black and white."""
    output_range: Annotated[tuple[float, float] | None, BeforeValidator(_range)] = None
    """``module``: values that it returns for them; null: as ``range``."""
    multiple: int | None = Field(None, ge=1, le=1024)
    """``module``: what divides the sides of its pictures; null: is found by trying."""
    width: int = Field(16, ge=4, le=512)
    """``train``: channels of the first layer."""
    blocks: int = Field(3, ge=1, le=32)
    """``train``: residual blocks."""
    steps: int = Field(500, ge=1, le=10_000_000)
    """``train``: training steps."""
    allow_frozen: bool = False
    """Whether to search although of the generator's multiply-adds more than half cannot be slimmed."""

    def choice(self) -> dict[str, Any]:
        """What is said about the checkpoint, as ``gs_search.networks.load_generator`` takes it."""
        return {name: getattr(self, name) for name in ("architecture", "key", "norm", "padding", "align_corners")}

    def module(self) -> dict[str, Any]:
        """What is said about a network of one's own, as ``gs_search.networks.load_module`` takes it."""
        return {name: getattr(self, name) for name in (*OF_MODULES, "key") if name != "factory"}

    @property
    def weights(self) -> Path | None:
        """The file that the weights come from, if the study names one."""
        return self.checkpoint if self.kind == "module" else self.path

    def code(self, folder: Path) -> UserCode | None:
        """The source of ``factory``, found from the folder of the study file; raises BadInput where there is none."""
        return None if self.kind != "module" or self.factory is None else find_code(self.factory, folder)


class MeasureConfig(Section):
    """How a student is judged."""

    fid_images: int = Field(100, ge=4, le=1_000_000)
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
    """Whether a trial is left at a rung where another one beats it."""

    rule: Literal["pareto", "off"] = "off"
    """``pareto``: where an earlier trial is nearer to the teacher by more than the margin, and neither costlier nor
    larger. ``off``: every trial is trained to its end: the default sampler hardly proposes what would be left
    (benchmarks/README.md)."""
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


def _auto_or_whole(value: object) -> object:
    if value == "auto" or isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10_000_000:
        return value
    message = "must be auto or a whole number from 1 to 10000000, not {found}"
    raise PydanticCustomError("auto_or_whole", message, {"found": quote(value)})


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

    steps: Annotated[int | Literal["auto"], BeforeValidator(_auto_or_whole)] = "auto"
    """Training steps; ``auto``: sixteen times those of a trial."""
    views: Annotated[int | Literal["auto"], BeforeValidator(_auto_or_whole)] = "auto"
    """Random crops and flips of training pictures, in all; ``auto``: one for every four pictures that are seen, and one
    of each picture at least, see ``study/views.py``."""
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
        teacher = resolved["teacher"]
        teacher.pop("allow_frozen")  # a permission, no setting
        if teacher["factory"] is not None:  # wherever it lies; its source is compared by its hash
            teacher["factory"] = function_name(teacher["factory"])
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
    return _StudyReader(Path(path), here=here).read()


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
            paths = {key: Path(entry[key]) for key in ("path", "checkpoint") if entry.get(key) is not None}
            fields[section] = entry | paths
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


class _StudyReader:
    """Turns one study file into a StudyConfig, gathering every mistake on the way.

    Args:
        here: pictures and checkpoints have to be on this machine.
    """

    def __init__(self, path: Path, *, here: bool = True) -> None:
        self.here = here
        self.document = read_yaml(path, what="study file")
        self.path = path
        self.problems: list[Problem] = []

    def read(self) -> StudyConfig:
        """Raises FileErrors unless both files are free of mistakes."""
        raw = dict(self.document.value)
        space = self._space(raw.pop("space", None))
        settings = self._settings(raw.pop("settings", None))
        sections = {}
        models: dict[str, type[Section]] = {"data": DataConfig, "teacher": TeacherConfig, "measure": MeasureConfig}
        models |= {"constraints": ConstraintsConfig, "stopping": StoppingConfig, "retrain": RetrainConfig}
        models |= {"resources": ResourcesConfig}
        for name, model in models.items():
            sections[name] = self._section(name, model, raw.pop(name, None))
        source = self.path.resolve()
        # A sound stand-in for a section with mistakes keeps them from being reported twice.
        spare = {"data": DataConfig(kind="drawn"), "teacher": TeacherConfig(kind="shipped")}
        fields = {**raw, **spare, **{name: part for name, part in sections.items() if part is not None}}
        config = self._validate(
            StudyConfig, (), {**fields, "source": source, "space": space or _NO_SPACE, "settings": settings}
        )
        if isinstance(raw.get("storage"), str) and (wrong := url_problem(raw["storage"])):
            self._report(("storage",), *wrong)
        if "source" in raw:
            self._report(("source",), "unknown key")
        self._cross_check(space, settings, sections)
        if self.problems or config is None:
            raise FileErrors(self.problems)
        return config

    def _report(self, key: Key, message: str, hint: str | None = None) -> None:
        self.problems.append(self.document.problem(key, message, hint))

    def _section(self, name: str, model: type[Section], raw: object) -> Any:
        if raw is None and name in ("measure", "constraints", "stopping", "retrain", "resources"):
            return model()
        if not isinstance(raw, dict):
            what = "is missing" if raw is None else f"must hold keys of its own, not {quote(raw)}"
            self._report((name,), what, f"keys here: {', '.join(model.model_fields)}")
            return None
        entries = dict(raw)
        for key in ("path", "checkpoint"):
            if isinstance(entries.get(key), str):
                entries[key] = self._path((name, key), entries[key])
        return self._validate(model, (name,), entries)

    def _validate(self, model: type[BaseModel], place: Key, fields: dict[str, Any]) -> Any:
        try:
            return model(**fields)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                # What follows the key in ``loc`` are pydantic's names for the members of a union.
                self._report((*place, *detail["loc"][:1]), *_explain(detail, model))
            return None

    def _path(self, key: Key, text: str) -> Path | None:
        """Resolve a path: relative to the study file, or to the working folder where a variable gives it."""
        missing = [name for name in re.findall(r"\$\{(\w+)\}", text) if not os.environ.get(name)]
        for name in missing:
            message = f"environment variable {name} is not set"
            self._report(key, message, f"set it, as in: export {name}=/path/to/it")
        if missing:
            return None
        expanded = re.sub(r"\$\{(\w+)\}", lambda match: os.environ[match[1]], text)
        base = Path.cwd() if text.startswith("${") else self.path.resolve().parent
        try:
            return (base / Path(expanded).expanduser()).resolve()
        except (OSError, RuntimeError, ValueError):
            self._report(key, f"is no usable path: {quote(expanded)}")
            return None

    def _space(self, raw: object) -> SearchSpace | None:
        if not isinstance(raw, str):
            what = "is missing" if raw is None else f"must be a path, not {quote(raw)}"
            self._report(("space",), what, "name a file of search_spaces/")
            return None
        path = self._path(("space",), raw)
        if path is None:
            return None
        folder = self.path.resolve().parent
        bare = [folder / f"{raw}.yaml", folder.parent / "search_spaces" / f"{raw}.yaml"] if "/" not in raw else []
        found = next((place for place in (path, *bare) if place.is_file()), None)
        if found is None:
            folders = {place.parent for place in (path, *bare)}
            names = {near.name for folder in folders for near in folder.glob("*.yaml")}
            hint = nearest(path.name, sorted(names - {self.path.name}))
            self._report(("space",), f"no such search-space file: {_short(path)}", hint)
            return None
        try:
            document = read_yaml(Path(_short(found)), what="search-space file")
        except FileErrors as error:
            self.problems += error.details
            return None
        space, problems = parse_space(document, source=found)
        self.problems += problems
        return None if problems else space

    def _settings(self, raw: object) -> dict[str, Any]:
        """Judge the study's settings and fill in the defaults of the others."""
        defaults = {name: getattr(SlimmingSettings(), name) for name in LEGAL}
        if raw is None:
            return defaults
        if not isinstance(raw, dict):
            self._report(("settings",), f"must map settings to values, not {quote(raw)}")
            return defaults
        for name, value in raw.items():
            key: Key = ("settings", name)
            legal = LEGAL.get(name)
            if legal is None:
                base, _, group = name.partition(".")
                grouped = group and base in LEGAL and LEGAL[base].per_group
                hint = f"write {base}: {{{group}: {value}}}" if grouped else nearest(name, LEGAL)
                self._report(key, "unknown setting", hint)
            elif isinstance(value, dict) and legal.per_group:
                for group, entry in value.items():
                    if group not in GROUPS:
                        self._report((*key, group), "unknown group of layers", nearest(group, GROUPS))
                    elif wrong := legal.problem(entry):
                        self._report((*key, group), wrong)
            elif wrong := legal.problem(value):
                self._report(key, wrong)
        return defaults | raw

    def _cross_check(self, space: SearchSpace | None, settings: dict[str, Any], sections: dict[str, Any]) -> None:
        """Report what is right in itself but does not fit together."""
        data, teacher, measure = (sections[name] for name in ("data", "teacher", "measure"))
        if data and data.kind == "drawn" and data.path is not None:
            self._report(("data", "path"), "is not used by kind drawn", "remove it, or set kind: photos")
        elif data and data.kind != "drawn":
            self._exists(("data", "path"), data.path, folder=True)
        if data and data.side is not None and data.kind not in ("photos", "pairs"):
            self._report(("data", "side"), f"is not used by kind {data.kind}", "remove it, or set kind: pairs")
        if teacher:
            self._check_teacher(teacher)
        if data and teacher and data.kind != "drawn" and teacher.kind == "shipped":
            self._report(("teacher", "kind"), "shipped is for drawn data", "set kind: checkpoint and a path")
        if data and teacher and data.kind == "photos" and teacher.kind == "train":
            message = "train needs pictures of the target domain, and kind photos has none"
            self._report(("teacher", "kind"), message, "use data.kind folders")
        if data and measure and measure.fid_images > data.val:
            # Named at whichever of the two the file has.
            key = ("measure", "fid_images") if "measure" in self.document.value else ("data", "val")
            message = f"fid_images is {measure.fid_images}, but data.val is only {data.val}"
            self._report(key, message, "raise val")
        if data and data.kind == "photos":
            self._no_target(space, settings)
        if data:
            self._enough_to_train(data, space, settings)

    def _check_teacher(self, teacher: TeacherConfig) -> None:
        kind = teacher.kind
        owners = {} if kind == "checkpoint" else dict.fromkeys(OF_CHECKPOINTS, "checkpoint")
        owners |= {} if kind in ("checkpoint", "module") else {"key": "checkpoint"}
        owners |= {} if kind == "module" else dict.fromkeys(OF_MODULES, "module")
        for name, owner in owners.items():
            if getattr(teacher, name) != TeacherConfig.model_fields[name].get_default(call_default_factory=True):
                self._report(("teacher", name), f"is not used by kind {kind}", f"remove it, or set kind: {owner}")
        for name in OF_TRAINING if kind in ("checkpoint", "module") else ():
            if name in teacher.model_fields_set:
                self._report(("teacher", name), f"is not used by kind {kind}", "remove it")
        if kind == "checkpoint":
            self._exists(("teacher", "path"), teacher.path, folder=False)
        if kind != "module":
            return
        if teacher.checkpoint is not None:
            self._exists(("teacher", "checkpoint"), teacher.checkpoint, folder=False)
        if teacher.factory is None:
            hint = "name the function that gives the network, as ./my_net.py:build"
            self._report(("teacher", "factory"), "is missing", hint)
            return
        try:  # also where pictures are elsewhere: the source travels from here
            teacher.code(self.path.resolve().parent)
        except BadInput as error:
            self._report(("teacher", "factory"), str(error))

    def _no_target(self, space: SearchSpace | None, settings: dict[str, Any]) -> None:
        message, hint = "target needs pictures of the target, and kind photos has none", "use teacher"
        if settings["discriminator_real"] == "target":
            self._report(("settings", "discriminator_real"), message, hint)
        proposed = [p for p in space.parameters if p.name == "discriminator_real"] if space else []
        fixed = space.constants.get("discriminator_real") if space else None
        if fixed == "target" or proposed and "target" in proposed[0].choices:
            self._report(("space",), f"discriminator_real: {message}", hint)

    def _enough_to_train(self, data: DataConfig, space: SearchSpace | None, settings: dict[str, Any]) -> None:
        for name in ("repair_pictures", "batch_size"):
            value: object = settings[name]
            key: Key = ("settings", name)
            if space and name in space.constants:
                value, key = space.constants[name], ("space",)
            if isinstance(value, int) and not isinstance(value, bool) and value > data.train:
                if key[0] == "settings" and "settings" not in self.document.value:
                    key = ("data", "train")
                self._report(key, f"{name} is {value}, but data.train is only {data.train}", "raise train")

    def _exists(self, key: Key, path: Path | None, *, folder: bool) -> None:
        if path is None:
            if not any(problem.key == ".".join(map(str, key)) for problem in self.problems):
                what = "folder of pictures" if folder else ".pth, .pt or .safetensors file"
                self._report(key, "is missing", f"give a {what}")
        elif not self.here:
            return
        elif not path.exists():
            self._report(key, f"no such {'folder' if folder else 'file'}: {_short(path)}")
        elif folder != path.is_dir():
            found = "a file, not a folder" if folder else "a folder, not a file"
            self._report(key, f"{_short(path)} is {found}")


_NO_SPACE = SearchSpace(parameters=(), constants={})

_LIMITS = {
    "greater_than_equal": ("ge", "must be at least {}"),
    "greater_than": ("gt", "must be above {}"),
    "less_than_equal": ("le", "must be at most {}"),
    "multiple_of": ("multiple_of", "must be a multiple of {}"),
}
_TYPES = {
    **dict.fromkeys(("int_type", "int_from_float", "int_parsing"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a number"),
    **dict.fromkeys(("string_type", "string_pattern_mismatch"), "text"),
    **dict.fromkeys(("path_type", "is_instance_of"), "a path"),
}


def _explain(detail: ErrorDetails, model: type[BaseModel]) -> tuple[str, str | None]:
    """Say what pydantic found in our words, with a hint."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key", nearest(detail["loc"][-1], _keys(model))
    if kind == "missing":
        field = model.model_fields[str(detail["loc"][-1])].annotation
        words = [word for word in get_args(field) if isinstance(word, str)]
        return "is missing", f"one of {', '.join(words)}" if words else None
    if kind == "literal_error":
        words = [word for word in re.findall(r"'([^']*)'", str(context["expected"]))]
        return f"must be one of {', '.join(words)}, not {quote(value)}", _close(value, words)
    if kind in _LIMITS:
        name, text = _LIMITS[kind]
        return f"{text.format(f'{context[name]:.15g}')}, not {quote(value)}", None
    if kind == "string_pattern_mismatch":
        message = "must be made of lower-case letters, digits, _ and -, at most 64"
        return f"{message}, not {quote(value)}", None
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}, not {quote(value)}", None
    return detail["msg"], None


def _keys(model: type[BaseModel]) -> list[str]:
    return [name for name in model.model_fields if name != "source"]


def _close(value: object, words: list[str]) -> str | None:
    hint = nearest(value, words)
    return hint if hint and hint.startswith("did you mean") else None


def _short(path: Path) -> str:
    """Write a path relative to the working folder where it lies below it or close by."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith(os.path.join("..", "..")) else str(path)
