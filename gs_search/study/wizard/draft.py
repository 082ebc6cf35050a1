"""From what somebody has, a generator, pictures, time, to the numbers of a study that suits it."""

from __future__ import annotations

import os
import re
import statistics
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gs_search.errors import BadInput, ConfigError, DataError
from gs_search.study.config import DataConfig

if TYPE_CHECKING:
    from gs_search.networks import Architecture

__all__ = [
    "DataPlan", "Plan", "TeacherPlan", "Wishes", "describe", "make_links", "make_plan", "name_from", "name_problem",
    "recognise",
]  # fmt: skip

Links = tuple[tuple[str, Path], ...]
"""Names of links that make two folders look like CycleGAN's layout, and where they lead."""

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

USUAL_PX = {"drawn": 64, "photos": 128, "folders": 128}
"""Generators are convolutional: what is learned at 128 pixels holds at larger sizes."""

SAMPLE = 32
"""So many pictures are looked at to learn how large they are."""

COUNTS: dict[str, dict[str, int]] = {
    "drawn": {"train": 512, "val": 100, "test": 200},
    "photos": {"train": 256, "val": 100, "test": 100, "reference": 150},
    "folders": {"train": 512, "val": 100, "test": 200, "reference": 150},
}
"""Pictures of each split, at most."""

MANY = 1000
"""Trials of a study whose end is a time."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What somebody says about a new study; None where nothing was said."""

    name: str | None = None
    checkpoint: Path | None = None
    architecture: str | None = None
    key: str | None = None
    photos: Path | None = None
    source: Path | None = None
    target: Path | None = None
    image_px: int | None = None
    trials: int | None = None
    hours: float | None = None
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataPlan:
    """The ``data`` section."""

    kind: Literal["drawn", "folders", "photos"]
    path: str | None = None
    """As the study file has it."""
    links: Links = ()
    train: int
    val: int
    test: int
    reference: int = 0


@dataclass(frozen=True, kw_only=True)
class TeacherPlan:
    """The ``teacher`` section."""

    kind: Literal["shipped", "checkpoint", "train"]
    path: str | None = None
    architecture: str = "auto"
    key: str | None = None
    described: str = ""
    notes: tuple[str, ...] = ()
    """What the file does not tell, and was decided."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that the two templates show."""

    name: str
    title: str
    data: DataPlan
    teacher: TeacherPlan
    image_px: int
    multiple: int
    """What divides every legal ``image_px``."""
    image_note: str
    trials: int
    trials_note: str
    hours: str | None
    device: str
    device_note: str
    batch_size: int
    repair_pictures: int
    fid_images: int
    gentle: bool
    """A real teacher: learning rates and space of the CartoonGAN study instead of the quickstart's."""

    @property
    def shown(self) -> str:
        """The study file, as commands name it."""
        return f"studies/{self.name}.yaml"

    @property
    def space(self) -> str:
        """The search space, as the study names it."""
        return f"../search_spaces/{self.name}.yaml"


