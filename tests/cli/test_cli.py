"""The command line: exit codes, what goes to which stream, and how soon it answers."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from gs_search import __version__, cli
from gs_search.engine.runner import StudySummary
from gs_search.errors import GsSearchError, NothingFeasible
from gs_search.trial.teacher import SHIPPED_TEACHER
from tests.conftest import STUDY
from tests.synthetic_run import write_run

Write = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def run(capsys: Capture, *arguments: object) -> tuple[int, str, str]:
    """Run the command line; return its exit code, standard output and standard error."""
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_and_version(capsys: Capture) -> None:
    code, output, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"\n  {verb} " in output for verb in ("check", "run", "status", "front", "report", "rebuild"))
    assert run(capsys, "--version") == (0, f"gs-search, version {__version__}\n", "")
    for verb in ("check", "run", "status", "front", "report", "rebuild"):
        code, output, _ = run(capsys, verb, "-h")
        assert code == 0 and "--json" in output and "--debug" in output


@pytest.mark.parametrize("arguments", [["frnt"], ["check"], ["run", "x.yaml", "--trials", "0"], ["run", "--nope"]])
def test_usage_errors(capsys: Capture, arguments: list[str]) -> None:
    code, output, error = run(capsys, *arguments)
    assert (code, output) == (2, "") and "gs-search" in error


def test_check(capsys: Capture, write_study: Write) -> None:
    path = write_study()
    code, output, error = run(capsys, "check", path)
    assert (code, error) == (0, "") and output.startswith(f"{path}: fine\n")
    assert "  trials: 16 views, 1 of each of 16 pictures; 4 pictures are seen; 0 MB" in output
    assert "  full training: 16 views, 1 of each of 16 pictures; 64 pictures are seen (each view about" in output
    code, output, error = run(capsys, "check", path, "--json")
    document = json.loads(output)
    assert (code, error, document["ok"], document["problems"]) == (0, "", True, [])
    assert document["resolved"]["settings"]["learning_rate"] == 1e-4
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["small.yaml", "small_space.yaml"]


def test_check_says_what_became_of_the_pictures(capsys: Capture, write_study: Write, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(40):
        Image.effect_noise((48, 40), 60).save(photos / f"{number}.png")
    (photos / "broken.png").write_bytes(b"<html>404</html>")
    (photos / "notes.txt").touch()
    study = STUDY.replace("kind: drawn", "kind: photos, reference: 8, path: photos").replace(
        "shipped", "checkpoint, path: T"
    )
    path = write_study(study.replace("path: T", f"path: {SHIPPED_TEACHER}"))
    code, output, error = run(capsys, "check", path)
    left = "left out: 1 damaged, 1 .txt, no images"
    assert code == 0 and output.splitlines()[3].startswith(f"  {photos}: ") and output.splitlines()[3].endswith(left)
    assert error.startswith(f"note: {photos}/broken.png: not a readable image") and "passed over" in error
    pictures = json.loads(run(capsys, "check", path, "--json")[1])["pictures"]
    assert pictures[0]["left_out"] == {"damaged": 1, ".txt, no images": 1}
    assert sum(pictures[0]["taken"].values()) + pictures[0]["spare"] == 40
    assert f"of {pictures[0]['taken']['train']} pictures" in output


def test_check_has_a_network_of_ones_own_paint(
    capsys: Capture, write_study: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    layers = "nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 3, 1)"
    text = (
        f"import torch\nfrom torch import nn\ndef build():\n    torch.manual_seed(0); return nn.Sequential({layers})\n"
    )
    (tmp_path / "net.py").write_text(text)
    path = write_study(STUDY.replace("kind: shipped", "kind: module, factory: 'net.py:build', output_range: [0, 9000]"))
    code, output, error = run(capsys, "check", path, "--samples")
    assert code == 2 and error.startswith(
        "error: the painted pictures hardly vary within teacher.output_range, [0, 9000]"
    )
    path = write_study(STUDY.replace("kind: shipped", "kind: module, factory: 'net.py:build', output_range: [-10, 10]"))
    code, output, _ = run(capsys, "check", path, "--samples", "--json")
    document = json.loads(output)
    assert code == 0 and document["frozen"] == {"share": 0, "parts": [], "notes": []}
    assert any(note.startswith("teacher: small_teacher.png has photos, and what the") for note in document["notes"])
    assert any(note.startswith("warning, teacher: ") for note in document["notes"])
    assert (tmp_path / "small_teacher.png").read_bytes().startswith(b"\x89PNG")


def test_check_reports_all_at_once(capsys: Capture, write_study: Write) -> None:
    path = write_study(STUDY.replace("trials", "trails").replace("seed: 7", "seed: x"))
    code, output, error = run(capsys, "check", path)
    assert (code, output) == (2, "")
    assert error.splitlines() == [
        f"{path}:3: seed: must be a whole number, not 'x'",
        f"{path}:4: trails: unknown key; did you mean trials?",
    ]
    code, output, again = run(capsys, "check", path, "--json")
    document = json.loads(output)
    assert (code, again) == (2, error)
    assert (document["ok"], document["exit_code"], document["problems"]) == (False, 2, error.splitlines())
    assert document["details"][1] == {
        "file": str(path),
        "line": 4,
        "key": "trails",
        "message": "unknown key",
        "hint": "did you mean trials?",
    }


def test_bad_input_is_one_line(capsys: Capture, tmp_path: Path) -> None:
    for verb in ("status", "front", "report", "rebuild"):
        code, output, error = run(capsys, verb, tmp_path / "gone")
        assert (code, output) == (2, "")
        assert error == f"error: {tmp_path}/gone: no such folder; `gs-search run STUDY.yaml` makes run folders\n"
    code, output, error = run(capsys, "front", tmp_path, "--json")
    assert code == 2 and json.loads(output)["kind"] == "BadInput" and error.count("\n") == 1


class Runner:
    """Stands in for ``run_study``: the engine has tests of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        ending: dict[str, Any] = {
            "study": "small", "total": 3, "finished": 3, "states": {"COMPLETE": 2, "FAIL": 1},
            "front": (0, 1), "hypervolume": 0.5, "seconds": 1.0, "new": 3, "ending": "finished",
        }  # fmt: skip
        self.summary = StudySummary(**{**ending, **changes})
        self.calls: list[SimpleNamespace] = []
        monkeypatch.setattr("gs_search.engine.runner.run_study", self)

    def __call__(self, config: Any, folder: Any, **options: Any) -> StudySummary:
        self.calls.append(SimpleNamespace(config=config, folder=folder, **options))
        return self.summary


