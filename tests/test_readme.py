"""Runs what the README says: its commands as they stand, its study, its tables against the code."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import torch
from torch import nn

from gs_search.cli import cli
from gs_search.study.config import StudyConfig, load_study
from tests.phone.opened import Phone, decibels, encoded, keep, painted, scene
from tests.synthetic_run import write_run
from tests.web.chromium import chromium

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALL = 'pip install -c constraints.txt -e ".[offline,export,phone,test]"'
TEST = "python -m pytest -n 2 --dist loadfile"
MOBILE = ['pip install -c constraints.txt -e ".[mobile,coreml]"', 'python -m pytest -m "mobile and not slow"']
SHARED_OPTIONS = {"--json", "--debug"}


@dataclass(frozen=True)
class Block:
    """A fenced block with its language and the ``<!-- ... -->`` mark on the line above, if any."""

    mark: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for found in re.finditer(r"(?:<!-- (.*?) -->\n)?```(\w+)\n(.*?)```", TEXT, re.S):
        yield Block(found[1] or "", found[2], found[3])


def commands(mark: str) -> list[str]:
    """Lines of the bash blocks of one mark."""
    found = [block for block in blocks() if block.language == "bash" and block.mark == mark]
    return [line for block in found for line in block.text.splitlines()]


def table(heading: str) -> list[list[str]]:
    """Cells of the table whose first heading is this one."""
    lines = TEXT[TEXT.index(f"| {heading} |") :].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which the quickstart has run."""
    folder = stage(tmp_path_factory.mktemp("checkout"))
    write_run(folder / "runs" / "quickstart", trials=6)
    return folder


def stage(folder: Path) -> Path:
    """Make ``folder`` look like a checkout in which the package is installed."""
    for name in ("studies", "search_spaces"):
        shutil.copytree(ROOT / name, folder / name)
    script = folder / "bin" / "gs-search"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gs_search "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return folder


def run(command: str, folder: Path, *, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    arguments = ["bash", "-euo", "pipefail", "-c", command]
    return subprocess.run(
        arguments, cwd=folder, env=surroundings(folder), capture_output=True, text=True, timeout=timeout
    )


def surroundings(folder: Path) -> dict[str, str]:
    path = f"{folder / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


QUICK = [line for line in commands("") if line.startswith("gs-search")]


@pytest.mark.parametrize("command", QUICK)
def test_quick_commands_run_as_they_stand(command: str, checkout: Path) -> None:
    done = run(command, checkout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


def test_quick_commands_are_there() -> None:
    assert {line.split()[1] for line in QUICK} == {"--help", "check", "status", "front", "pick", "report"}


def test_one_command_for_the_quickstart_and_one_for_the_tests() -> None:
    venv = "python -m venv .venv && . .venv/bin/activate"
    whole = [line for line in commands("") if line.startswith("python -m venv")]
    quickstart = "gs-search run studies/quickstart.yaml && gs-search report runs/quickstart"
    assert whole == [
        f"{venv} && {INSTALL.replace('offline,export,phone,test', 'offline')} && {quickstart}",
        f"{venv} && {INSTALL} && {TEST}",
    ]


def test_ci_runs_the_blocks_of_the_readme() -> None:
    assert commands("ci: install") == [INSTALL]
    assert commands("ci: runtime") == ["gs-search phone --fetch-runtime"]
    assert commands("ci: test") == [TEST]
    assert commands("ci: mobile") == MOBILE
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.index("mobile_command") < script.index("test_command")
    reader = script[script.index("readme() {") : script.index("\n}\n") + 3]
    done = run(f"cd {ROOT}\n{reader}\nreadme install; readme runtime; readme mobile; readme test", ROOT)
    assert done.stdout.splitlines() == [INSTALL, *commands("ci: runtime"), *MOBILE, TEST]


def test_every_command_is_run_by_some_test() -> None:
    """A block that no test knows is a block that nobody runs."""
    marks = {"", "ci: install", "ci: test", "test: slow", "test: study", "test: needs a checkpoint and photos"}
    marks |= {
        "test: library",
        "test: export",
        "test: retrain",
        "test: loop",
        "test: serves",
        "test: phone",
        "ci: runtime",
        "ci: mobile",
    }
    marks |= {f"test: cluster {part}" for part in ("token", "head", "node", "run", "store", "submit")}
    assert {block.mark for block in blocks()} == marks
    loose = [line for line in commands("") if not line.startswith(("gs-search", "python -m venv .venv &&"))]
    assert loose == []


def test_the_study_passes_check(checkout: Path) -> None:
    own, trained = (block for block in blocks() if block.mark == "test: study")
    studies = checkout / "studies"
    for name in ("summer2winter", "photos"):
        (studies / name).mkdir()
    (studies / "my_net.py").write_text("def build(width): ...\n", encoding="utf-8")
    (studies / "my_net.pth").write_bytes(b"")
    (studies / "readme.yaml").write_text(trained.text, encoding="utf-8")
    config = load_study(studies / "readme.yaml")
    assert (config.study, config.data.kind, config.teacher.kind) == ("summer2winter", "folders", "train")
    (studies / "readme.yaml").write_text(own.text, encoding="utf-8")
    config = load_study(studies / "readme.yaml")
    assert (config.study, config.teacher.kind, config.teacher.range) == ("mine", "module", (0.0, 255.0))


def test_the_lines_of_the_library_slim_a_generator_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = (block for block in blocks() if block.mark == "test: library")
    assert len([line for line in block.text.splitlines() if line]) <= 10
    torch.manual_seed(0)
    generator = nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.InstanceNorm2d(16), nn.ReLU(inplace=True), nn.Conv2d(16, 3, 5, padding=2)
    )
    pictures = torch.rand(32, 3, 32, 32) * 2 - 1
    names = {"MyGenerator": lambda: generator, "my_photos": lambda: pictures}
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, "README.md", "exec"), names)
    share = float(capsys.readouterr().out.split()[0])
    assert 0.4 < share <= 0.5
    student, slimmed = names["student"], names["slimmed"]
    assert torch.equal(student(pictures), slimmed.network(pictures))  # type: ignore[operator, attr-defined]
    assert (tmp_path / "small.safetensors").stat().st_size < 4 * sum(p.numel() for p in generator.parameters()) / 2