def make_plan(wishes: Wishes, out: Path) -> Plan:
    """Look at the generator and the pictures, and decide.

    Args:
        out: folder below which ``studies/`` is to lie.

    Raises:
        BadInput: something is missing, contradicts something else, or cannot be used.
    """
    _contradictions(wishes)
    name = wishes.name or name_from(wishes)
    if problem := name_problem(name):
        raise BadInput(problem)
    kind, root, links = _pictures(wishes)
    problems: list[str] = []
    found = pictures = None
    try:
        found = recognise(wishes)
    except BadInput as error:
        problems += str(error).splitlines()
    try:
        pictures = _look(kind, root, links)
    except BadInput as error:
        problems += str(error).splitlines()
    if problems or pictures is None:
        raise ConfigError(problems)
    counts = pictures.counts
    multiple = 4 if found is None else found.picture_multiple
    image_px = wishes.image_px or _legal_px(USUAL_PX[kind], multiple, pictures.side)
    if wishes.checkpoint is not None:
        path = _written(wishes.checkpoint, out)
        teacher = TeacherPlan(kind="checkpoint", path=path, architecture=wishes.architecture or "auto",
                              key=wishes.key, described=describe(found), notes=_undecided(wishes))  # fmt: skip
    else:
        teacher = TeacherPlan(kind="shipped" if kind == "drawn" else "train")
    usual = 24 if kind == "drawn" else 12 if found is not None else 40
    trials = wishes.trials or (usual if wishes.hours is None else MANY)
    trials_note = "finished trials in all; a second run with more continues"
    if wishes.trials is None and wishes.hours is not None:
        trials_note = "at most; the hours below are the limit"
    gentle = found is not None
    return Plan(
        name=name,
        title=_title(kind, counts, found),
        data=DataPlan(
            kind=kind,
            path=name if links else None if root is None else _written(root, out),
            links=links,
            **counts,
        ),
        teacher=teacher,
        image_px=image_px,
        multiple=multiple,
        image_note=_image_note(kind, multiple),
        trials=trials,
        trials_note=trials_note,
        hours=None if wishes.hours is None else f"{wishes.hours:.6g}",
        device=wishes.device or "auto",
        device_note={"cpu": "no GPU, even if there is one", "cuda": "GPUs"}.get(
            wishes.device or "auto", "GPUs if there are any"
        ),
        batch_size=min(4, pictures.train),
        repair_pictures=min(32, pictures.train),
        fid_images=min(100, pictures.val),
        gentle=gentle,
    )


def name_problem(name: str) -> str | None:
    """Say why this cannot be the name of a study, or return None."""
    if NAME.fullmatch(name):
        return None
    return f"{name!r}: a study's name has lower-case letters, digits, _ and -, at most 64, and begins with neither"


def name_from(wishes: Wishes) -> str:
    """Name a study after what it is about."""
    about = wishes.checkpoint or wishes.photos or wishes.source
    words = "drawn" if about is None else about.stem or about.resolve().stem
    return re.sub(r"[^a-z0-9_-]+", "-", words.lower()).strip("-_")[:64].strip("-_") or "study"


def recognise(wishes: Wishes) -> Architecture | None:
    """Read the checkpoint, if there is one; raises CheckpointError where it cannot be used."""
    if wishes.checkpoint is None:
        return None
    from gs_search.networks import load_generator

    return load_generator(wishes.checkpoint, wishes.architecture or "auto", key=wishes.key)[1]


def describe(found: Architecture | None) -> str:
    """Say what a checkpoint holds, in a few words."""
    if found is None:
        return ""
    what = "halvings" if found.name == "pix2pix_unet" else "residual blocks"
    return f"{found.name}, {found.width} channels, {found.blocks} {what}"


def _undecided(wishes: Wishes) -> tuple[str, ...]:
    from gs_search.networks import Choice, recognise

    assert wishes.checkpoint is not None
    return tuple(recognise(wishes.checkpoint, Choice(wishes.architecture or "auto", wishes.key)).notes)


def _contradictions(wishes: Wishes) -> None:
    if wishes.photos is not None and (wishes.source is not None or wishes.target is not None):
        raise BadInput("give --photos (with a checkpoint), or --source and --target, not both")
    if wishes.target is not None and wishes.source is None:
        raise BadInput("--target: give --source too, the pictures that are to be translated")
    if wishes.source is not None and wishes.target is None and not _two_domains(wishes.source):
        raise BadInput(f"--source: give --target too, or a folder that has trainA and trainB in it: {wishes.source}")
    if wishes.photos is not None and wishes.checkpoint is None and not _two_domains(wishes.photos):
        raise BadInput(
            "--photos: photos need a trained generator; give --checkpoint, or --source and --target to have one trained"
        )
    if wishes.checkpoint is not None and wishes.photos is None and wishes.source is None:
        raise BadInput("--checkpoint: give pictures for it too: --photos, or --source and --target")
    if wishes.key is not None and wishes.checkpoint is None:
        raise BadInput("--key: says which generator of a checkpoint; give --checkpoint")
    if wishes.architecture not in (None, "auto") and wishes.checkpoint is None:
        raise BadInput("--architecture: says what a checkpoint holds; give --checkpoint")


