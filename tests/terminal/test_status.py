"""What a terminal shows of a study, and watching one."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "driving"))

from engine_studies import record_of, write_study  # noqa: E402
from stand_ins import REFERENCE

from gs_search.errors import BadInput  # noqa: E402
from gs_search.monitor.status import StatusReader, study_status  # noqa: E402
from gs_search.results.run_folder import RunFolder  # noqa: E402
from gs_search.search.study_database import StudyDatabase, open_database  # noqa: E402
from gs_search.study.config import load_study  # noqa: E402
from gs_search.system.files import write_json
from gs_search.system.lock import hold  # noqa: E402
from gs_search.terminal.status import render_status, watch  # noqa: E402
from tests.engine.conftest import empty_database, quick_disk  # noqa: E402, F401

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], RunFolder]:
    """Maker of a run folder in which nothing has run, at ``run``."""

    def make() -> RunFolder:
        folder = RunFolder(tmp_path / "run")
        folder.create(load_study(write_study(tmp_path / "study")))
        return folder

    return make


def end(database: StudyDatabase, **changes: Any) -> None:
    """Have one trial end."""
    record = record_of(database, database.ask(), **changes)
    database.write_result(record)
    database.tell(record)


class Script:
    """Stands in for the waiting between two looks: does one thing each time, and then interrupts."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        self.acts = list(acts)

    def __call__(self, seconds: float) -> None:
        if not self.acts:
            raise KeyboardInterrupt
        self.acts.pop(0)()


def nothing() -> None:
    """Nothing happens."""


def text_of(document: dict[str, Any], *, width: int = 100, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=width).print(render_status(document))
    stream.flush()
    raw: bytes = stream.buffer.getvalue()  # type: ignore[attr-defined]
    return raw.decode(encoding)


def history_of(*steps: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"trial": n, "seconds": s, "hypervolume": v} for n, (s, v) in enumerate(steps)]


def test_the_curve_is_a_step_for_each_gain(make: Callable[[], RunFolder]) -> None:
    history = history_of((10, 0.25), (15, 0.25), (20, 0.5), (40, 1.0))
    document = {**study_status(make()), "hypervolume": 1.0, "history": history}
    (line,) = (line for line in text_of(document, width=84).splitlines() if "against cost" in line)
    # Twenty columns of two seconds each; nothing before ten seconds, a quarter, a half, and all of it at the end.
    curve = "▁" * 4 + "▃" * 5 + "▅" * 10 + "█"
    assert line == f"hypervolume against cost: 0.0000 {curve} 1.0000 after 40 s of work"
    (line,) = (line for line in text_of(document, width=84, encoding="ascii").splitlines() if "against cost" in line)
    assert line.split()[4] == "_" * 4 + ":" * 5 + "=" * 10 + "#"
    assert "against cost" not in text_of(document, width=60), "no room for it"
    gains = "last gains: trial 3 +0.5 after 40 s, trial 2 +0.25 after 20 s, trial 0 +0.25 after 10 s"
    assert gains in text_of(document)


def test_trials_that_cost_nothing_have_no_curve(make: Callable[[], RunFolder]) -> None:
    document = {**study_status(make()), "hypervolume": 0.5, "history": history_of((0, 0.5))}
    assert "against cost" not in text_of(document)


def test_what_workers_do(make: Callable[[], RunFolder]) -> None:
    live = [
        {"number": 3, "running_for": 4.0},
        {"number": 4, "running_for": 100.0, "step": 40, "steps": 100},
        {"number": 5, "step": 100, "steps": 100},
    ]
    document = {**study_status(make()), "running": True, "workers": 4, "live": live}
    text = text_of(document)
    assert "3 of 4 workers busy\n  trial 3: starting, for 4 s\n  trial 4: step 40 of 100, for 2 min\n" in text
    assert "trial 5: measuring" in text


def test_a_long_message_and_many_failures_are_cut(make: Callable[[], RunFolder]) -> None:
    failures = [
        {"number": n, "cause": "exception", "message": "x" * 999, "ended": None, "seconds_ago": None} for n in range(5)
    ]
    text = text_of({**study_status(make()), "causes": {"exception": 5}, "failures": failures}, width=300)
    assert text.count("  trial ") == 3 and max(map(len, text.splitlines())) < 200


