"""What nodes show before they may run trials of a study in an object store."""

from __future__ import annotations

import pytest

from gs_search.engine.ray.nodes import PROBE, marked, unfit
from gs_search.remote.joining import guest_problem, probed
from gs_search.remote.store import Store, StoreLost
from tests.remote.s3 import BUCKET, S3Server

URI = f"s3://{BUCKET}/guests"


def test_a_node_that_reads_and_writes_there_will_do(s3: S3Server) -> None:
    with marked(URI) as told:
        assert told["folder"] == URI and s3.names("guests") == [told["probe"]]
        assert unfit(told) is None and unfit(told, "0123abcd") is None
        assert s3.names("guests") == [told["probe"]]
        assert "sees other objects" in str(unfit({**told, "word": "another"}))
        assert "torch" in str(unfit({**told, "versions": {"torch": "0.1"}}))
    assert s3.names("guests") == []


def test_why_a_node_will_not_do(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with probed(URI, PROBE) as (name, word):
        assert guest_problem(URI, name, word, "") is None
        said = guest_problem("s3://nobodys/guests", name, word, "0123abcd")
        assert said is not None and "sees other objects" in said

        def read(store: Store, name: str) -> bytes:
            raise StoreLost(f"{store.uri}: cannot be reached")

        monkeypatch.setattr(Store, "read", read)
        said = guest_problem(URI, name, word, "")
        assert said is not None and "cannot use the run folder" in said and "credentials of its own" in said
