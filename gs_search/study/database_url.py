"""Which database holds a study: ``GS_SEARCH_STORAGE``, else ``storage`` of the study file, else its ``study.db``.

A URL with a password stays in the environment, or in what the database's own client reads (``PGPASSWORD``,
``~/.pgpass``): a study file is copied into every run folder. Nothing is opened here.
"""

from __future__ import annotations

import importlib.util
import os
import re

from gs_search.errors import BadInput

__all__ = ["SECRETS", "VARIABLE", "database_url", "url_problem", "with_driver"]

VARIABLE = "GS_SEARCH_STORAGE"

SECRETS = (VARIABLE, "PGPASSWORD", "MYSQL_PWD")
"""Environment variables that no process but the one that runs the study may know."""

SCHEMES = ("postgresql", "postgres", "mysql", "mariadb", "sqlite")

DRIVERS = {"postgresql": ("psycopg", "psycopg2"), "mysql": ("pymysql", "MySQLdb"), "mariadb": ("pymysql", "MySQLdb")}
"""Packages that speak to a server, in the order in which they are taken; SQLAlchemy's own choice may be missing."""

_NAMED = re.compile(r"\$\{(\w+)\}")


def database_url(storage: str | None) -> str | None:
    """The URL of the study's database, for SQLAlchemy; None where it is ``study.db`` of the run folder.

    It may hold a password, and must not be printed or written.

    Args:
        storage: ``storage`` of the study file.

    Raises:
        BadInput: a variable in it is not set, or no installed package speaks to such a server.
    """
    text = os.environ.get(VARIABLE) or storage
    if not text:
        return None
    for name in _NAMED.findall(text):
        if name not in os.environ:
            raise BadInput(f"storage: environment variable {name} is not set")
    return with_driver(_NAMED.sub(lambda match: os.environ[match[1]], text))


def with_driver(url: str) -> str:
    """Name the driver in a URL that names none: one that is installed."""
    scheme, separator, rest = url.partition("://")
    scheme = {"postgres": "postgresql"}.get(scheme, scheme)
    if not separator or scheme not in DRIVERS:
        return url
    for package in DRIVERS[scheme]:
        if importlib.util.find_spec(package) is not None:
            return f"{scheme}+{package.lower()}://{rest}"
    extra = "'gs-search[postgres]'" if scheme == "postgresql" else DRIVERS[scheme][0]
    raise BadInput(f"storage: {scheme} needs a package that speaks to it: pip install {extra}")


def url_problem(text: str) -> tuple[str, str] | None:
    """What is wrong with ``storage`` of a study file, and what to do; None if nothing is."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.partition("+")[0] not in SCHEMES:
        return "must be the URL of a PostgreSQL or MySQL database", "as in postgresql://me@server/studies"
    literal = _NAMED.sub("", rest)
    user, at, _ = literal.rpartition("@")
    inside = bool(at) and bool(user.partition(":")[2])
    if inside or re.search(r"[?&]\w*passw\w*=[^&]", literal, re.IGNORECASE):
        advice = f"leave it out and set PGPASSWORD or ~/.pgpass, write ${{NAME}} for it, or set {VARIABLE} instead"
        return "holds a password, which would be copied into the run folder", advice
    return None
