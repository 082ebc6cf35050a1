"""A front as CSV, Markdown and PNG: read back by those who know the formats, and by pixel."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gs_search.cli import main
from gs_search.errors import BadInput
from gs_search.report.front_png import bars, front_png
from gs_search.report.theme import LIGHT
from gs_search.results.fid_uncertainty import tie_margin
from gs_search.results.front import front_document
from gs_search.results.run_folder import RunFolder
from gs_search.system.files import write_file
from gs_search.terminal.front_files import front_csv, front_markdown
from tests.job_stand_ins import write_repeat
from tests.synthetic_run import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A front whose first two members were run again three times."""
    folder = write_run(tmp_path_factory.mktemp("files") / "run", trials=12)
    for member in front_document(folder)["front"][:2]:
        for k in (1, 2, 3):
            write_repeat(folder, member["number"], k, member["objectives"]["fid"] + 4 * k)
    return folder


@pytest.fixture(scope="module")
def document(folder: RunFolder) -> dict[str, Any]:
    return front_document(folder)


def test_csv(document: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(front_csv(document))))
    assert [int(row["trial"]) for row in rows] == [member["number"] for member in document["front"]]
    for row, member in zip(rows, document["front"], strict=True):
        cost, again = member["objectives"], member["repeats"]
        assert [float(row[name]) for name in ("fid", "gflops", "size_mb")] == list(cost.values())
        assert float(row["gflops_of_teacher"]) == cost["gflops"] / document["teacher"]["gflops"]
        assert bool(int(row["knee"])) is (member["number"] == document["knee"])
        assert [int(number) for number in row["ties"].split()] == member["ties"]
        assert row["fid_low_95"] == ("" if again is None else str(again["low"]))
        assert json.loads(row["point.target_gflops_ratio"]) == member["point"]["target_gflops_ratio"]
    assert any(member["ties"] for member in document["front"])
    assert all(row["fid_mean"] for row in rows[:2]) and not any(row["fid_mean"] for row in rows[2:])


def test_markdown(document: dict[str, Any]) -> None:
    lines = front_markdown(document).splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert len({len(row) for row in table}) == 1
    titles, rule, *rows = table
    assert set(rule) == {"---:"} and {"FID", "GFLOPs", "MB", "latency, ms", "PSNR to the teacher, dB"} <= set(titles)
    assert [row[0].split("**")[-2] if "knee" in row[0] else row[0] for row in rows[:-2]] == [
        str(member["number"]) for member in document["front"]
    ]
    assert [row[0] for row in rows[-2:]] == ["teacher", "input"] and sum("knee" in row[0] for row in rows) == 1
    again = document["front"][0]["repeats"]
    assert f"{again['mean']:.1f} ({again['low']:.1f} to {again['high']:.1f}; 3 seeds)" in lines[4]
    assert any("tie" in line for line in lines if line.startswith("- "))


def pixels(document: dict[str, Any]) -> np.ndarray:
    with Image.open(io.BytesIO(front_png(document))) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(np.int16)


def share(picture: np.ndarray, colour: str, strength: float = 1.0) -> float:
    """Pixels of a colour over white."""
    wanted = [255 + strength * (int(colour[i : i + 2], 16) - 255) for i in (1, 3, 5)]
    return float((abs(picture - wanted).max(axis=2) < 3).mean())


def without_ties(document: dict[str, Any]) -> dict[str, Any]:
    document = copy.deepcopy(document)
    for member in document["front"]:
        member["ties"] = []
    return document


def test_the_picture_shows_students_teacher_input_noise_and_ties(document: dict[str, Any]) -> None:
    picture = pixels(document)
    assert picture.shape[1] == 2400
    for colour in (LIGHT.front, LIGHT.teacher, LIGHT.input, LIGHT.knee):
        assert share(picture, colour) > 1e-4
    assert share(picture, LIGHT.teacher, 0.2) > 0.01, "the band of noise"
    # Ties are drawn: without them there is only their sample in the legend.
    assert share(picture, LIGHT.knee, 0.5) > 2 * share(pixels(without_ties(document)), LIGHT.knee, 0.5) > 0


