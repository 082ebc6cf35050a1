"""Serving the page: on this machine, or to the phones of its network."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gs_search.errors import BadInput
from gs_search.phone.app import PhoneApp
from gs_search.phone.models import Model, find_student_file, find_teacher_file
from gs_search.phone.runtime import find_runtime
from gs_search.results.run_folder import RunFolder
from gs_search.web.gate import Gate, is_loopback
from gs_search.web.listening import Address, address_of, listening, serve_until_stopped

__all__ = ["DEFAULT_PORT", "PhoneAddress", "lan_address", "serve"]

DEFAULT_PORT = 8090

ELSEWHERE = ("192.0.2.1", 9)
"""An address that nobody has (RFC 5737): the way to it tells which of this machine's addresses faces the network."""


@dataclass(frozen=True, kw_only=True)
class PhoneAddress(Address):
    """Where the page is to be had, and what it runs."""

    student: Model
    teacher: Model | None


def serve(
    folder: RunFolder,
    *,
    trial: int | None = None,
    file: Path | None = None,
    floats: bool = False,
    teacher: bool = False,
    lan: bool = False,
    host: str | None = None,
    port: int | None = None,
    allow_hosts: Sequence[str] = (),
    open_browser: bool = False,
    announce: Callable[[PhoneAddress], None] = lambda address: None,
    log: Callable[[str], None] = lambda line: None,
) -> None:
    """Serve the page for an exported student until SIGINT or SIGTERM.

    Args:
        trial, file, floats: which file; as in ``find_student_file``.
        teacher: run the teacher beside it.
        lan: listen on this machine's address in its network, where a token is needed.
        host: listen on this address instead.
        port: None takes the first free one from 8090 on; 0 any.
        allow_hosts: names under which it is asked too; without a token only those of loopback are answered.
        announce: called once, when the server listens.
        log: gets a line where something takes time before.

    Raises:
        BadInput: no such file, the runtime is not in the cache, or the port or the address cannot be had.
    """
    student = find_student_file(folder, trial=trial, file=file, floats=floats)
    runtime = find_runtime()
    other = find_teacher_file(folder, student, log) if teacher else None
    config = folder.config()
    app = PhoneApp(student, runtime, study=config.study, image_px=config.image_px, teacher=other)
    place = host or (lan_address() if lan else "127.0.0.1")
    token = None if is_loopback(place) else secrets.token_urlsafe(24)
    with listening(place, port, first=DEFAULT_PORT) as server:
        found = server.server_port
        server.set_app(Gate(app, port=found, verb="phone", token=token, allowed=allow_hosts))
        url = address_of(place, found, token)
        address = PhoneAddress(url=url, host=place, port=found, token=token, student=student, teacher=other)
        serve_until_stopped(server, url=url, announce=lambda: announce(address), open_browser=open_browser)


def lan_address() -> str:
    """This machine's address in its network. Nothing is sent.

    Raises:
        BadInput: it is in none.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(ELSEWHERE)  # of a datagram socket: only the route is looked up
            found = str(probe.getsockname()[0])
    except OSError:
        found = "0.0.0.0"
    if ipaddress.ip_address(found).is_loopback or found == "0.0.0.0":
        raise BadInput("--lan: this machine is in no network; --host names an address to listen on")
    return found
