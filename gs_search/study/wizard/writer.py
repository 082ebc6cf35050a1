"""The two files of a new study: from the templates, through ``check``, to their place."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gs_search.errors import BadInput, ConfigError
from gs_search.study.config import StudyConfig, load_study
from gs_search.study.preflight import check_inputs
from gs_search.study.wizard.draft import Plan, make_links
from gs_search.study.yaml_file import FileErrors
from gs_search.system.templates import text_templates

if TYPE_CHECKING:
    from gs_search.data import Tally

__all__ = ["Written", "write_study"]

PLAIN = re.compile(r"(\.\./)*[A-Za-z/][\w./-]*")
WORDS = {"null", "true", "false"}
"""Words that YAML does not take for text."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written."""

    study: Path
    space: Path
    config: StudyConfig
    notes: tuple[str, ...]
    """What a newcomer should know about it."""


def write_study(plan: Plan, out: Path, *, force: bool = False) -> Written:
    """Write ``studies/NAME.yaml`` and ``search_spaces/NAME.yaml`` below ``out``, after they have passed ``check``.

    Args:
        force: replace files that are there.

    Raises:
        BadInput: there are such files.
        ConfigError: ``check`` finds mistakes, one line for each; nothing is written then.
    """
    study, space = out / "studies" / f"{plan.name}.yaml", out / "search_spaces" / f"{plan.name}.yaml"
    links = out / "studies" / plan.name if plan.data.links else None
    there = [str(path) for path in (study, space, links) if path is not None and os.path.lexists(path)]
    if there and not force:
        raise BadInput(f"{', '.join(there)}: exists; take another name, or replace it with --force")
    if links is not None and links.is_dir() and any(not entry.is_symlink() for entry in links.iterdir()):
        raise BadInput(f"{links}: holds more than links, and is not replaced; take another name")
    with _drafts(study, space, links) as (draft, draft_space, draft_links):
        if links is not None:
            draft_links.mkdir()
            make_links(draft_links, plan.data.links)
        _write(draft_space, _rendered("space.yaml.jinja", plan))
        text = _rendered("study.yaml.jinja", plan)
        # The draft differs from the study in the names of what it refers to.
        standing_in = text.replace(f"space: {plan.space}", f"space: {_reference(draft_space)}", 1)
        if links is not None:
            standing_in = standing_in.replace(f"path: {_text(plan.data.path or '')}", f"path: {draft_links.name}", 1)
        _write(draft, standing_in)
        # Links are still below another name, which says nothing to the reader.
        tallies = [tally for tally in _check(draft) if not plan.data.links]
        told = [line for t in tallies for line in ([t.line()] * bool(t.left_out) + t.notes())]
        _write(draft, text)
        os.replace(draft_space, space)
        if links is not None:
            shutil.rmtree(links, ignore_errors=True)
            os.replace(draft_links, links)
        os.replace(draft, study)  # last: it names the others
    return Written(study=study, space=space, config=load_study(study), notes=(*_notes(plan), *told))


@contextmanager
def _drafts(study: Path, space: Path, links: Path | None) -> Iterator[tuple[Path, Path, Path]]:
    """Names for drafts, beside the files so that their paths mean the same; afterwards nothing of them is left."""
    mark = f"{os.getpid()}.draft"
    drafts = study.with_name(f".{study.stem}.{mark}"), space.with_name(f".{space.stem}.{mark}")
    draft_links = study.with_name(f".{study.stem}.{mark}.links")
    made = {folder for path in (study, space) for folder in path.parents if not folder.exists()}
    try:
        for path in (study, space):
            path.parent.mkdir(parents=True, exist_ok=True)
        yield *drafts, draft_links
    except OSError as error:
        raise BadInput(f"{error.filename or study.parent}: cannot be written: {error.strerror or error}") from None
    finally:
        for path in drafts:
            with suppress(OSError):  # most often it is in its place by now
                path.unlink()
        shutil.rmtree(draft_links, ignore_errors=True)
        for folder in sorted(made, reverse=True):  # the inner ones first
            with suppress(OSError):  # not empty: the study lies in it
                folder.rmdir()


def _check(draft: Path) -> tuple[Tally, ...]:
    """What ``gs-search check`` does; its lines name keys, for the file that they are about will not be there."""
    try:
        config = load_study(draft)
    except FileErrors as error:
        lines = [f"{problem.key}: {problem.message}" for problem in error.details]
        hints = [f"; {problem.hint}" if problem.hint else "" for problem in error.details]
        raise ConfigError([line + hint for line, hint in zip(lines, hints, strict=True)]) from None
    return check_inputs(config)


def _rendered(template: str, plan: Plan) -> str:
    environment = text_templates("gs_search.study.wizard")  # what comes from outside passes ``text``
    longest = f"gs-search check {plan.shown} --forecast"
    environment.filters |= {"text": _text, "wide": lambda command: command.ljust(len(longest))}
    return environment.get_template(template).render(plan=plan)


def _text(value: str) -> str:
    """Write text for YAML: plain where that is safe, else in quotes."""
    if PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)


def _reference(space: Path) -> str:
    return _text(f"../{space.parent.name}/{space.name}")


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _notes(plan: Plan) -> tuple[str, ...]:
    notes = [f"teacher: {note}" for note in plan.teacher.notes]
    if plan.data.kind == "drawn":
        notes.append("no checkpoint and no pictures were given, so that this is a study on drawn data")
    if plan.fid_images < 50:
        notes.append(
            f"FID of {plan.fid_images} pictures is very noisy: add pictures until val has 100 (some 600 in all)"
        )
    if plan.teacher.kind == "train":
        notes.append("the teacher is trained first, which takes hours on a CPU; a checkpoint of yours spares that")
    return tuple(notes)
