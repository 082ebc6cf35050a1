"""What nodes of a cluster are asked, and how they answer. With a real cluster: ``tests/cluster``."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

import pytest

import gs_search
from gs_search.engine.ray.nodes import PROBE, fits, machine, marked, objection, own_versions, unfit


def test_a_node_that_sees_the_folder_and_has_our_versions_will_do(tmp_path: Path) -> None:
    (tmp_path / f"{PROBE}dead").write_text("of a run that was killed")
    with marked(tmp_path) as told:
        assert unfit(told) is None
        assert unfit(told, "node") is None
        (probe, answer) = sorted(path.name for path in tmp_path.iterdir())
        assert answer == f"{probe}.node" and told["word"] not in probe
    assert list(tmp_path.iterdir()) == []


def test_another_folder_of_the_same_name_will_not_do(tmp_path: Path) -> None:
    with marked(tmp_path) as told:
        (tmp_path / str(told["probe"])).write_text("somebody else's")
        assert "does not see the run folder" in str(unfit(told))
        assert "does not see the run folder" in str(unfit({**told, "folder": str(tmp_path / "elsewhere")}))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_will_not_do(tmp_path: Path) -> None:
    with marked(tmp_path) as told:
        tmp_path.chmod(0o500)
        assert "cannot write to the run folder" in str(unfit(told, "node"))
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("package", ["python", "torch", "ray", "gs-search"])
def test_another_version_is_named_with_both(package: str, tmp_path: Path) -> None:
    with marked(tmp_path) as told:
        mine = own_versions()[package]
        told["versions"][package] = "0.0.1"
        assert unfit(told) == f"has {package} {mine}, this machine 0.0.1; install the same"


@pytest.mark.parametrize(
    ("address", "tokens", "insecure", "refused"),
    [
        ("10.0.0.7", False, False, True),
        ("10.0.0.7", False, True, False),
        ("10.0.0.7", True, False, False),
        ("127.0.0.7", False, False, False),
        ("128.0.0.7", False, False, True),
    ],
)
def test_a_node_that_lets_everyone_in_will_not_do_unless_only_this_machine_reaches_it_or_one_insists(
    address: str, tokens: bool, insecure: bool, refused: bool, tmp_path: Path
) -> None:
    node = {"NodeID": "12345678abc", "NodeManagerAddress": address}
    said = {"problem": None, "tokens": tokens}
    with marked(str(tmp_path)) as told:
        assert "another folder of the name" in str(objection(told, node, said, insecure=True))
        assert unfit(told, "12345678") is None  # what the node does
        problem = objection(told, node, said, insecure=insecure)
        assert ("lets everyone in" in str(problem)) == refused and (problem is None) != refused
        assert objection(told, node, {**said, "problem": "is not ours"}, insecure=True) == "is not ours"


def test_versions_tell_sources_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = own_versions()
    assert here["python"] == platform.python_version()
    shutil.copytree(Path(gs_search.__file__).parent, tmp_path / "gs_search")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "gs_search")
    assert own_versions() == here, "the same source elsewhere"
    with (tmp_path / "gs_search" / "front.py").open("a") as file:
        file.write("\n")
    assert own_versions()["gs-search"] != here["gs-search"]


def test_this_machine() -> None:
    found = machine(gpu=False)
    assert found["host"] == platform.node() and found["cpu"] and found["gpu"] is None


@pytest.mark.parametrize(
    ("node", "trial", "expected"),
    [
        ({"CPU": 4.0}, {"CPU": 1.0}, 4),
        ({"CPU": 4.0}, {"CPU": 1.5}, 2),
        ({"CPU": 4.0}, {"CPU": 1.0, "GPU": 0.0}, 4),
        ({"CPU": 4.0}, {"CPU": 1.0, "GPU": 0.5}, 0),
        ({"CPU": 16.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 1 / 3}, 3),
        ({}, {"CPU": 1.0}, 0),
    ],
)
def test_room_on_a_node(node: dict[str, float], trial: dict[str, float], expected: int) -> None:
    assert fits(node, trial) == expected
