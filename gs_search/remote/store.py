"""The objects below one URI, through ``pyarrow.fs``: listed, read, written whole, deleted, and waited for.

An object is there whole or not at all. What stores have no word for, a file that only one may make, is not here.
"""

from __future__ import annotations

import mimetypes
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from gs_search.errors import BadInput, GsSearchError
from gs_search.system.files import draft_of

__all__ = ["PATIENCE_S", "Outage", "Stamp", "Store", "StoreLost"]

PATIENCE_S = 300.0
"""How long a run waits for a store that cannot be reached; as long as for a database."""

BLOCK = 8 << 20

T = TypeVar("T")


class StoreLost(GsSearchError):
    """The store was waited for, and did not come back."""


class Stamp(NamedTuple):
    """What tells one content of an object from another: bytes, and nanoseconds of when the store took it."""

    size: int
    mtime_ns: int


REASONS = (
    ("NO_SUCH_BUCKET|NoSuchBucket|bucket does not exist", "there is no such bucket; make it, or mend the name"),
    ("SIGNATURE_DOES_NOT_MATCH|SignatureDoesNotMatch", "the secret key is not that of the access key"),
    ("INVALID_ACCESS_KEY|InvalidAccessKeyId|UnauthorizedAccess|INVALID_CLIENT_TOKEN|InvalidClientTokenId|"
     "UNRECOGNIZED_CLIENT", "the store does not know the access key"),
    ("Expired|EXPIRED", "the credentials have expired; get new ones"),
    ("ACCESS_DENIED|AccessDenied|Forbidden|HTTP status 403|PERMISSION_DENIED|PermissionDenied|MISSING_AUTHENTICATION|"
     "HTTP status 401|UNAUTHENTICATED|Could not load credentials", "the store does not allow it; are the "
     "credentials of this machine set, and may they list, read, write and delete there?"),
    ("HTTP status 301|PermanentRedirect|AUTHORIZATION_HEADER_MALFORMED", "the bucket is in another region; add "
     "?region=… to the URI, or set AWS_REGION"),
)  # fmt: skip
"""What stores say that waiting does not mend, and what may be told of it."""


class Store:
    """What lies below a URI. Threads may share it.

    Args:
        uri: of a folder, as ``location.checked`` returns it. Nothing is asked before it is needed.
        patience_s: how long an unreachable store is waited for; 0 where somebody waits for an answer.
    """

    def __init__(self, uri: str, *, patience_s: float = 0.0) -> None:
        self.uri = uri
        self.patience_s = patience_s
        self.outage = Outage(uri)
        self.interrupted: Callable[[], bool] = lambda: False
        """Whether somebody would rather not wait."""
        self._lost = False
        self._opening = threading.Lock()

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        try:
            import pyarrow
            from pyarrow import fs
        except ImportError as error:
            raise BadInput(f"{self.uri}: needs pyarrow ({error}): pip install pyarrow") from None
        try:
            files, base = fs.FileSystem.from_uri(self.uri)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, ImportError) as error:
            raise BadInput(f"{self.uri}: pyarrow cannot open it: {_line(error)}") from None
        return files, base.rstrip("/")

    @property
    def is_lost(self) -> bool:
        """Whether it was waited for in vain, and has not answered since."""
        return self._lost

    # --- questions

    def entries(self, below: str = "") -> dict[str, Stamp]:
        """All objects, by their names below the URI; none where nothing is there.

        Args:
            below: only those of this folder.
        """

        def ask() -> dict[str, Stamp]:
            from pyarrow import fs

            files, base = self._opened
            found = files.get_file_info(
                fs.FileSelector(f"{base}/{below}".rstrip("/"), recursive=True, allow_not_found=True)
            )
            return {one.path[len(base) + 1 :]: _stamp(one) for one in found if one.type == fs.FileType.File}

        return self._answered(ask)

    def stamp(self, name: str) -> Stamp | None:
        """Of one object; None where there is none."""

        def ask() -> Stamp | None:
            from pyarrow import fs

            files, base = self._opened
            found = files.get_file_info(f"{base}/{name}")
            return _stamp(found) if found.type == fs.FileType.File else None

        return self._answered(ask)

    def has_bucket(self) -> bool:
        """Whether the bucket is there, as far as one may know."""

        def ask() -> bool:
            from pyarrow import fs

            files, base = self._opened
            return bool(files.get_file_info(base.partition("/")[0]).type != fs.FileType.NotFound)

        return self._answered(ask)

    def read(self, name: str) -> bytes | None:
        """The content of a small object; None where there is none."""

        def ask() -> bytes | None:
            files, base = self._opened
            try:
                with files.open_input_stream(f"{base}/{name}") as source:
                    return bytes(source.read())
            except FileNotFoundError:
                return None

        return self._answered(ask)

    def fetch(self, name: str, path: Path) -> bool:
        """Copy an object to a file, whole, with the time that the store has; False where there is none."""

        def ask() -> bool:
            files, base = self._opened
            stamp = self.stamp(name)  # first, so that a content that comes between is taken for older than it is
            if stamp is None:
                return False
            try:
                source = files.open_input_stream(f"{base}/{name}")
            except FileNotFoundError:
                return False
            with source, draft_of(path, durable=False) as draft:  # the store has it, whatever becomes of this copy
                with draft.open("wb") as sink:
                    shutil.copyfileobj(source, sink, BLOCK)
                os.utime(draft, ns=(stamp.mtime_ns, stamp.mtime_ns))
            return True

        return self._answered(ask)

    # --- changes

    def write(self, name: str, content: bytes) -> None:
        """Put a small object in place."""

        def ask() -> None:
            files, base = self._opened
            with files.open_output_stream(f"{base}/{name}") as sink:
                sink.write(content)

        self._answered(ask)

    def send(self, path: Path, name: str) -> bool:
        """Put a file in place as an object, and give the file the time that the store has for it.

        The file may be replaced meanwhile, for it is the opened one that is sent; False where it is gone.
        """

        def ask() -> bool:
            files, base = self._opened
            kind = {"Content-Type": mimetypes.guess_type(name)[0] or "application/octet-stream"}
            try:
                source = path.open("rb")
            except FileNotFoundError:
                return False
            with source:
                with files.open_output_stream(f"{base}/{name}", metadata=kind) as sink:
                    shutil.copyfileobj(source, sink, BLOCK)
                stamp = self.stamp(name)
                if stamp is None or stamp.size != source.tell():
                    raise OSError(f"{name}: arrived with other bytes than were sent")
                os.utime(source.fileno(), ns=(stamp.mtime_ns, stamp.mtime_ns))
            return True

        return self._answered(ask)

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects, whether they are there or not."""

        def ask(name: str) -> None:
            files, base = self._opened
            with suppress(FileNotFoundError):
                files.delete_file(f"{base}/{name}")

        for name in names:
            self._answered(partial(ask, name))

    # --- waiting

    def _answered(self, ask: Callable[[], T]) -> T:
        """Ask, again while the store is away.

        Raises:
            BadInput: the store refuses it, and would again.
            StoreLost: it was waited for, or somebody does not want to wait.
        """
        start, pause = time.monotonic(), 0.25
        while True:
            try:
                with self.outage.watching():
                    done = ask()
            except OSError as error:
                if isinstance(error, FileNotFoundError) or error.errno in LOCAL_TROUBLE:
                    raise
                reason = self._judged(error)
            else:
                self._lost = False
                self.outage.is_over()
                return done
            self.outage.goes_on(reason, start)
            waited = time.monotonic() - start
            if self._lost or waited > self.patience_s or self.interrupted():
                # What comes after the first loss, as while a run ends, does not wait as long again.
                self._lost = self.patience_s > 0
                if not self.patience_s:
                    raise StoreLost(f"{self.uri}: cannot be reached ({reason})")
                away = f"{self.outage.seconds():.0f} s"
                raise StoreLost(
                    f"{self.uri}: could not be reached for {away} ({reason}); what is finished is kept, and the same "
                    "command goes on from there once it can be"
                )
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _judged(self, error: OSError) -> str:
        """Why an answer was a bad one; raises BadInput where it will stay bad."""
        text = str(error)
        for pattern, words in REASONS:
            if re.search(pattern, text):
                raise BadInput(f"{self.uri}: {words} ({_kind(text)})") from None
        return _kind(text)


LOCAL_TROUBLE = {28, 13, 30, 122}
"""Of a local file: no space, no right, read-only, quota. Not the store's doing."""


