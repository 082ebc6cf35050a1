"""What a trial sends while it runs and when it ends, to a real S3 server."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from gs_search.engine import store_sync as module
from gs_search.engine.store_sync import StoreSync, TrialSync
from gs_search.errors import StudyBusy
from gs_search.remote.lease import Lease
from gs_search.results.run_folder import RunFolder
from gs_search.search.backup import RollingCopy
from gs_search.search.outcomes import Asked
from gs_search.search.study_database import open_database
from gs_search.system.files import write_json, write_text
from tests.remote.s3 import BUCKET, S3Server
from tests.remote.test_mirror import begun

ASKED = Asked(3, {"distill_weight": 1.0}, "key", 5)


def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("did not come about")


def test_a_trial_goes_on_elsewhere_from_what_was_sent(
    s3: S3Server,
    elsewhere: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.02)
    s3.put("c1/teacher/lessons/taps.json", b"{}")
    begun(s3, "c2")
    for name in s3.names("c2"):
        s3.put(f"c1/{name}", s3.get(f"c2/{name}"))
    uri = f"s3://{BUCKET}/c1"
    elsewhere("node-1")
    folder = RunFolder(uri, at_work=True)
    courier = TrialSync(folder)
    assert (folder.teacher / "lessons" / "taps.json").is_file() and folder.resolved_yaml.is_file()
    courier.begin(ASKED)
    place, checkpoint = folder.trial(3), folder.checkpoint(ASKED.key, ASKED.seed)
    write_text(checkpoint, "state at step 50")
    write_json(place / "progress.json", {"step": 50})
    name = f"checkpoints/{checkpoint.name}"
    until(lambda: {name, "trials/3/progress.json"} <= set(s3.names("c1")))
    courier._stop()  # its node is dead

    elsewhere("node-2")
    folder = RunFolder(uri, at_work=True)
    courier = TrialSync(folder)
    courier.begin(ASKED)
    checkpoint = folder.checkpoint(ASKED.key, ASKED.seed)
    assert checkpoint.read_text() == "state at step 50"
    checkpoint.unlink()
    write_text(folder.trial(3) / "curve.csv", "step\n")
    write_json(folder.trial(3) / "result.json", {"number": 3})
    courier.end(result=True)
    assert [n for n in s3.names("c1") if n.startswith(("trials", "check"))] == [
        "trials/3/curve.csv", "trials/3/result.json",
    ]  # fmt: skip


def test_a_trial_that_is_left_leaves_no_result_and_no_checkpoint(s3: S3Server) -> None:
    folder = begun(s3, "c3")
    courier = TrialSync(folder)
    courier.begin(ASKED)
    write_text(folder.trial(3) / "log.txt", "left\n")
    write_text(folder.trial(3) / "result.json", "of an earlier attempt")
    s3.put(f"c3/checkpoints/{folder.checkpoint(ASKED.key, ASKED.seed).name}", b"old")
    courier.end(result=False)
    assert [n for n in s3.names("c3") if n.startswith(("trials", "check"))] == ["trials/3/log.txt"]


def test_a_trial_begins_once_the_store_knows_of_it(
    s3: S3Server,
    elsewhere: Callable[[str], None],
) -> None:
    folder = begun(s3, "c4")
    config = folder.config()
    database = open_database(folder, config)
    keeper = StoreSync(folder, RollingCopy(folder, pytest.fail))
    database.on_ask = keeper.asked
    database.enqueue_start_points()
    asked = database.ask()
    record = database.fail(asked, "killed", "its machine died")

    elsewhere("other")
    other = begun(s3, "c4")
    again = open_database(other, config)
    assert [t.number for t in again.running()] == [asked.number], "its end was not sent, but is in a file"
    assert other.results() == [record] or other.results()[0]["cause"] == "killed"
    assert again.settle("killed", "the run died") == [] and not again.running()
    assert again.trials()[asked.number].user_attrs["cause"] == "killed"
    assert again.ask().point != asked.point or len(again.trials()) > 1


def test_a_run_that_was_cut_off_and_succeeded_begins_no_trial(s3: S3Server) -> None:
    folder = begun(s3, "c5")
    database = open_database(folder, folder.config())
    database.on_ask = StoreSync(folder, RollingCopy(folder, pytest.fail)).asked
    assert folder.mirror is not None
    folder._lease = Lease(folder.mirror.store)
    folder._lease._taken_by = {"pid": 1, "host": "elsewhere", "since": "now"}
    with pytest.raises(StudyBusy, match="process 1 on elsewhere runs this study"):
        database.ask()
