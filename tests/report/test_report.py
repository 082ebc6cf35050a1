"""The report without a browser: what stands in the page, against the files that it was written from."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from gs_search.errors import BadInput, NothingFeasible
from gs_search.report import write_report
from gs_search.report.content import Content, gather
from gs_search.report.figures import page_figures
from gs_search.results.run_folder import RunFolder
from gs_search.system.files import read_json, write_json
from tests.synthetic_run import COLUMNS, GUTTER, TEACHER, change, objectives, write_run


class Page(HTMLParser):
    """Tags with their attributes, the visible text, and the text of each element that has an id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._silent = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text.append(data)

    def words(self) -> str:
        return " ".join("".join(self.text).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def content(folder: RunFolder) -> Content:
    return gather(folder)


@pytest.fixture(scope="module")
def html(folder: RunFolder) -> str:
    return write_report(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_counts_and_endings(content: Content, page: Page) -> None:
    assert content.counts == {"COMPLETE": 21, "PRUNED": 1, "FAIL": 2}
    front = len(content.front)
    assert {kind: count for kind, count in content.kinds.items() if count} == {
        "front": front, "dominated": 21 - front, "stopped": 1, "failed": 2,
    }  # fmt: skip
    assert f"Front ({front})" in page.words() and "Stopped early (1)" in page.words() and "Failed (2)" in page.words()
    assert [(ending.number, ending.cause) for ending in content.endings] == [
        (5, "nan"),
        (11, "dominated"),
        (17, "killed"),
    ]
    assert "24 trials: 21 finished, 1 stopped early, 2 failed." in page.words()
    assert "the loss became NaN at step 12 of 80" in page.words()


def test_the_page_loads_nothing(html: str, page: Page) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), f"<{tag} {name}={value[:60]}>"
    policies = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies and "default-src 'none'" in str(policies[0]) and "connect-src" not in str(policies[0])
    style = html[html.index("<style>") : html.index("</style>")]
    assert "@import" not in style and "url(" not in style


def test_only_the_named_scripts_run(html: str, page: Page) -> None:
    """The policy names plotly.js and the page's own script by hash, and nothing else; data does not run."""
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert [attributes.get("type") for attributes in scripts] == ["application/json", "application/json", None, None]
    texts = re.findall(r"<script>(.*?)</script>", html, re.S)
    policy = next(str(a["content"]) for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    named = re.findall(r"'sha256-([^']+)'", policy)
    assert named == [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
    assert "'unsafe-inline'" not in policy[policy.index("script-src") : policy.index("style-src")]
    assert "unsafe-eval" not in policy
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]


def test_the_page_holds_plotly_once_and_valid_figures(html: str, content: Content) -> None:
    assert html.count("plotly.js v") == 1
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.S)
    assert found
    figures = json.loads(found[1])
    assert list(figures) == [
        "front-gflops", "front-size", "front-costs", "front-space", "layers-width", "layers-bits", "hypervolume",
        "timeline", "curves-pixel", "curves-adversarial", "rungs", "importance-fid", "importance-gflops",
        "importance-size_mb",
    ]  # fmt: skip
    for name, figure in figures.items():
        go.Figure(figure)  # Plotly refuses what it does not know
        assert f'id="{name}"' in html
    assert figures == json.loads(json.dumps(page_figures(content)))


def rows_of(html: str) -> dict[int, tuple[str, list[str]]]:
    """Number of a trial to its kind and the values of its cells."""
    rows = re.findall(r'<tr id="row-(\d+)" class="(\w+)"[^>]*>(.*?)</tr>', html, re.S)
    return {int(number): (kind, re.findall(r'<td[^>]*data-value="(.*?)"', row)) for number, kind, row in rows}


def test_rows_of_the_table_match_the_results(folder: RunFolder, html: str) -> None:
    rows = rows_of(html)
    assert set(rows) == {result.number for result in folder.results()}
    for number, values in objectives(folder).items():
        kind, told = rows[number]
        fid, _, gflops, fewer, size_mb, smaller = map(float, told[1:7])
        assert kind == told[0] and [fid, gflops, size_mb] == values
        assert fewer == pytest.approx(TEACHER["gflops"] / gflops) and smaller == pytest.approx(
            TEACHER["size_mb"] / size_mb
        )
    _, stopped = rows[11]
    assert stopped[0] == "stopped" and stopped[1] == "" and list(map(float, (stopped[3], stopped[5], stopped[7]))) == [
        0.0912, 0.0731, 17.25
    ]  # fmt: skip


def test_every_ending_stands_in_the_table_with_its_cause(folder: RunFolder, html: str, page: Page) -> None:
    rows, words = rows_of(html), page.words()
    for result in folder.results():
        if result.state != "COMPLETE":
            assert rows[result.number][0] == ("stopped" if result.state == "PRUNED" else "failed")
            assert result.message in words and result.cause in words
    point = folder.results()[0].point
    assert rows[0][1][13:16] == [str(point["target_gflops_ratio"]), "", ""]


def test_nothing_is_hidden_without_a_script(page: Page) -> None:
    hidden = [(tag, a.get("id")) for tag, a in page.tags if "hidden" in a]
    assert hidden == [("button", "theme"), ("aside", "card"), ("div", "tray")]


def test_pictures_are_the_rows_of_the_samples(folder: RunFolder, content: Content, page: Page) -> None:
    sources = {a.get("alt"): a["src"] for tag, a in page.tags if tag == "img"}
    with Image.open(folder.trial(content.front[0].number) / "samples.png") as image:
        grid = np.asarray(image.convert("RGB"))
    expected = {"Input pictures": 0, "The teacher’s pictures": 1}
    expected[f"Pictures by the student of trial {content.front[0].number}"] = 2
    for name, row in expected.items():
        head, data = str(sources[name]).split(",", 1)
        assert head == "data:image/png;base64"
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        np.testing.assert_array_equal(shown, grid[row * (64 + GUTTER) : row * (64 + GUTTER) + 64])
    assert content.samples.columns == COLUMNS and content.samples.lossless
    assert set(content.samples.students) == {student.number for student in content.students}


def test_scripts_know_every_trial(html: str, content: Content, folder: RunFolder) -> None:
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])  # type: ignore[index]
    assert set(map(int, data["trials"])) == {result.number for result in folder.results()}
    shown = {student.number for student in content.front}
    assert set(map(int, data["pictures"])) == {s.number for s in content.students} - shown
    student = content.front[0]
    told = data["trials"][str(student.number)]
    assert (told["fid"], told["gflops"], told["mb"], told["kind"]) == (
        student.fid, student.gflops, student.size_mb, "front",
    )  # fmt: skip
    assert told["layers"][0] == [student.layers[0].width, 8, 8] and data["layers"][0] == 16
    assert data["trials"]["17"]["message"] == "the driver died <SIGKILL> & left it"
    assert len({light for light, _ in data["palette"]}) == len(data["palette"])


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "one picture"])
def test_a_trial_without_readable_samples_stays_in_the_report(small: RunFolder, damage: str) -> None:
    number = gather(small).front[0].number
    path = small.trial(number) / "samples.png"
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        path.write_text("no picture")
    elif damage == "one picture":
        Image.new("RGB", (64, 64)).save(path)
    assert number not in gather(small).samples.students
    html = write_report(small).read_text(encoding="utf-8")
    assert f'id="row-{number}"' in html and "samples.png" in Page(html).words()


