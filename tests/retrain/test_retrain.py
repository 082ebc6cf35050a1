"""One full training from start to result: its files, going on in the same bits, and what is refused."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import gs_search.retrain.evaluate
import gs_search.retrain.loop
from gs_search import cli
from gs_search.data import open_data
from gs_search.errors import BadInput, CheckpointError, DataError, StudyBusy, TrialFailed
from gs_search.measure.flops import count_flops
from gs_search.measure.psnr import psnr
from gs_search.results.record import TrialRecord
from gs_search.results.run_folder import RunFolder
from gs_search.retrain.retrain import Interrupted, retrain
from gs_search.retrain.schedule import Asked, seed_of
from gs_search.slimming import load_student
from gs_search.system.files import read_json, write_json
from gs_search.system.lock import hold
from gs_search.trial.assets import TrialAssets, paint

LASTING = ("student.safetensors", "last.safetensors", "curve.csv", "samples.png", "samples/00000004.png")
"""Files that say how a training went, without a clock."""


def train(folder: RunFolder, asked: Asked | None = None, *, stop: Callable[[], bool] | None = None, **more: Any) -> Any:
    given: dict[str, Any] = {"note": lambda line: None, "on_progress": lambda content: None, **more}
    stopping: Any = stop or (lambda: False)
    return retrain(folder, folder.result(0), asked or Asked(), stop=stopping, **given).to_json()


@pytest.fixture(scope="module")
def finished(
    source: RunFolder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, dict[str, Any], list[str]]:
    """Trial 0 of the study, trained in full without a pause; not to be changed."""
    folder = RunFolder(tmp_path_factory.mktemp("finished") / "run")
    folder.path.mkdir()
    for entry in source.path.iterdir():
        (folder.path / entry.name).symlink_to(entry)
    lines: list[str] = []
    return folder, train(folder, note=lines.append), lines


def test_it_leaves_its_folder(finished: tuple[RunFolder, dict[str, Any], list[str]]) -> None:
    folder, record, lines = finished
    place = folder.retrained(0)
    names = {"result.json", "curve.csv", "samples.png", "student.safetensors", "last.safetensors", "log.txt"}
    assert {path.name for path in place.iterdir()} == names | {"samples", "tensorboard"}
    assert [path.name for path in sorted((place / "samples").iterdir())] == ["00000004.png", "00000008.png"]
    assert json.loads((place / "result.json").read_text()) == record
    assert lines[0].startswith("8 steps of 2 pictures")
    assert lines[1] == (
        "16 views, 2 of each of 8 pictures; 16 pictures are seen; views.bin grows to 0 MB; "
        "50% of the steps train on the 8 views whose features are stored"
    )
    assert lines[-1].startswith("best after step")
    assert [line.split(" s  ")[1] for line in (place / "log.txt").read_text().splitlines()] == lines


def test_the_result_has_a_trials_keys_and_its_own(finished: tuple[RunFolder, dict[str, Any], list[str]]) -> None:
    folder, record, _ = finished
    trial = read_json(folder.trial(0) / "result.json")
    own = {"split", "schedule", "best_step", "looks", "last", "test", "short"}
    assert set(record) == set(trial) | own
    same = ("study", "number", "point", "key", "protocol", "macs", "macs_paper", "params", "layers", "state")
    assert {name: record[name] for name in same} == {name: trial[name] for name in same}
    assert record["short"]["objectives"] == trial["objectives"] and record["seed"] == seed_of(1, trial["key"])
    assert record["steps"] == record["schedule"]["steps"] == 8
    assert (record["schedule"]["epochs"], record["schedule"]["views"]) == (8 * 2 / 8, 16)
    assert record["objectives"]["gflops"] == trial["objectives"]["gflops"]
    assert record["objectives"]["size_mb"] == trial["objectives"]["size_mb"]


def test_best_and_last_are_the_files(finished: tuple[RunFolder, dict[str, Any], list[str]]) -> None:
    """The best one by FID on the validation pictures, measured again from its file; and the one of the last step."""
    folder, record, _ = finished
    ground, place = TrialAssets.of(folder, folder.config()), folder.retrained(0)
    best, last = (load_student(place / f"{name}.safetensors") for name in ("student", "last"))
    looks = record["looks"]
    assert [look["step"] for look in looks] == [4, 8] and record["last"] == looks[-1]
    least = min(looks, key=lambda look: look["fid"])
    assert record["best_step"] == least["step"] and record["objectives"]["fid"] == pytest.approx(least["fid"])
    for student, wanted in ((best, least), (last, looks[-1])):
        found = psnr(paint(student, ground.validation), ground.validation_outputs)
        assert found == pytest.approx(wanted["psnr_to_teacher"])
    assert record["objectives"]["gflops"] == count_flops(best, 32).macs / 1e9


def test_the_test_pictures_are_measured_once_at_the_end(
    finished: tuple[RunFolder, dict[str, Any], list[str]], prepared: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are those that nothing has seen: the split of this name, as many as the validation pictures at most."""
    folder, record, _ = finished
    config, ground = folder.config(), TrialAssets.of(folder, folder.config())
    source = open_data(config.data, config.image_px, config.seed).source("test")
    pictures = torch.stack([source.picture(k) for k in range(8)])
    seen: list[int] = []
    genuine = gs_search.trial.evaluate.look_at

    def counted(student: Any, ground: Any, painted: Any, outputs: Any) -> Any:
        assert len(painted) in (8, 10)
        seen.append(len(painted))
        return genuine(student, ground, painted, outputs)

    for module in (gs_search.retrain.evaluate, gs_search.retrain.loop, gs_search.trial.evaluate):
        monkeypatch.setattr(module, "look_at", counted)
    again = train(prepared)
    assert seen == [10, 10, 10, 8, 8]  # two looks, the best; the best and the trial's on what was kept back
    assert again["test"] == record["test"]
    student = load_student(folder.retrained(0) / "student.safetensors")
    outputs = paint(ground.teacher.network, pictures)
    assert record["test"]["psnr_to_teacher"] == psnr(paint(student, pictures), outputs)
    short = load_student(folder.trial(0) / "student.safetensors")
    assert record["test"]["short"]["psnr_to_teacher"] == psnr(paint(short, pictures), outputs)
    protocol = record["test"]["protocol"]
    assert (protocol["generator_split"], protocol["pictures"], protocol["reference_pictures"]) == ("test", 8, 12)
    assert protocol["id"] != record["protocol"]


