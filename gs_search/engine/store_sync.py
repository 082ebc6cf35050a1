"""What passes between the run of a study and the object store of its run folder; on a path all of it is nothing.

A trial begins only once the store knows that it does: the database, if it is a file, is sent after every proposal. So a
run that dies with its machine goes on elsewhere, from the objects alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gs_search.errors import GsSearchError
from gs_search.remote.store import PATIENCE_S, Stamp
from gs_search.search.backup import RollingCopy

if TYPE_CHECKING:
    from gs_search.results.run_folder import RunFolder
    from gs_search.search.outcomes import Asked

__all__ = ["TrialSync", "StoreSync"]


class StoreSync:
    """Keeps copy and store together while a run lasts.

    Args:
        copy: of the database; None where it is no file of the run folder.
    """

    def __init__(self, folder: RunFolder, copy: RollingCopy | None) -> None:
        self._folder, self._mirror, self._copy = folder, folder.mirror, copy

    def wait_for_store(self, note: Callable[[str], None], interrupted: Callable[[], bool]) -> None:
        """Wait for a store that is away from now on, and say so, unless somebody would rather not."""
        if self._mirror is not None:
            store = self._mirror.store
            store.patience_s, store.outage.note, store.interrupted = PATIENCE_S, note, interrupted

    def prepared(self, *, whole: bool) -> None:
        """Fetch what was made for all trials, maybe elsewhere.

        Args:
            whole: not just what it says of the teacher.
        """
        self._folder.fetch(self._folder.baselines)
        if self._mirror is not None and whole:
            self._mirror.fetch_below(self._folder.teacher.name)

    def took_over(self) -> None:
        """Send the students of an earlier study."""
        if self._mirror is not None:
            self._mirror.send_below(self._folder.trials)

    def asked(self) -> None:
        """Before a trial begins.

        Raises:
            StudyBusy: somebody else has taken the study, while the store was away.
            StoreLost: it does not come back.
        """
        if self._mirror is not None:
            self._folder.check_lease()
            self._send_database()

    def ended(self, number: int) -> None:
        """After a trial; counts it for the copy of the database."""
        self._folder.fetch(self._folder.trial(number) / "result.json")
        if self._copy and self._mirror is None:
            self._copy.told()

    def results(self) -> None:
        """Fetch what trials have left, when none runs any more."""
        if self._mirror is not None and not self._mirror.store.is_lost:
            self._mirror.fetch_trials()

    def close(self) -> None:
        """At the end of a run, whatever it was."""
        if self._mirror is None:
            if self._copy:
                self._copy.make()
        elif not self._mirror.store.is_lost:
            self._send_database()
        elif self._copy:
            self._copy.make()

    def _send_database(self) -> None:
        if self._copy and self._mirror is not None:
            self._copy.make()
            self._mirror.send_backup()


EVERY_S = 2.0
"""Between two looks for a new checkpoint; a node that dies costs its trial no more than what it did since."""

PROGRESS = "progress.json"


class TrialSync:
    """Carries what the trials of one process leave, one trial after the other."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._mirror = folder, folder.mirror
        self._trial: Path | None = None
        self._checkpoint: Path | None = None
        self._sent: dict[Path, Stamp] = {}
        self._rest = threading.Event()
        self._thread: threading.Thread | None = None
        if self._mirror is not None:
            self._mirror.store.patience_s = PATIENCE_S
            self._folder.fetch(folder.resolved_yaml)
            self._mirror.fetch_below(folder.teacher.name)

    def begin(self, asked: Asked) -> None:
        """Fetch the checkpoint of a trial that began elsewhere, and send from now on what it leaves."""
        if self._mirror is None:
            return
        self._trial = self._folder.trial(asked.number)
        self._checkpoint = self._folder.checkpoint(asked.key, asked.seed)
        self._folder.fetch(self._checkpoint)
        self._sent, self._rest = {}, threading.Event()
        self._thread = threading.Thread(target=self._carry, args=(self._rest,), name="courier", daemon=True)
        self._thread.start()

    def end(self, *, result: bool) -> None:
        """Send what the trial has left.

        Args:
            result: it has one; otherwise it was left at a rung, and the driver writes one.

        Raises:
            GsSearchError: the store refuses it, or did not come back.
        """
        if self._mirror is None or self._trial is None or self._checkpoint is None:
            return
        trial, checkpoint = self._trial, self._checkpoint
        self._stop()
        self._trial = self._checkpoint = None
        self._mirror.send_below(trial, but=() if result else ("result.json",))
        if not checkpoint.exists():
            self._mirror.forget_files(checkpoint)
        self._mirror.forget_files(trial / PROGRESS)

    def _stop(self) -> None:
        self._rest.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def _carry(self, rest: threading.Event) -> None:
        assert self._mirror is not None and self._trial is not None and self._checkpoint is not None
        small = self._mirror.impatient()
        files = (self._checkpoint, self._trial / PROGRESS, self._trial / "log.txt")
        while not rest.wait(EVERY_S):
            for file in files:
                stamp = small.stamp_of(file)
                if stamp is None or self._sent.get(file) == stamp or rest.is_set():
                    continue
                with suppress(GsSearchError, OSError):  # the end of the trial waits for the store
                    small.send(file)
                    sent = small.stamp_of(file)
                    if sent is not None:
                        self._sent[file] = sent
