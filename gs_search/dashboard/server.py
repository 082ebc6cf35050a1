"""Serving the dashboard: whether there is something to serve, and what is printed about where."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gs_search.dashboard.app import DashboardApp
from gs_search.dashboard.gate import DashboardGate
from gs_search.errors import BadInput
from gs_search.results.run_folder import RunFolder
from gs_search.search.storage import NoStudyYet
from gs_search.study.database_url import database_url
from gs_search.web.gate import is_loopback
from gs_search.web.listening import Address, address_of, listening, serve_until_stopped

__all__ = ["DEFAULT_PORT", "DashboardAddress", "serve"]

DEFAULT_PORT = 8080


@dataclass(frozen=True, kw_only=True)
class DashboardAddress(Address):
    """Where a dashboard is to be had, and whether notes can be written there."""

    allow_edit: bool


def serve(
    folder: RunFolder,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    allow_hosts: Sequence[str] = (),
    allow_edit: bool = False,
    open_browser: bool = False,
    announce: Callable[[DashboardAddress], None] = lambda address: None,
) -> None:
    """Serve the dashboard of a run folder until SIGINT or SIGTERM; the study may not be there yet.

    Args:
        host: what to listen on. Anything but this machine itself needs a token, which is part of the address.
        port: None takes the first free one from 8080 on; 0 any.
        allow_hosts: names under which it is asked too; without a token only those of loopback are answered.
        announce: called once, when the server listens.

    Raises:
        BadInput: the port is taken, the host is none of this machine, a name is none, or the database is damaged.
    """
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    app = DashboardApp(folder, url=database_url(folder.config().storage), writable=allow_edit)
    try:
        _look(app, folder)
        with listening(host, port, first=DEFAULT_PORT) as server:
            found = server.server_port
            gate = DashboardGate(app, port=found, token=token, allowed=allow_hosts, allow_edit=allow_edit)
            server.set_app(gate)
            url = address_of(host, found, token)
            address = DashboardAddress(url=url, host=host, port=found, token=token, allow_edit=allow_edit)
            serve_until_stopped(server, url=url, announce=lambda: announce(address), open_browser=open_browser)
    finally:
        app.close()


def _look(app: DashboardApp, folder: RunFolder) -> None:
    """Say before anything is served what no waiting will mend."""
    try:
        app.source.study()
    except NoStudyYet:
        return
    except BadInput:
        if folder.holder() is None:
            raise  # else a run may be making the database just now