def test_run(capsys: Capture, write_study: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    runner = Runner(monkeypatch)
    path = write_study()
    code, output, _ = run(capsys, "run", path)
    assert code == 0 and output == (
        "runs/small: 3 trials, 1 failed; 2 on the front\n"
        "next: gs-search front runs/small; gs-search report runs/small\n"
    )
    code, output, _ = run(
        capsys, "run", path, "--out", tmp_path / "R", "--trials", 9, "--workers", 2, "--hours", 0.5, "--json",
        "--retrain-teacher",
    )  # fmt: skip
    document = json.loads(output)
    assert code == 0 and document["front"] == [0, 1] and document["folder"] == str(tmp_path / "R")
    first, second = runner.calls
    assert (first.trials, first.workers, first.hours, first.retrain_teacher) == (None, None, None, False)
    assert (second.trials, second.workers, second.hours, second.retrain_teacher) == (9, 2, 0.5, True)
    assert str(first.folder.path) == "runs/small" and first.config.study == "small"


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"ending": "nothing_to_do", "new": 0}, 0, "all 3 trials are there; more with: gs-search run"),
        ({"ending": "out_of_time", "finished": 2}, 0, "time is up, 2 of 3 trials; go on with: gs-search run"),
        (
            {"ending": "interrupted", "finished": 2},
            130,
            "stopped with 2 of 3 trials; go on with: gs-search run",
        ),
        ({"front": (), "states": {"FAIL": 3}}, 3, "all trials ended without a result"),
    ],
)
def test_endings_of_a_run(
    capsys: Capture,
    write_study: Write,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    code: int,
    message: str,
) -> None:
    Runner(monkeypatch, **changes)
    found, output, error = run(capsys, "run", write_study(), "--out", "somewhere")
    assert found == code and message in output + error


