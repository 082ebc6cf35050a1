"""The exception tree and the exit codes of the command line.

Every error that a user can cause is a :class:`GsSearchError` whose message is one line: what is wrong, where,
and what to do. The command line prints that line and exits with ``exit_code``; ``--debug`` adds the traceback.
"""

from __future__ import annotations

__all__ = [
    "BadInput",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "GsSearchError",
    "NothingFeasible",
    "StudyBusy",
    "TrialFailed",
    "UnsupportedNetwork",
    "one_line",
]

LONGEST = 500
"""Characters of another library's message that are passed on."""


class GsSearchError(Exception):
    """Anything that this package raises on purpose."""

    exit_code = 1


class BadInput(GsSearchError):
    """What the user gave cannot be used: a file, a value, a name."""

    exit_code = 2


class ConfigError(BadInput):
    """A study or search-space file is wrong; ``problems`` holds one line for each mistake in it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class DataError(BadInput):
    """A folder or an image cannot be used."""


class CheckpointError(BadInput):
    """A file of weights is damaged, unsafe to open, or of another architecture."""


class UnsupportedNetwork(BadInput):
    """A generator cannot be slimmed; the message names the layer and what to change."""


class StudyBusy(BadInput):
    """Another live process holds the run folder; the message names it."""


class NothingFeasible(GsSearchError):
    """No finished trial satisfies what was asked for."""

    exit_code = 3


class TrialFailed(GsSearchError):
    """One trial ended without a result.

    Attributes:
        cause: one word from ``CAUSES``, stored with the trial.
    """

    CAUSES = ("nan", "collapse", "out_of_memory", "exception", "timeout", "killed", "interrupted")

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        assert cause in self.CAUSES, cause
        self.cause = cause

    def __reduce__(self) -> tuple[type[TrialFailed], tuple[str, str]]:
        return type(self), (self.cause, str(self))


def one_line(error: BaseException) -> str:
    """Say what an error of another library is; of one that brings its traceback along, as Tune's do, the last line."""
    text = str(error)
    if "Traceback (most recent call last)" in text:
        return [line for line in text.splitlines() if line.strip()][-1].strip()[:LONGEST]
    return f"{type(error).__name__}: {' '.join(text.split())[:LONGEST]}"
