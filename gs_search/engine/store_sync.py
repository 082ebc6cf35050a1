"""What passes between the run of a study and the object store of its run folder; on a path all of it is nothing.

A trial begins only once the store knows that it does: the database, if it is a file, is sent after every proposal. So a
run that dies with its machine goes on elsewhere, from the objects alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gs_search.remote.store import PATIENCE_S
from gs_search.search.backup import RollingCopy

if TYPE_CHECKING:
    from gs_search.results.run_folder import RunFolder

__all__ = ["StoreKeeper"]


class StoreKeeper:
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
