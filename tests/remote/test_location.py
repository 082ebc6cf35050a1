"""Which URIs are taken, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from gs_search.errors import BadInput
from gs_search.remote.location import checked, copy_of, is_remote


@pytest.mark.parametrize(
    ("uri", "written"),
    [
        ("s3://b/runs/x", "s3://b/runs/x"),
        ("s3://b/runs//x/", "s3://b/runs/x"),
        ("S3://b/x?region=eu-west-1", "s3://b/x?region=eu-west-1"),
        ("gs://b/x", "gs://b/x"),
        ("abfss://container@account.dfs.core.windows.net/x", "abfss://container@account.dfs.core.windows.net/x"),
    ],
)
def test_what_is_taken(uri: str, written: str) -> None:
    assert is_remote(uri) and checked(uri) == written


@pytest.mark.parametrize("place", ["runs/x", "/a/b", Path("s3://b/x"), None])
def test_what_is_a_path(place: object) -> None:
    assert not is_remote(place)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://host/x", "no object store"),
        ("file:///tmp/x", "a path needs no file://"),
        ("s3://bucket", "names no folder"),
        ("s3:///x", "names no folder"),
        ("s3://b/../x", "no plain name"),
        ("s3://b/x#y", "no plain name"),
    ],
)
def test_what_is_refused(uri: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        checked(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:sEcReT@b/x",
        "s3://sEcReT@b/x",
        "gs://sEcReT@b/x",
        "s3://b/x?secret_key=sEcReT",
        "s3://b/x?endpoint_override=http://me:sEcReT@host",
        "abfss://c:sEcReT@account.dfs.core.windows.net/x",
        "abfs://c@account/x?account_key=sEcReT",
    ],
)
def test_keys_stay_out_of_it_and_of_the_message(uri: str) -> None:
    with pytest.raises(BadInput, match="holds a key") as caught:
        checked(uri)
    assert "sEcReT" not in str(caught.value) and "AKIA" not in str(caught.value)


def test_each_has_a_copy_of_its_own_for_work_and_for_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GS_SEARCH_CACHE", str(tmp_path))
    places = {copy_of(uri, at_work=work) for uri in ("s3://b/x", "s3://c/x", "s3://b/y x") for work in (True, False)}
    assert len(places) == 6 and all(tmp_path in place.parents for place in places)
