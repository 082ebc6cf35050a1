"""What travels with a job, and what is refused before anything does."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from gs_search.cli import main
from gs_search.engine.ray.jobs import Submission, entrypoint, stage, submit
from gs_search.errors import BadInput, ConfigError
from gs_search.results.run_folder import RunFolder
from gs_search.study.config import StudyConfig, load_study
from tests import tiny_study

STUDIES = Path(__file__).parents[3] / "studies"


def without_places(config: StudyConfig) -> dict[str, Any]:
    resolved = config.to_resolved()
    return {**resolved, "source": None, "space": {**resolved["space"], "source": None}}


def test_a_staged_study_means_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GS_SEARCH_CHECKPOINT", "weights/generator.pth")
    monkeypatch.setenv("GS_SEARCH_PHOTOS", str(tmp_path / "photos"))
    stage(STUDIES / "cartoongan.yaml", tmp_path)
    monkeypatch.delenv("GS_SEARCH_CHECKPOINT")  # nobody has set them there
    monkeypatch.delenv("GS_SEARCH_PHOTOS")
    staged = load_study(tmp_path / "study.yaml", here=False)
    monkeypatch.setenv("GS_SEARCH_CHECKPOINT", "weights/generator.pth")
    monkeypatch.setenv("GS_SEARCH_PHOTOS", str(tmp_path / "photos"))
    before = load_study(STUDIES / "cartoongan.yaml", here=False)
    assert staged.teacher.path == tmp_path / "weights" / "generator.pth"
    assert without_places(staged) == without_places(before)


def test_the_code_of_a_teacher_of_ones_own_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was staged is the same study, on a machine that has neither the code nor the checkpoint."""
    place, staged = tmp_path / "here" / "study", tmp_path / "there"
    (tmp_path / "here" / "nets").mkdir(parents=True)
    place.mkdir()
    staged.mkdir()
    (tmp_path / "here" / "nets" / "net.py").write_text("from .parts import WIDTH\ndef build(): return WIDTH\n")
    (tmp_path / "here" / "nets" / "parts.py").write_text("WIDTH = 3\n")
    factory = "../nets/net.py:build"
    teacher = {"kind": "module", "factory": factory, "checkpoint": "weights.pth", "range": [0, 1]}
    before = stage(tiny_study.write(place, teacher=teacher), staged)
    code = before.teacher.code(place)
    assert code is not None
    digest = code.sha256
    shutil.rmtree(tmp_path / "here")
    config = load_study(staged / "study.yaml", here=False)
    assert config.identity() == before.identity() and config.teacher.checkpoint == place / "weights.pth"
    travelled = config.teacher.code(staged)
    assert travelled is not None and travelled.sha256 == digest and travelled.load()() == 3
    RunFolder(tmp_path / "run").create(config)
    assert (tmp_path / "run" / "teacher" / "source" / "nets" / "parts.py").is_file()


def test_the_command_is_a_run_in_the_cluster_that_the_job_is_part_of() -> None:
    words = shlex.split(entrypoint("/shared/a b", ["--trials", "3"]))
    assert words[:4] == ["python", "-m", "gs_search", "run"]
    assert words[4:] == ["study.yaml", "--out", "/shared/a b", "--address", "auto", "--trials", "3"]


def test_a_key_in_the_uri_of_a_run_folder_is_refused() -> None:
    with pytest.raises(BadInput, match="holds a key"):
        submit(STUDIES / "quickstart.yaml", address=None, out="s3://me:secret@bucket/runs/x")


def test_a_relative_run_folder_is_refused() -> None:
    with pytest.raises(BadInput, match="absolute path"):
        submit(STUDIES / "quickstart.yaml", address="http://127.0.0.1:9", out="runs/quickstart")


def test_mistakes_of_the_study_are_found_here(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("study: x\ntrils: 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="trils"):
        submit(tmp_path / "study.yaml", address="http://127.0.0.1:9", out="/shared/x")


def test_where_nothing_answers_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["submit", str(STUDIES / "quickstart.yaml"), "--out", "/shared/x", "--address", "http://127.0.0.1:9"]
    assert main(line) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: http://127.0.0.1:9: the cluster takes no job") and told.count("\n") == 1


@pytest.mark.parametrize(("ended", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("STOPPED", 1)])
def test_one_document_says_how_a_job_ended(
    ended: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Submission(job="raysubmit_1", address="http://head:8265", run_folder="/shared/run")
    monkeypatch.setattr("gs_search.engine.ray.submit", lambda *_, **__: job)
    monkeypatch.setattr("gs_search.engine.ray.follow", lambda *_: ended)
    assert main(["submit", str(STUDIES / "quickstart.yaml"), "--out", "/shared/run", "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is (code == 0) and "raysubmit_1" in json.dumps(told)