def test_run_checks_first(capsys: Capture, write_study: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is started, and nothing left behind, where something is wrong."""
    runner = Runner(monkeypatch)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    (tmp_path / "teacher.pth").write_bytes(b"no checkpoint")
    good, out = write_study(), tmp_path / "out"
    assert run(capsys, "run", tmp_path / "gone.yaml")[0] == 2
    assert run(capsys, "run", good, "--out", tmp_path / "thesis")[0] == 2
    assert run(capsys, "run", write_study(STUDY.replace("seed: 7", "seed: -7")), "--out", out)[0] == 2
    checkpoint = write_study(STUDY.replace("shipped", "checkpoint, path: teacher.pth"))
    code, _, error = run(capsys, "run", checkpoint, "--out", out)
    assert code == 2 and error.startswith("error: ") and "teacher.pth" in error and error.count("\n") == 1
    assert run(capsys, "run", checkpoint, "--out", out, "--retrain-teacher")[0] == 2
    assert runner.calls == [] and not out.exists()
    assert [entry.name for entry in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (GsSearchError("the database was lost"), 1, "error: the database was lost"),
        (NothingFeasible("nothing there"), 3, "error: nothing there"),
        (RuntimeError("two\nlines"), 1, "error: unexpected RuntimeError: two lines; --debug shows where"),
        (MemoryError(), 1, "error: unexpected MemoryError: MemoryError; --debug shows where"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exit_codes(
    capsys: Capture,
    write_study: Write,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    code: int,
    line: str,
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise raised

    monkeypatch.setattr("gs_search.engine.runner.run_study", fail)
    path = write_study()
    found, output, error = run(capsys, "run", path, "--out", "x")
    assert (found, output, error.lstrip("\n")) == (code, "", f"{line}\n")
    if not isinstance(raised, KeyboardInterrupt):
        for arguments in (["--debug", "run", path], ["run", path, "--debug"]):
            assert "Traceback" in run(capsys, *arguments)[2]
        document = json.loads(run(capsys, "run", path, "--json")[1])
        assert (document["ok"], document["exit_code"], document["kind"]) == (
            False,
            code,
            type(raised).__name__,
        )


def test_front_status_and_report(capsys: Capture, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    code, output, error = run(capsys, "front", folder.path, "--json")
    assert (code, error) == (0, "")
    front = json.loads(output)
    assert front["study"] == "quickstart" and len(front["front"]) >= 2
    code, output, error = run(capsys, "front", folder.path)
    assert (code, error) == (0, "") and "teacher" in output and "knee" in output
    assert max(map(len, output.splitlines())) <= 120
    code, output, error = run(capsys, "status", folder.path, "--json")
    assert (code, error, json.loads(output)["study"]) == (0, "", "quickstart")
    assert run(capsys, "status", folder.path)[0] == 0
    code, output, error = run(capsys, "report", folder.path, "--json")
    assert code == 0 and json.loads(output)["report"] == str(folder.report_html) and folder.report_html.is_file()


def test_watching_a_study_at_which_nobody_works(capsys: Capture, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=2)
    code, output, error = run(capsys, "status", folder.path, "--json", "--watch", "--every", "0")
    assert (code, output) == (2, "") and "--every" in error
    (tmp_path / "thesis").write_text("x")
    code, output, error = run(capsys, "status", tmp_path / "thesis", "--watch")
    assert (code, output) == (2, "") and "not a run folder" in error


def test_init(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("asked nothing, for it is no terminal"))
    code, output, error = run(capsys, "init", "first", "--trials", 5, "--hours", 2)
    assert (code, error.count("\n")) == (0, 1) and error.startswith("note: no checkpoint and no pictures were given")
    assert output.splitlines() == [
        "studies/first.yaml and search_spaces/first.yaml: written, and gs-search check finds no mistake",
        "  5 trials at 64 px; data drawn, teacher shipped",
        "next: gs-search check studies/first.yaml --forecast; gs-search run studies/first.yaml",
    ]
    assert run(capsys, "check", "studies/first.yaml")[0] == 0
    code, output, error = run(capsys, "init", "first", "--yes")
    assert (code, output) == (2, "") and "replace it with --force" in error
    code, output, error = run(capsys, "init", "first", "--yes", "--force", "--json", "--out", "elsewhere")
    document = json.loads(output)
    assert (code, document["study"], document["resolved"]["trials"]) == (0, "elsewhere/studies/first.yaml", 24)
    before = sorted(tmp_path.rglob("*"))
    code, output, error = run(capsys, "init", "--checkpoint", "gone.pth", "--photos", "nowhere")
    assert (code, output, sorted(tmp_path.rglob("*"))) == (2, "", before)
    assert [line.split(":")[1] for line in error.splitlines()] == [" gone.pth", " nowhere"]


def test_front_dumps_images(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "run")
    calls = []
    monkeypatch.setattr("gs_search.trial.run.dump_images", lambda *arguments: calls.append(arguments))
    code, output, error = run(capsys, "front", folder.path, "--json", "--dump-images", tmp_path / "images")
    members = [member["number"] for member in json.loads(output)["front"]]
    assert code == 0 and str(tmp_path / "images") in error
    ((found, out, numbers),) = calls
    assert (found.path, out, numbers) == (folder.path, tmp_path / "images", members)
    assert run(capsys, "front", folder.path, "--dump-images", tmp_path)[0] == 2


def test_front_of_an_unfinished_study(capsys: Capture, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=0)
    code, output, error = run(capsys, "front", folder.path)
    assert (code, output) == (3, "") and "no finished trial (none has ended yet)" in error


def processor_seconds(*arguments: object) -> float:
    """Processor time of the whole command, interpreter included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "gs_search", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_answers_at_once(repository: Path) -> None:
    """0.7 s of processor time, of which a quiet core takes about 0.05 and 0.17."""
    assert min(processor_seconds("--help") for _ in range(2)) < 0.7
    assert min(processor_seconds("check", repository / "studies" / "quickstart.yaml") for _ in range(2)) < 0.7


def test_a_reader_that_goes_away(repository: Path) -> None:
    code = "from gs_search.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    study = repository / "studies" / "quickstart.yaml"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "check", str(study), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()