def _stamp(found: Any) -> Stamp:
    return Stamp(int(found.size), int(found.mtime_ns))


def _kind(text: str) -> str:
    """What a store said, without the key of any object, an address or an id of the request."""
    named = re.search(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))? during (\w+)", text)
    if named:
        curl = re.search(r"curlCode: \d+, ([^;]+)", text)
        more = curl[1] if curl else named[2] and f"HTTP status {named[2]}"
        return f"{named[1]} in {named[3]}" + (f": {more}" if more else "")
    return _line(Exception(text))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


TOLD_AFTER_S = 8.0
"""An absence that is shorter is no news; pyarrow itself tries for six seconds before it gives up."""


class Outage:
    """Whether a store answers, as all threads of this process find. Threads may share it.

    Args:
        name: of the store, for people.
    """

    def __init__(self, name: str) -> None:
        self.note: Callable[[str], None] | None = None
        """Is told; None where nobody listens."""
        self._name = name
        self._lock = threading.Lock()
        self._since: float | None = None
        self._told = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around one question to the store: a server that hangs, and says nothing, is told of too."""
        begun = time.monotonic()
        timer = None
        if self.note is not None:
            timer = threading.Timer(TOLD_AFTER_S, self.goes_on, ("it does not answer", begun))
            timer.daemon = True
            timer.start()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()

    def goes_on(self, reason: str, since: float) -> None:
        """A question has no answer yet, or a bad one.

        Args:
            since: when it was first asked, of the monotonic clock.
        """
        with self._lock:
            self._since = since if self._since is None else min(self._since, since)
            if self._told or time.monotonic() - self._since < TOLD_AFTER_S:
                return
            self._told = True
        self._say(f"{self._name}: cannot be reached ({reason}); trying again, and trials go on meanwhile")

    def seconds(self) -> float:
        """How long it has lasted; 0 while the store answers."""
        with self._lock:
            return 0.0 if self._since is None else time.monotonic() - self._since

    def is_over(self) -> None:
        """A question was answered."""
        with self._lock:
            told, since = self._told, self._since
            self._told, self._since = False, None
        if told and since is not None:
            self._say(f"{self._name}: is back after {time.monotonic() - since:.0f} s")

    def _say(self, line: str) -> None:
        if self.note is not None:
            self.note(line)
