"""URLs of databases: which one counts, what may not be written down, who speaks to it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy.engine import make_url

from gs_search.errors import BadInput, ConfigError
from gs_search.study import database_url as module
from gs_search.study.config import load_study
from gs_search.study.database_url import VARIABLE, database_url, url_problem, with_driver
from tests.conftest import STUDY

Write = Callable[..., Path]


def installed(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    find = importlib.util.find_spec

    def found(name: str) -> object:
        return SimpleNamespace() if name in packages else None if name in all_drivers else find(name)

    all_drivers = {package for names in module.DRIVERS.values() for package in names}
    monkeypatch.setattr(importlib.util, "find_spec", found)


@pytest.mark.parametrize(
    ("url", "packages", "expected"),
    [
        ("postgresql://me@h/db", ("psycopg",), "postgresql+psycopg://me@h/db"),
        ("postgres://me@h/db", ("psycopg", "psycopg2"), "postgresql+psycopg://me@h/db"),
        ("postgresql://me@h/db", ("psycopg2",), "postgresql+psycopg2://me@h/db"),
        ("postgresql+asyncpg://me@h/db", (), "postgresql+asyncpg://me@h/db"),
        ("mysql://me:s3@h/db", ("pymysql",), "mysql+pymysql://me:s3@h/db"),
        ("mysql://me@h/db", ("MySQLdb",), "mysql+mysqldb://me@h/db"),
        ("sqlite:////tmp/x.db", (), "sqlite:////tmp/x.db"),
    ],
)
def test_a_driver_that_is_installed(
    url: str, packages: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, *packages)
    assert with_driver(url) == expected
    make_url(expected)


def test_a_driver_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch)
    with pytest.raises(BadInput, match=r"pip install 'gs-search\[postgres\]'") as raised:
        with_driver("postgresql://me:sEcReT@h/db")
    assert "sEcReT" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["postgresql://me@h/db", "postgresql+psycopg://h:5433/db", "mysql://me:${PW}@h/db", "sqlite:///x.db"]
)
def test_what_a_study_may_say(url: str) -> None:
    assert url_problem(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@h/db",
        "postgresql://me:se#c/r?t@h/db",
        "postgresql://:x@h/db",
        "postgresql://h/db?user=me&password=secret",
        "mysql://h/db?passwd=secret",
    ],
)
def test_a_password_is_refused(url: str) -> None:
    found = url_problem(url)
    assert found is not None and "holds a password" in found[0] and "secret" not in " ".join(found)


@pytest.mark.parametrize("url", ["studies.db", "mongodb://h/db", "", "/tmp/x"])
def test_what_is_no_database(url: str) -> None:
    found = url_problem(url)
    assert found is not None and "must be the URL" in found[0]


def test_the_environment_has_precedence_and_variables_are_filled_in(
    write_study: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "psycopg")
    assert database_url(load_study(write_study()).storage) is None
    config = load_study(write_study(f"{STUDY}storage: postgresql://me:${{PW}}@h/db\n"))
    assert config.to_resolved()["storage"] == "postgresql://me:${PW}@h/db", "as it was written"
    with pytest.raises(BadInput, match="PW is not set"):
        database_url(config.storage)
    monkeypatch.setenv("PW", "sEcReT")
    assert database_url(config.storage) == "postgresql+psycopg://me:sEcReT@h/db"
    monkeypatch.setenv(VARIABLE, "sqlite:///other.db")
    assert database_url(config.storage) == "sqlite:///other.db"


def test_a_study_file_with_a_password_is_refused(write_study: Write) -> None:
    with pytest.raises(ConfigError, match=r"storage: holds a password.*PGPASSWORD") as raised:
        load_study(write_study(f"{STUDY}storage: postgresql://me:sEcReT@h/db\n"))
    assert "sEcReT" not in str(raised.value)