def test_a_study_without_test_pictures_says_so(prepared: RunFolder, change: Callable[[str, str], None]) -> None:
    change("    test: 8\n", "    test: 0\n")
    baselines = read_json(prepared.baselines)  # prepared so
    content = open_data(prepared.config().data, 32, 1).describe()["content"]
    teacher = prepared.teacher.resolve()
    prepared.teacher.unlink()
    prepared.teacher.mkdir()
    for entry in teacher.iterdir():
        (prepared.teacher / entry.name).symlink_to(entry)
    prepared.baselines.unlink()
    baselines["protocol"]["data"]["content"] = content
    write_json(prepared.baselines, baselines)
    lines: list[str] = []
    assert train(prepared, Asked(steps=1), note=lines.append)["test"] is None
    assert "no test pictures" in lines[-1]


# --- going on


class Stops:
    """Asks to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def same_files(one: RunFolder, other: RunFolder) -> None:
    for name in LASTING:
        assert (one.retrained(0) / name).read_bytes() == (other.retrained(0) / name).read_bytes(), name


def test_one_that_is_stopped_goes_on_in_the_same_bits(
    finished: tuple[RunFolder, dict[str, Any], list[str]], prepared: RunFolder
) -> None:
    whole, record, _ = finished
    for steps in (1, 3, 2):  # before a look, at one, between two
        with pytest.raises(Interrupted):
            train(prepared, stop=Stops(steps))
        names = {path.name for path in prepared.retrained(0).iterdir()}
        assert {"checkpoint.ckpt", "schedule.json"} <= names and not names & {"result.json", "lock"}
        torch.manual_seed(steps)  # another process has other global random numbers
    again = train(prepared)
    same_files(whole, prepared)
    clocks = {"seconds", "started", "latency_ms", "peak_memory_mb", "schedule"}
    assert {k: v for k, v in again.items() if k not in clocks} == {k: v for k, v in record.items() if k not in clocks}
    assert again["seconds"] > 0 and "goes on after step 6" in (prepared.retrained(0) / "log.txt").read_text()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="copies of this process, which has all of the assets loaded")
def test_one_that_is_killed_three_times_goes_on_in_the_same_bits(
    finished: tuple[RunFolder, dict[str, Any], list[str]], prepared: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL at random moments. test_killed.py does it to whole processes, with nothing replaced."""
    monkeypatch.setattr("gs_search.retrain.log.HEARTBEAT_S", 0.0)
    chance = random.Random()
    seed = chance.randrange(10**6)
    chance.seed(seed)
    print("seed", seed)  # pytest shows it where the test fails
    for moment in sorted(chance.sample(range(1, 8), 3)):
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads; none of them is at work
            child = os.fork()
        if not child:
            _train_until_killed(prepared, moment, writer)
        os.close(writer)
        told = os.read(reader, 1)
        time.sleep(0.05 * chance.random())
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(reader)
        assert told == b"." and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert not (prepared.retrained(0) / "result.json").exists()
    again = train(prepared)
    same_files(finished[0], prepared)
    assert again["test"] == finished[1]["test"] and again["looks"] == finished[1]["looks"]
    assert "goes on after step" in (prepared.retrained(0) / "log.txt").read_text()
    assert not list(prepared.retrained(0).glob(".*"))