def test_students_are_drawn_where_they_are(document: dict[str, Any]) -> None:
    """In each panel the rightmost dot is the dearest student, and it is lower the better its FID."""
    one = without_ties(document)
    one["front"] = [copy.deepcopy(one["front"][0]) | {"repeats": None}]
    low, high = copy.deepcopy(one), copy.deepcopy(one)
    low["front"][0]["objectives"] |= {"fid": 70.0, "gflops": 0.05, "size_mb": 0.05}
    high["front"][0]["objectives"] |= {"fid": 150.0, "gflops": 0.2, "size_mb": 0.5}
    places = []
    for picture in map(pixels, (low, high)):
        for panel in (picture[:860, 140:1190], picture[:860, 1340:2390]):
            blue = np.argwhere(abs(panel - [0, 0x72, 0xB2]).max(axis=2) < 3)
            places.append(blue.mean(axis=0))
    for left, right in ((places[0], places[2]), (places[1], places[3])):
        assert left[0] > right[0] + 100, "the better FID is further down"
        assert left[1] < right[1], "the cheaper one is further left"


def test_bars_overlap_where_two_tie(document: dict[str, Any]) -> None:
    plain = copy.deepcopy(document)
    for member in plain["front"]:
        member["repeats"] = None
    spans = bars(plain)
    margin = tie_margin(document["noise"]["fid_std"])
    for i, (low, high) in enumerate(spans):
        for j, (other_low, other_high) in enumerate(spans):
            fids = [plain["front"][k]["objectives"]["fid"] for k in (i, j)]
            assert (low <= other_high and other_low <= high) is (abs(fids[0] - fids[1]) <= margin)
    again = document["front"][0]["repeats"]
    assert bars(document)[0] == (again["low"], again["high"])


def test_pictures_of_odd_fronts(document: dict[str, Any]) -> None:
    one = without_ties(document)
    one["front"] = one["front"][:1]
    one["noise"], one["tie_margin"] = {"fid_std": None}, 0.0
    pixels(one)
    same = copy.deepcopy(document)
    for member in same["front"]:
        member["objectives"] = same["front"][0]["objectives"]
    same["teacher"] = {**same["teacher"], **same["front"][0]["objectives"]}
    same["input"] = {**same["input"], "fid": same["teacher"]["fid"]}
    pixels(same)


def test_files_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "front.csv"
    write_file(path, b"old")
    assert path.read_bytes() == b"old" and path.stat().st_mode & 0o777 == 0o666 & ~_umask()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(BadInput, match=r"front.csv: cannot be written \(No space"):
        patch.setattr(os, "replace", full)
        write_file(path, b"new")
    assert [entry.name for entry in path.parent.iterdir()] == ["front.csv"] and path.read_bytes() == b"old"
    with pytest.raises(BadInput, match="cannot be written"):
        write_file(path / "below" / "a.csv", b"x")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_verb(folder: RunFolder, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    run, document = str(folder.path), front_document(folder)
    files = [str(tmp_path / f"front.{form}") for form in ("csv", "md", "png")]
    options = [part for file in files for part in (f"--{file.rpartition('.')[2]}", file)]
    assert main(["front", run, *options]) == 0
    captured = capsysbinary.readouterr()
    assert b"knee" in captured.out and captured.err.decode().splitlines() == [f"written: {file}" for file in files]
    assert Path(files[0]).read_text() == front_csv(document)
    assert Path(files[1]).read_text() == front_markdown(document)
    assert Path(files[2]).read_bytes() == front_png(document)
    for form, content in (("csv", front_csv(document)), ("md", front_markdown(document))):
        for arguments in ([f"--{form}"], [f"--{form}", "-"]):
            assert main(["front", run, *arguments]) == 0
            assert capsysbinary.readouterr().out.decode() == content
    assert main(["front", run, "--png"]) == 0
    assert capsysbinary.readouterr().out == front_png(document)
    for arguments in (["--csv", "--md"], ["--csv", "--json"], ["--csv", run]):
        assert main(["front", run, *arguments]) == 2
        captured = capsysbinary.readouterr()
        assert b"Traceback" not in captured.err and not captured.out.startswith(b"trial")
