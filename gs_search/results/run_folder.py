"""The run folder of a study: the names of its files, atomic writes, who is at work in it, where it came from.

Everything that a study leaves lies in here, and every verb but ``run`` and ``check`` takes this folder::

    study.yaml  search_space.yaml  resolved.yaml  study.db  study.db.backup  lock
    teacher/                        what all trials share; source/ in it: the user's code that builds the teacher
    trials/<number>/                result.json curve.csv samples.png student.safetensors log.txt
    trials/<number>/again/<k>/      the same, of a run with another seed; subsets.json
    checkpoints/                    of trials that are not finished
    retrain/<number>/               of a trial that was trained in full, as in trials/<number>/
    exports/  report.html  pick.json

A run folder may lie in an object store, as ``s3://bucket/runs/mine``: the path is that of its local copy then, and
``find``, ``lock``, ``fetch`` and ``send`` see to what passes between the two (``remote``); on a path they cost nothing.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import platform
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from gs_search import __version__
from gs_search.errors import BadInput
from gs_search.remote import Place, is_remote
from gs_search.results.record import Baselines, FullRecord, TrialRecord, read_baselines, read_full, read_trial
from gs_search.study.config import StudyConfig, load_resolved
from gs_search.system.files import write_text
from gs_search.system.lock import hold, live_holder
from gs_search.system.user_code import copied_code

if TYPE_CHECKING:
    from gs_search.remote.lease import Lease
    from gs_search.remote.mirror import Mirror

__all__ = ["RESULT", "RunFolder"]

SCHEMA = 1

T = TypeVar("T")

RESULT = "result.json"
PACKAGES = (
    "torch", "torchvision", "ray", "optuna", "numpy", "scipy", "fvcore", "pytorch-fid", "torch-pruning",
)  # fmt: skip
"""Packages whose versions are noted, because numbers may depend on them."""


class RunFolder:
    """A folder of results. Making the object touches nothing; ``create`` and ``find`` do.

    Args:
        path: of the folder, or its URI.
        at_work: this process runs the study or a trial, and does not just look.
    """

    def __init__(self, path: Place, *, at_work: bool = False) -> None:
        self.mirror: Mirror | None = None
        """What passes to and from an object store; None on a path."""
        self._lease: Lease | None = None
        if is_remote(path):
            from gs_search.remote.joining import mirror_of

            self.mirror = mirror_of(str(path), at_work=at_work)
            path = self.mirror.folder
        self.path = Path(path)
        self.study_yaml = self.path / "study.yaml"
        self.space_yaml = self.path / "search_space.yaml"
        self.resolved_yaml = self.path / "resolved.yaml"
        self.database = self.path / "study.db"
        self.backup = self.path / "study.db.backup"
        self.teacher = self.path / "teacher"
        self.baselines = self.teacher / "baselines.json"
        self.trials = self.path / "trials"
        self.checkpoints = self.path / "checkpoints"
        self.retrain = self.path / "retrain"
        self.exports = self.path / "exports"
        self.report_html = self.path / "report.html"
        self.lock_file = self.path / "lock"

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def __str__(self) -> str:
        """What people call it: its URI, or its path."""
        return str(self.path) if self.mirror is None else self.mirror.store.uri

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def place(self) -> str:
        """Where other processes and machines find it: its URI, or its absolute path."""
        return str(self.path.resolve()) if self.mirror is None else self.mirror.store.uri

    @classmethod
    def find(cls, path: Place, *, whole: bool = False) -> RunFolder:
        """Open an existing run folder; raises BadInput where there is none.

        Args:
            whole: of one in an object store, weights and the assets are wanted too.
        """
        folder = cls(path)
        folder.refresh(whole=whole)
        if not folder.path.exists():
            raise BadInput(f"{folder}: no such folder; `gs-search run STUDY.yaml` makes run folders")
        if not folder.resolved_yaml.is_file():
            raise BadInput(f"{folder}: not a run folder (it has no resolved.yaml); give the folder of a study")
        return folder

    # --- in an object store

    def refresh(self, *, whole: bool = False) -> None:
        """Bring the local copy up to date, for a look."""
        if self.mirror is not None:
            from gs_search.remote.joining import look

            look(self.mirror, whole=whole)

    def fetch(self, *paths: Path) -> None:
        """Have files as the store has them; those that it has not stay as they are."""
        if self.mirror is not None and not self.mirror.store.is_lost:
            self.mirror.fetch(*(path.relative_to(self.path).as_posix() for path in paths))

    def send(self, *paths: Path) -> None:
        """Send files to the store; one that is lost gets them when the next run begins."""
        if self.mirror is not None and not self.mirror.store.is_lost:
            self.mirror.send(*paths)

    def join(self, *, database: bool) -> None:
        """Bring copy and store together, once this process holds the lock and before it changes anything."""
        if self.mirror is not None:
            from gs_search.remote.joining import join

            join(self.mirror, database=database)

    @property
    def generator(self) -> Path:
        """The teacher's weights."""
        return self.teacher / "generator.safetensors"

    @property
    def source(self) -> Path:
        """The copy of the code that builds a teacher of kind ``module``."""
        return self.teacher / "source"

    def trial(self, number: int) -> Path:
        """Folder of one trial."""
        return self.trials / str(int(number))

    def retrained(self, number: int) -> Path:
        """Folder of one trial's full training."""
        return self.retrain / str(int(number))

    def checkpoint(self, key: str, seed: int) -> Path:
        """State of an unfinished trial: of its point and seed, for a repeated trial has another number."""
        digest = hashlib.sha256(f"{key}\n{seed}".encode()).hexdigest()[:16]
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        return self.checkpoints / f"{digest}.ckpt"

    def config(self) -> StudyConfig:
        """The study of this folder."""
        return load_resolved(self.resolved_yaml)

    def provenance(self) -> dict[str, Any]:
        """When, where and with which versions the folder was made, and the hashes of what went in."""
        return dict(self._resolved()["provenance"])

    def check(self, config: StudyConfig) -> None:
        """Raise what ``create`` would raise, and touch nothing."""
        if self.mirror is not None:
            from gs_search.remote.joining import meet

            meet(self.mirror)
        if self.resolved_yaml.is_file():
            self._same_study(config, _hashes(config))
        else:
            self._refuse_foreign_files()

    def create(self, config: StudyConfig) -> None:
        """Make the folder for a study, or make sure that it is this study's.

        Continuing takes over ``trials``, ``hours`` and ``workers``; anything else must be as it was, because
        numbers of different settings cannot be compared.

        Raises:
            BadInput: the folder holds another study (the message says which keys differ) or other files.
        """
        hashes = _hashes(config)
        if self.resolved_yaml.is_file():
            provenance = self._same_study(config, hashes)
            config = config.following(self.config())
        else:
            self._refuse_foreign_files()
            provenance = {
                "id": secrets.token_hex(8),  # of this folder, wherever it is moved
                "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                "host": platform.node(),
                "platform": platform.platform(),
                "versions": _versions(),
            }
        self.path.mkdir(parents=True, exist_ok=True)
        if config.source.is_file() and config.source != self.study_yaml.resolve():
            write_text(self.study_yaml, config.source.read_text(encoding="utf-8"))
        if config.space.source and config.space.source.is_file():
            write_text(self.space_yaml, config.space.source.read_text(encoding="utf-8"))
        code = config.teacher.code(config.source.parent)
        copied = [] if code is None else code.copy_to(self.source)
        # Last, because it is what makes the folder a run folder.
        resolved = {
            "schema": SCHEMA,
            "study": config.to_resolved(),
            "provenance": {**provenance, "hashes": hashes},
        }
        self._write_resolved(resolved)
        yamls = (path for path in (self.study_yaml, self.space_yaml, self.resolved_yaml) if path.is_file())
        self.send(*copied, *yamls)

    def decided(self, decisions: Mapping[str, Any]) -> None:
        """Note in ``resolved.yaml`` what the preparation has decided in place of ``auto``."""
        resolved = self._resolved()
        if resolved.get("decided") != decisions:
            self._write_resolved({**resolved, "decided": dict(decisions)})
            self.send(self.resolved_yaml)

    def _write_resolved(self, resolved: dict[str, Any]) -> None:
        text = yaml.dump(resolved, Dumper=_PlainDumper, sort_keys=False, width=100)
        write_text(self.resolved_yaml, text)

    # --- what is in it

    def read(self, path: Path, reader: Callable[[Path], T]) -> T:
        """Read a file of it with one of the readers of ``results.record``; the one way to them."""
        return reader(path)

    def result(self, number: int) -> TrialRecord:
        """How a trial ended; raises BadInput where it has not, or its file is torn."""
        return self.read(self.trial(number) / RESULT, read_trial)

    def results(self) -> list[TrialRecord]:
        """How all trials have ended, by number; raises BadInput naming a file that is torn."""
        paths = [path for path in self.trials.glob(f"*/{RESULT}") if path.parent.name.isdigit()]
        results = []
        for path in sorted(paths, key=lambda path: int(path.parent.name)):
            record = self.read(path, read_trial)
            if record.number != int(path.parent.name):
                raise BadInput(f"{path}: is not the result of trial {path.parent.name}; move {path.parent} away")
            results.append(record)
        return results

    def full_result(self, number: int) -> FullRecord | None:
        """What the full training of a trial came to; None where there is none that is finished."""
        path = self.retrained(number) / RESULT
        return self.read(path, read_full) if path.is_file() else None

    def measured(self) -> Baselines:
        """What the preparation has measured; raises BadInput before it has."""
        return self.read(self.baselines, read_baselines)

    @contextmanager
    def lock(self, note: Callable[[str], None] = lambda line: None) -> Iterator[None]:
        """Be the only process that runs the study; raises StudyBusy naming the one that does.

        The lock of a process that has died is taken over. The same process may enter again.

        Args:
            note: is told where that takes a while.
        """
        with hold(self.lock_file):
            if self.mirror is None:
                yield
                return
            from gs_search.remote.lease import Lease

            self._lease = Lease(self.mirror.store, note)
            with self._lease.held():
                yield

    def check_lease(self) -> None:
        """Raise StudyBusy if somebody else has taken the study, while this process held the lock and was cut off."""
        if self._lease is not None:
            self._lease.check()

    def holder(self) -> dict[str, Any] | None:
        """The live process that runs the study (``pid``, ``host``, ``since``), or None."""
        if self.mirror is None:
            return live_holder(self.lock_file)
        from gs_search.remote.lease import holder_there

        return holder_there(self.mirror.store)

    def _resolved(self) -> dict[str, Any]:
        try:
            return dict(yaml.safe_load(self.resolved_yaml.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, yaml.YAMLError):
            raise BadInput(f"{self.resolved_yaml}: damaged; restore it, or take another run folder") from None

    def _same_study(self, config: StudyConfig, hashes: dict[str, str | None]) -> dict[str, Any]:
        """Compare with the study that made the folder; return its provenance."""
        earlier = self.config()
        here, there = config.following(earlier).identity(), earlier.identity()
        keys = [key for key in sorted({*here, *there}) if here.get(key, _NOWHERE) != there.get(key, _NOWHERE)]
        provenance = self.provenance()
        before = provenance.get("hashes", {})
        if not keys and before.get("teacher") != hashes["teacher"]:
            key = "checkpoint" if config.teacher.kind == "module" else "path"
            keys = [f"teacher.{key} (the content of the file)"]
        if not keys and before.get("source") != hashes["source"]:
            raise BadInput(
                f"{self}: the source of {config.teacher.factory} has changed since the run began "
                f"({_changed(config, self.source)}); undo the change, or take another folder with --out"
            )
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise BadInput(
                f"{self}: holds another study, different in {', '.join(keys[:5])}{more}; "
                "take another folder with --out, or undo the change"
            )
        return provenance

    def _refuse_foreign_files(self) -> None:
        names: set[str] = set()
        if self.mirror is not None:
            names = {name.partition("/")[0] for name in self.mirror.store.entries()}
        elif self.path.is_dir():
            names = {entry.name for entry in self.path.iterdir()}
        if others := sorted(names - {self.lock_file.name}):
            raise BadInput(f"{self}: holds other files ({', '.join(others[:3])}); give --out a new or empty folder")
        if self.path.exists() and not self.path.is_dir():
            raise BadInput(f"{self.path}: is a file; give a folder as --out")


_NOWHERE = object()


class _PlainDumper(yaml.SafeDumper):
    """Writes equal objects twice instead of as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _hashes(config: StudyConfig) -> dict[str, str | None]:
    files = {"study": config.source, "space": config.space.source, "teacher": config.teacher.weights}
    code = config.teacher.code(config.source.parent)
    return {**{name: _sha256(path) for name, path in files.items()}, "source": None if code is None else code.sha256}


def _changed(config: StudyConfig, copied: Path) -> str:
    """Name the files of the user's code that are not as they were copied."""
    now = config.teacher.code(config.source.parent)
    try:
        before = copied_code(copied)
    except BadInput as error:
        return str(error)
    if now is None or now.installed:
        return "another version of the package is installed"
    names = {*now.files, *before.files}
    same = {n for n in now.files if (copied / n).is_file() and (copied / n).read_bytes() == (now.root / n).read_bytes()}
    return ", ".join(sorted(names - same)[:5]) or "other files"


def _sha256(path: Path | None) -> str | None:
    if path is None or not path.is_file():
        return None
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    versions = {"gs-search": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