def _train_until_killed(folder: RunFolder, moment: int, told: int) -> None:
    """In a copy of the process: say when ``moment`` is reached; whoever listens kills before the last step ends."""

    def listen(content: Mapping[str, Any]) -> None:
        if content["step"] == moment:
            os.write(told, b".")
        if content["step"] == content["steps"]:
            signal.pause()

    try:
        train(folder, on_progress=listen)
    finally:
        os._exit(1)


MOMENTS = ["look", "checkpoint", "result", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cut", "finish"))]


@pytest.mark.parametrize("moment", MOMENTS)
def test_one_that_dies_at_any_moment_goes_on_in_the_same_bits(
    moment: str,
    finished: tuple[RunFolder, dict[str, Any], list[str]],
    prepared: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Died before the cut; between the best student's file and the checkpoint; while that was written; at the end."""

    class Power(BaseException):
        pass

    def cut_off(*_: Any, **__: Any) -> Any:
        raise Power

    course = gs_search.retrain.loop

    with monkeypatch.context() as patch, pytest.raises(Power):
        if moment == "cut":
            patch.setattr(course.Run, "cut", cut_off)
        elif moment == "look":
            patch.setattr(course.Journal, "look", cut_off)
        elif moment == "checkpoint":
            genuine = os.replace
            patch.setattr(os, "replace", lambda a, to: cut_off() if to.name == "checkpoint.ckpt" else genuine(a, to))
        elif moment == "finish":
            patch.setattr("gs_search.trial.run.write_samples", cut_off)
        else:
            patch.setattr("gs_search.retrain.retrain.write_record", cut_off)
        train(prepared)
    train(prepared)
    same_files(finished[0], prepared)
    assert not list(prepared.retrained(0).glob(".*"))


def test_a_finished_one_is_not_trained_again(
    finished: tuple[RunFolder, dict[str, Any], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, record, _ = finished
    monkeypatch.setattr(gs_search.retrain.loop.Run, "step", lambda run: pytest.fail("trained again"))
    assert train(folder) == train(folder, Asked(steps=8)) == train(folder, Asked(workers=3)) == record


def test_another_length_is_refused_unless_forced(prepared: RunFolder) -> None:
    with pytest.raises(Interrupted):
        train(prepared, Asked(steps=5), stop=Stops(2))
    with pytest.raises(BadInput, match="was begun with 5 steps of 2 pictures, not with 7 of 2; --force begins anew"):
        train(prepared, Asked(steps=7))
    with pytest.raises(BadInput, match="not with 5 of 4"):
        train(prepared, Asked(steps=5, batch_size=4))
    assert train(prepared)["steps"] == 5  # what was begun, and not the study's 8
    with pytest.raises(BadInput, match="is finished, with 5 steps"):
        train(prepared, Asked(steps=7))
    forced = train(prepared, Asked(steps=2), force=True)
    assert forced["steps"] == 2
    assert [path.name for path in sorted((prepared.retrained(0) / "samples").iterdir())] == [
        "00000001.png", "00000002.png",
    ]  # fmt: skip


def test_twice_the_pictures_are_taken_in_two_parts(prepared: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[int] = []
    genuine = gs_search.slimming.training.Training.run_step

    def counted(self: Any, *batches: Any) -> Any:
        parts.append(len(batches))
        assert all(len(batch.inputs) == 2 for batch in batches)
        return genuine(self, *batches)

    monkeypatch.setattr(gs_search.slimming.training.Training, "run_step", counted)
    assert train(prepared, Asked(steps=2, batch_size=4))["schedule"]["batch_size"] == 4
    assert parts == [2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"target_gflops_ratio": 0.4}, {"sparsity_weight": 0.5}])
def test_a_longer_schedule_is_the_same_shrink_target(
    settings: dict[str, float], prepared: RunFolder, change: Callable[[str, str], None]
) -> None:
    """Proximal trainings of 10 and of 30 steps leave about as much of the teacher, by its target or by its budget."""
    change("    schedule: at_once\n", "    schedule: proximal\n")
    change("    scale_learning_rate: 0.005\n", "    scale_learning_rate: 0.05\n")
    path = prepared.trial(0) / "result.json"
    write_json(path, {**read_json(path), "point": settings})
    shares = []
    for steps in (10, 30):
        record = train(prepared, Asked(steps=steps), force=True)
        assert record["schedule"]["sparse"] == round(0.6 * steps)
        shares.append(record["objectives"]["gflops"])
    assert shares[1] == pytest.approx(shares[0], rel=0.1)


def test_progress_is_told(prepared: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gs_search.retrain.log.HEARTBEAT_S", 0.0)
    told: list[Mapping[str, Any]] = []
    stored: list[Any] = []

    def listen(content: Mapping[str, Any]) -> None:
        told.append(content)
        path = prepared.retrained(0) / "progress.json"
        stored.append(json.loads(path.read_text()) if path.is_file() else None)

    train(prepared, on_progress=listen)
    assert [content["step"] for content in told] == list(range(1, 9))
    assert [content["step"] for content in stored[1:]] == list(range(1, 8))
    assert told[0]["seconds_left"] is None and told[-1]["seconds_left"] == 0.0
    assert all(content["seconds_left"] > 0 for content in told[1:-1])
    assert told[3]["fid"] is None and told[4]["fid"] > 0


def events(path: Path) -> list[bytes]:
    """Records of a file of TensorBoard's: length, its checksum, data, their checksum."""
    content, records = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        records.append(content[12 : 12 + length])
        content = content[16 + length :]
    return records


def test_tensorboards_files_hold_curves_and_pictures(finished: tuple[RunFolder, dict[str, Any], list[str]]) -> None:
    (path,) = (finished[0].retrained(0) / "tensorboard").iterdir()
    found = b"".join(events(path))
    for name in (
        b"training/pixel",
        b"training/macs_share",
        b"validation/fid",
        b"samples/input_teacher_student",
        b"\x89PNG",
    ):
        assert name in found, name


# --- what is refused


def test_a_second_one_at_the_same_time_is_refused(prepared: RunFolder) -> None:
    place = prepared.retrained(0)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with hold(place / "lock"):
            stat = (Path("/proc") / str(other.pid) / "stat").read_text()
            held = json.loads((place / "lock").read_text())
            held |= {"pid": other.pid, "started": int(stat.rpartition(")")[2].split()[19])}
        (place / "lock").write_text(json.dumps(held))
        with pytest.raises(StudyBusy, match=f"process {other.pid} on .* trains it since") as caught:
            train(prepared)
        assert "\n" not in str(caught.value)
    finally:
        other.kill()
        other.wait()
    assert train(prepared, Asked(steps=1))["steps"] == 1  # it has died


def test_pictures_that_changed_are_refused_before_anything_is_trained(
    prepared: RunFolder, change: Callable[[str, str], None]
) -> None:
    change("    test: 8\n", "    test: 7\n")
    with pytest.raises(BadInput, match="not the pictures that the study was prepared with"):
        train(prepared)
    change("    kind: drawn\n    path: null\n", "    kind: photos\n    path: /nowhere\n")
    with pytest.raises(DataError, match="/nowhere"):
        train(prepared)
    assert not prepared.retrain.exists()


def test_a_damaged_checkpoint_is_no_reason_to_begin_anew(prepared: RunFolder) -> None:
    with pytest.raises(Interrupted):
        train(prepared, stop=Stops(1))
    (prepared.retrained(0) / "checkpoint.ckpt").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="delete it to start anew"):
        train(prepared)


def test_a_training_that_breaks_down_says_why_and_leaves_no_checkpoint(
    prepared: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = gs_search.retrain.loop.Run.step

    def collapse(run: Any) -> Any:
        if run.done == 2:
            raise TrialFailed("collapse", "all pictures had become one flat colour by step 3")
        return genuine(run)

    with monkeypatch.context() as patch, pytest.raises(TrialFailed, match=r"trial 0 failed \(collapse\)") as caught:
        patch.setattr(gs_search.retrain.loop.Run, "step", collapse)
        train(prepared)
    assert caught.value.cause == "collapse" and "\n" not in str(caught.value)
    names = {path.name for path in prepared.retrained(0).iterdir()}
    assert "log.txt" in names and not names & {"checkpoint.ckpt", "result.json", "schedule.json", "lock"}
    assert "failed (collapse)" in (prepared.retrained(0) / "log.txt").read_text()


# --- the verb


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_verb(prepared: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    code, output, error = run(capsys, "retrain", prepared.path, "--front", 2, "--steps", 2, "--json")
    document = json.loads(output)
    assert code == 0 and sorted(record["number"] for record in document["retrained"]) == [0, 1], error
    assert document["summary"]["agreement"]["n"] == 2 and not document["summary"]["agreement"]["enough"]
    assert (prepared.retrain / "summary.json").is_file() and "step 2: FID" in error
    code, output, error = run(capsys, "retrain", prepared.path, "--trial", 1)
    assert code == 0 and "trial 1 of tiny, trained in full" in output and "2 points cannot tell" in output
    assert "step 2" not in error  # it was finished


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trial", 2), "trial 2 left no student"),
        (("--trial", 77), "has no trial 77"),
        (("--saved",), "nothing has been picked yet"),
        (("--front", 2, "--trial", 1), "--front takes members of the front by itself"),
        (("--steps", 3, "--epochs", 1), "--steps and --epochs say the same thing"),
        (("--trial", 0, "--num-workers", 2, "--batch-size", 3), "cannot share"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[object, ...], message: str, prepared: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    code, output, error = run(capsys, "retrain", prepared.path, *arguments)
    told = [line for line in error.splitlines() if line.startswith("error: ")]
    assert (code, output) == (2, "") and len(told) == 1 and message in told[0]
    assert not prepared.retrain.exists()


def test_a_teacher_that_is_gone(prepared: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    prepared.teacher.unlink()
    code, _, error = run(capsys, "retrain", prepared.path, "--trial", 0)
    assert code == 2 and error.count("\n") == 1 and "baselines.json: is gone" in error


def test_ctrl_c_leaves_a_checkpoint_and_the_command_that_goes_on(
    prepared: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = gs_search.retrain.loop.Run.step

    def interrupted(run: Any) -> Any:
        if run.done == 2:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)  # impatience
        return genuine(run)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(gs_search.retrain.loop.Run, "step", interrupted)
        code, output, error = run(capsys, "retrain", prepared.path, "--trial", 0)
    assert (code, output) == (130, "") and signal.getsignal(signal.SIGINT) is before
    assert error.endswith(
        f"trial 0 stopped after step 3 of 8; go on with: gs-search retrain {prepared.path} --trial 0\n"
    )
    code, output, error = run(capsys, "retrain", prepared.path, "--trial", 0)
    assert code == 0 and "goes on after step 3" in error


def test_the_pick_that_was_recorded_is_mentioned(
    prepared: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gs_search.results.pick import Wish, pick_document, save_pick

    def begun(folder: RunFolder, trial: TrialRecord, asked: Asked, **_: Any) -> Any:
        raise BadInput(f"begun with trial {trial.number}, {asked.steps} steps")

    monkeypatch.setattr("gs_search.retrain.retrain.retrain", begun)
    knee = pick_document(prepared, Wish())["trial"]
    save_pick(prepared, pick_document(prepared, Wish(trial=1 - knee)))
    _, _, error = run(capsys, "retrain", prepared.path, "--steps", 3)
    assert f"note: trial {1 - knee} is recorded as the pick; --saved trains that one" in error
    assert f"begun with trial {knee}, 3 steps" in error
    _, _, error = run(capsys, "retrain", prepared.path, "--saved")
    assert f"begun with trial {1 - knee}, None steps" in error and "note" not in error
