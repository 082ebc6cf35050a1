"""The gate before the dashboard, which itself asks nobody who they are: what may be written, where it is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gs_search.web.gate import Gate

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

__all__ = ["DashboardGate"]

EDITS = re.compile(
    r"/api/studies/\d+/(\d+/)?note"
    r"|/api/trials/\d+/user-attrs"
    r"|/api/artifacts/\d+(/\d+)?(/[0-9a-fA-F-]+)?"
)
"""What may be written where editing is allowed: what people say of a study, not the study itself."""

POLICY = "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
"""Besides the dashboard's own policy, which lets its page load and ask nothing but this server."""

SANDBOX = "sandbox; default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'"
"""For what people upload: a page among it must not run scripts as if it were the dashboard."""


class DashboardGate(Gate):
    """Lets reads pass, and, where editing is allowed, notes, uploads and attributes from the dashboard's own pages."""

    def __init__(
        self,
        app: WSGIApplication,
        *,
        port: int,
        token: str | None = None,
        allowed: Iterable[str] = (),
        allow_edit: bool = False,
    ) -> None:
        super().__init__(app, port=port, verb="dashboard", token=token, allowed=allowed)
        self._allow_edit = allow_edit

    def against_writing(self, environ: WSGIEnvironment) -> str | None:
        """Why a request that is no read may not pass, in one line; None where it may."""
        if not self._allow_edit:
            return "this dashboard is read-only; start it with --allow-edit to write notes"
        if not _from_here(environ):
            return "writing is for the dashboard's own pages, not for others"
        if not EDITS.fullmatch(environ.get("PATH_INFO", "").rstrip("/")):
            return "--allow-edit is for notes, attributes and artifacts; trials and studies belong to the search"
        return None

    def headers(self, path: str) -> list[tuple[str, str]]:
        """A policy of content, and none of it kept where it may change."""
        added = [("Content-Security-Policy", SANDBOX if path.startswith("/artifacts/") else POLICY)]
        if path.startswith(("/api/", "/csv/", "/dashboard")):
            added.append(("Cache-Control", "no-store"))
        return added


def _from_here(environ: WSGIEnvironment) -> bool:
    """Whether a request that writes comes from a page of this server, or from no page at all."""
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:  # from browsers, over https and on loopback; a page cannot change it
        return site in ("same-origin", "none")
    origin = environ.get("HTTP_ORIGIN")
    # A proxy may ask under another name, and say under which one it was asked. A page of another origin cannot send
    # that header before OPTIONS has allowed it, which is refused.
    names = (environ.get("HTTP_HOST", ""), environ.get("HTTP_X_FORWARDED_HOST", "").partition(",")[0].strip())
    return origin is None or urlsplit(origin).netloc.lower() in {name.lower() for name in names if name}