def test_text_from_the_folder_cannot_run(small: RunFolder) -> None:
    attack = "</script><script>alert(1)</script>"
    change(small, 2, state="FAIL", cause="exception", message=attack, objectives=None, point={attack: attack})
    record = read_json(small.baselines)
    record["protocol"]["reference"] = attack
    record["noise"]["method"] = attack
    write_json(small.baselines, record)
    small.study_yaml.write_text(f"# {attack}\n")
    html = write_report(small).read_text(encoding="utf-8")
    assert attack not in html and html.count("&lt;script&gt;alert(1)") >= 4


def test_nothing_of_the_machine_is_told(folder: RunFolder, html: str) -> None:
    assert str(folder.path) not in html and str(Path(__file__).parents[2]) not in html
    assert str(folder.provenance()["host"]) not in Page(html).words().split()


def test_what_was_not_measured_is_a_dash(small: RunFolder) -> None:
    record = read_json(small.baselines)
    record |= {"noise": {}, "input": {"fid": 180.0}}
    write_json(small.baselines, record)
    for number in range(3):
        change(small, number, kid=None, psnr_to_teacher=None, latency_ms=None, parity=None, layers=[])
    html = write_report(small).read_text(encoding="utf-8")
    assert "not measured" in html and "nan" not in Page(html).words().lower().split()
    json.loads(re.search(r'id="figures">(.*?)</script>', html, re.S)[1])  # type: ignore[index]


def test_one_finished_trial_makes_a_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=1, image_px=32)
    words = Page(write_report(folder).read_text(encoding="utf-8")).words()
    assert "1 trial: 1 finished. 1 student makes the front." in words


def test_nothing_finished_is_not_a_report(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", trials=1)
    change(folder, 0, state="FAIL", cause="nan", objectives=None)
    with pytest.raises(NothingFeasible, match="1 nan"):
        write_report(folder)
    assert not folder.report_html.exists()


def test_two_protocols_are_refused(small: RunFolder) -> None:
    change(small, 1, protocol="another")
    with pytest.raises(BadInput, match="trial 1 was measured by protocol another"):
        write_report(small)


def test_a_result_without_its_numbers_is_named(small: RunFolder) -> None:
    record = read_json(small.baselines)
    del record["teacher"]["fid"]
    write_json(small.baselines, record)
    with pytest.raises(BadInput, match=r"baselines\.json: teacher\.fid"):
        write_report(small)


def test_a_failure_leaves_the_old_report(small: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write_report(small).read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(small)
    monkeypatch.undo()
    assert small.report_html.read_bytes() == old
    assert sorted(path.name for path in small.path.iterdir() if "report" in path.name) == ["report.html"]


def test_text_colours_can_be_read() -> None:
    """WCAG AA: 4.5 to 1 for text on cards, in both themes."""
    style = (Path(__file__).parents[2] / "gs_search" / "report" / "web" / "palette.css").read_text(encoding="utf-8")

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    colours = re.findall(r"--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", style)
    for theme in (1, 2):
        shades = {colour[0]: luminance(colour[theme]) for colour in colours}
        for name in ("text", "soft", "front", "second", "teacher", "input", "warning"):
            for ground in ("card", "page", "tint"):
                dim, bright = sorted((shades[name], shades[ground]))
                assert (bright + 0.05) / (dim + 0.05) >= 4.5, (name, ground)