def test_verbs_are_those_of_the_command_line() -> None:
    expected = {}
    for name, command in cli.commands.items():
        arguments = " ".join(p.metavar or "" for p in command.params if isinstance(p, click.Argument))
        options = {p.opts[0] for p in command.params if isinstance(p, click.Option)} - SHARED_OPTIONS
        expected[f"`{f'gs-search {name} {arguments}'.strip()}`"] = (command.get_short_help_str(limit=200), options)
    told = {verb: (text, set(re.findall(r"`(--[a-z-]+)`", options))) for verb, text, options in table("verb")}
    assert told == expected


def test_the_table_of_a_study_names_every_key() -> None:
    told = [name for row in table("in a study") for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(told) == sorted(set(StudyConfig.model_fields) - {"source"})


def test_what_is_named_exists() -> None:
    links = [target for target in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in target]
    assert "studies/quickstart_front.png" in links
    assert [target for target in links if not (ROOT / target).exists()] == []
    reading = TEXT[TEXT.index("To read the code") : TEXT.index("## Tests")]
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", reading):
        assert (ROOT / "gs_search" / name).exists(), name
    for row in table("place"):
        names = re.findall(r"`([^`]+)`", row[0])
        base = Path(names[0]).parent if names[0].startswith("gs_search") else Path()
        for name in names:
            assert (ROOT / name).exists() or (ROOT / base / name).exists(), name


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_quickstart_and_its_proof(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The quickstart on itself, the proof of one FID by ``python -m pytorch_fid``, and all the way to a phone."""
    folder = stage(tmp_path_factory.mktemp("quickstart"))
    (whole,) = (line for line in commands("") if "gs-search run" in line)
    dump, measure = commands("test: slow")
    for step in [*(step for step in whole.split(" && ") if step.startswith("gs-search")), dump]:
        done = run(step, folder)
        assert done.returncode == 0, f"{step}: {done.stderr}"
    number = min(int(path.name) for path in (folder / "pictures").iterdir() if path.name.isdigit())
    done = run(measure.replace("pictures/0", f"pictures/{number}"), folder)
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "runs" / "quickstart" / "trials" / str(number) / "result.json").read_text())
    assert float(done.stdout.split()[-1]) == pytest.approx(result["objectives"]["fid"], abs=0.01)
    for step in commands("test: export"):
        done = run(step, folder)
        assert done.returncode == 0, f"{step}: {done.stderr}"
    assert len(list((folder / "runs" / "quickstart" / "exports").glob("quickstart@fid*_gflops*_mb*.onnx"))) == 1
    *training, export, phone = (line.split(" #")[0].strip() for line in commands("test: loop"))
    assert training == [line.split(" #")[0].strip() for line in commands("test: retrain")]
    for step in (*training, export):
        done = run(step, folder, timeout=1800)
        assert done.returncode == 0, f"{step}: {done.stderr}"
    (path,) = (folder / "runs" / "quickstart" / "retrain").glob("*/result.json")
    record = json.loads(path.read_text())
    assert record["objectives"]["fid"] <= record["short"]["objectives"]["fid"]
    a_photo_becomes_its_picture(phone, folder)


def a_photo_becomes_its_picture(command: str, folder: Path) -> None:
    """The page at the printed address paints what ONNX Runtime makes of the file that is named."""
    with serving(command, folder) as (address, said), chromium("THE PAGE WAS NOT OPENED") as browser:
        (name,) = re.findall(r"(quickstart@fid\S+\.onnx)", said.read_text())
        context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
        page = Phone(context, address)
        page.take("photo.png", encoded(scene()))
        assert page.error() == ""
        picture = painted(folder / "runs" / "quickstart" / "exports" / name, scene())
        assert decibels(page.pixels("student"), picture) >= 35
        keep(page.page, "loop")
        page.check()
        context.close()


@contextmanager
def serving(command: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Address that a command prints, and the file of what else it says."""
    said = folder / "said.txt"
    with said.open("w") as file:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=folder, env=surroundings(folder), stdout=subprocess.PIPE,
            stderr=file, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            while "for this machine alone" not in said.read_text():
                assert process.poll() is None, said.read_text()
                time.sleep(0.1)
            yield address, said
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) in (0, 130), said.read_text()
            if process.stdout is not None:
                process.stdout.close()