def _two_domains(folder: Path) -> bool:
    return (folder / "trainA").is_dir() and (folder / "trainB").is_dir()


def _pictures(wishes: Wishes) -> tuple[Literal["drawn", "folders", "photos"], Path | None, Links]:
    """Kind of the data, the folder, and the links that it lacks."""
    one = wishes.photos or (wishes.source if wishes.target is None else None)
    if one is not None:
        return ("folders" if _two_domains(one) else "photos"), one, ()
    if wishes.source is None or wishes.target is None:
        return "drawn", None, ()
    source, target = wishes.source.resolve(), wishes.target.resolve()
    if source.parent == target.parent and (source.name, target.name) == ("trainA", "trainB"):
        return "folders", wishes.source.parent, ()
    return "folders", None, (("trainA", source), ("trainB", target))


@dataclass(frozen=True)
class _Found:
    """What the pictures are."""

    counts: dict[str, int]
    """Pictures of each split; of two domains, the larger."""
    train: int
    val: int
    """Pictures to translate, of these two splits."""
    side: int | None
    """Usual shorter side of a picture, in pixels."""


def _look(kind: Literal["drawn", "folders", "photos"], root: Path | None, links: Links) -> _Found:
    """List the pictures, as the study will, and look at the size of some; raises DataError."""
    counts = COUNTS[kind]
    if kind == "drawn":
        return _Found(counts, counts["train"], counts["val"], None)
    from gs_search.data import open_data
    from gs_search.data.files import FilePictures
    from gs_search.data.images import read_header

    with tempfile.TemporaryDirectory(prefix="gs-search-") as scratch:
        if links:
            root = Path(scratch)
            make_links(root, links)
        data = open_data(DataConfig(kind=kind, path=root, side=None, **counts), 64, seed=0)
        train = data.sources["train"]
        assert isinstance(train, FilePictures)
        sides = []
        for index in range(min(SAMPLE, len(train))):
            with suppress(DataError):  # ``check`` will name it, and all others
                sides.append(min(read_header(train.path(index)).size))
    sets = (data.sources, data.targets)
    found = {split: max(len(pictures[split]) for pictures in sets if split in pictures) for split in counts}
    return _Found(found, len(train), len(data.sources["val"]), int(statistics.median(sides)) if sides else None)


def make_links(folder: Path, links: Links) -> None:
    """Make links in a folder that is there."""
    for name, target in links:
        (folder / name).symlink_to(target, target_is_directory=True)


def _legal_px(usual: int, multiple: int, side: int | None) -> int:
    """The largest legal side up to the usual one and up to that of the pictures; the smallest legal one at least."""
    wanted = usual if side is None else min(usual, side)
    return max(multiple, wanted // multiple * multiple, -(-32 // multiple) * multiple)


def _image_note(kind: str, multiple: int) -> str:
    if multiple > 4:
        return f"side of the pictures; this generator takes multiples of {multiple}"
    if kind == "drawn":
        return "side of the pictures, a multiple of 4"
    return "side of the pictures, a multiple of 4; what is learned at a small size holds at larger ones"


def _title(kind: str, counts: dict[str, int], found: Architecture | None) -> str:
    if kind == "drawn":
        return "A search on drawn data: make zebras out of horses with less. No files, no downloads."
    pictures = "photos" if kind == "photos" else "unpaired pictures"
    if found is not None:
        return f"Make a generator smaller ({describe(found)}) on {sum(counts.values())} {pictures}."
    return "Train a generator on two folders of unpaired pictures, and search how small it can become."


def _written(path: Path, out: Path) -> str:
    """Write a path for the study file: relative to it where both lie below ``out``, else absolute."""
    whole, base = path.resolve(), out.resolve()
    if re.search(r"\$\{\w+\}", str(whole)):
        raise BadInput(f"{path}: in a study file ${{...}} stands for a variable; rename the folder")
    if whole.is_relative_to(base):
        return Path(os.path.relpath(whole, base / "studies")).as_posix()
    return whole.as_posix()