def test_watching_waits_for_a_run_follows_it_and_ends_with_it(
    make: Callable[[], RunFolder], tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "run"
    lock = hold(path / "lock")
    made: list[RunFolder] = []

    def prepare() -> None:
        write_json(made[0].baselines, REFERENCE)

    def begin() -> None:
        open_database(made[0], made[0].config()).study.set_user_attr("run", {"total": 6, "workers": 2})

    def work() -> None:
        end(open_database(made[0], made[0].config()))

    script = Script(
        nothing,
        lambda: path.mkdir(),
        lambda: lock.__enter__(),  # as a run does first
        lambda: made.append(make()),
        prepare,
        begin,
        nothing,
        work,
        nothing,
        lambda: lock.__exit__(None, None, None),
    )
    watch(path, sleep=script)
    assert script.acts == []
    output = capsys.readouterr().out
    assert output.count("waiting for a run to begin") == 1
    blocks = output.split("\n\n")
    assert [block.count("engine: ") for block in blocks] == [1] * 4, "a block for each change, none for the others"
    states = [next(line for line in block.splitlines() if line.startswith("engine: ")) for block in blocks]
    assert states[0] == f"engine: preparing (process {os.getpid()} on {os.uname().nodename})"
    assert states[1:3] == [states[0].replace("preparing", "running")] * 2 and states[3] == "engine: not running"
    assert "1 of 6 trials finished (1 COMPLETE)" in blocks[2]


def test_watching_as_json_prints_a_line_at_each_look(make: Callable[[], RunFolder], capsys: Capture) -> None:
    folder = make()
    end(open_database(folder, folder.config()))
    with folder.lock():
        watch(folder.path, as_json=True, sleep=Script(nothing, nothing))
    captured = capsys.readouterr()
    documents = [json.loads(line) for line in captured.out.splitlines()]
    assert [document["finished"] for document in documents] == [1, 1, 1] and captured.err == ""


def test_a_study_at_which_nobody_works_is_shown_once(make: Callable[[], RunFolder], capsys: Capture) -> None:
    folder = make()
    end(open_database(folder, folder.config()))
    watch(folder.path, sleep=Script(nothing))
    assert capsys.readouterr().out.count("engine: not running") == 1


def test_what_can_be_no_run_folder_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    for path in (tmp_path / "thesis", tmp_path / "thesis" / "chapter.tex"):
        with pytest.raises(BadInput, match="not a run folder"):
            watch(path, sleep=Script())
    beginning = tmp_path / "beginning"
    beginning.mkdir()
    for name in ("lock", "study.yaml", ".study.yaml.12-34"):
        (beginning / name).touch()
        watch(beginning, sleep=Script())


def test_a_study_that_stays_unreadable_ends_the_watching_and_a_hiccup_does_not(
    make: Callable[[], RunFolder], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    folder = make()
    document = {**study_status(folder), "running": True, "phase": "running"}
    looks: list[Any] = []

    def read(self: StatusReader) -> dict[str, Any]:
        look = looks.pop(0)
        if isinstance(look, Exception):
            raise look
        return dict(document, finished=look)

    monkeypatch.setattr(StatusReader, "read", read)
    torn = BadInput("study.db: damaged")
    looks[:] = [1, *[torn] * 4, 2, *[torn] * 4, 3]
    watch(folder.path, sleep=Script(*[nothing] * 10))
    assert looks == [] and capsys.readouterr().out.count("engine: ") == 3
    looks[:] = [1, *[torn] * 5, 2]
    with pytest.raises(BadInput, match=r"study\.db: damaged"):
        watch(folder.path, sleep=Script(*[nothing] * 10))


def output_of(terminal: int) -> Iterator[bytes]:
    """What appears on a terminal, until whoever writes to it has gone."""
    while select.select([terminal], [], [], 60)[0]:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # as Linux says it
            return
        if not part:
            return
        yield part


def test_a_terminal_is_refreshed_and_left_as_it_was(make: Callable[[], RunFolder], repository: Path) -> None:
    folder = make()
    terminal, inner = pty.openpty()
    command = [sys.executable, "-m", "gs_search", "status", str(folder.path), "--watch", "--every", "0.1"]
    environment = {**os.environ, "PYTHONPATH": str(repository), "TERM": "xterm"}
    with folder.lock():
        process = subprocess.Popen(
            command, stdin=inner, stdout=inner, stderr=inner, env=environment, start_new_session=True
        )
        os.close(inner)
        output, interrupted = b"", False
        for part in output_of(terminal):
            output += part
            if output.count(b"engine") >= 3 and not interrupted:  # drawn over and over again
                process.send_signal(2)
                interrupted = True
        assert process.wait() == 0
    os.close(terminal)
    hide, show = b"\x1b[?25l", b"\x1b[?25h"
    assert output.count(hide) == output.count(show) == 1 and output.rfind(show) > output.rfind(b"engine")
    assert b"Traceback" not in output


def test_an_interrupt_that_nobody_passed_on_is_raised_again(make: Callable[[], RunFolder]) -> None:
    folder, slept = make(), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert len(slept) == 1
        with suppress(BaseException):  # as an object's end, or a callback of a library, would
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with folder.lock():
        watch(folder.path, sleep=sleep)
    assert slept and signal.getsignal(signal.SIGINT) is before
