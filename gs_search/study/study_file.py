"""Reads study files: YAML in, a :class:`gs_search.study.config.StudyConfig` or every mistake out.

Mistakes of the study file and of the search space that it names are gathered and reported together, each with
file, line, key, and the nearest legal key. Nothing is opened but these two files.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gs_search.study.config import (
    ConstraintsConfig,
    DataConfig,
    MeasureConfig,
    ResourcesConfig,
    RetrainConfig,
    Section,
    StoppingConfig,
    StudyConfig,
    TeacherConfig,
)
from gs_search.study.database_url import url_problem
from gs_search.study.settings import GROUPS, LEGAL, SlimmingSettings
from gs_search.study.space import SearchSpace
from gs_search.study.space_file import parse_space
from gs_search.study.yaml_file import FileErrors, Key, Problem, nearest, quote, read_yaml

__all__ = ["StudyReader"]


class StudyReader:
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
        if isinstance(entries.get("path"), str):
            entries["path"] = self._path((name, "path"), entries["path"])
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
        if teacher and teacher.kind == "checkpoint":
            self._exists(("teacher", "path"), teacher.path, folder=False)
            for name in {"width", "blocks", "steps"} & teacher.model_fields_set:
                self._report(("teacher", name), "is not used by kind checkpoint", "remove it")
        elif teacher:
            for name in ("path", "key", "norm", "padding", "align_corners"):
                if getattr(teacher, name) not in (None, "auto"):
                    message = f"is not used by kind {teacher.kind}"
                    self._report(("teacher", name), message, "remove it, or set kind: checkpoint")
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
